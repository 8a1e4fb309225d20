"""The scheduler service, as the domain's queue and source of changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TypeVar

import grpc

from cinnabar.scheduler.v1 import queue_service_pb2 as pb
from cinnabar.scheduler.v1.queue_service_pb2_grpc import QueueServiceStub
from cinnabar_common.errors import SuiteError, from_rpc_error
from cinnabar_gateway import deadlines
from cinnabar_gateway.adapters import storage_messages as messages
from cinnabar_gateway.adapters.chunks import chunks
from cinnabar_gateway.records import CancelledTask, Change, QueueCounts, QueuedTask

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

    async def counts(self) -> list[QueueCounts]:
        """See Queue. Tasks are counted in Redis, the same for all; workers by each scheduler."""
        request = pb.GetQueueStatsRequest()
        answers = await asyncio.gather(
            *(self._call(one.GetQueueStats, request) for one in self._each), return_exceptions=True
        )
        counts: dict[str, QueueCounts] = {}
        failure: SuiteError | None = None
        for answer in answers:
            if isinstance(answer, SuiteError):
                failure = answer
                continue
            if isinstance(answer, BaseException):
                raise answer
            for stats in answer.queues:
                known = counts.get(stats.queue)
                counts[stats.queue] = (
                    replace(known, workers=known.workers + stats.workers) if known else _counts(stats)
                )
        if failure is not None and all(isinstance(answer, SuiteError) for answer in answers):
            raise failure
        return [counts[queue] for queue in sorted(counts)]


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
    return pb.QueuedTask(
        task=task.task,
        tenant=task.tenant,
        queue=task.queue,
        generation=task.generation,
        priority=pb.Priority.ValueType(task.priority),
        item_key=task.item_key,
        answer=task.answer,
    )


def _counts(stats: pb.QueueStats) -> QueueCounts:
    return QueueCounts(
        queue=stats.queue,
        ready=stats.ready,
        delayed=stats.delayed,
        leased=stats.leased,
        oldest_age_seconds=stats.oldest_age.ToMicroseconds() / 1e6,
        workers=stats.workers,
    )
