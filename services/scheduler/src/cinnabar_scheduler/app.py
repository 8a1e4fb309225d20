"""Composition root of the scheduler."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc

from cinnabar.external import envoy_ratelimit_pb2, keda_pb2
from cinnabar.external.envoy_ratelimit_pb2_grpc import add_RateLimitServiceServicer_to_server
from cinnabar.external.keda_pb2_grpc import add_ExternalScalerServicer_to_server
from cinnabar.scheduler.v1 import (
    admission_service_pb2,
    model_call_service_pb2,
    queue_service_pb2,
    work_service_pb2,
)
from cinnabar.scheduler.v1.admission_service_pb2_grpc import add_AdmissionServiceServicer_to_server
from cinnabar.scheduler.v1.model_call_service_pb2_grpc import add_ModelCallServiceServicer_to_server
from cinnabar.scheduler.v1.queue_service_pb2_grpc import add_QueueServiceServicer_to_server
from cinnabar.scheduler.v1.work_service_pb2_grpc import add_WorkServiceServicer_to_server
from cinnabar_common.channels import channel
from cinnabar_common.clock import SystemClock
from cinnabar_common.health import HealthBoard
from cinnabar_common.metrics import serving_metrics
from cinnabar_common.redis_connection import connect, connect_listener
from cinnabar_common.server import serving
from cinnabar_scheduler.adapters.memory_admission import MemoryAdmission
from cinnabar_scheduler.adapters.policy_file import PolicyFile
from cinnabar_scheduler.adapters.redis_admission import RedisAdmission
from cinnabar_scheduler.adapters.redis_board import RedisBoard
from cinnabar_scheduler.adapters.redis_bus import RedisBus
from cinnabar_scheduler.adapters.redis_clock import RedisClock
from cinnabar_scheduler.adapters.redis_locks import RedisLocks
from cinnabar_scheduler.adapters.redis_model_calls import RedisModelCalls
from cinnabar_scheduler.adapters.redis_progress import RedisProgress
from cinnabar_scheduler.adapters.redis_queue import RedisQueue
from cinnabar_scheduler.adapters.storage_client import StorageClient
from cinnabar_scheduler.adapters.storage_files import StorageFiles
from cinnabar_scheduler.adapters.storage_models import StorageModels
from cinnabar_scheduler.admission import Admissions
from cinnabar_scheduler.admission_service import AdmissionService, admission_coalescer
from cinnabar_scheduler.config import SchedulerConfig
from cinnabar_scheduler.conservation import Conservation
from cinnabar_scheduler.control import QueueControl
from cinnabar_scheduler.dispatch import Dispatcher
from cinnabar_scheduler.followers import Followers
from cinnabar_scheduler.items import ItemSource
from cinnabar_scheduler.leadership import Leadership
from cinnabar_scheduler.load import Loads
from cinnabar_scheduler.load_board import LoadBoard
from cinnabar_scheduler.locks import Locks
from cinnabar_scheduler.metrics import (
    Metrics,
    admission_samples,
    conservation_samples,
    leader_samples,
    model_samples,
)
from cinnabar_scheduler.model_call_service import ModelCallService
from cinnabar_scheduler.model_permits import ModelCalls
from cinnabar_scheduler.outcomes import Outcomes
from cinnabar_scheduler.progress import ProgressReports
from cinnabar_scheduler.queue_service import QueueService, enqueue_coalescer
from cinnabar_scheduler.ratelimit_service import RateLimitService
from cinnabar_scheduler.recovery import Recovery
from cinnabar_scheduler.refusals import Refusals
from cinnabar_scheduler.scaler import ScalerService
from cinnabar_scheduler.service_times import ServiceTimes
from cinnabar_scheduler.sweep import Sweep
from cinnabar_scheduler.tally import Tally
from cinnabar_scheduler.tasks import LeaseToken
from cinnabar_scheduler.upgrades import ModelUpkeep
from cinnabar_scheduler.work_files import WorkFiles
from cinnabar_scheduler.work_service import Terms, WorkService


@asynccontextmanager
async def running(config: SchedulerConfig) -> AsyncGenerator[int]:
    """Runs a scheduler; yields the port it listens on."""
    policy = PolicyFile(Path(config.policy_file) if config.policy_file else None)
    async with AsyncExitStack() as stack:
        redis = connect(config.redis_url, timeout_seconds=config.redis_timeout_seconds)
        stack.push_async_callback(redis.aclose)
        listener = connect_listener(config.redis_url, timeout_seconds=config.redis_timeout_seconds)
        stack.push_async_callback(listener.aclose)
        prompt = connect(config.redis_url, timeout_seconds=config.admission_timeout_seconds)
        stack.push_async_callback(prompt.aclose)
        storage = await stack.enter_async_context(channel(config.storage_target))

        redis_clock = RedisClock(redis, SystemClock())
        queue = RedisQueue(
            redis,
            clock=redis_clock,
            lease_seconds=config.lease_seconds,
            policies=policy,
        )
        progress = RedisProgress(redis, policy.current)
        store = StorageClient(storage, timeout_seconds=config.storage_timeout_seconds)
        followers = Followers()
        refusals = Refusals()
        leaving = asyncio.Event()
        tally, times = Tally(), ServiceTimes()
        dispatcher = Dispatcher(queue, ItemSource(store), refusals.add, tally, now=redis_clock.time)

        def cancelled(tokens: Sequence[LeaseToken]) -> None:
            dispatcher.cancel(tokens)

        bus = RedisBus(
            listener,
            publisher=redis,
            on_wake=dispatcher.wake,
            on_reconnect=dispatcher.wake_all,
            on_changed=followers.tell,
            on_cancelled=cancelled,
        )
        outcomes = await stack.enter_async_context(
            Outcomes(queue, store, bus, followers.tell, cancelled, tally=tally).running()
        )
        enqueues = await stack.enter_async_context(enqueue_coalescer(queue, dispatcher).running())
        await stack.enter_async_context(dispatcher.running())
        clock = SystemClock()
        control = QueueControl(queue, store, dispatcher.wake)
        board = RedisBoard(redis)
        conservation = Conservation(queue, store, board)
        models = StorageModels(storage, timeout_seconds=config.storage_timeout_seconds)
        model_calls = ModelCalls(
            RedisModelCalls(redis, redis_clock), models, lambda: policy.current, redis_clock
        )
        recovery = Recovery(
            queue,
            store,
            outcomes,
            Sweep(queue, store, board, outcomes.cancel),
            control,
            conservation,
            sweep_seconds=config.sweep_seconds,
            also=ModelUpkeep(model_calls, models, queue, clock).ticks(),
        )
        leadership = Leadership(Locks(RedisLocks(redis), clock), recovery.lead)
        admissions = Admissions(
            RedisAdmission(prompt, redis_clock, reservation_seconds=config.reservation_seconds),
            MemoryAdmission(clock),
            lambda: policy.current,
            clock,
        )
        asked = await stack.enter_async_context(admission_coalescer(admissions).running())

        side_tasks = await stack.enter_async_context(asyncio.TaskGroup())
        for task in (
            side_tasks.create_task(bus.listen(), name="bus"),
            side_tasks.create_task(policy.watch(), name="policy"),
            side_tasks.create_task(redis_clock.run(), name="redis-clock"),
            side_tasks.create_task(queue.follow_policies(), name="queue-policies"),
            side_tasks.create_task(refusals.run(outcomes), name="refusals"),
        ):
            stack.callback(task.cancel)
        leading = side_tasks.create_task(leadership.run(), name="leadership")

        def weight(tenant: str) -> float:
            return policy.current.tenant(tenant).weight / policy.current.default_tenant.weight

        loads = Loads(queue, dispatcher.sessions, times, redis_clock, weight)
        terms = Terms(
            lease_seconds=config.lease_seconds,
            max_credits=config.max_credits,
            silence_limit_seconds=config.silence_limit_seconds,
        )
        load_board = LoadBoard(loads, dispatcher.sessions, interval_seconds=terms.heartbeat_seconds)
        counting = side_tasks.create_task(load_board.run(), name="load-board")
        stack.callback(counting.cancel)
        if config.metrics_listen:
            metrics = Metrics(
                loads,
                tally,
                [
                    lambda: admission_samples(admissions.counters),
                    lambda: leader_samples(leads=leadership.is_leader),
                    lambda: conservation_samples(conservation.last),
                    lambda: model_samples(model_calls),
                ],
            )
            await stack.enter_async_context(serving_metrics(config.metrics_listen, metrics.text))

        work = WorkService(
            queue,
            dispatcher,
            outcomes,
            leaving,
            terms,
            times,
            WorkFiles(
                queue,
                StorageFiles(storage, timeout_seconds=config.storage_timeout_seconds),
                dispatcher.sessions,
            ),
            ProgressReports(progress, bus, followers.tell),
            load_board,
        )

        def register(server: grpc.aio.Server) -> None:
            add_QueueServiceServicer_to_server(
                QueueService(
                    queue,
                    dispatcher,
                    followers,
                    bus,
                    enqueues,
                    leaving,
                    loads,
                    control,
                    conservation,
                    progress,
                    now=redis_clock.time,
                ),
                server,
            )
            add_WorkServiceServicer_to_server(work, server)
            add_ModelCallServiceServicer_to_server(
                ModelCallService(model_calls, models, dispatcher.sessions), server
            )
            add_AdmissionServiceServicer_to_server(AdmissionService(admissions, asked), server)
            add_RateLimitServiceServicer_to_server(RateLimitService(asked), server)
            add_ExternalScalerServicer_to_server(ScalerService(loads, leaving), server)

        health = HealthBoard(
            {
                "redis": queue.ping,
                "storage": store.ping,
                "policy": policy.healthy,
                "admission": admissions.healthy,
                "ai_service": model_calls.healthy,
            }
        )
        port = await stack.enter_async_context(
            serving(
                config.listen,
                register=register,
                services=(
                    queue_service_pb2.DESCRIPTOR.services_by_name["QueueService"].full_name,
                    work_service_pb2.DESCRIPTOR.services_by_name["WorkService"].full_name,
                    model_call_service_pb2.DESCRIPTOR.services_by_name["ModelCallService"].full_name,
                    admission_service_pb2.DESCRIPTOR.services_by_name["AdmissionService"].full_name,
                    envoy_ratelimit_pb2.DESCRIPTOR.services_by_name["RateLimitService"].full_name,
                    keda_pb2.DESCRIPTOR.services_by_name["ExternalScaler"].full_name,
                ),
                health=health,
                grace_seconds=2.0,
            )
        )
        stack.callback(leading.cancel)  # once: it gives its lock back; and before the streams end
        stack.callback(leaving.set)  # first thing on the way out: streams end, workers go elsewhere
        yield port
