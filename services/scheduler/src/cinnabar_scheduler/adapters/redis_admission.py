"""Admission in Redis or Valkey: what one tenant asks in a batch is one Lua call."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from hashlib import blake2b
from typing import Any, cast

from redis.asyncio import Redis

from cinnabar_common.clock import Clock
from cinnabar_common.redis_connection import REDIS_ERRORS
from cinnabar_scheduler.adapters.redis_scripts import Script
from cinnabar_scheduler.admission import (
    ANSWER_SECONDS,
    ASK_AGAIN_US,
    RESERVATION_SECONDS,
    AdmissionUnavailable,
    Claim,
    Result,
    Settlement,
    Verdict,
)
from cinnabar_scheduler.limits import Charge, LimitState

# Redis serves nobody else during a script: this many take a few ms.
SCRIPT_BATCH = 1000
_FIELDS = 6
_DIGEST_BYTES = 16


class AdmissionKeys:
    """Every key of one tenant's admission, each with a TTL; the hash tag keeps them on one cluster node.

    Who calls is in a digest: names of keys go into logs, dumps and monitors, and stay up to a day.
    """

    __slots__ = ("_prefix", "_tenant")

    def __init__(self, tenant: str) -> None:
        self._tenant = tenant
        self._prefix = f"cinnabar:{{limits:{tenant}}}:"

    def limit(self, charge: Charge) -> str:
        """What is used up of a limit."""
        return f"{self._prefix}{charge.level}:{self._digest(charge.bucket)}"

    def key(self, user: str, key: str) -> str:
        """An idempotency key of a user."""
        return f"{self._prefix}key:{self._digest(user, key)}"

    def _digest(self, *texts: str) -> str:
        return blake2b("\0".join((self._tenant, *texts)).encode(), digest_size=_DIGEST_BYTES).hexdigest()


class RedisAdmission:
    """Implements AdmissionStore."""

    def __init__(
        self,
        redis: Redis,
        clock: Clock,
        *,
        reservation_seconds: float = RESERVATION_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._redis = redis
        self._clock = clock
        self._reservation_us = round(reservation_seconds * 1e6)
        self._answer_us = round(answer_seconds * 1e6)
        self._admit = Script(redis, "admit", shared=None)
        self._settle = Script(redis, "settle", shared=None)

    async def admit(self, tenant: str, claims: Sequence[Claim]) -> list[Verdict]:
        """See AdmissionStore."""
        verdicts: list[Verdict] = []
        for start in range(0, len(claims), SCRIPT_BATCH):
            verdicts += await self._admit_batch(tenant, claims[start : start + SCRIPT_BATCH])
        return verdicts

    async def _admit_batch(self, tenant: str, claims: Sequence[Claim]) -> list[Verdict]:
        names = AdmissionKeys(tenant)
        limits: dict[Charge, int] = {}
        for claim in claims:
            for charge in claim.charges:
                limits.setdefault(charge, len(limits) + 1)
        keys = [names.limit(charge) for charge in limits]
        args: list[str | int | bytes] = [
            int(self._clock.time() * 1e6),
            self._reservation_us,
            ASK_AGAIN_US,
            len(limits),
        ]
        for charge in limits:
            args += (charge.limit.units, charge.period_us)
        reservations: list[str] = []
        for claim in claims:
            request, at = claim.request, 0
            if request.key:
                keys.append(names.key(request.user, request.key))
                at = len(keys)
            reservations.append(secrets.token_hex(8) if at else "")
            args += (request.cost, at, request.fingerprint, reservations[-1], len(claim.charges))
            args += (limits[charge] for charge in claim.charges)
        async with _translated():
            answer = cast("list[Any]", await self._admit.on(keys, args))
        return [
            _verdict(claim, reservation, answer[at : at + _FIELDS])
            for at, claim, reservation in zip(
                range(0, len(answer), _FIELDS), claims, reservations, strict=True
            )
        ]

    async def settle(self, tenant: str, ends: Sequence[Settlement]) -> list[bool]:
        """See AdmissionStore."""
        names = AdmissionKeys(tenant)
        settled: list[bool] = []
        for start in range(0, len(ends), SCRIPT_BATCH):
            batch = ends[start : start + SCRIPT_BATCH]
            args: list[str | int | bytes] = [int(self._clock.time() * 1e6), self._answer_us]
            for end in batch:
                args += (end.reservation, int(end.answer is not None), end.answer or b"")
            async with _translated():
                done = await self._settle.on([names.key(end.user, end.key) for end in batch], args)
            settled += map(bool, cast("list[int]", done))
        return settled

    async def ping(self) -> None:
        """See AdmissionStore."""
        async with _translated():
            await self._redis.exists(AdmissionKeys("").key("", ""))


def _verdict(claim: Claim, reservation: str, fields: Sequence[Any]) -> Verdict:
    number, answer, retry_us, nearest, remaining, reset_us = cast(
        "tuple[int, bytes, int, int, int, int]", fields
    )
    result = Result(number)
    limit = None
    if nearest:
        charge = claim.charges[nearest - 1]
        limit = LimitState(charge.level, charge.limit.units, remaining, reset_us, charge.period_us)
    return Verdict(
        result=result,
        reservation=reservation if result is Result.ADMITTED else "",
        answer=answer,
        retry_after_us=retry_us,
        limit=limit,
    )


@asynccontextmanager
async def _translated() -> AsyncGenerator[None]:
    try:
        yield
    except REDIS_ERRORS as error:
        raise AdmissionUnavailable from error
