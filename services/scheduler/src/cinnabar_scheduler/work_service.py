"""The work stream: reads what a worker says, writes what the scheduler has for it."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError

from cinnabar.scheduler.v1 import work_service_pb2 as pb
from cinnabar.scheduler.v1.work_service_pb2_grpc import WorkServiceServicer
from cinnabar_common.errors import DependencyUnavailable, WorkerProtocolViolation
from cinnabar_scheduler import convert
from cinnabar_scheduler.dispatch import Attachment, Delivery, Dispatcher
from cinnabar_scheduler.load_board import LoadBoard
from cinnabar_scheduler.outcomes import Failure, Fate, Outcomes
from cinnabar_scheduler.ports import Queue, QueueUnavailable
from cinnabar_scheduler.progress import ProgressReports
from cinnabar_scheduler.service_times import ServiceTimes
from cinnabar_scheduler.session import HELLO_SECONDS, ProtocolViolation, WorkerSession
from cinnabar_scheduler.tasks import Grade, Lease, LeaseToken, QueueName, Why
from cinnabar_scheduler.work_files import WorkFiles
from cinnabar_scheduler.work_progress import WorkProgress

log = logging.getLogger(__name__)

MAX_REPORTS_IN_FLIGHT = 16
# A worker that does not read is not read from either.
MAX_UNREAD = 64
# With so many messages unread it needs no proof of life besides.
UNREAD_AT_PULSE = 4
HEARTBEATS_PER_LEASE = 3
# A worker that has said nothing for so many heartbeat intervals gets no new leases until it speaks.
QUIET_INTERVALS = 2
# Silence is counted in steps of so many to an interval, and of a second at most, by this process being
# awake: one that was stopped itself does not blame the workers for it.
STEPS_PER_INTERVAL = 4
LONGEST_STEP_SECONDS = 1.0
# A status cannot be sent while a message is: the last one gets so long to go out.
LAST_WRITE_SECONDS = 1.0
_UNREADABLE = Failure("the answer is not readable", Why.PERMANENT)
FilesContext = grpc.aio.ServicerContext[Any, Any]
Context = grpc.aio.ServicerContext[pb.WorkRequest, pb.WorkResponse]


@dataclass(slots=True)
class _Report:
    """The outcomes of one report by what is to be done, and what is known of them already."""

    receipts: list[pb.Receipt] = field(default_factory=list[pb.Receipt])
    graded: list[tuple[Lease, Grade]] = field(default_factory=list[tuple[Lease, Grade]])
    failed: list[tuple[Lease, Failure]] = field(default_factory=list[tuple[Lease, Failure]])
    malformed: list[tuple[Lease, Failure]] = field(default_factory=list[tuple[Lease, Failure]])
    released: list[Lease] = field(default_factory=list[Lease])


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a worker agrees to by its hello."""

    lease_seconds: float
    max_credits: int
    silence_limit_seconds: float = 60.0

    @property
    def heartbeat_seconds(self) -> float:
        """How often both sides are to speak."""
        return self.lease_seconds / HEARTBEATS_PER_LEASE

    def session(self) -> WorkerSession:
        """A new session on these terms."""
        return WorkerSession(
            self.max_credits,
            quiet_seconds=QUIET_INTERVALS * self.heartbeat_seconds,
            silence_limit_seconds=self.silence_limit_seconds,
            hello_seconds=min(HELLO_SECONDS, self.silence_limit_seconds),
        )


class WorkService(WorkServiceServicer):
    """Speaks the protocol of work_service.proto; knows nothing of Redis or storage.

    When ``leaving`` is set every stream ends with UNAVAILABLE, after its reports in flight.
    """

    def __init__(
        self,
        queue: Queue,
        dispatcher: Dispatcher,
        outcomes: Outcomes,
        leaving: asyncio.Event,
        terms: Terms,
        times: ServiceTimes,
        files: WorkFiles,
        reports: ProgressReports,
        board: LoadBoard,
    ) -> None:
        self._queue = queue
        self._dispatcher = dispatcher
        self._outcomes = outcomes
        self._board = board
        self._leaving = leaving
        self._terms = terms
        self._times = times
        self._files = files
        self._reports = reports

    async def GetFiles(self, request: pb.GetFilesRequest, context: FilesContext) -> pb.GetFilesResponse:
        return await self._files.links(request)

    async def CreateArtifact(
        self, request: pb.CreateArtifactRequest, context: FilesContext
    ) -> pb.CreateArtifactResponse:
        return await self._files.prepare(request)

    async def Work(  # pyright: ignore[reportIncompatibleMethodOverride]  # writes with context.write
        self, request_iterator: object, context: Context
    ) -> None:
        stream = _WorkStream(
            *(self._queue, self._dispatcher, self._outcomes, context),
            *(self._leaving, self._terms, self._times, self._files, self._reports, self._board),
        )
        await stream.run(self._terms.session())


class _WorkStream:
    def __init__(
        self,
        queue: Queue,
        dispatcher: Dispatcher,
        outcomes: Outcomes,
        context: Context,
        leaving: asyncio.Event,
        terms: Terms,
        times: ServiceTimes,
        files: WorkFiles,
        reports: ProgressReports,
        board: LoadBoard,
    ) -> None:
        self._queue = queue
        self._dispatcher = dispatcher
        self._outcomes = outcomes
        self._board = board
        self._round = 0
        self._files = files
        self._reports = reports
        self._context = context
        self._leaving = leaving
        self._terms = terms
        self._times = times
        self._listening = False
        # Bounded by credits, by MAX_REPORTS_IN_FLIGHT and by MAX_UNREAD: nobody can put more in it.
        self._outbox: asyncio.Queue[Delivery | pb.WorkResponse | None] = asyncio.Queue()
        self._room = asyncio.Event()
        self._slots = asyncio.Semaphore(MAX_REPORTS_IN_FLIGHT)

    async def run(self, session: WorkerSession) -> None:
        attachment = Attachment(session, self._outbox.put_nowait)
        self._progress = WorkProgress(self._reports, session, self._outbox.put_nowait)
        try:
            async with asyncio.TaskGroup() as group:
                writer = group.create_task(self._write(session), name="work-writer")
                keeper = group.create_task(self._keep(session), name="work-keeper")
                leaving = group.create_task(self._leaving.wait(), name="work-leaving")
                watch = group.create_task(self._watch(session), name="work-watch")
                progress = group.create_task(self._progress.run(), name="work-progress")
                async with asyncio.TaskGroup() as reports:
                    reader = reports.create_task(self._read(session, attachment, reports), name="work-reader")
                    await asyncio.wait((reader, leaving, watch), return_when=asyncio.FIRST_COMPLETED)
                    reader.cancel()
                    self._dispatcher.detach(attachment)
                violation = next((result for task in (reader, watch) if (result := _result(task))), None)
                leaving.cancel()
                watch.cancel()
                keeper.cancel()
                progress.cancel()
                self._outbox.put_nowait(None)
                ends_early = self._leaving.is_set() or violation is not None or reader.cancelled()
                await asyncio.wait((writer,), timeout=LAST_WRITE_SECONDS if ends_early else None)
                writer.cancel()
            if violation is not None:
                raise violation
            if self._leaving.is_set():
                raise DependencyUnavailable("scheduler")
        finally:
            self._dispatcher.detach(attachment)
            await self._let_go(session)

    async def _let_go(self, session: WorkerSession) -> None:
        lost = [*session.held.values(), *session.committing.values()]
        if not lost:
            return
        log.info("worker lost", extra={"worker": session.worker, "leases": len(lost)})
        if self._leaving.is_set():  # not the worker's fault
            await asyncio.shield(self._outcomes.release(lost))
        else:
            await asyncio.shield(self._outcomes.lose(session.worker, lost))

    async def _read(
        self, session: WorkerSession, attachment: Attachment, reports: asyncio.TaskGroup
    ) -> WorkerProtocolViolation | None:
        """Reads until the worker half-closes, or breaks the protocol: that is returned, not raised."""
        while True:
            try:
                request = await self._next()
                if request is None:
                    return None
                if session.heard():
                    self._wake(session)
                match request.WhichOneof("event"):
                    case "hello":
                        session.hello(*convert.hello(request.hello))
                        self._dispatcher.attach(attachment)
                        self._outbox.put_nowait(self._welcome(session))
                        log.info(
                            "worker connected",
                            extra={"worker": session.worker, "version": request.hello.version},
                        )
                    case "ready":
                        self._dispatcher.wake(session.ready(request.ready.queue, request.ready.credits))
                    case "heartbeat":
                        await self._heartbeat(session, request.heartbeat)
                    case "report":
                        if len(request.report.outcomes) > convert.MAX_OUTCOMES:
                            raise ProtocolViolation(f"at most {convert.MAX_OUTCOMES} outcomes in a report")
                        report = self._taken_over(session, request.report)
                        await self._slots.acquire()
                        reports.create_task(self._settle(session, report), name="work-report")
                    case "progress":
                        self._progress.told(request.progress)
                    case None:
                        raise ProtocolViolation("a message says something")
            except ProtocolViolation as violation:
                return WorkerProtocolViolation(violation.rule)
            while self._outbox.qsize() > MAX_UNREAD:
                self._room.clear()
                await self._room.wait()

    async def _next(self) -> pb.WorkRequest | None:
        """The next message, None at the end of the stream. ProtocolViolation when it is none."""
        self._listening = True
        try:
            request = await self._context.read()
        except DecodeError as error:
            raise ProtocolViolation("a message is a WorkRequest") from error
        finally:
            self._listening = False
        if request is grpc.aio.EOF:
            return None
        assert isinstance(request, pb.WorkRequest)
        return request

    def _wake(self, session: WorkerSession) -> None:
        """The worker was quiet and is not any more: its credits count again."""
        log.info("worker speaks again", extra={"worker": session.worker})
        for queue, credits in session.credits.items():
            if credits:
                self._dispatcher.wake(queue)

    async def _watch(self, session: WorkerSession) -> WorkerProtocolViolation:
        """Says that this side lives; returns when the other one has said nothing for too long.

        Time in which this side does not listen is not counted.
        """
        interval = self._terms.heartbeat_seconds
        step = min(LONGEST_STEP_SECONDS, interval / STEPS_PER_INTERVAL)
        for number in itertools.count(1):
            await asyncio.sleep(step)
            was_quiet = session.quiet
            if self._listening:
                try:
                    session.elapse(step)
                except ProtocolViolation as violation:
                    return WorkerProtocolViolation(violation.rule)
            if session.quiet and not was_quiet:
                log.info("worker says nothing", extra={"worker": session.worker})
            # Whatever else waits to be written is a proof of life too.
            due = session.worker and number % math.ceil(interval / step) == 0
            if due and self._outbox.qsize() < UNREAD_AT_PULSE:
                self._outbox.put_nowait(pb.WorkResponse(pulse=self._pulse(session)))
        raise AssertionError("counting ends")

    def _pulse(self, session: WorkerSession) -> pb.Pulse:
        if self._board.round == self._round:
            return pb.Pulse()
        self._round = self._board.round
        return pb.Pulse(loads=map(convert.queue_load, self._board.of(session.queues)))

    def _welcome(self, session: WorkerSession) -> pb.WorkResponse:
        return pb.WorkResponse(
            welcome=pb.Welcome(
                lease_duration=_duration(self._terms.lease_seconds),
                heartbeat_interval=_duration(self._terms.heartbeat_seconds),
                max_credits=session.max_credits,
                silence_limit=_duration(self._terms.silence_limit_seconds),
            )
        )

    async def _heartbeat(self, session: WorkerSession, heartbeat: pb.Heartbeat) -> None:
        known, unknown = session.heartbeat(heartbeat.lease_tokens)
        lost = unknown + session.drop(await self._extend(known))
        if lost:
            self._outbox.put_nowait(Delivery(cancelled=lost))

    async def _extend(self, leases: list[Lease]) -> list[LeaseToken]:
        lost: list[LeaseToken] = []
        by_queue: dict[QueueName, list[tuple[str, LeaseToken]]] = defaultdict(list)
        for lease in leases:
            by_queue[lease.queue].append((lease.task, lease.token))
        for queue, held in by_queue.items():
            try:
                lost += await self._queue.extend(queue, held)
            except QueueUnavailable:
                # The work goes on: the fence decides, when it is done, whether it counts.
                log.debug("heartbeat not recorded", extra={"queue": queue})
        return lost

    async def _keep(self, session: WorkerSession) -> None:
        """Extends leases whose worker cannot: it has let go of them, or is not being read."""
        while True:
            await asyncio.sleep(self._terms.heartbeat_seconds)
            await self._extend(list(session.committing.values()))
            if self._slots.locked():
                await self._extend(list(session.held.values()))

    def _taken_over(self, session: WorkerSession, report: pb.Report) -> _Report:
        """Takes the leases of a report over from its worker. Raises ProtocolViolation before the hello."""
        result = _Report()
        now = time.monotonic()
        worked: dict[QueueName, list[float]] = defaultdict(list)
        for outcome in report.outcomes:
            lease = session.finish(outcome.lease_token)
            if lease is None:
                result.receipts.append(convert.receipt(outcome.lease_token, Fate.STALE_LEASE))
                continue
            kind = outcome.WhichOneof("result")
            if kind == "released":
                result.released.append(lease)
                continue
            worked[lease.queue].append(now - session.taken_at(lease.token))
            match kind:
                case "grade":
                    verdict = convert.grade(outcome)
                    if isinstance(verdict, Grade):
                        result.graded.append((lease, verdict))
                    else:
                        result.malformed.append((lease, verdict))
                case "failure":
                    result.failed.append((lease, convert.failure(outcome)))
                case None:
                    result.malformed.append((lease, Failure("the outcome has no result")))
        for queue, seconds in worked.items():
            self._times.observe(queue, seconds, now)
        self._outcomes.stale(len(result.receipts))
        return result

    async def _settle(self, session: WorkerSession, report: _Report) -> None:
        try:
            receipts = report.receipts
            if any(grade.artifacts for _, grade in report.graded):
                report.graded, unusable = await self._files.checked(report.graded)
                report.failed += unusable
            if report.graded:
                fates = await self._outcomes.grade(session.worker, report.graded)
                receipts += [
                    convert.receipt(lease.token, fate)
                    for (lease, _), fate in zip(report.graded, fates, strict=True)
                ]
            if report.failed:
                fates = await self._outcomes.fail(session.worker, report.failed)
                receipts += [
                    convert.receipt(lease.token, fate)
                    for (lease, _), fate in zip(report.failed, fates, strict=True)
                ]
            if report.malformed:
                await self._outcomes.reject(session.worker, report.malformed)
                receipts += [convert.receipt(lease.token, Fate.REJECTED) for lease, _ in report.malformed]
            if report.released:
                fates = await self._outcomes.release(report.released)
                receipts += [
                    convert.receipt(lease.token, fate)
                    for lease, fate in zip(report.released, fates, strict=True)
                ]
            for receipt in receipts:
                session.settle(LeaseToken(receipt.lease_token))
            self._outbox.put_nowait(pb.WorkResponse(receipts=pb.Receipts(receipts=receipts)))
        finally:
            self._slots.release()

    async def _write(self, session: WorkerSession) -> None:
        while (message := await self._outbox.get()) is not None:
            self._room.set()
            if isinstance(message, pb.WorkResponse):
                await self._context.write(message)
                continue
            unreadable: list[Lease] = []
            for response in convert.deliveries(message, unreadable.append):
                await self._context.write(response)
            if unreadable:
                session.drop([lease.token for lease in unreadable])
                await self._outcomes.fail(session.worker, [(lease, _UNREADABLE) for lease in unreadable])


def _result(task: asyncio.Task[WorkerProtocolViolation | None]) -> WorkerProtocolViolation | None:
    return task.result() if task.done() and not task.cancelled() else None


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromMilliseconds(int(seconds * 1000))
    return duration
