"""The worker stream to one scheduler: connects, works, connects again."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc

from cinnabar.scheduler.v1 import work_service_pb2 as pb
from cinnabar.scheduler.v1.work_service_pb2_grpc import WorkServiceStub
from cinnabar_common.channels import channel
from cinnabar_common.interceptors import sole
from cinnabar_grader import convert
from cinnabar_grader.adapters.files import StreamFiles
from cinnabar_grader.convert import CompiledItems, StreamItems
from cinnabar_grader.graders import LeaseToken
from cinnabar_grader.pipeline import Desk, LaneOf, QueueLane
from cinnabar_grader.pool import Backlog
from cinnabar_grader.worker import WorkerSession

if TYPE_CHECKING:
    from cinnabar.scheduler.v1.work_service_pb2_grpc import WorkServiceAsyncStub

log = logging.getLogger(__name__)

Call: TypeAlias = "grpc.aio.StreamStreamCall[pb.WorkRequest, pb.WorkResponse]"

WELCOME_SECONDS = 5.0
"""How long the scheduler may take to answer a hello."""
CLOSING_SECONDS = 2.0
"""How long it may take to end the stream after we half-closed."""
BACKOFF_SECONDS = (0.05, 1.0)
"""Bounds of the pause before connecting again; doubled each time, a random part of it is waited."""
ITEMS_BYTES = 64 * 1024 * 1024
"""A stream that carried so many bytes of items is drained and opened anew: items are sent once per
stream and so may not be forgotten, but memory must have a bound."""
HEARTBEAT_SECONDS = 1.0
"""Interval of heartbeats when the scheduler names none."""
PROGRESS_SECONDS = 0.25
"""Pause between two times of telling progress."""
LEASE_SECONDS = 15.0
"""How long a scheduler may say nothing before it has told its lease duration."""
LISTEN_STEPS = 20
"""Silence is counted in so many steps to a lease, by this process being awake: one that was stopped does
not take its own sleep for the scheduler's."""

_EXPECTED = frozenset({pb.Receipt.COMMITTED, pb.Receipt.RETURNED, pb.Receipt.RETRYING})


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings:
    """What the streams of a process have in common."""

    version: str
    credits: Mapping[str, int]
    """Tasks to take ahead, for each queue of the hello."""
    compiled: CompiledItems
    transfers: Executor | None = None
    """Where files are moved; without it answers that are files cannot be graded."""
    items_bytes: int = ITEMS_BYTES
    jitter: Callable[[], float] = random.random
    """Gives 0..1."""


class SchedulerStream:
    """Works for one scheduler until drained.

    A lost stream loses its leases: the scheduler gives them to others, so whatever was not
    reported is dropped, and the next stream starts from nothing.
    """

    def __init__(self, address: str, *, worker: str, settings: StreamSettings) -> None:
        self.address = address
        self._worker = worker
        self._settings = settings
        self._lanes: dict[str, LaneOf] = {}
        self._wanted: dict[str, int] = {}
        self._current: _Connection | None = None
        self._share = 1.0
        self._lease_seconds = LEASE_SECONDS
        self._heard_at = time.monotonic()
        self._stopping = asyncio.Event()
        self._stopped = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Whether a scheduler has welcomed us on the stream that is open now."""
        return self._current is not None and self._current.welcomed

    @property
    def deaf(self) -> bool:
        """Whether nothing at all was heard for longer than a lease lives."""
        return time.monotonic() - self._heard_at > self._lease_seconds

    @property
    def loads(self) -> Mapping[str, Backlog]:
        """What waits at the scheduler, by queue, as it said last; empty while there is no stream."""
        return {} if self._current is None else self._current.loads

    def held_of(self, queue: str) -> int:
        """Tasks of a queue that are under lease here."""
        return 0 if self._current is None else self._current.held_of(queue)

    def throttle(self, share: float) -> None:
        """Take only this share (0 to 1) of the wanted credits, now and on every later stream."""
        self._share = share
        if self._current is not None:
            self._current.throttle(share)

    def serve(self, queue: str, lane_of: LaneOf) -> None:
        """The grader of a queue is ready: ask for its tasks, now and on every later stream."""
        self._lanes[queue] = lane_of
        if self._current is not None:
            self._current.serve(queue, lane_of)

    def want(self, queue: str, credits: int) -> None:
        """Take so many tasks of a queue ahead, now and on every later stream."""
        self._wanted[queue] = credits
        if self._current is not None:
            self._current.want(queue, credits)

    async def run(self) -> None:
        """Keeps a stream open until drained."""
        failures = 0
        try:
            async with channel(self.address) as connection:
                stub: WorkServiceAsyncStub = WorkServiceStub(connection)
                while not self._stopping.is_set():
                    failures = 0 if await self.run_once(stub) else failures + 1
                    await self._pause(failures)
        finally:
            self._stopped.set()

    async def run_once(self, stub: WorkServiceAsyncStub) -> bool:
        """One stream from hello to its end; returns whether we were welcomed."""
        # No deadline: the stream lives as long as both sides do; keepalive finds a dead peer.
        transfers = self._settings.transfers
        files = StreamFiles(stub, transfers) if transfers is not None else None
        current = _Connection(stub.Work(timeout=None), self._settings, self._heard, files)
        current.throttle(self._share)
        for queue, credits in self._wanted.items():
            current.want(queue, credits)
        self._current = current
        fields = {"scheduler": self.address}
        try:
            await current.run(
                convert.hello(self._worker, list(self._settings.credits), self._settings.version),
                self._lanes,
            )
            log.info("stream ended", extra=fields)
        except* (grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError) as errors:
            error = sole(errors)
            ours = isinstance(error, grpc.aio.AioRpcError) and error.code() in _OUR_FAULT
            log.log(
                logging.ERROR if ours else logging.WARNING,
                "stream lost",
                extra=fields | {"error": _words(error)},
            )
        finally:
            self._current = None
        return current.welcomed

    def _heard(self, lease_seconds: float) -> None:
        self._heard_at = time.monotonic()
        self._lease_seconds = lease_seconds

    async def drain(self, seconds: float) -> None:
        """Hands back what has not begun, reports what runs, closes.

        What still runs after ``seconds`` is stopped and handed back too; a scheduler that does not
        take it within `CLOSING_SECONDS` finds the stream closed. Safe to call at any time, and again;
        returns when `run` has ended, or soon will.
        """
        self._stopping.set()
        if self._current is not None:
            self._current.drain()
        if await self._ended(seconds):
            return
        if self._current is not None:
            log.info("work handed back", extra={"scheduler": self.address, "held": self._current.held})
            self._current.hand_back()
        if not await self._ended(CLOSING_SECONDS) and self._current is not None:
            log.warning("drain gave up", extra={"scheduler": self.address, "held": self._current.held})
            self._current.abandon()

    async def _ended(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopped.wait()
                return True
        return False

    async def _pause(self, failures: int) -> None:
        shortest, longest = BACKOFF_SECONDS
        bound = min(longest, shortest * 2.0 ** min(failures, 16))
        with suppress(TimeoutError):
            async with asyncio.timeout(bound * self._settings.jitter()):
                await self._stopping.wait()


_OUR_FAULT = frozenset(
    {
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
    }
)


def _words(error: BaseException) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return str(error) or type(error).__name__


class _Connection:
    """One stream: a reader, a writer, a heart, an ear, and a lane per queue around a session.

    ``heard`` is called with the duration of leases, in seconds, whenever the scheduler says something.
    """

    def __init__(
        self,
        call: Call,
        settings: StreamSettings,
        heard: Callable[[float], None],
        files: StreamFiles | None,
    ) -> None:
        self.welcomed = False
        self.loads: dict[str, Backlog] = {}
        self._heard = heard
        self._lease_seconds = LEASE_SECONDS
        self._silence = 0.0
        self._call = call
        self._files = files
        self._settings = settings
        self._session = WorkerSession(settings.credits)
        self._items = StreamItems(settings.compiled)
        self._lanes: dict[str, QueueLane] = {}
        self._group = asyncio.TaskGroup()
        self._tasks: list[asyncio.Task[None]] = []
        self._news = asyncio.Event()
        self._progressed = asyncio.Event()
        self._over = asyncio.Event()

    @property
    def held(self) -> int:
        """Leases without a receipt."""
        return self._session.held

    def held_of(self, queue: str) -> int:
        """Those of a queue."""
        return self._session.held_of(queue)

    def serve(self, queue: str, lane_of: LaneOf) -> None:
        """Opens a queue."""
        if queue not in self._settings.credits or queue in self._lanes or self._over.is_set():
            return
        lane = lane_of(Desk(work=self._session, reported=self._news.set, files=self._files))
        self._lanes[queue] = lane
        self._spawn(lane.run(), f"lane-{queue}")
        self._session.open(queue)
        self._news.set()

    def want(self, queue: str, credits: int) -> None:
        """Takes more or fewer tasks of a queue ahead."""
        self._session.want(queue, credits)
        self._news.set()

    def throttle(self, share: float) -> None:
        """Takes fewer tasks ahead, or more again."""
        self._session.throttle(share)
        self._news.set()

    def drain(self) -> None:
        """Ends the stream when what runs has been reported."""
        self._session.drain()
        self._news.set()

    def hand_back(self) -> None:
        """Stops what runs, and ends the stream when that has been reported."""
        self._session.hand_back()
        for lane in self._lanes.values():
            lane.cancel(self._session.tokens)
        self._news.set()

    def abandon(self) -> None:
        """Ends the stream now."""
        self._session.abandon()
        self._over.set()

    async def run(self, hello: pb.WorkRequest, lanes: Mapping[str, LaneOf]) -> None:
        """From hello to the end of the stream.

        A group of AioRpcError or TimeoutError when it is lost, or the scheduler says nothing for a lease.
        """
        try:
            async with self._group:
                self._spawn(self._read(hello), "stream-reader")
                self._spawn(self._write(), "stream-writer")
                self._spawn(self._tell(), "stream-progress")
                for queue, lane_of in list(lanes.items()):
                    self.serve(queue, lane_of)
                await self._over.wait()
                for task in self._tasks:
                    task.cancel()
        finally:
            self._over.set()
            self._call.cancel()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.append(self._group.create_task(work, name=name))

    async def _read(self, hello: pb.WorkRequest) -> None:
        try:
            async with asyncio.timeout(WELCOME_SECONDS):
                await self._call.write(hello)
                first = await self._call.read()
            if isinstance(first, pb.WorkResponse) and first.HasField("welcome"):
                self._welcome(first.welcome)
                while isinstance(response := await self._call.read(), pb.WorkResponse):
                    self._hear()
                    self._handle(response)
        finally:
            self._over.set()

    def _welcome(self, terms: pb.Welcome) -> None:
        self.welcomed = True
        self._session.welcomed(max_credits=terms.max_credits)
        lease = terms.lease_duration.ToNanoseconds() / 1e9
        self._lease_seconds = lease if lease > 0 else LEASE_SECONDS
        self._hear()
        self._spawn(self._listen(), "stream-ear")
        interval = terms.heartbeat_interval.ToNanoseconds() / 1e9
        self._spawn(self._beat(interval if interval > 0 else HEARTBEAT_SECONDS), "stream-heart")
        self._news.set()
        log.info("stream open")

    def _handle(self, response: pb.WorkResponse) -> None:
        session = self._session
        match response.WhichOneof("event"):
            case "leases":
                self._items.add(response.leases.items)
                for queue in session.leased(self._items.tasks(response.leases.tasks)):
                    if queue in self._lanes:  # else they wait for their grader
                        self._lanes[queue].wake()
                if self._items.size > self._settings.items_bytes and not session.draining:
                    log.info("stream is renewed", extra={"items_bytes": self._items.size})
                    session.drain()
            case "receipts":
                receipts = response.receipts.receipts
                session.receipted([LeaseToken(receipt.lease_token) for receipt in receipts])
                _note(receipts)
            case "cancellations":
                tokens = [LeaseToken(token) for token in response.cancellations.lease_tokens]
                session.cancelled(tokens)
                for lane in self._lanes.values():
                    lane.cancel(tokens)
            case "pulse":
                self.loads |= convert.loads_of(response.pulse)
                return
            case "welcome" | None:
                log.warning("message not understood")
        self._news.set()

    async def _write(self) -> None:
        # A write to a stream that has ended fails; how it ended is for the reader to tell.
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while not self._session.closed:
                await self._news.wait()
                self._news.clear()
                while messages := self._session.take():
                    for message in messages:
                        if (request := convert.request_of(message)) is not None:
                            await self._call.write(request)
                    if self._session.closed:
                        break
                if self._session.progressing:
                    self._progressed.set()
            await self._call.done_writing()
            await asyncio.sleep(CLOSING_SECONDS)
            self._over.set()

    def _hear(self) -> None:
        self._silence = 0.0
        self._heard(self._lease_seconds)

    async def _listen(self) -> None:
        step = self._lease_seconds / LISTEN_STEPS
        while self._silence <= self._lease_seconds:
            await asyncio.sleep(step)
            self._silence += step
        raise TimeoutError("the scheduler says nothing")

    async def _tell(self) -> None:
        """Lets progress go out, but not oftener than every `PROGRESS_SECONDS`."""
        while True:
            await self._progressed.wait()
            self._session.tell()
            self._news.set()
            await asyncio.sleep(PROGRESS_SECONDS)
            if not self._session.progressing:
                self._progressed.clear()

    async def _beat(self, interval: float) -> None:
        while True:
            await asyncio.sleep(interval)
            self._session.beat()
            self._news.set()


def _note(receipts: Iterable[pb.Receipt]) -> None:
    unexpected = Counter(receipt.result for receipt in receipts if receipt.result not in _EXPECTED)
    for result, count in unexpected.items():
        level = logging.ERROR if result == pb.Receipt.REJECTED else logging.INFO
        log.log(
            level, "outcomes without effect", extra={"result": pb.Receipt.Result.Name(result), "count": count}
        )
