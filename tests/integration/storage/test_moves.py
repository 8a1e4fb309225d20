"""Buckets move under full load, and the mover dies at every step."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from cinnabar_local import sql
from cinnabar_storage.moves import Move
from cinnabar_storage.moving import moving
from tests.support.servers import ShardUrls
from tests.support.storage_service import config_for, storage_on
from tests.support.storage_sql import total
from tests.support.storage_traffic import Traffic, authors_of

MOVED = [3, 511]
OTHERS = [4, 700]
_STEPS = (
    *("begin", "expect", "mark", "copy", "catch-up", "fence", "last", "accept", "release"),
    *("rest", "wipe", "forget"),
)


class Killed(Exception):
    """The mover died."""


class Killer:
    """Kills a mover the first time that it comes to each step."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    async def __call__(self, step: str, bucket: int) -> None:
        if step not in self.steps:
            self.steps.append(step)
            raise Killed(step)


async def holders(shards: Sequence[ShardUrls], buckets: Sequence[int]) -> dict[int, list[int]]:
    """Which shards own each bucket."""
    found: dict[int, list[int]] = {bucket: [] for bucket in buckets}
    for index, shard in enumerate(shards):
        async with sql.connected(shard.primary_url) as connection:
            for bucket in buckets:
                if await connection.fetchval(
                    "SELECT count(*) FROM buckets WHERE bucket = $1 AND state = 1", bucket
                ):
                    found[bucket].append(index)
    return found


async def test_buckets_move_under_load_while_the_mover_dies_at_every_step(
    migrated_shards: list[ShardUrls], tenant: str
) -> None:
    config = config_for(migrated_shards, move_poll_seconds=3600, move_clean_seconds=0.05)
    killer = Killer()
    async with storage_on(migrated_shards, move_poll_seconds=3600) as storage:
        traffic = Traffic(storage, tenant, authors_of([*MOVED, *OTHERS], tenant, each=2))
        async with traffic.running(callers=2), moving(config, at_step=killer) as (ledger, mover):
            await ledger.plan([Move(bucket, 0, 1) for bucket in MOVED], [], "operator")
            async with asyncio.timeout(60):
                while len(killer.steps) < len(_STEPS):
                    with pytest.raises(Killed):
                        await mover.run_once()
                await mover.run_once()
        await traffic.list_all()
    assert set(killer.steps) == set(_STEPS)
    assert await holders(migrated_shards, [*MOVED, *OTHERS]) == {
        **{bucket: [1] for bucket in MOVED},
        4: [0],
        700: [1],
    }
    await assert_all_there_once(migrated_shards, traffic)
    left = "SELECT count(*) FROM bucket_moves"
    assert await total(migrated_shards, left) == 0
    assert await total(migrated_shards, "SELECT count(*) FROM bucket_changes") == 0
    assert await total(migrated_shards, "SELECT count(*) FROM buckets WHERE state <> 1") == 0


async def assert_all_there_once(shards: Sequence[ShardUrls], traffic: Traffic) -> None:
    """Each row that was answered for is on one shard, the one that owns its bucket, and there is no other."""
    counts = "SELECT count(*) FROM {} WHERE tenant = $1"
    for table, wanted in (
        ("submissions", len(traffic.stored)),
        ("grades", len(traffic.graded)),
        ("tasks", len(traffic.cancelled)),
    ):
        assert await total(shards, counts.format(table), traffic.tenant) == wanted, table
    strangers = """
        SELECT count(*) FROM submissions
        WHERE bucket_of_id(submission_id) NOT IN (SELECT bucket FROM buckets WHERE state = 1)
    """
    assert await total(shards, strangers) == 0
    assert traffic.stored.keys() == traffic.graded | traffic.cancelled
    assert traffic.listings
