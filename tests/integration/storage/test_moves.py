"""Buckets move under full load, and the mover dies at every step."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from cinnabar_local import sql
from cinnabar_local.group import ProcessGroup
from cinnabar_storage.shards.moves import Ledger, Move, MoveStep
from cinnabar_storage.shards.moving import moving
from tests.support.servers import ShardUrls
from tests.support.storage_process import storage_processes
from tests.support.storage_service import config_for, storage_on
from tests.support.storage_sql import total
from tests.support.storage_traffic import Traffic, authors_of
from tests.support.waiting import until

MOVED = [3, 511]
OTHERS = [4, 700]
_STEPS = (
    *("begin", "expect", "mark", "copy", "catch-up", "fence", "last", "accept", "release"),
    *("rest", "wipe", "forget"),
)
_TERM = "SELECT term FROM bucket_control"
"""Goes up by one with each mover that begins."""
_MOVERS_PORT = """
SELECT client_port FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND granted AND (classid::bigint << 32) + objid::bigint = x'6d6f766572'::bigint
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


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
    await assert_nothing_left(migrated_shards)


async def test_another_process_goes_on_where_the_mover_was_killed(
    migrated_shards: list[ShardUrls], tenant: str, tmp_path: Path
) -> None:
    moved = list(range(12))
    config = config_for(migrated_shards)
    settings = {"move_clean_seconds": "0.05", "move_poll_seconds": "0.5"}
    async with storage_processes(migrated_shards, ["a", "b"], tmp_path, **settings) as (processes, storages):
        traffic = Traffic(storages["a"], tenant, authors_of(moved, tenant))
        await traffic.fill(each=10)
        async with moving(config) as (ledger, _), sql.connected(migrated_shards[0].primary_url) as ask:
            await ledger.plan([Move(bucket, 0, 1) for bucket in moved], [], "operator")
            mover = await the_mover(ask, processes)
            traffic.storage = storages["b" if mover == "a" else "a"]
            async with traffic.running(callers=1):
                await until(lambda: some_made(ledger), "some buckets are moved")
                await processes.kill(mover)
                left = await ledger.moves()
                assert {MoveStep.COPYING, MoveStep.CLEANING} <= {move.step for move in left}

                async def taken_over() -> bool:
                    return await ask.fetchval(_TERM) == 2

                async def all_made() -> bool:
                    return not await ledger.moves()

                await until(taken_over, "another process makes the moves", seconds=5)
                await until(all_made, "all buckets are moved")
            await traffic.list_all()
    assert await holders(migrated_shards, moved) == {bucket: [1] for bucket in moved}
    await assert_all_there_once(migrated_shards, traffic)
    await assert_nothing_left(migrated_shards)


async def the_mover(ask: sql.Connection, processes: ProcessGroup) -> str:
    """The process that holds the lock of movers, once there is one: by the port that it talks from."""
    ports: list[object] = []

    async def held() -> bool:
        ports[:] = [await ask.fetchval(_MOVERS_PORT)]
        return ports != [None]

    await until(held, "a process makes the moves")
    for process in processes:
        root = psutil.Process(process.pid)
        for member in (root, *root.children(recursive=True)):
            if any(one.laddr and one.laddr.port == ports[0] for one in member.net_connections("tcp")):
                return process.name
    raise AssertionError


async def some_made(ledger: Ledger) -> bool:
    """Whether a bucket has arrived while others have not."""
    return {MoveStep.COPYING, MoveStep.CLEANING} <= {move.step for move in await ledger.moves()}


async def assert_nothing_left(shards: Sequence[ShardUrls]) -> None:
    """No move, no note, and no bucket that is neither owned nor unknown."""
    for table in ("bucket_moves", "bucket_changes", "buckets WHERE state <> 1"):
        assert await total(shards, f"SELECT count(*) FROM {table}") == 0, table


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
