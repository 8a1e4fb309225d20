"""Composition root of the gateway."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import grpc

from cinnabar.gateway.v1 import (
    assignment_service_pb2,
    grading_service_pb2,
    operations_service_pb2,
    regrade_service_pb2,
    review_service_pb2,
    submission_service_pb2,
)
from cinnabar.gateway.v1.assignment_service_pb2_grpc import add_AssignmentServiceServicer_to_server
from cinnabar.gateway.v1.grading_service_pb2_grpc import add_GradingServiceServicer_to_server
from cinnabar.gateway.v1.operations_service_pb2_grpc import add_OperationsServiceServicer_to_server
from cinnabar.gateway.v1.regrade_service_pb2_grpc import add_RegradeServiceServicer_to_server
from cinnabar.gateway.v1.review_service_pb2_grpc import add_ReviewServiceServicer_to_server
from cinnabar.gateway.v1.submission_service_pb2_grpc import add_SubmissionServiceServicer_to_server
from cinnabar_common.channels import channel
from cinnabar_common.clock import Clock, SystemClock
from cinnabar_common.health import HealthBoard
from cinnabar_common.server import serving
from cinnabar_gateway.adapters.admission_client import AdmissionClient
from cinnabar_gateway.adapters.data_client import DataClient
from cinnabar_gateway.adapters.health_probe import GrpcHealthProbe
from cinnabar_gateway.adapters.model_client import ModelClient
from cinnabar_gateway.adapters.regrade_client import RegradeClient
from cinnabar_gateway.adapters.review_client import ReviewClient
from cinnabar_gateway.adapters.scheduler_client import SchedulerChanges, SchedulerClient
from cinnabar_gateway.adapters.shard_client import ShardClient
from cinnabar_gateway.adapters.storage_client import StorageClient
from cinnabar_gateway.adapters.upload_client import UploadClient
from cinnabar_gateway.adapters.waiting_review_client import WaitingReviewClient
from cinnabar_gateway.admission import Admission, Admissions
from cinnabar_gateway.answer_rules import AnswerRules
from cinnabar_gateway.assignment_service import AssignmentService
from cinnabar_gateway.assignments import Assignments, CurrentRevisions
from cinnabar_gateway.calls import CallInterceptor
from cinnabar_gateway.config import GatewayConfig
from cinnabar_gateway.consistency import TokenKeys
from cinnabar_gateway.data_ports import DataStore
from cinnabar_gateway.erasures import Erasures
from cinnabar_gateway.estimates import Estimates
from cinnabar_gateway.export_formats import points_of_items
from cinnabar_gateway.exports import Exports
from cinnabar_gateway.grading_service import GradingService
from cinnabar_gateway.handoff import Handoff
from cinnabar_gateway.histories import Histories
from cinnabar_gateway.identity import development_identity
from cinnabar_gateway.intake import Intake
from cinnabar_gateway.models import ModelStates
from cinnabar_gateway.operations import Operations
from cinnabar_gateway.operations_service import OperationsService
from cinnabar_gateway.overrides import Overrides
from cinnabar_gateway.ports import AssignmentStore, ChangeSource, HealthProbe, Queue, SubmissionStore
from cinnabar_gateway.progress import Progress
from cinnabar_gateway.queue_states import QueueStates
from cinnabar_gateway.regrade_ports import RegradeStore
from cinnabar_gateway.regrade_service import RegradeService
from cinnabar_gateway.regrades import RegradeDriver, Regrades
from cinnabar_gateway.review_ports import ReviewStore
from cinnabar_gateway.review_service import ReviewCalls, items_of
from cinnabar_gateway.shards import ShardStore
from cinnabar_gateway.statistics import Statistics
from cinnabar_gateway.submission_service import SubmissionService
from cinnabar_gateway.submissions import Submissions
from cinnabar_gateway.upload_ports import UploadStore
from cinnabar_gateway.uploads import Uploads
from cinnabar_gateway.waiting_review_ports import WaitingReviewStore
from cinnabar_gateway.waiting_review_service import ReviewService
from cinnabar_gateway.waiting_reviews import WaitingReviews
from cinnabar_gateway.watches import WatchHub

_SERVICES = (
    assignment_service_pb2.DESCRIPTOR.services_by_name["AssignmentService"],
    submission_service_pb2.DESCRIPTOR.services_by_name["SubmissionService"],
    grading_service_pb2.DESCRIPTOR.services_by_name["GradingService"],
    operations_service_pb2.DESCRIPTOR.services_by_name["OperationsService"],
    regrade_service_pb2.DESCRIPTOR.services_by_name["RegradeService"],
    review_service_pb2.DESCRIPTOR.services_by_name["ReviewService"],
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """Everything the gateway needs from other processes."""

    assignments: AssignmentStore
    submissions: SubmissionStore
    uploads: UploadStore
    data: DataStore
    reviews: ReviewStore
    waiting_reviews: WaitingReviewStore
    regrades: RegradeStore
    shards: ShardStore
    models: ModelStates
    queue: Queue
    admissions: Admissions
    changes: Sequence[ChangeSource]
    probes: Sequence[HealthProbe]
    clock: Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """A running gateway, for those who look inside: the port it serves on, and its parts."""

    port: int
    submissions: Submissions
    handoff: Handoff
    hub: WatchHub
    queues: QueueStates


def outside_of(
    config: GatewayConfig,
    storage: grpc.aio.Channel,
    scheduler: grpc.aio.Channel,
    each: Sequence[grpc.aio.Channel],
) -> Outside:
    """Storage and schedulers behind these channels; ``each`` has one to every scheduler."""
    store = StorageClient(storage, timeout_seconds=config.call_timeout_seconds)
    seconds = config.health_timeout_seconds
    return Outside(
        assignments=store,
        submissions=store,
        uploads=UploadClient(storage, timeout_seconds=config.call_timeout_seconds),
        data=DataClient(storage, timeout_seconds=config.call_timeout_seconds),
        reviews=ReviewClient(storage, timeout_seconds=config.call_timeout_seconds),
        waiting_reviews=WaitingReviewClient(storage, timeout_seconds=config.call_timeout_seconds),
        regrades=RegradeClient(storage, timeout_seconds=config.call_timeout_seconds),
        shards=ShardClient(storage, timeout_seconds=config.call_timeout_seconds),
        models=ModelClient(scheduler, timeout_seconds=config.call_timeout_seconds),
        queue=SchedulerClient(scheduler, each, timeout_seconds=config.call_timeout_seconds),
        admissions=AdmissionClient(scheduler, timeout_seconds=config.admission_timeout_seconds),
        changes=[SchedulerChanges(one) for one in each],
        probes=(
            GrpcHealthProbe("storage", storage, timeout_seconds=seconds),
            GrpcHealthProbe("database", storage, service="database", timeout_seconds=seconds),
            GrpcHealthProbe("objects", storage, service="objects", optional=True, timeout_seconds=seconds),
            GrpcHealthProbe("scheduler", scheduler, timeout_seconds=seconds),
            GrpcHealthProbe("redis", scheduler, service="redis", timeout_seconds=seconds),
            GrpcHealthProbe("ai_service", scheduler, service="ai_service", timeout_seconds=seconds),
        ),
        clock=SystemClock(),
    )


@asynccontextmanager
async def running(config: GatewayConfig) -> AsyncGenerator[int]:
    """Runs a gateway against the services of the config; yields its port."""
    async with AsyncExitStack() as exits:
        storage = await exits.enter_async_context(channel(config.storage_target))
        scheduler = await exits.enter_async_context(channel(config.scheduler_target))
        each = [
            await exits.enter_async_context(channel(address.strip()))
            for address in config.scheduler_target.split(",")
        ]
        outside = outside_of(config, storage, scheduler, each)
        gateway = await exits.enter_async_context(running_with(config, outside))
        yield gateway.port


@asynccontextmanager
async def running_with(config: GatewayConfig, outside: Outside) -> AsyncGenerator[Gateway]:
    """Runs a gateway against any adapters."""
    async with AsyncExitStack() as exits:
        revisions = CurrentRevisions(
            outside.assignments,
            AnswerRules,
            outside.clock,
            ttl_seconds=config.revision_ttl_seconds,
            max_revisions=config.max_revisions,
        )
        assignments = Assignments(outside.assignments, forget=revisions.forget)
        exports = Exports(outside.assignments, outside.submissions, points_of_items)
        statistics = Statistics(assignments, outside.data, points_of_items)
        erasures = Erasures(outside.data, outside.queue)
        handoff = Handoff(
            outside.queue, max_batch=config.enqueue_batch, max_pending=config.max_pending_enqueues
        )
        await exits.enter_async_context(handoff.running())
        estimates = Estimates(
            outside.queue,
            outside.clock,
            fresh_seconds=config.estimate_fresh_seconds,
            max_tenants=config.max_estimated_tenants,
        )
        await exits.enter_async_context(estimates.running())
        queues = QueueStates(
            outside.queue,
            outside.clock,
            refresh_seconds=config.queue_refresh_seconds,
            forget_seconds=config.queue_forget_seconds,
        )
        await exits.enter_async_context(queues.running())
        admission = Admission(
            outside.admissions,
            outside.clock,
            wait_seconds=config.admission_wait_seconds,
            max_pending=config.max_pending_submissions,
        )
        await exits.enter_async_context(admission.running())
        submissions = Submissions(
            outside.submissions,
            outside.queue,
            handoff,
            estimates,
            settle=admission.settle,
            commit_batch=config.commit_batch,
            commit_lanes=config.commit_lanes,
            max_pending=config.max_pending_submissions,
            max_pending_bytes=config.max_pending_bytes,
        )
        await exits.enter_async_context(submissions.running())
        progress = Progress(outside.queue, wait_seconds=config.progress_wait_seconds)
        hub = WatchHub(
            outside.submissions,
            outside.changes,
            progress,
            outside.clock,
            reread_seconds=config.watch_reread_seconds,
            max_watches=config.max_watches,
        )
        await exits.enter_async_context(hub.running())
        operations = Operations(
            outside.submissions,
            outside.queue,
            handoff,
            outside.probes,
            probe_seconds=config.health_timeout_seconds,
        )
        driver = RegradeDriver(
            *(outside.regrades, outside.queue, handoff, outside.clock),
            lanes=config.regrade_lanes,
            step_tasks=config.regrade_step_tasks,
            poll_seconds=config.regrade_poll_seconds,
        )
        await exits.enter_async_context(driver.running())
        regrades = Regrades(outside.regrades, outside.assignments, submissions, handoff, driver)
        uploads = Uploads(outside.uploads, revisions, outside.clock)
        reviews = ReviewCalls(
            Overrides(outside.reviews, submissions, outside.assignments, outside.queue, items_of=items_of),
            Histories(outside.reviews, submissions),
        )
        intake = Intake(revisions, submissions, queues, admission, outside.clock, uploads)

        def register(server: grpc.aio.Server) -> None:
            add_AssignmentServiceServicer_to_server(
                AssignmentService(assignments, exports, statistics), server
            )
            add_SubmissionServiceServicer_to_server(
                SubmissionService(
                    *(intake, submissions, assignments, hub, uploads, reviews, regrades, progress),
                    stream_window=config.stream_window,
                ),
                server,
            )
            add_GradingServiceServicer_to_server(GradingService(intake), server)
            add_OperationsServiceServicer_to_server(
                OperationsService(
                    *(operations, outside.clock, reviews, erasures, outside.shards, outside.models)
                ),
                server,
            )
            add_RegradeServiceServicer_to_server(RegradeService(regrades), server)
            add_ReviewServiceServicer_to_server(
                ReviewService(WaitingReviews(outside.waiting_reviews, assignments)), server
            )

        board = HealthBoard(
            {probe.name: probe.check for probe in outside.probes},
            timeout_seconds=config.health_timeout_seconds,
        )
        port = await exits.enter_async_context(
            serving(
                config.listen,
                register=register,
                services=[service.full_name for service in _SERVICES],
                health=board,
                interceptors=[CallInterceptor(development_identity, TokenKeys(config.token_key))],
                grace_seconds=config.grace_seconds,
                drain_seconds=config.drain_seconds,
            )
        )
        # Watches would hold the server for its whole grace; their clients find another gateway.
        exits.callback(hub.drain)
        yield Gateway(port=port, submissions=submissions, handoff=handoff, hub=hub, queues=queues)
