"""Composition root of the storage service."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import grpc

from cinnabar.storage.v1 import storage_service_pb2, storage_service_pb2_grpc
from cinnabar_common.health import Check, HealthBoard
from cinnabar_common.server import serving
from cinnabar_storage.adapters.sql_migrations import migrate, require_head
from cinnabar_storage.adapters.sql_shard import sql_shard
from cinnabar_storage.assignments import Assignments, RevisionCache
from cinnabar_storage.config import StorageConfig
from cinnabar_storage.controls import QueueControls
from cinnabar_storage.service import StorageReader, StorageWriter
from cinnabar_storage.sharding import Shards, gather
from cinnabar_storage.submissions import Submissions
from cinnabar_storage.tasks import Tasks


@asynccontextmanager
async def running(config: StorageConfig) -> AsyncGenerator[int]:
    """The whole service for the length of the block; yields the port.

    Raises SchemaError when a shard is not migrated.
    """
    async with AsyncExitStack() as exits:
        urls = config.urls()
        await require_head(
            urls,
            connect_seconds=config.connect_seconds,
            wait_seconds=config.start_wait_seconds,
        )
        shards = Shards(
            [
                await exits.enter_async_context(sql_shard(index, shard, config))
                for index, shard in enumerate(urls)
            ]
        )
        cache = RevisionCache(
            max_entries=config.revision_cache_entries, max_bytes=config.revision_cache_bytes
        )
        submissions, tasks, assignments = Submissions(shards), Tasks(shards), Assignments(shards, cache)
        controls = QueueControls(shards)

        def register(server: grpc.aio.Server) -> None:
            storage_service_pb2_grpc.add_StorageWriterServiceServicer_to_server(
                StorageWriter(submissions, tasks, assignments, controls), server
            )
            storage_service_pb2_grpc.add_StorageReaderServiceServicer_to_server(
                StorageReader(submissions, tasks, assignments, controls, shard_count=len(shards)), server
            )

        port = await exits.enter_async_context(
            serving(
                config.listen,
                register=register,
                services=[
                    service.full_name for service in storage_service_pb2.DESCRIPTOR.services_by_name.values()
                ],
                health=HealthBoard(_checks(shards)),
            )
        )
        yield port


async def migrate_all(config: StorageConfig) -> None:
    """Brings the schema of every shard up to date. Raises SchemaError."""
    await migrate(
        [shard[0] for shard in config.urls()],
        connect_seconds=config.connect_seconds,
        wait_seconds=config.start_wait_seconds,
    )


def _checks(shards: Shards) -> dict[str, Check]:
    async def database() -> None:
        await gather({index: shard.check() for index, shard in enumerate(shards)})

    checks: dict[str, Check] = {"database": database}
    for index, shard in enumerate(shards):
        checks[f"shard-{index}"] = shard.check
    return checks
