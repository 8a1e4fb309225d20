"""A worker that does what a test tells it, over a real stream."""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.rpc import status_pb2

from cinnabar.grader.v1.grade_pb2 import CriterionScore, Grade, Provenance, TestResult
from cinnabar.grader.v1.item_pb2 import Item
from cinnabar.scheduler.v1 import work_service_pb2 as pb
from cinnabar.scheduler.v1.work_service_pb2_grpc import WorkServiceStub

GRADE = Grade(
    score=4,
    max_score=5,
    criteria=[
        CriterionScore(
            criterion="answer",
            score=4,
            max_score=5,
            provenance=Provenance(grader="scripted", version="1"),
            confidence=1,
        )
    ],
)


class StreamEnded(AssertionError):
    """The stream ended while the test waited for something."""


class ScriptedWorker:
    """Collects all that arrives; ``until`` waits for it."""

    def __init__(
        self, call: "grpc.aio.StreamStreamCall[pb.WorkRequest, pb.WorkResponse]", name: str, *, beats: bool
    ) -> None:
        self.call = call
        self.name = name
        self.beats = beats
        self.welcome: pb.Welcome | None = None
        self.leased: list[pb.LeasedTask] = []
        self.items: dict[str, Item] = {}
        self.receipts: dict[str, pb.Receipt.Result.ValueType] = {}
        self.cancelled: set[str] = set()
        self.pulses = 0
        self.loads: dict[str, pb.Pulse.QueueLoad] = {}
        self.ended: BaseException | None = None
        self.done = False
        self._changed = asyncio.Condition()
        self._writing = asyncio.Lock()

    async def send(self, request: pb.WorkRequest) -> None:
        """Any message at all."""
        async with self._writing:  # a stream takes one message at a time
            await self.call.write(request)

    async def hello(self, *queues: str) -> None:
        """Hello, and waits for the welcome."""
        await self.send(
            pb.WorkRequest(hello=pb.Hello(worker=self.name, queues=queues or ("free-text",), version="1"))
        )
        await self.until(lambda: self.welcome is not None, "a welcome")

    async def ready(self, credits: int, queue: str = "free-text") -> None:
        """Grants credits."""
        await self.send(pb.WorkRequest(ready=pb.Ready(queue=queue, credits=credits)))

    async def take(self, count: int, queue: str = "free-text", *, seconds: float = 5) -> list[pb.LeasedTask]:
        """Grants credits and waits for as many leases; returns them."""
        before = len(self.leased)
        await self.ready(count, queue)
        await self.until(lambda: len(self.leased) >= before + count, f"{count} leases", seconds=seconds)
        return self.leased[before:]

    async def heartbeat(self, tokens: Iterable[str]) -> None:
        """Still working on these."""
        await self.send(pb.WorkRequest(heartbeat=pb.Heartbeat(lease_tokens=tokens)))

    async def progress(self, lease: pb.LeasedTask, *tests: TestResult) -> None:
        """How far a task is."""
        await self.send(pb.WorkRequest(progress=pb.Progress(lease_token=lease.lease_token, tests=tests)))

    async def report(self, *outcomes: pb.Outcome) -> list["pb.Receipt.Result.ValueType"]:
        """Reports and waits for the receipts, in the order of the outcomes."""
        tokens = [outcome.lease_token for outcome in outcomes]
        for token in tokens:  # the answer to an earlier report is not the answer to this one
            self.receipts.pop(token, None)
        await self.send(pb.WorkRequest(report=pb.Report(outcomes=outcomes)))
        await self.until(lambda: all(token in self.receipts for token in tokens), "receipts", seconds=10)
        return [self.receipts[token] for token in tokens]

    async def grade(self, leases: Iterable[pb.LeasedTask]) -> list["pb.Receipt.Result.ValueType"]:
        """Reports a good grade for each."""
        return await self.report(*(graded(lease.lease_token) for lease in leases))

    async def until(self, condition: Any, description: str, *, seconds: float = 5) -> None:
        """Waits for a condition on what has arrived; fails when the stream ends before."""
        try:
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait_for(lambda: condition() or self.done)
        except TimeoutError:
            raise AssertionError(f"{self.name}: not within {seconds} s: {description}") from None
        if not condition():
            raise StreamEnded(f"{self.name}: {self.ended!r} while waiting for {description}")

    async def end(self, *, why: str = "", seconds: float = 5) -> BaseException | None:
        """Waits for the end of the stream; returns the error, None when it ended well."""
        await self.until(lambda: self.done, f"the end of the stream {why}", seconds=seconds)
        return self.ended

    async def leave(self) -> None:
        """Half-closes and waits for the end."""
        await self.call.done_writing()
        assert await self.end() is None

    async def _read(self) -> None:
        try:
            async for message in self.call:
                async with self._changed:
                    self._take_in(message)
                    self._changed.notify_all()
                if self.beats and message.HasField("pulse"):  # alive, but without a word for its leases
                    await self.heartbeat([])
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, asyncio.CancelledError) as error:
            self.ended = error
        finally:
            async with self._changed:
                self.done = True
                self._changed.notify_all()

    def _take_in(self, message: pb.WorkResponse) -> None:
        match message.WhichOneof("event"):
            case "welcome":
                self.welcome = message.welcome
            case "leases":
                self.leased += message.leases.tasks
                self.items |= {ref.item_key: ref.item for ref in message.leases.items}
            case "receipts":
                self.receipts |= {one.lease_token: one.result for one in message.receipts.receipts}
            case "cancellations":
                self.cancelled |= set(message.cancellations.lease_tokens)
            case "pulse":
                self.pulses += 1
                self.loads |= {load.queue: load for load in message.pulse.loads}
            case None:
                raise AssertionError("a message that says nothing")


def graded(token: str) -> pb.Outcome:
    """A good grade."""
    return pb.Outcome(lease_token=token, grade=GRADE)


def failed(token: str, reason: str = "the model is gone", *, code: int = 13) -> pb.Outcome:
    """The grader could not grade."""
    return pb.Outcome(lease_token=token, failure=status_pb2.Status(code=code, message=reason))


def released(token: str) -> pb.Outcome:
    """Handed back."""
    return pb.Outcome(lease_token=token, released=pb.Released())


@asynccontextmanager
async def worker(target: str, name: str = "w1", *, beats: bool = True) -> AsyncGenerator[ScriptedWorker]:
    """A connected worker that has said nothing yet; its connection dies with the block.

    It answers every pulse with a heartbeat that names no lease, unless ``beats`` is False.
    """
    async with grpc.aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        call = WorkServiceStub(channel).Work()
        scripted = ScriptedWorker(call, name, beats=beats)
        reader = asyncio.create_task(scripted._read(), name=f"read-{name}")  # pyright: ignore[reportPrivateUsage]
        try:
            yield scripted
        finally:
            call.cancel()
            await reader
