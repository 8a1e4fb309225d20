"""A small scheduler in memory that speaks the worker protocol and checks that workers keep it."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from cinnabar.grader.v1.grade_pb2 import Answer
from cinnabar.grader.v1.item_pb2 import Item
from cinnabar.scheduler.v1 import work_service_pb2 as pb
from cinnabar.scheduler.v1.work_service_pb2_grpc import WorkServiceServicer, add_WorkServiceServicer_to_server

UnaryContext = grpc.aio.ServicerContext[Any, Any]
Context = grpc.aio.ServicerContext[pb.WorkRequest, pb.WorkResponse]

RESULTS = {
    "grade": pb.Receipt.COMMITTED,
    "failure": pb.Receipt.RETRYING,
    "released": pb.Receipt.RETURNED,
}


@dataclass(slots=True, frozen=True)
class Homework:
    """A task to be graded."""

    task: str
    queue: str
    item_key: str
    item: Item | None
    answer: Answer


@dataclass(slots=True)
class Stream:
    """What the scheduler knows of one connected worker."""

    hello: pb.Hello
    outbox: asyncio.Queue[pb.WorkResponse | None] = field(default_factory=asyncio.Queue[Any])
    credits: dict[str, int] = field(default_factory=dict[str, int])
    held: dict[str, Homework] = field(default_factory=dict[str, Homework])
    carried: set[str] = field(default_factory=set[str])
    seen: set[str] = field(default_factory=set[str])
    heartbeats: list[list[str]] = field(default_factory=list[list[str]])
    half_closed: bool = False


class MemoryScheduler(WorkServiceServicer):
    """Leases what was `put`, in order. ``results`` has the outcomes by task, in the order they came.

    While ``pulses`` is off it says nothing that was not asked for, while ``welcomes`` is off it does not
    answer a hello. A breach of the protocol is kept in ``violations`` and ends the stream, as the real
    one does. A failed task is leased again until it has been leased ``attempts`` times. Pulses carry
    ``loads``.
    """

    def __init__(
        self,
        *,
        max_credits: int = 1000,
        heartbeat_seconds: float = 5.0,
        receipts: bool = True,
        max_leases: int = 1000,
        attempts: int = 1,
    ) -> None:
        self.waiting: dict[str, deque[Homework]] = {}
        self.streams: list[Stream] = []
        self.ended: list[Stream] = []
        self.results: dict[str, list[pb.Outcome]] = {}
        self.reports: list[int] = []
        self.progress: list[pb.Progress] = []
        self.loads: list[pb.Pulse.QueueLoad] = []
        self.leased: Counter[str] = Counter()
        self._attempts = attempts
        self.violations: list[str] = []
        self.receipts = receipts
        self.pulses = True
        self.welcomes = True
        self._max_credits = max_credits
        self._max_leases = max_leases
        self._heartbeat_seconds = heartbeat_seconds
        self._tokens = itertools.count(1)
        self._changed = asyncio.Condition()
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def graded(self) -> dict[str, pb.Outcome]:
        """The grade of each task that has one."""
        return {
            task: outcome
            for task, outcomes in self.results.items()
            for outcome in outcomes
            if outcome.HasField("grade")
        }

    async def put(self, *tasks: Homework) -> None:
        """Tasks for whoever grants credits."""
        for task in tasks:
            self.waiting.setdefault(task.queue, deque()).append(task)
        for stream in self.streams:
            self._offer(stream)
        await self._tell()

    async def cancel(self, stream: Stream, tokens: Sequence[str]) -> None:
        """Takes leases away from a worker."""
        for token in tokens:
            stream.held.pop(token, None)
        stream.outbox.put_nowait(pb.WorkResponse(cancellations=pb.Cancellations(lease_tokens=tokens)))
        await self._tell()

    async def cut(self, stream: Stream) -> None:
        """Ends a stream as a scheduler that leaves does."""
        stream.outbox.put_nowait(None)
        await self.until(lambda: stream in self.ended, "the stream ended")

    async def until(self, condition: Callable[[], bool], description: str, seconds: float = 20.0) -> None:
        """Waits until ``condition`` holds; it is looked at whenever something changed."""
        try:
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait_for(condition)
        except TimeoutError:
            raise AssertionError(f"not within {seconds} s: {description}; {self.violations}") from None

    async def Work(  # pyright: ignore[reportIncompatibleMethodOverride]  # writes with context.write
        self, request_iterator: object, context: Context
    ) -> None:
        """One worker."""
        first = await context.read()
        assert isinstance(first, pb.WorkRequest)
        stream = Stream(first.hello)
        if not first.HasField("hello") or not first.hello.worker or not first.hello.queues:
            await self._violated(context, "hello first")
        welcome = pb.Welcome(max_credits=self._max_credits)
        welcome.lease_duration.FromMilliseconds(int(3000 * self._heartbeat_seconds))
        welcome.heartbeat_interval.FromMilliseconds(int(1000 * self._heartbeat_seconds))
        while not self.welcomes:  # noqa: ASYNC110 - a test turns it on
            await asyncio.sleep(0.01)
        await context.write(pb.WorkResponse(welcome=welcome))
        self.streams.append(stream)
        reader = asyncio.create_task(self._read(stream, context))
        pulse = asyncio.create_task(self._pulse(stream))
        try:
            await self._tell()
            while (message := await stream.outbox.get()) is not None:
                await context.write(message)
            if not stream.half_closed:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the scheduler leaves")
        finally:
            # The call may be cancelled while it cleans up, so nothing here waits.
            reader.cancel()
            pulse.cancel()
            for task in reversed(stream.held.values()):
                self.waiting.setdefault(task.queue, deque()).appendleft(task)
            stream.held.clear()
            self.streams.remove(stream)
            self.ended.append(stream)
            for other in self.streams:
                self._offer(other)
            closing = asyncio.create_task(self._closed(reader, pulse))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def GetFiles(self, request: pb.GetFilesRequest, context: UnaryContext) -> pb.GetFilesResponse:
        return await context.abort(grpc.StatusCode.NOT_FOUND, "there are no files here")

    async def CreateArtifact(
        self, request: pb.CreateArtifactRequest, context: UnaryContext
    ) -> pb.CreateArtifactResponse:
        return await context.abort(grpc.StatusCode.NOT_FOUND, "there is no place for files here")

    async def _closed(self, *tasks: asyncio.Task[None]) -> None:
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._tell()

    async def _pulse(self, stream: Stream) -> None:
        while True:
            await asyncio.sleep(self._heartbeat_seconds)
            if self.pulses:
                stream.outbox.put_nowait(pb.WorkResponse(pulse=pb.Pulse(loads=self.loads)))

    async def _read(self, stream: Stream, context: Context) -> None:
        try:
            while (request := await context.read()) is not grpc.aio.EOF:
                assert isinstance(request, pb.WorkRequest)
                if (rule := self._event(stream, request)) is not None:
                    self.violations.append(rule)
                    break
                await self._tell()
            else:
                stream.half_closed = True
        finally:
            stream.outbox.put_nowait(None)

    def _event(self, stream: Stream, request: pb.WorkRequest) -> str | None:
        """Handles one message; returns the rule that it breaks."""
        match request.WhichOneof("event"):
            case "ready":
                queue, credits = request.ready.queue, request.ready.credits
                if queue not in stream.hello.queues or credits < 1:
                    return "ready is for queues of the hello, at least 1"
                stream.credits[queue] = stream.credits.get(queue, 0) + credits
                if stream.credits[queue] > self._max_credits:
                    return "too many credits"
                self._offer(stream)
            case "heartbeat":
                stream.heartbeats.append(list(request.heartbeat.lease_tokens))
            case "report":
                return self._report(stream, request.report)
            case "progress":
                if request.progress.lease_token in stream.seen:
                    return "no progress after the outcome"
                self.progress.append(request.progress)
            case _:
                return "hello only once"
        return None

    def _report(self, stream: Stream, report: pb.Report) -> str | None:
        if not 1 <= len(report.outcomes) <= 1000:
            return "1 to 1000 outcomes"
        self.reports.append(len(report.outcomes))
        receipts = pb.Receipts()
        returned: list[Homework] = []
        for outcome in report.outcomes:
            kind = outcome.WhichOneof("result")
            if kind is None or outcome.lease_token in stream.seen:
                return "each token once, with a result"
            stream.seen.add(outcome.lease_token)
            task = stream.held.pop(outcome.lease_token, None)
            if task is not None:
                self.results.setdefault(task.task, []).append(outcome)
                if kind == "released":
                    self.leased[task.task] -= 1
                    returned.append(task)
                elif kind == "failure" and self.leased[task.task] < self._attempts:
                    returned.append(task)
            receipts.receipts.add(
                lease_token=outcome.lease_token,
                result=pb.Receipt.STALE_LEASE if task is None else RESULTS[kind],
            )
        if self.receipts:
            stream.outbox.put_nowait(pb.WorkResponse(receipts=receipts))
        for task in reversed(returned):
            self.waiting.setdefault(task.queue, deque()).appendleft(task)
        if any(outcome.HasField("failure") for outcome in report.outcomes):
            for other in self.streams:
                self._offer(other)
        return None

    def _offer(self, stream: Stream) -> None:
        for queue, credits in stream.credits.items():
            waiting = self.waiting.get(queue, deque())
            while credits and waiting:
                leases = pb.Leases()
                while credits and waiting and len(leases.tasks) < self._max_leases:
                    credits -= 1
                    task = waiting.popleft()
                    token = f"{next(self._tokens)}-token"
                    stream.held[token] = task
                    self.leased[task.task] += 1
                    leases.tasks.add(
                        lease_token=token,
                        task=task.task,
                        generation=1,
                        attempt=self.leased[task.task],
                        queue=queue,
                        item_key=task.item_key,
                        answer=task.answer,
                    )
                    if task.item is not None and task.item_key not in stream.carried:
                        stream.carried.add(task.item_key)
                        leases.items.add(item_key=task.item_key, item=task.item)
                stream.outbox.put_nowait(pb.WorkResponse(leases=leases))
            stream.credits[queue] = credits

    async def _violated(self, context: Context, rule: str) -> None:
        self.violations.append(rule)
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, rule)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


@asynccontextmanager
async def scheduler_running(scheduler: MemoryScheduler, port: int = 0) -> AsyncGenerator[str]:
    """Serves ``scheduler``; yields its address. A port of its own unless one is given."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    add_WorkServiceServicer_to_server(scheduler, server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield f"127.0.0.1:{bound}"
    finally:
        await server.stop(0)
