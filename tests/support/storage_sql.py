"""What tests ask Postgres itself, past the service."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from cinnabar_local import sql
from tests.support.servers import PostgresServers, ShardUrls
from tests.support.waiting import until


async def total(shards: Sequence[ShardUrls], query: str, *args: object) -> int:
    """The sum over the primaries of a query that gives one number."""
    found = 0
    for shard in shards:
        async with sql.connected(shard.primary_url) as connection:
            value = await connection.fetchval(query, *args)
        assert isinstance(value, int)
        found += value
    return found


@asynccontextmanager
async def replay_paused(servers: PostgresServers) -> AsyncGenerator[None]:
    """All replicas stand still inside of the block, as if they were far behind."""
    urls = [replica.superuser_url for shard in servers.shards for replica in shard.replicas]
    for url in urls:
        async with sql.connected(url) as connection:
            await connection.execute("SELECT pg_wal_replay_pause()")

        async def paused(url: str = url) -> bool:
            async with sql.connected(url) as connection:
                return await connection.fetchval("SELECT pg_get_wal_replay_pause_state()") == "paused"

        await until(paused, description="the replica stands still")
    try:
        yield
    finally:
        for url in urls:
            async with sql.connected(url) as connection:
                await connection.execute("SELECT pg_wal_replay_resume()")


async def replicated(servers: PostgresServers) -> None:
    """Returns when the replicas show everything that is on their primaries now."""
    for shard in servers.shards:
        async with sql.connected(shard.primary.superuser_url) as connection:
            written = await connection.fetchval("SELECT pg_current_wal_flush_lsn()::text")
        for replica in shard.replicas:

            async def caught_up(url: str = replica.superuser_url, written: object = written) -> bool:
                query = "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn"
                async with sql.connected(url) as connection:
                    return bool(await connection.fetchval(query, written))

            await until(caught_up, description="the replica has caught up")
