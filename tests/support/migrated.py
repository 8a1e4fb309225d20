"""Databases with the schema and nothing in it: migrated once, and emptied for the next who asks.

``migrated_shards``       two shards for one test
``new_migrated_shards``   the same as a factory, for fixtures that share databases over a module
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from hashlib import md5

import pytest_asyncio

from cinnabar_local import sql
from cinnabar_storage.app import migrate_all
from tests.support.servers import NewPostgresShards, PostgresServers, ShardUrls, until_replayed
from tests.support.storage_service import config_for

NewMigratedShards = Callable[[], AbstractAsyncContextManager[list[ShardUrls]]]
Content = dict[str, object]
"""A digest of the rows of each table."""

_TABLES = "SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = 'public'"
_DIGEST = "SELECT md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), '')) FROM {} AS t"
_NOTHING = md5(b"", usedforsecurity=False).hexdigest()
_DISCONNECT = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE datname = $1 AND backend_type = 'client backend'
"""


async def _content(shard: ShardUrls) -> Content:
    async with sql.connected(shard.primary_url) as connection:
        tables = [str(row[0]) for row in await connection.fetch(_TABLES)]
        return {table: await connection.fetchval(_DIGEST.format(table)) for table in tables}


class Pool:
    """The databases that nobody uses now, each with what it had in it when it was new."""

    def __init__(self, servers: PostgresServers, new: NewPostgresShards, exits: AsyncExitStack) -> None:
        self._servers = servers
        self._new = new
        self._exits = exits
        self._free: list[tuple[list[ShardUrls], list[Content]]] = []

    @asynccontextmanager
    async def lease(self) -> AsyncGenerator[list[ShardUrls]]:
        """Shards for the length of a block."""
        shards, fresh = self._free.pop() if self._free else await self._made()
        yield shards
        if await self._emptied(shards, fresh):
            self._free.append((shards, fresh))

    async def _made(self) -> tuple[list[ShardUrls], list[Content]]:
        shards = await self._exits.enter_async_context(self._new())
        await migrate_all(config_for(shards))
        return shards, [await _content(shard) for shard in shards]

    async def _emptied(self, shards: Sequence[ShardUrls], fresh: Sequence[Content]) -> bool:
        """Empties what was empty; False when anything else is not as it was."""
        for server, shard, before in zip(self._servers.shards, shards, fresh, strict=True):
            async with sql.connected(server.primary.superuser_url) as connection:
                await connection.fetch(_DISCONNECT, shard.database)
            now = await _content(shard)
            changed = [table for table in now if now[table] != before.get(table)]
            if now.keys() != before.keys() or any(before[table] != _NOTHING for table in changed):
                return False
            async with sql.connected(server.primary.superuser_url) as connection:
                if changed:
                    async with sql.connected(shard.primary_url) as emptying:
                        await emptying.execute(f"TRUNCATE {', '.join(changed)} RESTART IDENTITY")
                written = await connection.fetchval("SELECT pg_current_wal_lsn()::text")
            for replica in server.replicas:
                await until_replayed(replica.superuser_url, written)
        return True


@pytest_asyncio.fixture(scope="session")
async def new_migrated_shards(
    postgres_servers: PostgresServers, new_postgres_shards: NewPostgresShards
) -> AsyncGenerator[NewMigratedShards]:
    """Gives shards with a migrated database each for the length of a block."""
    async with AsyncExitStack() as exits:
        yield Pool(postgres_servers, new_postgres_shards, exits).lease


@pytest_asyncio.fixture
async def migrated_shards(new_migrated_shards: NewMigratedShards) -> AsyncGenerator[list[ShardUrls]]:
    """Two migrated shards for one test."""
    async with new_migrated_shards() as shards:
        yield shards
