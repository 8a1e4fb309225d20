"""Many submissions over one stream: bounded windows, a status for each, retries that are safe."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias
from uuid import uuid4

import grpc

from cinnabar.gateway.v1 import submission_service_pb2 as pb
from cinnabar.gateway.v1.submission_service_pb2_grpc import SubmissionServiceStub
from cinnabar_client.connection import Connection, token_in
from cinnabar_client.errors import ApiError, from_rpc, from_status
from cinnabar_client.patience import Trouble, pause_seconds

BATCH = 200
IN_FLIGHT = 4
_BATCH_BYTES = 4 * 1024 * 1024
_LOOK_SECONDS = 0.5
_Stream: TypeAlias = (
    "grpc.aio.StreamStreamCall[pb.StreamCreateSubmissionsRequest, pb.StreamCreateSubmissionsResponse]"
)


@dataclass(frozen=True, slots=True)
class SubmitResult:
    """What became of one submission: accepted (``submission``) or refused (``error``), never both.

    ``index`` counts the submissions given from 0; ``request`` is as sent, with its request id.
    """

    index: int
    request: pb.CreateSubmissionRequest
    submission: pb.Submission | None = None
    error: ApiError | None = None


@dataclass(slots=True)
class Entry:
    """A submission that is not settled yet."""

    index: int
    request: pb.CreateSubmissionRequest
    attempts: int = 0
    failing_since: float | None = None


@dataclass(frozen=True, slots=True)
class _Batch:
    entries: Sequence[Entry]
    sent: float


class Outbox:
    """Which submissions wait, which are in flight and which wait for a retry. No I/O, no clock."""

    def __init__(self, *, batch: int = BATCH, in_flight: int = IN_FLIGHT, patience: float) -> None:
        self._batch = batch
        self._in_flight_limit = in_flight
        self._patience = patience
        self._fresh: deque[Entry] = deque()
        self._again: list[tuple[float, int, Entry]] = []
        self._in_flight: dict[int, _Batch] = {}
        self._batch_ids = itertools.count(1)

    @property
    def wants_more(self) -> bool:
        """Whether the source should be asked: at most one window waits beyond the one in flight."""
        return len(self._fresh) + len(self._again) < self._batch * self._in_flight_limit

    @property
    def empty(self) -> bool:
        """Whether everything that was put in is settled."""
        return not (self._fresh or self._again or self._in_flight)

    def put(self, entry: Entry) -> None:
        """A submission to send."""
        self._fresh.append(entry)

    def take(self, now: float) -> pb.StreamCreateSubmissionsRequest | None:
        """The next message to send at ``now``, or None: nothing is ready, or the window is full."""
        if len(self._in_flight) >= self._in_flight_limit:
            return None
        while self._again and self._again[0][0] <= now:
            self._fresh.append(heapq.heappop(self._again)[2])
        entries: list[Entry] = []
        size = 0
        while self._fresh and len(entries) < self._batch:
            size += self._fresh[0].request.ByteSize()
            if entries and size > _BATCH_BYTES:
                break
            entries.append(self._fresh.popleft())
        if not entries:
            return None
        batch_id = next(self._batch_ids)
        self._in_flight[batch_id] = _Batch(entries, now)
        return pb.StreamCreateSubmissionsRequest(batch_id=batch_id, requests=[e.request for e in entries])

    def overdue(self, now: float, limit: float) -> bool:
        """Whether a message has waited for its acknowledgement for more than ``limit`` seconds."""
        return any(now - batch.sent > limit for batch in self._in_flight.values())

    def next_retry(self) -> float | None:
        """When the next retry is due; None when none waits."""
        return self._again[0][0] if self._again else None

    def acknowledged(self, response: pb.StreamCreateSubmissionsResponse, now: float) -> list[SubmitResult]:
        """The submissions that an acknowledgement settles; those worth a retry wait for it instead."""
        batch = self._in_flight.pop(response.batch_id, None)
        if batch is None:
            return []
        if len(response.results) != len(batch.entries):
            error = ApiError(grpc.StatusCode.INTERNAL, "the acknowledgement does not fit its message")
            return self._failed(batch.entries, error, now)
        settled: list[SubmitResult] = []
        for entry, result in zip(batch.entries, response.results, strict=True):
            if result.HasField("error"):
                settled += self._failed([entry], from_status(result.error), now)
            else:
                settled.append(SubmitResult(entry.index, entry.request, submission=result.submission))
        return settled

    def lost(self, error: ApiError, now: float) -> list[SubmitResult]:
        """The stream broke: what was in flight is sent again, or settled when patience is at its end."""
        batches, self._in_flight = self._in_flight, {}
        return [result for batch in batches.values() for result in self._failed(batch.entries, error, now)]

    def _failed(self, entries: Sequence[Entry], error: ApiError, now: float) -> list[SubmitResult]:
        settled: list[SubmitResult] = []
        for entry in entries:
            if entry.failing_since is None:
                entry.failing_since = now
            entry.attempts += 1
            due = now + pause_seconds(entry.attempts, error.retry_after)
            if error.retryable and due - entry.failing_since <= self._patience:
                heapq.heappush(self._again, (due, entry.index, entry))
            else:
                settled.append(SubmitResult(entry.index, entry.request, error=error))
        return settled


class Submitter:
    """Drives an Outbox over as many streams as it takes."""

    def __init__(self, connection: Connection, outbox: Outbox, *, patience: float) -> None:
        self._connection = connection
        self._stub = SubmissionServiceStub(connection.channel)
        self._outbox = outbox
        self._trouble = Trouble(patience)
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._given = False
        self._finished = False

    async def results(
        self, source: Iterable[pb.CreateSubmissionRequest] | AsyncIterable[pb.CreateSubmissionRequest]
    ) -> AsyncGenerator[SubmitResult]:
        """One result per submission of ``source``, as they come.

        Raises ApiError when the whole stream is refused for good or cannot be had within the patience, and
        whatever ``source`` raises, once what it gave before is settled.
        """
        feed = asyncio.create_task(self._feed(source), name="submissions-feed")
        try:
            while not self._finished:
                async for result in self._one_stream():
                    yield result
            await feed
        finally:
            feed.cancel()
            await asyncio.gather(feed, return_exceptions=True)

    async def _feed(
        self, source: Iterable[pb.CreateSubmissionRequest] | AsyncIterable[pb.CreateSubmissionRequest]
    ) -> None:
        index = itertools.count()
        try:
            if isinstance(source, AsyncIterable):
                async for request in source:
                    await self._put(Entry(next(index), _with_request_id(request)))
            else:
                for request in source:
                    await self._put(Entry(next(index), _with_request_id(request)))
        finally:
            self._given = True
            self._changed.set()

    async def _put(self, entry: Entry) -> None:
        while not self._outbox.wants_more:
            self._room.clear()
            await self._room.wait()
        self._outbox.put(entry)
        self._changed.set()

    async def _one_stream(self) -> AsyncGenerator[SubmitResult]:
        sent = self._connection.tokens.sent()
        call = self._stub.StreamCreateSubmissions(metadata=self._connection.metadata(sent))
        writer = asyncio.create_task(self._write(call), name="submissions-writer")
        try:
            while (response := await self._read(call)) is not None:
                self._trouble.forget()
                sent.answered(response.consistency_token)
                for result in self._outbox.acknowledged(response, time.monotonic()):
                    yield result
                self._changed.set()
            if self._finished:
                sent.answered(token_in(await call.trailing_metadata()))
                return
            error = ApiError(grpc.StatusCode.UNAVAILABLE, "the stream ended early")
        except grpc.aio.AioRpcError as failure:
            error = from_rpc(failure)
            self._connection.refused(sent, error)
        except ApiError as failure:
            error = failure
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
            call.cancel()
        self._finished = False
        pause = self._trouble.pause(error)
        if pause is None:
            raise error
        for result in self._outbox.lost(error, time.monotonic()):
            yield result
        await asyncio.sleep(pause)

    async def _write(self, call: _Stream) -> None:
        """Sends what the outbox gives until everything is settled; a broken stream shows when reading."""
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while True:
                self._changed.clear()
                now = time.monotonic()
                message = self._outbox.take(now)
                self._room.set()
                if message is not None:
                    await call.write(message)
                elif self._given and self._outbox.empty:
                    self._finished = True
                    await call.done_writing()
                    return
                else:
                    due = self._outbox.next_retry()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(None if due is None else max(due - now, 0.01)):
                            await self._changed.wait()

    async def _read(self, call: _Stream) -> pb.StreamCreateSubmissionsResponse | None:
        """The next acknowledgement; None at the end of the stream. Raises ApiError when one is overdue."""
        # A read that is cancelled cancels the call, so the wait for it is bounded from outside.
        read = asyncio.ensure_future(call.read())
        try:
            while not (await asyncio.wait({read}, timeout=_LOOK_SECONDS))[0]:
                if self._outbox.overdue(time.monotonic(), self._connection.timeout):
                    raise ApiError(grpc.StatusCode.DEADLINE_EXCEEDED, "no acknowledgement in time")
        finally:
            if not read.done():
                read.cancel()
                await asyncio.gather(read, return_exceptions=True)
        response = read.result()
        return response if isinstance(response, pb.StreamCreateSubmissionsResponse) else None


def _with_request_id(request: pb.CreateSubmissionRequest) -> pb.CreateSubmissionRequest:
    """The same request, with an id that makes sending it twice safe."""
    if request.request_id:
        return request
    copy = pb.CreateSubmissionRequest()
    copy.CopyFrom(request)
    copy.request_id = uuid4().hex
    return copy
