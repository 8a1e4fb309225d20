"""The schema: made once, however many make it, and needed to start."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection

from cinnabar.storage.v1 import storage_service_pb2, storage_service_pb2_grpc
from cinnabar_common.channels import channel
from cinnabar_local import sql
from cinnabar_storage.adapters.sql.migrating import SchemaError, head, migrate, require_head
from cinnabar_storage.adapters.sql.server import engine_of
from cinnabar_storage.adapters.sql.tables import metadata
from cinnabar_storage.app import migrate_all
from tests.support.servers import ShardUrls
from tests.support.storage_service import config_for
from tests.support.waiting import until

_OIDS = (
    "SELECT string_agg(oid::text, ',' ORDER BY oid) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
)


async def run(shards: list[ShardUrls], *arguments: str, **variables: str) -> tuple[int, str]:
    """Exit code and stderr of the program."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "cinnabar_storage", *arguments),
        env={"STORAGE_SHARDS": ",".join(shard.setting for shard in shards), **variables},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, output = await asyncio.wait_for(process.communicate(), timeout=60)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def relations(shard: ShardUrls) -> object:
    async with sql.connected(shard.primary_url) as connection:
        return await connection.fetchval(_OIDS)


async def test_migrating_twice_changes_nothing(postgres_shards: list[ShardUrls]) -> None:
    assert (await run(postgres_shards, "migrate"))[0] == 0
    before = [await relations(shard) for shard in postgres_shards]
    assert (await run(postgres_shards, "migrate"))[0] == 0
    assert [await relations(shard) for shard in postgres_shards] == before
    for shard in postgres_shards:
        async with sql.connected(shard.primary_url) as connection:
            assert await connection.fetchval("SELECT version_num FROM alembic_version") == head()


async def test_several_may_migrate_at_once(postgres_shards: list[ShardUrls]) -> None:
    ends = await asyncio.gather(*(run(postgres_shards, "migrate") for _ in range(3)))
    assert [code for code, _ in ends] == [0, 0, 0]
    for shard in postgres_shards:
        async with sql.connected(shard.primary_url) as connection:
            assert await connection.fetchval("SELECT count(*) FROM alembic_version") == 1


async def differences(shard: ShardUrls) -> object:
    """What the schema of the shard lacks or has too much of."""

    def compared(connection: Connection) -> object:
        return compare_metadata(MigrationContext.configure(connection), metadata)

    engine = engine_of(shard.primary_url, connect_seconds=5)
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(compared)
    finally:
        await engine.dispose()


async def test_the_migrations_add_up_to_the_tables(storage_shards: list[ShardUrls]) -> None:
    assert await differences(storage_shards[0]) == []


async def test_it_does_not_start_without_the_schema(postgres_shards: list[ShardUrls]) -> None:
    code, output = await run(postgres_shards, STORAGE_LISTEN="127.0.0.1:0", STORAGE_START_WAIT_SECONDS="0.5")
    assert code == 1
    last = output.strip().splitlines()[-1]
    assert last == (
        f"shard 0: the schema is at version none but must be at {head()}: "
        "run `python -m cinnabar_storage migrate` of this release"
    )


async def test_it_does_not_start_on_half_of_the_schema(postgres_shards: list[ShardUrls]) -> None:
    await migrate_all(config_for(postgres_shards[:1]))
    code, output = await run(postgres_shards, STORAGE_LISTEN="127.0.0.1:0", STORAGE_START_WAIT_SECONDS="0.5")
    assert code == 1
    assert "shard 1: the schema is at version none" in output


async def version(shard: ShardUrls) -> str:
    async with sql.connected(shard.primary_url) as connection:
        return str(await connection.fetchval("SELECT version_num FROM alembic_version"))


async def killed_at(shards: list[ShardUrls], table: str, mode: str) -> None:
    """Migrates until that waits for the table on the first shard, then kills the process and its work."""
    url = shards[0].primary_url
    async with sql.connected(url) as holder, sql.connected(url) as watcher:
        await holder.execute(f"BEGIN; LOCK TABLE {table} IN {mode} MODE")
        blocked = f"{await holder.fetchval('SELECT pg_backend_pid()')} = ANY(pg_blocking_pids(pid))"
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "cinnabar_storage", "migrate"),
            env={"STORAGE_SHARDS": ",".join(shard.setting for shard in shards)},
            stderr=asyncio.subprocess.DEVNULL,
        )

        async def stuck() -> bool:
            assert process.returncode is None, "nothing was in its way"
            query = f"SELECT count(*) FROM pg_stat_activity WHERE {blocked}"
            return bool(await watcher.fetchval(query))

        try:
            await until(stuck, f"the migration waits for {table}", seconds=60)
        finally:
            process.kill()
            await process.wait()
        await watcher.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {blocked}")


async def test_a_migration_that_was_killed_is_refused_at_start_and_goes_on_when_run_again(
    postgres_shards: list[ShardUrls],
) -> None:
    primaries = [shard.primary_url for shard in postgres_shards]
    await migrate(primaries, connect_seconds=5, wait_seconds=5, to="0002")
    reached: list[str] = []
    for first, table, mode in (
        ("0002", "submissions", "SHARE ROW EXCLUSIVE"),
        ("0004", "tasks", "ROW EXCLUSIVE"),  # an index is being built, and is left invalid
    ):
        await migrate(primaries[:1], connect_seconds=5, wait_seconds=5, to=first)
        await killed_at(postgres_shards, table, mode)
        reached.append(await version(postgres_shards[0]))
        assert await version(postgres_shards[1]) == "0002"
    assert reached == sorted(reached)
    assert "0004" <= reached[-1] < head()
    with pytest.raises(SchemaError) as refused:
        await require_head([[url] for url in primaries], connect_seconds=5, wait_seconds=0)
    assert str(refused.value) == (
        f"shard 0: the schema is at version {reached[-1]} but must be at {head()}: "
        "run `python -m cinnabar_storage migrate` of this release"
    )
    await migrate(primaries, connect_seconds=5, wait_seconds=5)
    for shard in postgres_shards:
        assert await version(shard) == head()
        assert await differences(shard) == []
        async with sql.connected(shard.primary_url) as connection:
            assert await connection.fetchval("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == 0


async def test_migrating_what_does_not_answer_fails_in_time() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "cinnabar_storage", "migrate"),
        env={
            "STORAGE_SHARDS": "postgresql://cinnabar:secret@127.0.0.1:1/cinnabar",
            "STORAGE_START_WAIT_SECONDS": "0.5",
        },
        stderr=asyncio.subprocess.PIPE,
    )
    _, output = await asyncio.wait_for(process.communicate(), timeout=30)
    assert process.returncode == 1
    assert output.decode().strip().splitlines()[-1] == "shard 0: Postgres does not accept connections"
    assert "secret" not in output.decode()


async def test_it_serves_and_leaves_with_0_when_asked_to(storage_shards: list[ShardUrls]) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "cinnabar_storage"),
        env={
            "STORAGE_SHARDS": ",".join(shard.setting for shard in storage_shards),
            "STORAGE_LISTEN": "127.0.0.1:0",
        },
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        async with asyncio.timeout(30):
            lines = [line async for line in _until_event(process.stderr, "serving")]
            async with channel(f"127.0.0.1:{json.loads(lines[-1])['port']}") as opened:
                stub = storage_service_pb2_grpc.StorageReaderServiceStub(opened)
                answer = await stub.ListShards(storage_service_pb2.ListShardsRequest())
                assert answer.shard_count == len(storage_shards)
            process.terminate()
            _, rest = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0
    assert b"Traceback" not in b"".join(lines) + rest


async def _until_event(stream: asyncio.StreamReader, event: str) -> AsyncGenerator[bytes]:
    async for line in stream:
        yield line
        if json.loads(line)["event"] == event:
            return


async def test_every_shard_must_be_at_this_version_or_a_later_one(postgres_shards: list[ShardUrls]) -> None:
    """One shard behind stops the start, whichever it is; one that is further does not."""
    config = config_for(postgres_shards)
    await migrate_all(config)
    behind, ahead = f"{int(head()) - 1:04}", f"{int(head()) + 1:04}"

    async def start(versions: list[str]) -> None:
        for shard, version in zip(postgres_shards, versions, strict=True):
            async with sql.connected(shard.primary_url) as connection:
                await connection.fetchval("UPDATE alembic_version SET version_num = $1", version)
        await require_head(
            [[shard.primary_url] for shard in postgres_shards], connect_seconds=5, wait_seconds=0.1
        )

    for number in range(len(postgres_shards)):
        versions = [behind if shard == number else head() for shard in range(len(postgres_shards))]
        with pytest.raises(SchemaError, match=f"shard {number}: the schema is at version {behind}"):
            await start(versions)
    await start([head()] * len(postgres_shards))
    await start([ahead, *[head()] * (len(postgres_shards) - 1)])
    await start([ahead] * len(postgres_shards))
