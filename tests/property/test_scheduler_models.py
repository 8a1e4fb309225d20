"""Model calls on Valkey go as those in memory, whatever is asked; no budget or probe is given twice."""

import asyncio
from dataclasses import replace
from typing import Any, cast

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from cinnabar_common.redis_connection import connect
from cinnabar_scheduler.adapters.memory_model_calls import MemoryModelCalls
from cinnabar_scheduler.adapters.redis_model_calls import RedisModelCalls
from cinnabar_scheduler.model_calls import (
    BreakerState,
    BudgetsUnknown,
    Call,
    Ending,
    How,
    Permit,
    Place,
    Spent,
)
from cinnabar_scheduler.model_permits import purses_of
from cinnabar_scheduler.model_policy import Budget, Budgets, Period, ProviderPolicy
from tests.support.scheduler_adapters import leaked_keys
from tests.support.scheduler_queue import ManualClock
from tests.support.servers import ValkeyServer

ROOM_BYTES = 40
TENANT_TOKENS = 500
BUDGETS = Budgets(
    Budget(TENANT_TOKENS, 0, Period.DAY), Budget(0, 300, Period.DAY), Budget(200, 0, Period.MONTH)
)
POLICIES = {
    "free": ProviderPolicy(failures=2, recovery_seconds=5.0),
    "tight": ProviderPolicy(concurrency=2, requests_per_minute=8, tokens_per_minute=250, failures=3),
}
KEYS = ("", "", "", "a", "b")
TENANTS = ("uni", "city")


class Stores(RuleBasedStateMachine):
    """Every operation on both; calls are matched by when they began."""

    loop: asyncio.AbstractEventLoop
    url: str

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.redis = connect(self.url, timeout_seconds=5)
        self.real = RedisModelCalls(self.redis, self.clock, room_bytes=ROOM_BYTES)
        self.model = MemoryModelCalls(self.clock, room_bytes=ROOM_BYTES)
        self.open: list[tuple[Permit, Permit, Call]] = []
        self.written: dict[str, dict[str, Spent]] = {tenant: {} for tenant in TENANTS}
        self._run(cast("Any", self.redis).flushdb())

    def teardown(self) -> None:
        self._run(self.redis.aclose())
        assert self._run(leaked_keys(self.url)) == []

    def _run(self, awaitable: Any) -> Any:
        return self.loop.run_until_complete(awaitable)

    def _both(self, name: str, *arguments: object) -> tuple[Any, Any]:
        real, model = (getattr(store, name)(*arguments) for store in (self.real, self.model))
        return self._caught(real), self._caught(model)

    def _caught(self, awaitable: Any) -> Any:
        try:
            return self._run(awaitable)
        except BudgetsUnknown:
            return BudgetsUnknown

    @rule(
        provider=st.sampled_from(sorted(POLICIES)),
        tenant=st.sampled_from(TENANTS),
        place=st.sampled_from(["c/a", "c/b", "d/a"]),
        tokens=st.integers(1, 300),
        cost=st.integers(0, 120),
        key=st.sampled_from(KEYS),
        timeout=st.sampled_from([1.0, 10.0]),
    )
    def begin(
        self, provider: str, tenant: str, place: str, tokens: int, cost: int, key: str, timeout: float
    ) -> None:
        course, _, assignment = place.partition("/")
        call = Call(
            tenant=tenant,
            provider=provider,
            policy=POLICIES[provider],
            purses=purses_of(BUDGETS, Place(tenant, course, assignment), self.clock.time()),
            tokens=tokens,
            cost_micros=cost,
            share_key=key.encode(),
            timeout_seconds=timeout,
        )
        real, model = self._both("begin", call)
        if real is BudgetsUnknown and model is BudgetsUnknown:
            self._both("restore", tenant, list(self.written[tenant].values()))
            real, model = self._both("begin", call)
        if isinstance(real, Permit) and isinstance(model, Permit):
            assert replace(real, token="") == replace(model, token="")
            self.open.append((real, model, call))
        else:
            assert real == model

    @rule(
        number=st.integers(0, 30),
        how=st.sampled_from(How),
        tokens=st.integers(0, 300),
        result=st.sampled_from([b"", b"short", bytes(30)]),
        again=st.booleans(),
    )
    def end(self, number: int, how: How, tokens: int, result: bytes, again: bool) -> None:
        if not self.open:
            return
        at = number % len(self.open)
        real, model, call = self.open[at]
        # Within its reservation: what is more is charged all the same, and may exceed a budget.
        ending = Ending(how, min(tokens, call.tokens), call.cost_micros // 2, result, 3_000_000)
        for _ in range(1 + again):
            states = [
                self._run(store.end(permit.token, ending, call.policy))
                for store, permit in ((self.real, real), (self.model, model))
            ]
            assert states[0] == states[1]
        del self.open[at]

    @rule(seconds=st.sampled_from([0.5, 5.0, 16.0, 90.0, 40_000.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        now = self.clock.now_ms
        self.open = [one for one in self.open if one[0].expires_ms > now]

    @rule(limit=st.integers(1, 4))
    def checkpoint(self, limit: int) -> None:
        for store in (self.real, self.model):
            changes = self._run(store.changes(100))
            self._run(store.kept(changes[:limit]))
            if store is self.real:
                for change in changes[:limit]:
                    self.written[change.tenant][change.spent.scope] = change.spent
        # Which ones were kept may differ; what is changed altogether may not, once all is kept.
        for store in (self.real, self.model):
            changes = self._run(store.changes(100))
            if store is self.real:
                for change in changes:
                    self.written[change.tenant][change.spent.scope] = change.spent
            self._run(store.kept(changes))
            assert self._run(store.changes(100)) == []

    @rule()
    def lose_everything(self) -> None:
        self._run(cast("Any", self.redis).flushdb())
        self.model.flush()
        self.open.clear()

    @invariant()
    def they_agree(self) -> None:
        real, model = self._both("providers")
        assert real == model
        for state in real:
            begun = [call for _, _, call in self.open if call.provider == state.provider]
            assert state.calls == len(begun)
            probes = [one for one, _, _ in self.open if one.probe and one.token.startswith(state.provider)]
            if state.breaker is BreakerState.HALF_OPEN:
                assert len(probes) == 1
        for tenant in TENANTS:
            usages, other = self._both("usage", tenant)
            assert usages == other
            if usages is BudgetsUnknown:
                continue
            for usage in usages:
                reserved = sum(
                    call.tokens
                    for _, _, call in self.open
                    if call.tenant == tenant and any(p.scope == usage.spent.scope for p in call.purses)
                )
                assert usage.tokens_reserved == reserved
                if not usage.spent.scope:
                    assert usage.spent.tokens + reserved <= TENANT_TOKENS


def test_both_stores_of_model_calls_agree(valkey_server: ValkeyServer) -> None:
    loop = asyncio.new_event_loop()
    try:
        machine = type("Machine", (Stores,), {"loop": loop, "url": valkey_server.url_of(0)})
        run_state_machine_as_test(  # pyright: ignore[reportUnknownMemberType]
            machine,
            settings=settings(
                max_examples=30,
                stateful_step_count=25,
                deadline=None,
                database=None,
                suppress_health_check=[HealthCheck.too_slow],
            ),
        )
    finally:
        loop.close()
