"""Asking to be let in: what the gateway does with idempotency keys and limits.

The edge charges each call 1 unit. What a call costs beyond that, and all keys, are asked for here, of all
schedulers together. Admission is a guard, not a law: without a scheduler everything goes on, and the unique
index of the database alone sees to it that a request id takes effect once.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from cinnabar_common.clock import Clock
from cinnabar_common.coalescer import Coalescer
from cinnabar_common.errors import RateLimited, RequestIdReused, RequestInProgress, SuiteError
from cinnabar_gateway import deadlines
from cinnabar_gateway.identity import Identity
from cinnabar_gateway.records import NewSubmission, Reservation

log = logging.getLogger(__name__)

WAIT_SECONDS = 2.0
AWAY_SECONDS = 1.0
LAST_CHANCE_SECONDS = 1.0
_MARGIN_SECONDS = 0.1
_MAX_PAUSE_SECONDS = 0.4
_KEY_SEPARATOR = "\n"  # in no request id


class Result(enum.Enum):
    """What is decided; the names are those of the scheduler's API."""

    ADMITTED = 1
    REPLAY = 2
    KEY_REUSED = 3
    IN_PROGRESS = 4
    LIMITED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionRequest:
    """A request that wants in. ``cost`` in units of the limits; ``key`` is empty for none."""

    tenant: str
    user: str
    method: str
    cost: int
    key: str = ""
    fingerprint: bytes = b""


@dataclass(frozen=True, slots=True)
class LimitState:
    """The limit that refuses, or is nearest to its end: ``limit`` units in ``period_seconds``."""

    level: str
    limit: int
    remaining: int
    period_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The decision on one request."""

    result: Result
    reservation: str = ""
    answer: bytes = b""
    retry_seconds: float = 0.0
    limit: LimitState | None = None


@dataclass(frozen=True, slots=True)
class Settlement:
    """How a reserved request ended: the answer to give from now on, or None when nothing came of it."""

    reservation: Reservation
    answer: bytes | None


class Admissions(Protocol):
    """The scheduler's admission. Every method may raise DependencyUnavailable, after some 100 ms at most."""

    async def admit(self, requests: Sequence[AdmissionRequest]) -> list[Verdict]:
        """One verdict per request, in order; nothing is charged for what is not ADMITTED.

        An admitted key is reserved until it is settled, 10 s at most. Whoever asks meanwhile is told
        IN_PROGRESS, afterwards REPLAY with the answer; with another fingerprint KEY_REUSED.
        """
        ...

    async def settle(self, ends: Sequence[Settlement]) -> None:
        """Keeps the answers for a day, frees the keys of the others. One that stands no more is ignored."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call that hands in.

    ``charged`` units have been paid at the edge. Not ``guarded`` are request ids that were made for this
    call, so that nobody else can know them.
    """

    method: str
    charged: int = 0
    guarded: bool = True


@dataclass(frozen=True, slots=True)
class Replay:
    """The request was answered before: ``answer`` was settled for it."""

    answer: bytes


Decision = Replay | SuiteError | None
"""Answered before, refused, or None: go on."""

_DEGRADED = Verdict(result=Result.ADMITTED)


class Admission:
    """Use inside ``async with admission.running()``."""

    def __init__(
        self,
        admissions: Admissions,
        clock: Clock,
        *,
        wait_seconds: float = WAIT_SECONDS,
        max_pending: int = 50_000,
    ) -> None:
        """A request that is in progress elsewhere is waited for up to ``wait_seconds``."""
        self._admissions = admissions
        self._clock = clock
        self._wait = wait_seconds
        self._max_pending = max_pending
        self._asked = Coalescer[AdmissionRequest, Verdict](
            self._ask, name="scheduler.admit", max_batch=1000, max_pending=max_pending, lanes=2
        )
        self._away_until = -float("inf")
        self._ends: deque[Settlement] = deque()
        self._ended = asyncio.Event()
        self.away = False
        self.unsettled = 0

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Admission]:
        """Runs the batches; on exit what is to be settled gets one last chance."""
        async with self._asked.running(), asyncio.TaskGroup() as group:
            task = group.create_task(self._settle_all(), name="admission-settle")
            try:
                yield self
            finally:
                task.cancel()
        try:
            async with asyncio.timeout(LAST_CHANCE_SECONDS):
                while not self.away and await self.settle_once():
                    pass
        except TimeoutError:
            log.warning("left to run out", extra={"reservations": len(self._ends)})

    async def admit(self, identity: Identity, call: Call, new: Sequence[NewSubmission]) -> list[Decision]:
        """One decision per submission, in order; those that may go on have their ``reservation`` set.

        What has no key is charged together, all of it or nothing. A key that stands twice in a call is
        asked for once; which of the two counts is for storage to say.
        """
        decisions: list[Decision] = [None] * len(new)
        keys: dict[str, int] = {}
        plain: list[int] = []
        followers: list[tuple[int, int]] = []
        for index, one in enumerate(new):
            if one.refusal is not None:
                continue
            if not (call.guarded and one.request_id):
                plain.append(index)
            elif (first := keys.setdefault(_key(identity, one), index)) != index:
                followers.append((index, first))
        cost = max(0, len(plain) - call.charged)
        free = max(0, call.charged - len(plain))
        asked: list[tuple[list[int], AdmissionRequest]] = []
        if cost:
            asked.append((plain, _request(identity, call, cost)))
        for number, (key, index) in enumerate(keys.items()):
            request = _request(identity, call, int(number >= free), key, new[index].fingerprint)
            asked.append(([index], request))
        if not asked:
            return decisions
        verdicts = await self._decided([request for _, request in asked])
        for (members, request), verdict in zip(asked, verdicts, strict=True):
            for index in members:
                decisions[index] = _decision(request, verdict, new[index])
            if verdict.reservation:
                new[members[0]].reservation = Reservation(
                    identity.tenant, identity.user, request.key, verdict.reservation
                )
        for index, first in followers:
            decision = decisions[first]
            if isinstance(decision, (RateLimited, RequestInProgress)):
                decisions[index] = decision
        return decisions

    def settle(self, ends: Sequence[Settlement]) -> None:
        """Takes over what ended. Never waits, never raises: a reservation that is not settled runs out."""
        if len(self._ends) + len(ends) > self._max_pending:
            self.unsettled += len(ends)
            return
        self._ends.extend(ends)
        self._ended.set()

    async def settle_once(self) -> int:
        """Settles one batch; returns its size."""
        batch = [self._ends.popleft() for _ in range(min(len(self._ends), 1000))]
        if not batch:
            return 0
        try:
            await self._admissions.settle(batch)
        except asyncio.CancelledError:  # it may have arrived; settling twice is ignored
            self._ends.extendleft(reversed(batch))
            raise
        except SuiteError as error:
            self.unsettled += len(batch)
            self._lost(error)
        return len(batch)

    async def _settle_all(self) -> None:
        while True:
            while not self._ends:
                self._ended.clear()
                await self._ended.wait()
            await self.settle_once()

    async def _decided(self, requests: Sequence[AdmissionRequest]) -> list[Verdict]:
        """The verdicts, after waiting for what is in progress as long as that makes sense."""
        verdicts = await self._submit(requests)
        deadline = self._clock.monotonic() + deadlines.within(self._wait + _MARGIN_SECONDS) - _MARGIN_SECONDS
        pause = 0.0
        while pending := [i for i, one in enumerate(verdicts) if one.result is Result.IN_PROGRESS]:
            pause = min(max(2 * pause, verdicts[pending[0]].retry_seconds), _MAX_PAUSE_SECONDS)
            if self._clock.monotonic() + pause > deadline:
                break
            await asyncio.sleep(pause)
            again = await self._submit([requests[index] for index in pending])
            for index, verdict in zip(pending, again, strict=True):
                verdicts[index] = verdict
        return verdicts

    async def _submit(self, requests: Sequence[AdmissionRequest]) -> list[Verdict]:
        if self._clock.monotonic() < self._away_until:
            return [_DEGRADED] * len(requests)
        try:
            return await self._asked.submit_many(requests)
        except SuiteError as error:
            self._lost(error)
            return [_DEGRADED] * len(requests)

    async def _ask(self, batch: list[AdmissionRequest]) -> list[Verdict]:
        verdicts = await self._admissions.admit(batch)
        if self.away:
            self.away = False
            log.info("admission is back")
        return verdicts

    def _lost(self, error: SuiteError) -> None:
        """For a second nobody asks: an outage must not cost every call its share of waiting."""
        self._away_until = self._clock.monotonic() + AWAY_SECONDS
        if not self.away:
            self.away = True
            log.warning("admission away", extra={"error": error.message})


def _key(identity: Identity, new: NewSubmission) -> str:
    """A request id is unique per author; staff hand in for many."""
    if new.author == identity.user:
        return new.request_id
    return f"{new.author}{_KEY_SEPARATOR}{new.request_id}"


def _request(
    identity: Identity, call: Call, cost: int, key: str = "", fingerprint: bytes = b""
) -> AdmissionRequest:
    return AdmissionRequest(
        tenant=identity.tenant,
        user=identity.user,
        method=call.method,
        cost=cost,
        key=key,
        fingerprint=fingerprint,
    )


def _decision(request: AdmissionRequest, verdict: Verdict, new: NewSubmission) -> Decision:
    match verdict.result:
        case Result.ADMITTED:
            return None
        case Result.REPLAY:
            return Replay(verdict.answer)
        case Result.KEY_REUSED:
            return RequestIdReused(new.request_id)
        case Result.IN_PROGRESS:
            return RequestInProgress(new.request_id)
        case Result.LIMITED:
            limit = verdict.limit or LimitState("user", 0, 0, verdict.retry_seconds)
            return RateLimited(
                level=limit.level,
                limit=limit.limit,
                period_seconds=limit.period_seconds,
                retry_seconds=verdict.retry_seconds,
                cost=request.cost,
            )
