"""Builders for tests of admission, and its stores behind one face."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

from cinnabar_common.redis_connection import connect
from cinnabar_scheduler.adapters.memory_admission import MemoryAdmission
from cinnabar_scheduler.adapters.redis_admission import RedisAdmission
from cinnabar_scheduler.admission import (
    AdmissionStore,
    AdmissionUnavailable,
    Claim,
    Request,
    Settlement,
    Verdict,
)
from cinnabar_scheduler.limits import Charge
from cinnabar_scheduler.policy import Limit
from tests.support.scheduler_adapters import leaked_keys
from tests.support.scheduler_queue import ManualClock

TENANT = "uni"
RESERVATION_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class AdmissionHarness:
    """A store, its clock, a second process on the same store, and the loss of all data."""

    store: AdmissionStore
    other: AdmissionStore
    clock: ManualClock
    flush: Callable[[], Awaitable[None]]

    async def admit(self, *claims: Claim, tenant: str = TENANT) -> list[Verdict]:
        """Asks the store."""
        return await self.store.admit(tenant, claims)

    async def one(self, claim: Claim, *, tenant: str = TENANT) -> Verdict:
        """Asks the store for one."""
        return (await self.store.admit(tenant, [claim]))[0]


def memory_admission() -> AdmissionHarness:
    """In memory."""
    clock = ManualClock()
    store = MemoryAdmission(clock, reservation_seconds=RESERVATION_SECONDS)

    async def flush() -> None:
        store.flush()

    return AdmissionHarness(store, store, clock, flush)


@asynccontextmanager
async def redis_admission(
    url: str, empty: Callable[[], Awaitable[None]] | None = None
) -> AsyncGenerator[AdmissionHarness]:
    """On a real server or cluster; on the way out every key must have a TTL."""
    clock = ManualClock()
    redis = connect(url, timeout_seconds=5)

    async def flushdb() -> None:
        await cast("Any", redis).flushdb()

    try:
        store, other = (
            RedisAdmission(redis, clock, reservation_seconds=RESERVATION_SECONDS) for _ in range(2)
        )
        yield AdmissionHarness(store, other, clock, empty or flushdb)
        assert await leaked_keys(url) == []
    finally:
        await redis.aclose()


def charge(units: int, seconds: float = 60.0, *, level: str = "user", bucket: str = "") -> Charge:
    """A limit on ``bucket``, which is the level when it is not said."""
    return Charge(level, bucket or level, Limit(units, seconds))


def claim(
    *charges: Charge,
    cost: int = 1,
    key: str = "",
    fingerprint: bytes = b"f",
    user: str = "ann",
    tenant: str = TENANT,
) -> Claim:
    """A request to which these limits apply."""
    request = Request(
        tenant=tenant,
        user=user,
        method="CreateSubmission",
        cost=cost,
        key=key,
        fingerprint=fingerprint if key else b"",
    )
    return Claim(request, charges)


def settlement(
    key: str, reservation: str, answer: bytes | None, *, user: str = "ann", tenant: str = TENANT
) -> Settlement:
    """How the request with ``key`` ended."""
    return Settlement(tenant=tenant, user=user, key=key, reservation=reservation, answer=answer)


class Breakable:
    """A store that can be taken away; counts what it is asked."""

    def __init__(self, store: AdmissionStore) -> None:
        self._store = store
        self.broken = False
        self.asked = 0

    def _check(self) -> None:
        self.asked += 1
        if self.broken:
            raise AdmissionUnavailable

    async def admit(self, tenant: str, claims: Any) -> list[Verdict]:
        """See AdmissionStore."""
        self._check()
        return await self._store.admit(tenant, claims)

    async def settle(self, tenant: str, ends: Any) -> list[bool]:
        """See AdmissionStore."""
        self._check()
        return await self._store.settle(tenant, ends)

    async def ping(self) -> None:
        """See AdmissionStore."""
        self._check()
