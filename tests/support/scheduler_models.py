"""Builders for tests of model calls, and their stores behind one face."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from cinnabar_common.redis_connection import connect
from cinnabar_scheduler.adapters.memory_model_calls import MemoryModelCalls
from cinnabar_scheduler.adapters.redis_model_calls import RedisModelCalls
from cinnabar_scheduler.model_calls import (
    Answer,
    BreakerState,
    Call,
    Change,
    Ending,
    How,
    ModelCallStore,
    Permit,
    Place,
    Spent,
    purses_of,
)
from cinnabar_scheduler.model_policy import Budgets, ProviderPolicy
from tests.support.scheduler_adapters import leaked_keys
from tests.support.scheduler_queue import ManualClock

PLACE = Place("uni", "net", "a1")
PROVIDER = "cloud"
ROOM_BYTES = 1000
POLICY = ProviderPolicy()
SUCCESS = Ending(How.SUCCESS)
FAILURE = Ending(How.FAILURE)


@dataclass(frozen=True, slots=True)
class ModelHarness:
    """A store, its clock, a second process on the same store, and the loss of all data."""

    store: ModelCallStore
    other: ModelCallStore
    clock: ManualClock
    flush: Callable[[], Awaitable[None]]

    def call(
        self,
        *,
        place: Place = PLACE,
        provider: str = PROVIDER,
        policy: ProviderPolicy = POLICY,
        budgets: Budgets | None = None,
        tokens: int = 100,
        cost_micros: int = 0,
        share: str = "",
        timeout: float = 30.0,
    ) -> Call:
        """A call that somebody wants to make now."""
        return Call(
            tenant=place.tenant,
            provider=provider,
            policy=policy,
            purses=purses_of(budgets or Budgets(), place, self.clock.time()),
            tokens=tokens,
            cost_micros=cost_micros,
            share_key=share.encode(),
            timeout_seconds=timeout,
        )

    async def begin(self, **wanted: Any) -> Answer:
        """Asks the store."""
        return await self.store.begin(self.call(**wanted))

    async def permit(self, **wanted: Any) -> Permit:
        """Asks the store for what it must give."""
        answer = await self.begin(**wanted)
        assert isinstance(answer, Permit)
        return answer

    async def end(
        self, permit: Permit, ending: Ending = SUCCESS, policy: ProviderPolicy = POLICY
    ) -> BreakerState:
        """Ends a call."""
        return await self.store.end(permit.token, ending, policy)

    async def fail(self, times: int = 5, policy: ProviderPolicy = POLICY) -> BreakerState:
        """So many calls one after the other, all of which fail."""
        state = BreakerState.CLOSED
        for _ in range(times):
            state = await self.end(await self.permit(policy=policy), FAILURE, policy)
        return state


async def memory_models() -> ModelHarness:
    """In memory."""
    clock = ManualClock()
    store = MemoryModelCalls(clock, room_bytes=ROOM_BYTES)
    await store.restore(PLACE.tenant, [])

    async def flush() -> None:
        store.flush()

    return ModelHarness(store, store, clock, flush)


@asynccontextmanager
async def redis_models(
    url: str, empty: Callable[[], Awaitable[None]] | None = None
) -> AsyncGenerator[ModelHarness]:
    """On a real server or cluster; on the way out every key must have a TTL."""
    clock = ManualClock()
    redis = connect(url, timeout_seconds=5)

    async def flushdb() -> None:
        await cast("Any", redis).flushdb()

    try:
        one, other = (RedisModelCalls(redis, clock, room_bytes=ROOM_BYTES) for _ in range(2))
        await one.restore(PLACE.tenant, [])
        yield ModelHarness(one, other, clock, empty or flushdb)
        assert await leaked_keys(url) == []
    finally:
        await redis.aclose()


@dataclass(slots=True)
class MemoryLedger:
    """Implements Ledger; what is written down is kept by tenant and scope."""

    kept: dict[tuple[str, str], Spent] = field(default_factory=dict[tuple[str, str], Spent])
    asked: int = 0

    async def spent(self, tenant: str) -> list[Spent]:
        """See Ledger."""
        self.asked += 1
        return [one for (owner, _), one in self.kept.items() if owner == tenant]

    async def save(self, changes: Sequence[Change]) -> None:
        """See Ledger."""
        for change in changes:
            self.kept[change.tenant, change.spent.scope] = change.spent
