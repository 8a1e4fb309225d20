"""Admissions in this process's memory: the same promises, with limits that say no on demand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from cinnabar_gateway.admission import AdmissionRequest, LimitState, Result, Settlement, Verdict

_ASK_AGAIN_SECONDS = 0.01
_PERIOD_SECONDS = 60.0


@dataclass(slots=True)
class _Key:
    fingerprint: bytes
    reservation: str
    answer: bytes = b""


class MemoryAdmissions:
    """Implements the port Admissions. ``left`` units are left of each (user, method) that is in it.

    Units do not come back, and reservations do not run out, by themselves.
    """

    def __init__(self) -> None:
        self.left: dict[tuple[str, str], int] = {}
        self.asked: list[AdmissionRequest] = []
        self._keys: dict[tuple[str, str, str], _Key] = {}
        self._tokens = count(1)

    async def admit(self, requests: Sequence[AdmissionRequest]) -> list[Verdict]:
        """See Admissions."""
        self.asked += requests
        return [self._admit(request) for request in requests]

    async def settle(self, ends: Sequence[Settlement]) -> None:
        """See Admissions."""
        for end in ends:
            reservation = end.reservation
            at = (reservation.tenant, reservation.user, reservation.key)
            known = self._keys.get(at)
            if known is None or known.reservation != reservation.token:
                continue
            if end.answer is None:
                del self._keys[at]
            else:
                known.reservation, known.answer = "", end.answer

    def forget(self) -> None:
        """Loses all keys, as Redis does when it is flushed."""
        self._keys.clear()

    def _admit(self, request: AdmissionRequest) -> Verdict:
        at = (request.tenant, request.user, request.key)
        known = self._keys.get(at) if request.key else None
        if known is not None:
            if known.fingerprint != request.fingerprint:
                return Verdict(result=Result.KEY_REUSED)
            if known.reservation:
                return Verdict(result=Result.IN_PROGRESS, retry_seconds=_ASK_AGAIN_SECONDS)
            return Verdict(result=Result.REPLAY, answer=known.answer)
        bucket = (request.user, request.method)
        left = self.left.get(bucket)
        limit = None
        if left is not None:
            if request.cost > 0 and request.cost > left:
                state = LimitState("user-method", left, left, _PERIOD_SECONDS)
                return Verdict(result=Result.LIMITED, retry_seconds=_PERIOD_SECONDS, limit=state)
            self.left[bucket] = left - request.cost
            limit = LimitState("user-method", left, left - request.cost, _PERIOD_SECONDS)
        if not request.key:
            return Verdict(result=Result.ADMITTED, limit=limit)
        token = f"r{next(self._tokens)}"
        self._keys[at] = _Key(request.fingerprint, token)
        return Verdict(result=Result.ADMITTED, reservation=token, limit=limit)
