"""Puts the mover together with the shards' primaries."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

from cinnabar_common.names import Bucket
from cinnabar_storage.adapters.sql import statistics as sql_statistics
from cinnabar_storage.adapters.sql.moves import SqlLedger, SqlMovingShard
from cinnabar_storage.adapters.sql.server import Server
from cinnabar_storage.config import StorageConfig
from cinnabar_storage.shards.mover import Mover, StepHook, nothing
from cinnabar_storage.shards.moves import Move

_STATEMENT_SECONDS = 60.0
"""A page of a bucket may be spread over all of a large table."""


@asynccontextmanager
async def moving(
    config: StorageConfig, *, at_step: StepHook = nothing
) -> AsyncGenerator[tuple[SqlLedger, Mover]]:
    """The ledger, and a mover that does not run yet, on connections of their own inside of the block."""

    def server(url: str, name: str) -> Server:
        return Server(
            url,
            name=name,
            pool_size=1,
            pool_wait_seconds=config.pool_wait_seconds,
            connect_seconds=config.connect_seconds,
            statement_seconds=_STATEMENT_SECONDS,
        )

    async with AsyncExitStack() as exits:
        primaries = [urls[0] for urls in config.urls()]
        servers = [
            await exits.enter_async_context(server(url, f"shard-{index}.mover"))
            for index, url in enumerate(primaries)
        ]
        lock = await exits.enter_async_context(server(primaries[0], "mover.lock"))
        ledger = SqlLedger(await exits.enter_async_context(server(primaries[0], "mover.ledger")), lock)

        async def arrived(move: Move) -> None:
            await sql_statistics.add_bucket(servers[move.to_shard], Bucket(move.bucket))

        async def leaving(move: Move) -> None:
            await sql_statistics.drop_bucket(servers[move.from_shard], Bucket(move.bucket))

        yield (
            ledger,
            Mover(
                ledger,
                list(map(SqlMovingShard, servers)),
                clean_seconds=config.move_clean_seconds,
                arrived=[arrived],
                leaving=[leaving],
                at_step=at_step,
            ),
        )
