"""Whether a request may go on: idempotency and rate limits, with Redis and without it."""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from cinnabar_common.clock import Clock
from cinnabar_scheduler.limits import Charge, LimitState, charges_of
from cinnabar_scheduler.policy import Policy

log = logging.getLogger(__name__)

RESERVATION_SECONDS = 10.0
ANSWER_SECONDS = 86_400.0
MAX_ANSWER_BYTES = 4096
ASK_AGAIN_US = 50_000
AWAY_SECONDS = 1.0


class AdmissionUnavailable(Exception):
    """the store of admissions does not answer"""


class Result(enum.Enum):
    """What is decided on a request; the numbers are those of ``admit.lua``."""

    ADMITTED = 1
    REPLAY = 2
    KEY_REUSED = 3
    IN_PROGRESS = 4
    LIMITED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request that wants in. ``cost`` in units of the limits; ``key`` is empty for none."""

    tenant: str
    user: str
    method: str
    cost: int
    key: str = ""
    fingerprint: bytes = b""


@dataclass(frozen=True, slots=True)
class Claim:
    """A request with the limits that apply to it."""

    request: Request
    charges: tuple[Charge, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The decision. ``limit`` is the one that is nearest to its end, None when none applies."""

    result: Result
    reservation: str = ""
    answer: bytes = b""
    retry_after_us: int = 0
    limit: LimitState | None = None
    degraded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """How a request with a key ended: the answer to give from now on, or None when nothing came of it."""

    tenant: str
    user: str
    key: str
    reservation: str
    answer: bytes | None


class AdmissionStore(Protocol):
    """Idempotency keys and the usage of limits, of all tenants.

    Each request is decided atomically; those of one call one after the other. Every method raises
    AdmissionUnavailable: what it did is then not known.
    """

    async def admit(self, tenant: str, claims: Sequence[Claim]) -> list[Verdict]:
        """One verdict per claim, in order; all claims are of ``tenant``.

        First the key: an answer gives REPLAY, another fingerprint KEY_REUSED, a reservation IN_PROGRESS;
        none of these costs anything. Then the limits: all are charged, or none and the verdict is
        LIMITED, with the wait after which the cost fits, or with the longest period when it never does.
        What is ADMITTED with a key has reserved it for 10 s.
        """
        ...

    async def settle(self, tenant: str, ends: Sequence[Settlement]) -> list[bool]:
        """Keeps the answers for 24 h, frees the keys of those without; each key stands once in a call.

        For each whether its reservation still stood; otherwise nothing changed.
        """
        ...

    async def ping(self) -> None:
        """Returns when the store answers."""
        ...


@dataclass(slots=True)
class AdmissionCounters:
    """What was decided since the start, and whether it is decided without Redis now."""

    admitted: int = 0
    replayed: int = 0
    keys_reused: int = 0
    in_progress: int = 0
    limited: int = 0
    degraded_total: int = 0
    settled: int = 0
    degraded: bool = False


class Admissions:
    """Decides by the store that all schedulers share, and by one of its own while that is away.

    The own store keeps limits only: a key is then guarded by the unique index of the database.
    """

    def __init__(
        self, shared: AdmissionStore, own: AdmissionStore, policy: Callable[[], Policy], clock: Clock
    ) -> None:
        """``policy`` is asked at each call, so a change is in force with the next one."""
        self._shared = shared
        self._own = own
        self._policy = policy
        self._clock = clock
        self._ask_again = 0.0
        self.counters = AdmissionCounters()

    async def admit(self, requests: Sequence[Request]) -> list[Verdict]:
        """One verdict per request, in order. Never fails for want of the shared store."""
        policy = self._policy()
        by_tenant: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            by_tenant.setdefault(request.tenant, []).append(index)
        claims = [Claim(one, charges_of(policy, one.tenant, one.user, one.method)) for one in requests]
        answers = await asyncio.gather(
            *(self._admit(tenant, [claims[i] for i in members]) for tenant, members in by_tenant.items())
        )
        verdicts: dict[int, Verdict] = {}
        for members, decided in zip(by_tenant.values(), answers, strict=True):
            verdicts.update(zip(members, decided, strict=True))
        self._count(verdicts.values())
        return [verdicts[index] for index in range(len(requests))]

    async def settle(self, ends: Sequence[Settlement]) -> list[bool]:
        """Whether the reservation of each still stood. Without the shared store there is none."""
        by_tenant: dict[str, list[int]] = {}
        for index, end in enumerate(ends):
            by_tenant.setdefault(end.tenant, []).append(index)
        settled = [False] * len(ends)
        for tenant, members in by_tenant.items():
            if not self._reachable():
                break
            try:
                done = await self._shared.settle(tenant, [ends[index] for index in members])
            except AdmissionUnavailable as error:
                self._lost(error)
                break
            for index, one in zip(members, done, strict=True):
                settled[index] = one
        self.counters.settled += sum(settled)
        return settled

    async def healthy(self) -> None:
        """Raises AdmissionUnavailable while limits are this process's own. Also finds the way back."""
        try:
            await self._shared.ping()
        except AdmissionUnavailable as error:
            self._lost(error)
            raise
        self._found()

    async def _admit(self, tenant: str, claims: Sequence[Claim]) -> list[Verdict]:
        if self._reachable():
            try:
                verdicts = await self._shared.admit(tenant, claims)
            except AdmissionUnavailable as error:
                self._lost(error)
            else:
                self._found()
                return verdicts
        keyless = [Claim(replace(one.request, key="", fingerprint=b""), one.charges) for one in claims]
        return [replace(one, degraded=True) for one in await self._own.admit(tenant, keyless)]

    def _reachable(self) -> bool:
        """While it is away, one call a second finds out: the others lose no time."""
        if not self.counters.degraded:
            return True
        now = self._clock.monotonic()
        if now < self._ask_again:
            return False
        self._ask_again = now + AWAY_SECONDS
        return True

    def _lost(self, error: Exception) -> None:
        self._ask_again = self._clock.monotonic() + AWAY_SECONDS
        if not self.counters.degraded:
            self.counters.degraded = True
            log.warning("admission degraded", extra={"error": str(error)})

    def _found(self) -> None:
        if self.counters.degraded:
            self.counters.degraded = False
            log.info("admission recovered")

    def _count(self, verdicts: Iterable[Verdict]) -> None:
        counters = self.counters
        for verdict in verdicts:
            counters.degraded_total += verdict.degraded
            match verdict.result:
                case Result.ADMITTED:
                    counters.admitted += 1
                case Result.REPLAY:
                    counters.replayed += 1
                case Result.KEY_REUSED:
                    counters.keys_reused += 1
                case Result.IN_PROGRESS:
                    counters.in_progress += 1
                case Result.LIMITED:
                    counters.limited += 1
