"""The scheduler service, as the domain's queue and source of changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TypeVar

import grpc

from cinnabar.grader.v1.grade_pb2 import Grade
from cinnabar.scheduler.v1 import queue_service_pb2 as pb
from cinnabar.scheduler.v1.queue_service_pb2_grpc import QueueServiceStub
from cinnabar.type.v1.error_reason_pb2 import ErrorReason
from cinnabar_common.errors import ResourceNotFound, SuiteError, from_rpc_error
from cinnabar_gateway import deadlines
from cinnabar_gateway.adapters import storage_messages as messages
from cinnabar_gateway.adapters.chunks import chunks
from cinnabar_gateway.records import (
    CancelledTask,
    Change,
    Conservation,
    QueueCounts,
    QueuedTask,
    QueueState,
    RunningTask,
    WaitEstimate,
)

DEPENDENCY = "scheduler"
_MAX_TASKS = 10_000
_MAX_FOLLOWED = 5_000
Q = TypeVar("Q")
A = TypeVar("A")


class SchedulerClient:
    """Implements the port Queue. The channels stay the caller's."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        each: Sequence[grpc.aio.Channel],
        *,
        timeout_seconds: float = 5.0,
    ) -> None:
        """``channel`` reaches any scheduler, ``each`` has one channel per scheduler."""
        self._any = QueueServiceStub(channel)
        self._each = [QueueServiceStub(one) for one in each]
        self._timeout = timeout_seconds

    async def _call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Q, A],
        request: Q,
        *,
        wait_for_ready: bool | None = None,
    ) -> A:
        timeout = deadlines.within(self._timeout)
        try:
            return await method(request, timeout=timeout, wait_for_ready=wait_for_ready)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, DEPENDENCY) from error

    async def enqueue(self, tasks: Sequence[QueuedTask]) -> None:
        """See Queue."""
        for part in chunks(tasks, lambda task: len(task.answer), max_items=_MAX_TASKS):
            # Nobody waits for this call, so it waits for a scheduler that is just starting.
            request = pb.EnqueueRequest(tasks=map(_queued, part))
            await self._call(self._any.Enqueue, request, wait_for_ready=True)

    async def cancel(self, tasks: Sequence[CancelledTask]) -> None:
        """See Queue."""
        request = pb.CancelRequest(
            tasks=[pb.CancelRequest.Task(task=task.task, queue=task.queue) for task in tasks]
        )
        await self._call(self._any.Cancel, request)

    async def progress(self, tasks: Sequence[RunningTask]) -> list[bytes]:
        """See Queue."""
        request = pb.GetProgressRequest(
            tasks=[
                pb.GetProgressRequest.Task(task=one.task, queue=one.queue, generation=one.generation)
                for one in tasks
            ]
        )
        answer = await self._call(self._any.GetProgress, request)
        return [
            Grade(tests=one.tests).SerializeToString(deterministic=True) if one.tests else b""
            for one in answer.progress
        ]

    async def counts(self) -> list[QueueCounts]:
        """See Queue. Tasks are counted in Redis, the same for all; workers by each scheduler."""
        counts: dict[str, QueueCounts] = {}
        for stats in await self._stats(pb.GetQueueStatsRequest()):
            known = counts.get(stats.queue)
            counts[stats.queue] = _both(known, _counts(stats)) if known else _counts(stats)
        return [counts[queue] for queue in sorted(counts)]

    async def estimates(self, tenant: str) -> dict[str, WaitEstimate]:
        """See Queue. Each scheduler judges by its own workers: the most hopeful one sees the most of them."""
        found: dict[str, WaitEstimate] = {}
        for stats in await self._stats(pb.GetQueueStatsRequest(tenant=tenant)):
            if not stats.HasField("estimate") or stats.state == pb.QueueState.PAUSED:
                continue
            estimate = WaitEstimate(
                stats.estimate.position,
                stats.estimate.p50.ToMicroseconds() / 1e6,
                stats.estimate.p90.ToMicroseconds() / 1e6,
            )
            known = found.get(stats.queue)
            if known is None or estimate.p90_seconds < known.p90_seconds:
                found[stats.queue] = estimate
        return found

    async def control(self, queue: str, state: QueueState, actor: str) -> None:
        """See Queue."""
        request = pb.ControlQueueRequest(queue=queue, state=pb.QueueState.Value(state.name), actor=actor)
        try:
            await self._call(self._any.ControlQueue, request)
        except SuiteError as error:
            if error.error_reason == ErrorReason.RESOURCE_NOT_FOUND:
                raise ResourceNotFound(f"queues/{queue}") from error
            raise

    async def conservation(self) -> Conservation:
        """See Queue."""
        counted = await self._call(self._any.GetConservation, pb.GetConservationRequest())
        return Conservation(
            accepted=counted.accepted,
            open=counted.open,
            dead_lettered=counted.dead_lettered,
            cancelled=counted.cancelled,
            graded=counted.graded,
            queued=counted.queued,
            waiting=counted.waiting,
            leased=counted.leased,
            balanced=counted.balanced,
            missing=counted.missing,
            orphaned=counted.orphaned,
            sweep_time_us=counted.sweep_time.ToMicroseconds() if counted.HasField("sweep_time") else None,
        )

    async def _stats(self, request: pb.GetQueueStatsRequest) -> list[pb.QueueStats]:
        """What the schedulers that answer say of each queue. DependencyUnavailable when none does."""
        answers = await asyncio.gather(
            *(self._call(one.GetQueueStats, request) for one in self._each), return_exceptions=True
        )
        stats: list[pb.QueueStats] = []
        failures: list[SuiteError] = []
        for answer in answers:
            if isinstance(answer, SuiteError):
                failures.append(answer)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                stats += answer.queues
        if failures and len(failures) == len(answers):
            raise failures[0]
        return stats


class SchedulerChanges:
    """Implements the port ChangeSource for one scheduler. The channel stays the caller's."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = QueueServiceStub(channel)

    @asynccontextmanager
    async def follow(self) -> AsyncGenerator[SchedulerFollowing]:
        """See ChangeSource."""
        following = SchedulerFollowing(self._stub.Follow())
        writer = asyncio.create_task(following.write(), name="follow-writer")
        try:
            yield following
        finally:
            following.close()
            writer.cancel()
            await asyncio.wait((writer,))


class SchedulerFollowing:
    """Implements the port Following on one stream."""

    def __init__(self, call: grpc.aio.StreamStreamCall[pb.FollowRequest, pb.FollowResponse]) -> None:
        self._call = call
        self._added: set[str] = set()
        self._removed: set[str] = set()
        self._news = asyncio.Event()

    def add(self, submission_ids: Sequence[str]) -> None:
        """See Following."""
        self._removed.difference_update(submission_ids)
        self._added.update(submission_ids)
        self._news.set()

    def remove(self, submission_ids: Sequence[str]) -> None:
        """See Following."""
        self._added.difference_update(submission_ids)
        self._removed.update(submission_ids)
        self._news.set()

    async def changes(self) -> AsyncIterator[Change]:
        """See Following."""
        try:
            async for response in self._call:
                yield Change(tuple(response.submission_ids), messages.positions(response.positions))
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, DEPENDENCY) from error

    def close(self) -> None:
        """Ends the stream."""
        self._call.cancel()

    async def write(self) -> None:
        """Sends what is added and removed, until the stream ends."""
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                while self._added or self._removed:
                    request = pb.FollowRequest(add=_taken(self._added), remove=_taken(self._removed))
                    await self._call.write(request)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # the stream is over, as its reader will see


def _taken(ids: set[str]) -> list[str]:
    return [ids.pop() for _ in range(min(len(ids), _MAX_FOLLOWED))]


def _queued(task: QueuedTask) -> pb.QueuedTask:
    message = pb.QueuedTask(
        task=task.task,
        tenant=task.tenant,
        queue=task.queue,
        generation=task.generation,
        priority=pb.Priority.ValueType(task.priority),
        item_key=task.item_key,
        answer=task.answer,
        upgrade=task.upgrade,
    )
    if task.not_before_us is not None:
        message.not_before.CopyFrom(messages.timestamp(task.not_before_us))
    if task.grade_by_us is not None:
        message.grade_by.CopyFrom(messages.timestamp(task.grade_by_us))
    return message


_STATES = {
    pb.QueueState.PAUSED: QueueState.PAUSED,
    pb.QueueState.DRAINING: QueueState.DRAINING,
}


def _counts(stats: pb.QueueStats) -> QueueCounts:
    measured = stats.HasField("service_time")
    return QueueCounts(
        queue=stats.queue,
        ready=stats.ready,
        delayed=stats.delayed,
        leased=stats.leased,
        oldest_age_seconds=stats.oldest_age.ToMicroseconds() / 1e6,
        workers=stats.workers,
        credits=stats.credits,
        state=_STATES.get(stats.state, QueueState.RUNNING),
        service_p50_seconds=stats.service_time.p50.ToMicroseconds() / 1e6 if measured else None,
        service_p90_seconds=stats.service_time.p90.ToMicroseconds() / 1e6 if measured else None,
        predicted_work_seconds=(
            stats.predicted_work.ToMicroseconds() / 1e6 if stats.HasField("predicted_work") else None
        ),
    )


def _both(one: QueueCounts, other: QueueCounts) -> QueueCounts:
    """What two schedulers say together: workers add up, the slower measurement counts."""
    return replace(
        one,
        workers=one.workers + other.workers,
        credits=one.credits + other.credits,
        service_p50_seconds=_slower(one.service_p50_seconds, other.service_p50_seconds),
        service_p90_seconds=_slower(one.service_p90_seconds, other.service_p90_seconds),
        predicted_work_seconds=_slower(one.predicted_work_seconds, other.predicted_work_seconds),
    )


def _slower(one: float | None, other: float | None) -> float | None:
    return max((seconds for seconds in (one, other) if seconds is not None), default=None)
