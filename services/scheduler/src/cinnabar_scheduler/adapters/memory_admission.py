"""Admission in this process's memory: what a scheduler falls back on, and the model of the Redis one."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from cinnabar_common.clock import Clock
from cinnabar_scheduler.admission import (
    ANSWER_SECONDS,
    ASK_AGAIN_US,
    RESERVATION_SECONDS,
    Claim,
    Result,
    Settlement,
    Verdict,
)
from cinnabar_scheduler.limits import Charge, LimitState, Usage, nearest, state_of, usage_at, wait_us

K = TypeVar("K")
V = TypeVar("V")


@dataclass(slots=True)
class _Key:
    fingerprint: bytes
    until_us: int
    reservation: str
    answer: bytes


class MemoryAdmission:
    """Implements AdmissionStore. Of limits and of keys each the ``max_entries`` used last are kept."""

    def __init__(
        self,
        clock: Clock,
        *,
        reservation_seconds: float = RESERVATION_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
        max_entries: int = 100_000,
    ) -> None:
        self._clock = clock
        self._reservation_us = round(reservation_seconds * 1e6)
        self._answer_us = round(answer_seconds * 1e6)
        self._max = max_entries
        self._usage: OrderedDict[tuple[str, str], Usage] = OrderedDict()
        self._keys: OrderedDict[tuple[str, str, str], _Key] = OrderedDict()

    def __len__(self) -> int:
        """Limits and keys that are remembered."""
        return len(self._usage) + len(self._keys)

    async def admit(self, tenant: str, claims: Sequence[Claim]) -> list[Verdict]:
        """See AdmissionStore."""
        now_us = int(self._clock.time() * 1e6)
        return [self._admit(tenant, claim, now_us) for claim in claims]

    async def settle(self, tenant: str, ends: Sequence[Settlement]) -> list[bool]:
        """See AdmissionStore."""
        now_us = int(self._clock.time() * 1e6)
        return [self._settle((tenant, end.user, end.key), end, now_us) for end in ends]

    async def ping(self) -> None:
        """See AdmissionStore."""

    def flush(self) -> None:
        """Forgets everything."""
        self._usage.clear()
        self._keys.clear()

    def _admit(self, tenant: str, claim: Claim, now_us: int) -> Verdict:
        request = claim.request
        known = self._keys.get((tenant, request.user, request.key)) if request.key else None
        if known is not None and known.until_us > now_us:
            state = self._state(tenant, claim.charges, now_us)
            if known.fingerprint != request.fingerprint:
                return Verdict(result=Result.KEY_REUSED, limit=state)
            if not known.reservation:
                return Verdict(result=Result.REPLAY, answer=known.answer, limit=state)
            again = min(ASK_AGAIN_US, known.until_us - now_us)
            return Verdict(result=Result.IN_PROGRESS, retry_after_us=again, limit=state)
        usages = [self._now(tenant, charge, now_us) for charge in claim.charges]
        waits = [
            wait_us(usage.used, request.cost, charge.limit.units, charge.period_us)
            for usage, charge in zip(usages, claim.charges, strict=True)
        ]
        if any(waits):
            state = self._state(tenant, claim.charges, now_us, waits)
            return Verdict(result=Result.LIMITED, retry_after_us=max(waits), limit=state)
        if request.cost > 0:
            for usage, charge in zip(usages, claim.charges, strict=True):
                charged = Usage(usage.used + request.cost, usage.at_us)
                _put(self._usage, (tenant, charge.bucket), charged, self._max)
        reservation = ""
        if request.key:
            reservation = secrets.token_hex(8)
            reserved = _Key(request.fingerprint, now_us + self._reservation_us, reservation, b"")
            _put(self._keys, (tenant, request.user, request.key), reserved, self._max)
        state = self._state(tenant, claim.charges, now_us)
        return Verdict(result=Result.ADMITTED, reservation=reservation, limit=state)

    def _settle(self, key: tuple[str, str, str], end: Settlement, now_us: int) -> bool:
        known = self._keys.get(key)
        if known is None or known.until_us <= now_us or not known.reservation:
            return False
        if known.reservation != end.reservation:
            return False
        if end.answer is None:
            del self._keys[key]
        else:
            done = _Key(known.fingerprint, now_us + self._answer_us, "", end.answer)
            _put(self._keys, key, done, self._max)
        return True

    def _now(self, tenant: str, charge: Charge, now_us: int) -> Usage:
        usage = self._usage.get((tenant, charge.bucket))
        if usage is None:
            return Usage(0.0, now_us)
        return usage_at(usage, now_us, charge.limit.units, charge.period_us)

    def _state(
        self, tenant: str, charges: Sequence[Charge], now_us: int, waits: Sequence[int] | None = None
    ) -> LimitState | None:
        if not charges:
            return None
        states = [state_of(charge, self._now(tenant, charge, now_us).used) for charge in charges]
        return states[nearest(waits or [0] * len(states), [state.remaining for state in states])]


def _put(entries: OrderedDict[K, V], key: K, value: V, most: int) -> None:
    entries[key] = value
    entries.move_to_end(key)
    while len(entries) > most:
        entries.popitem(last=False)
