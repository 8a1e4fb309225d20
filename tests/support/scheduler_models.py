"""Builders for tests of model calls, and their stores behind one face."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import grpc

from cinnabar.scheduler.v1.model_call_service_pb2_grpc import add_ModelCallServiceServicer_to_server
from cinnabar_common.channels import channel
from cinnabar_common.clock import Clock
from cinnabar_common.interceptors import ErrorInterceptor
from cinnabar_common.redis_connection import connect
from cinnabar_grader.adapters.memory_model_calls import BudgetLimit, Owner
from cinnabar_grader.adapters.model_calls import SchedulerModelCalls
from cinnabar_grader.graders import LeaseToken as GraderToken
from cinnabar_scheduler.adapters.memory_model_calls import MemoryModelCalls
from cinnabar_scheduler.adapters.redis_model_calls import RedisModelCalls
from cinnabar_scheduler.model_call_service import ModelCallService
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
)
from cinnabar_scheduler.model_permits import ModelCalls, purses_of
from cinnabar_scheduler.model_policy import Budget, Budgets, Period, ProviderPolicy
from cinnabar_scheduler.policy import Policy, TenantPolicy
from cinnabar_scheduler.session import WorkerSession
from cinnabar_scheduler.tasks import Lease, LeaseToken, QueueName
from tests.support.model_calls import BUDGETS, LIMITS, POOR, RICH, STRICT, ModelCallsHarness
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


@dataclass(slots=True)
class ModelDesk:
    """The scheduler's service of model calls, served at ``address``, for workers that hold leases."""

    address: str
    calls: ModelCalls
    ledger: MemoryLedger
    policy: Policy
    session: WorkerSession
    places: dict[tuple[str, str], Place] = field(default_factory=dict[tuple[str, str], Place])
    leases: int = 0

    def lease(self, place: Place = PLACE) -> LeaseToken:
        """Grants one for a task of ``place``."""
        self.leases += 1
        revision = f"{place.course}-{place.assignment}"
        self.places[place.tenant, revision] = place
        token = LeaseToken(f"{self.leases}-held")
        lease = Lease(f"s{self.leases}/q1", token, 1, 1, place.tenant, LLM, f"{revision}/q1", b"")
        self.session.ready(LLM, 1)
        self.session.grant([lease])
        return token

    async def place(self, tenant: str, revision: str) -> Place | None:
        """Implements Places."""
        return self.places.get((tenant, revision))


LLM = QueueName("llm")


@asynccontextmanager
async def desk(
    store: ModelCallStore, clock: Clock, policy: Policy | None = None, ledger: MemoryLedger | None = None
) -> AsyncGenerator[ModelDesk]:
    """Serves a store; ``policy`` can be replaced meanwhile."""
    session = WorkerSession(1000)
    session.hello("worker", [LLM])
    ledger = ledger or MemoryLedger()
    calls = ModelCalls(store, ledger, lambda: opened.policy, clock)
    opened = ModelDesk("", calls, ledger, policy or Policy(), session)
    server = grpc.aio.server(interceptors=[ErrorInterceptor()])
    add_ModelCallServiceServicer_to_server(ModelCallService(calls, opened, lambda: [session]), server)
    opened.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield opened
    finally:
        await server.stop(None)


def _policy() -> Policy:
    """The limits and budgets that the suite of graders expects."""

    def budget(owner: Owner, level: int) -> Budget:
        limit = BUDGETS.get(owner.scopes[level], BudgetLimit())
        return Budget(limit.tokens, limit.cost_micros, Period.NONE)

    def place(owner: Owner) -> Place:
        return Place(owner.tenant, owner.course, owner.assignment)

    return Policy(
        providers={
            name: ProviderPolicy(
                concurrency=limits.calls,
                requests_per_minute=limits.requests_per_minute,
                tokens_per_minute=limits.tokens_per_minute,
                failures=limits.failures,
                recovery_seconds=limits.recovery_seconds,
            )
            for name, limits in LIMITS.items()
        },
        tenants={
            owner.tenant: TenantPolicy(
                budgets=Budgets(
                    tenant=budget(owner, 0),
                    named={
                        place(owner).course_scope: budget(owner, 1),
                        place(owner).assignment_scope: budget(owner, 2),
                    },
                )
            )
            for owner in (RICH, POOR, STRICT)
        },
    )


async def scheduler_harness(url: str) -> AsyncGenerator[ModelCallsHarness]:
    """The scheduler's service on a real server, behind the grader's client of it."""
    async with (
        redis_models(url) as models,
        desk(models.store, models.clock, _policy()) as served,
        channel(served.address) as connection,
    ):

        async def advance(seconds: float) -> None:
            models.clock.advance(seconds)

        async def lease(owner: Owner) -> GraderToken:
            return GraderToken(served.lease(Place(owner.tenant, owner.course, owner.assignment)))

        yield ModelCallsHarness(SchedulerModelCalls([connection]), advance, lease)
