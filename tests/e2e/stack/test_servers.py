"""The data servers alone: they come up, replicate, survive being killed."""

import redis.asyncio

from cinnabar_local import sql
from tests.support.servers import PostgresServers, ShardUrls, ValkeyServer
from tests.support.waiting import until


async def count_of_marks(url: str) -> int:
    """Rows of the table ``mark``; 0 while the table is not there."""
    async with sql.connected(url) as connection:
        if await connection.fetchval("SELECT to_regclass('mark')") is None:
            return 0
        count = await connection.fetchval("SELECT count(*) FROM mark")
    assert isinstance(count, int)
    return count


async def test_each_test_gets_an_empty_valkey_database(valkey_url: str) -> None:
    async with redis.asyncio.from_url(valkey_url) as client:  # pyright: ignore[reportUnknownMemberType]
        assert await client.randomkey() is None  # pyright: ignore[reportUnknownMemberType]
        await client.set("left", "behind")


async def test_the_next_test_does_not_see_what_was_left(valkey_url: str) -> None:
    async with redis.asyncio.from_url(valkey_url) as client:  # pyright: ignore[reportUnknownMemberType]
        assert await client.get("left") is None


async def test_a_killed_valkey_comes_back_on_its_port_and_empty(
    valkey_server: ValkeyServer, valkey_url: str
) -> None:
    async with redis.asyncio.from_url(valkey_url) as client:  # pyright: ignore[reportUnknownMemberType]
        await client.set("gone", "soon")
    await valkey_server.processes.kill("valkey")
    await valkey_server.processes.start("valkey")
    async with redis.asyncio.from_url(valkey_url) as client:  # pyright: ignore[reportUnknownMemberType]
        assert await client.get("gone") is None


async def test_a_write_on_the_primary_reaches_its_replica(postgres_shards: list[ShardUrls]) -> None:
    for shard in postgres_shards:
        async with sql.connected(shard.primary_url) as connection:
            await connection.execute("CREATE TABLE mark (id int)")
            await connection.execute("INSERT INTO mark VALUES (1)")

        async def replicated(url: str = shard.replica_urls[0]) -> bool:
            return await count_of_marks(url) == 1

        await until(replicated, description="the row is on the replica")


async def test_postgres_is_durable(postgres_servers: PostgresServers) -> None:
    async with sql.connected(postgres_servers.shards[0].primary.superuser_url) as connection:
        assert await connection.fetchval("SHOW fsync") == "on"
        assert await connection.fetchval("SHOW synchronous_commit") == "on"


async def test_a_killed_primary_keeps_what_it_committed_and_streams_again(
    postgres_servers: PostgresServers, postgres_shards: list[ShardUrls]
) -> None:
    shard = postgres_shards[0]
    async with sql.connected(shard.primary_url) as connection:
        await connection.execute("CREATE TABLE mark (id int)")
        await connection.execute("INSERT INTO mark VALUES (1)")
    await postgres_servers.processes.kill("postgres-0")
    await postgres_servers.processes.start("postgres-0")
    assert await count_of_marks(shard.primary_url) == 1
    async with sql.connected(shard.primary_url) as connection:
        await connection.execute("INSERT INTO mark VALUES (2)")

    async def replicated() -> bool:
        return await count_of_marks(shard.replica_urls[0]) == 2

    await until(replicated, description="the replica streams from the restarted primary")


async def test_the_primary_works_on_while_its_replica_is_down(
    postgres_servers: PostgresServers, postgres_shards: list[ShardUrls]
) -> None:
    shard = postgres_shards[1]
    await postgres_servers.processes.stop("postgres-1-replica")
    async with sql.connected(shard.primary_url) as connection:
        await connection.execute("CREATE TABLE mark (id int)")
        await connection.execute("INSERT INTO mark VALUES (1)")
    await postgres_servers.processes.start("postgres-1-replica")

    async def replicated() -> bool:
        return await count_of_marks(shard.replica_urls[0]) == 1

    await until(replicated, description="the replica has caught up")
