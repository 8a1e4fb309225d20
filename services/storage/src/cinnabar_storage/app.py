"""Composition root of the storage service."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import chain
from pathlib import Path

import grpc

from cinnabar.storage.v1 import (
    erasure_service_pb2,
    erasure_service_pb2_grpc,
    model_budget_service_pb2,
    model_budget_service_pb2_grpc,
    regrade_service_pb2,
    regrade_service_pb2_grpc,
    review_service_pb2,
    review_service_pb2_grpc,
    revision_service_pb2,
    revision_service_pb2_grpc,
    shard_service_pb2,
    shard_service_pb2_grpc,
    statistics_service_pb2,
    statistics_service_pb2_grpc,
    storage_service_pb2,
    storage_service_pb2_grpc,
    upgrade_service_pb2,
    upgrade_service_pb2_grpc,
    upload_service_pb2,
    upload_service_pb2_grpc,
    waiting_review_service_pb2,
    waiting_review_service_pb2_grpc,
)
from cinnabar_common.clock import SystemClock
from cinnabar_common.health import Check, HealthBoard
from cinnabar_common.metrics import exposition, families, serving_metrics
from cinnabar_common.server import serving
from cinnabar_storage import responses
from cinnabar_storage.adapters.grading_content import grade_parts, item_plans
from cinnabar_storage.adapters.minio_objects import minio_objects
from cinnabar_storage.adapters.sql.buckets import give_out
from cinnabar_storage.adapters.sql.migrating import migrate, require_head
from cinnabar_storage.adapters.sql.server import Server
from cinnabar_storage.adapters.sql.shard import sql_shard
from cinnabar_storage.assignments import Assignments
from cinnabar_storage.cached.composition import caching
from cinnabar_storage.cached.reads import CachedReads
from cinnabar_storage.config import StorageConfig
from cinnabar_storage.controls import QueueControls
from cinnabar_storage.files.collector import Collector
from cinnabar_storage.files.ports import Objects
from cinnabar_storage.files.service import UploadReader, UploadWriter
from cinnabar_storage.files.uploads import Uploads
from cinnabar_storage.metrics import replica_samples
from cinnabar_storage.privacy.erasures import Erasures
from cinnabar_storage.privacy.retention import Retention
from cinnabar_storage.privacy.service import ErasureReader, ErasureWriter
from cinnabar_storage.regrading.campaigns import Regrades
from cinnabar_storage.regrading.service import StorageRegradeReader, StorageRegradeWriter
from cinnabar_storage.reviewing.overrides import Reviews
from cinnabar_storage.reviewing.service import StorageReviewReader, StorageReviewWriter
from cinnabar_storage.reviewing.waiting import WaitingReviews
from cinnabar_storage.reviewing.waiting_service import WaitingReviewReader, WaitingReviewWriter
from cinnabar_storage.revision_service import RevisionReader
from cinnabar_storage.scoring.service import StatisticsReader
from cinnabar_storage.scoring.statistics import Statistics
from cinnabar_storage.service import StorageReader, StorageWriter
from cinnabar_storage.shards.live_map import live_map
from cinnabar_storage.shards.moving import moving
from cinnabar_storage.shards.rebalancing import Rebalancing
from cinnabar_storage.shards.service import ShardReader, ShardWriter
from cinnabar_storage.shards.sharding import Shards, gather
from cinnabar_storage.spending.budgets import ModelBudgets, Upgrades
from cinnabar_storage.spending.service import ModelBudgetService, UpgradeService
from cinnabar_storage.submissions import Submissions
from cinnabar_storage.tasks import Tasks

_SERVICES = (
    regrade_service_pb2,
    erasure_service_pb2,
    model_budget_service_pb2,
    storage_service_pb2,
    review_service_pb2,
    revision_service_pb2,
    shard_service_pb2,
    statistics_service_pb2,
    upgrade_service_pb2,
    upload_service_pb2,
    waiting_review_service_pb2,
)
_RETENTION_LOCK = 0x72_65_74_61_69_6E  # "retain"
_COLLECTOR_LOCK = 0x63_6F_6C_6C_65_63_74  # "collect": advisory locks have numbers, not names


@asynccontextmanager
async def running(config: StorageConfig) -> AsyncGenerator[int]:
    """The whole service for the length of the block; yields the port.

    Raises SchemaError when a shard is not migrated, NobodyOwnsAnything when the buckets are not given out.
    """
    async with AsyncExitStack() as exits:
        urls = config.urls()
        await require_head(
            urls,
            connect_seconds=config.connect_seconds,
            wait_seconds=config.start_wait_seconds,
        )
        all_shards = [
            await exits.enter_async_context(sql_shard(index, shard, config))
            for index, shard in enumerate(urls)
        ]
        source = await exits.enter_async_context(
            live_map(all_shards, poll_seconds=config.map_poll_seconds, wait_seconds=config.start_wait_seconds)
        )
        shards = Shards(all_shards, source, patience_seconds=config.fence_wait_seconds)
        # After the shards, so that it reads no more when they close.
        ledger, mover = await exits.enter_async_context(moving(config))
        await exits.enter_async_context(mover.running(config.move_poll_seconds))
        cached = await exits.enter_async_context(caching(config))
        shards.invalidations = cached.invalidations
        submissions, tasks, assignments = Submissions(shards), Tasks(shards), Assignments(shards)
        controls = QueueControls(shards)
        reads = CachedReads(
            cached.cache,
            shards,
            submissions,
            assignments,
            encode_submission=lambda found: responses.submission(found).SerializeToString(),
            encode_assignment=lambda found: responses.assignment(found).SerializeToString(),
        )
        regrades = Regrades(
            shards,
            assignments,
            plans_in=item_plans,
            parts_of=grade_parts,
            claim_seconds=config.regrade_claim_seconds,
        )

        objects = await exits.enter_async_context(minio_objects(config))
        uploads = Uploads(
            *(shards, objects, SystemClock()),
            form_seconds=config.upload_seconds,
            link_seconds=config.link_seconds,
        )
        if objects is not None:
            await exits.enter_async_context(collecting(shards, objects, config))

        erasures = Erasures(shards, objects, subject_key=config.subject_key)
        await exits.enter_async_context(erasures.running())
        if config.retention_file:
            await exits.enter_async_context(retaining(shards, erasures, config))

        def register(server: grpc.aio.Server) -> None:
            storage_service_pb2_grpc.add_StorageWriterServiceServicer_to_server(
                StorageWriter(submissions, tasks, assignments, controls), server
            )
            storage_service_pb2_grpc.add_StorageReaderServiceServicer_to_server(
                StorageReader(submissions, tasks, assignments, controls, reads, shard_count=len(shards)),
                server,
            )
            upload_service_pb2_grpc.add_UploadWriterServiceServicer_to_server(UploadWriter(uploads), server)
            upload_service_pb2_grpc.add_UploadReaderServiceServicer_to_server(UploadReader(uploads), server)
            erasure_service_pb2_grpc.add_ErasureWriterServiceServicer_to_server(
                ErasureWriter(erasures), server
            )
            erasure_service_pb2_grpc.add_ErasureReaderServiceServicer_to_server(
                ErasureReader(erasures), server
            )
            statistics_service_pb2_grpc.add_StatisticsReaderServiceServicer_to_server(
                StatisticsReader(Statistics(shards)), server
            )
            model_budget_service_pb2_grpc.add_ModelBudgetServiceServicer_to_server(
                ModelBudgetService(ModelBudgets(shards)), server
            )
            upgrade_service_pb2_grpc.add_UpgradeServiceServicer_to_server(
                UpgradeService(Upgrades(shards)), server
            )
            revision_service_pb2_grpc.add_RevisionReaderServiceServicer_to_server(
                RevisionReader(assignments), server
            )
            rebalancing = Rebalancing(shards, ledger)
            shard_service_pb2_grpc.add_ShardReaderServiceServicer_to_server(ShardReader(rebalancing), server)
            shard_service_pb2_grpc.add_ShardWriterServiceServicer_to_server(ShardWriter(rebalancing), server)
            reviews = Reviews(shards)
            review_service_pb2_grpc.add_StorageReviewWriterServiceServicer_to_server(
                StorageReviewWriter(reviews), server
            )
            review_service_pb2_grpc.add_StorageReviewReaderServiceServicer_to_server(
                StorageReviewReader(reviews), server
            )
            waiting = WaitingReviews(shards)
            waiting_review_service_pb2_grpc.add_WaitingReviewWriterServiceServicer_to_server(
                WaitingReviewWriter(waiting), server
            )
            waiting_review_service_pb2_grpc.add_WaitingReviewReaderServiceServicer_to_server(
                WaitingReviewReader(waiting), server
            )
            regrade_service_pb2_grpc.add_StorageRegradeWriterServiceServicer_to_server(
                StorageRegradeWriter(regrades), server
            )
            regrade_service_pb2_grpc.add_StorageRegradeReaderServiceServicer_to_server(
                StorageRegradeReader(regrades), server
            )

        if config.metrics_listen:

            async def scrape() -> bytes:
                return exposition(families(chain(cached.samples(), replica_samples(shards))))

            await exits.enter_async_context(serving_metrics(config.metrics_listen, scrape))
        port = await exits.enter_async_context(
            serving(
                config.listen,
                register=register,
                services=[
                    service.full_name
                    for module in _SERVICES
                    for service in module.DESCRIPTOR.services_by_name.values()
                ],
                health=HealthBoard(
                    _checks(shards) | cached.checks | ({"objects": objects.prepare} if objects else {})
                ),
            )
        )
        yield port


@asynccontextmanager
async def collecting(shards: Shards, objects: Objects, config: StorageConfig) -> AsyncGenerator[None]:
    """Collects files that nothing refers to, inside of the block; of all storage processes one does."""
    async with Server(
        config.urls()[0][0],
        name="collector",
        pool_size=1,
        pool_wait_seconds=config.pool_wait_seconds,
        connect_seconds=config.connect_seconds,
        statement_seconds=config.statement_seconds,
    ) as server:
        collector = Collector(
            *(shards, objects, SystemClock()),
            leadership=lambda: server.alone(_COLLECTOR_LOCK),
            seconds=config.collect_seconds,
        )
        async with collector.running():
            yield


@asynccontextmanager
async def retaining(shards: Shards, erasures: Erasures, config: StorageConfig) -> AsyncGenerator[None]:
    """Erases what was kept long enough, inside of the block; of all storage processes one does."""
    async with Server(
        config.urls()[0][0],
        name="retention",
        pool_size=1,
        pool_wait_seconds=config.pool_wait_seconds,
        connect_seconds=config.connect_seconds,
        statement_seconds=config.statement_seconds,
    ) as server:
        retention = Retention(
            *(shards, erasures, SystemClock()),
            file=Path(config.retention_file),
            leadership=lambda: server.alone(_RETENTION_LOCK),
            seconds=config.retention_seconds,
        )
        async with retention.running():
            yield


async def migrate_all(config: StorageConfig) -> None:
    """Brings the schema of every shard up to date, and gives out the buckets. Raises SchemaError."""
    primary_urls = [shard[0] for shard in config.urls()]
    await migrate(
        primary_urls, connect_seconds=config.connect_seconds, wait_seconds=config.start_wait_seconds
    )
    await give_out(primary_urls, connect_seconds=config.connect_seconds)


def _checks(shards: Shards) -> dict[str, Check]:
    async def database() -> None:
        await gather({index: shard.check() for index, shard in enumerate(shards)})

    checks: dict[str, Check] = {"database": database}
    for index, shard in enumerate(shards):
        checks[f"shard-{index}"] = shard.check
    return checks
