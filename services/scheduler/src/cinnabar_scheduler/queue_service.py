"""The queue over gRPC, for gateways and operators."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import grpc

from cinnabar.scheduler.v1 import queue_service_pb2 as pb
from cinnabar.scheduler.v1.queue_service_pb2_grpc import QueueServiceServicer
from cinnabar_common.coalescer import Coalescer
from cinnabar_common.errors import DependencyUnavailable, Overloaded, ResourceNotFound
from cinnabar_scheduler import convert, progress_convert
from cinnabar_scheduler.conservation import Conservation
from cinnabar_scheduler.control import QueueControl, UnknownQueue
from cinnabar_scheduler.dispatch import Dispatcher
from cinnabar_scheduler.followers import MAX_FOLLOWED, Follower, Followers
from cinnabar_scheduler.load import Loads
from cinnabar_scheduler.ports import Bus, Changed, ProgressBoard, Queue, QueueUnavailable, StoreUnavailable
from cinnabar_scheduler.tasks import LeaseToken, QueueName, Task

MAX_UNREAD_CHANGES = 1_000
LAST_GENERATION = 2**31 - 1
LAST_WRITE_SECONDS = 1.0


class QueueService(QueueServiceServicer):
    """Convert, one domain call, convert."""

    def __init__(
        self,
        queue: Queue,
        dispatcher: Dispatcher,
        followers: Followers,
        bus: Bus,
        enqueues: Coalescer[Task, bool],
        leaving: asyncio.Event,
        loads: Loads,
        control: QueueControl,
        conservation: Conservation,
        progress: ProgressBoard,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._queue = queue
        self._dispatcher = dispatcher
        self._followers = followers
        self._bus = bus
        self._enqueues = enqueues
        self._leaving = leaving
        self._loads = loads
        self._control = control
        self._conservation = conservation
        self._progress = progress
        self._now = now

    async def Enqueue(self, request: pb.EnqueueRequest, context: object) -> pb.EnqueueResponse:
        tasks = convert.tasks(request, int(self._now() * 1000))
        added = await self._enqueues.submit_many(tasks)
        return pb.EnqueueResponse(enqueued=sum(added))

    async def Cancel(self, request: pb.CancelRequest, context: object) -> pb.CancelResponse:
        cancelled = 0
        tokens: list[LeaseToken] = []
        try:
            for queue, tasks in convert.cancellations(request).items():
                removed, leased = await self._queue.remove(queue, [(task, LAST_GENERATION) for task in tasks])
                cancelled += removed
                tokens += leased
        except QueueUnavailable as error:
            raise DependencyUnavailable("redis") from error
        if tokens:
            self._dispatcher.cancel(tokens)
            await self._bus.publish_cancelled(tokens)
        if request.tasks:
            changed = Changed(list(dict.fromkeys(task.task.partition("/")[0] for task in request.tasks)), [])
            self._followers.tell(changed)
            await self._bus.publish_changed(changed)
        return pb.CancelResponse(cancelled=cancelled)

    async def GetQueueStats(
        self, request: pb.GetQueueStatsRequest, context: object
    ) -> pb.GetQueueStatsResponse:
        try:
            queues = [QueueName(name) for name in request.queues] or await self._loads.queues()
            loads = [await self._loads.of(queue, request.tenant or None) for queue in queues]
        except QueueUnavailable as error:
            raise DependencyUnavailable("redis") from error
        return pb.GetQueueStatsResponse(queues=[convert.queue_stats(load) for load in loads])

    async def ControlQueue(self, request: pb.ControlQueueRequest, context: object) -> pb.ControlQueueResponse:
        queue, state, actor = convert.control(request)
        try:
            await self._control.change(queue, state, actor)
        except UnknownQueue as error:
            raise ResourceNotFound(f"queue {queue}") from error
        except QueueUnavailable as error:
            raise DependencyUnavailable("redis") from error
        except StoreUnavailable as error:
            raise DependencyUnavailable("storage") from error
        return pb.ControlQueueResponse(state=request.state)

    async def GetConservation(
        self, request: pb.GetConservationRequest, context: object
    ) -> pb.GetConservationResponse:
        try:
            return convert.conservation(await self._conservation.take())
        except QueueUnavailable as error:
            raise DependencyUnavailable("redis") from error
        except StoreUnavailable as error:
            raise DependencyUnavailable("storage") from error

    async def GetProgress(self, request: pb.GetProgressRequest, context: object) -> pb.GetProgressResponse:
        found = [b""] * len(request.tasks)
        try:
            for queue, indexes in progress_convert.wanted(request).items():
                tasks = [(request.tasks[index].task, request.tasks[index].generation) for index in indexes]
                for index, payload in zip(indexes, await self._progress.of(queue, tasks), strict=True):
                    found[index] = payload
        except QueueUnavailable as error:
            raise DependencyUnavailable("redis") from error
        return progress_convert.response(found)

    async def Follow(  # pyright: ignore[reportIncompatibleMethodOverride]  # writes with context.write
        self,
        request_iterator: object,
        context: grpc.aio.ServicerContext[pb.FollowRequest, pb.FollowResponse],
    ) -> None:
        outbox: asyncio.Queue[Changed | None] = asyncio.Queue(MAX_UNREAD_CHANGES + 1)

        def tell(changed: Changed) -> None:
            if (
                outbox.qsize() < MAX_UNREAD_CHANGES
            ):  # a gateway that does not read sees the change on its own timer
                outbox.put_nowait(changed)

        follower = Follower(tell)
        self._followers.add(follower)
        try:
            await context.write(pb.FollowResponse())
            async with asyncio.TaskGroup() as group:
                writer = group.create_task(_write(outbox, context), name="follow-writer")
                leaving = group.create_task(self._leaving.wait(), name="follow-leaving")
                reader = group.create_task(_read(follower, context), name="follow-reader")
                await asyncio.wait((reader, leaving), return_when=asyncio.FIRST_COMPLETED)
                reader.cancel()
                leaving.cancel()
                outbox.put_nowait(None)
                # A status cannot be sent while a message is.
                await asyncio.wait((writer,), timeout=LAST_WRITE_SECONDS)
                writer.cancel()
            if self._leaving.is_set():
                raise DependencyUnavailable("scheduler")
            if not reader.result():
                raise Overloaded(f"follow: at most {MAX_FOLLOWED}")
        finally:
            self._followers.remove(follower)


async def _read(
    follower: Follower, context: grpc.aio.ServicerContext[pb.FollowRequest, pb.FollowResponse]
) -> bool:
    """Reads until the gateway half-closes; False when it would follow too many."""
    while (request := await context.read()) is not grpc.aio.EOF:
        assert isinstance(request, pb.FollowRequest)
        if not follower.change(request.add, request.remove):
            return False
    return True


async def _write(
    outbox: asyncio.Queue[Changed | None],
    context: grpc.aio.ServicerContext[pb.FollowRequest, pb.FollowResponse],
) -> None:
    while (changed := await outbox.get()) is not None:
        await context.write(convert.follow_response(changed))


def enqueue_coalescer(queue: Queue, dispatcher: Dispatcher) -> Coalescer[Task, bool]:
    """Gathers the tasks of many calls into one Lua call per queue, then wakes the workers of this process."""

    async def flush(tasks: list[Task]) -> list[bool]:
        try:
            added = await queue.enqueue(tasks)
        except QueueUnavailable as error:
            raise DependencyUnavailable("redis") from error
        for name in {task.queue for task in tasks}:
            dispatcher.wake(name)
        return added

    return Coalescer(flush, name="scheduler.enqueue", max_batch=1000, lanes=2)
