"""The queue on Valkey does what the queue in memory does, whatever is done to them, and loses no task."""

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any, cast

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from cinnabar_common.redis_connection import connect
from cinnabar_scheduler.adapters.memory import MemoryPolicy, MemoryQueue
from cinnabar_scheduler.adapters.redis_queue import RedisQueue
from cinnabar_scheduler.policy import Policy, QueuePolicy, RetryRule, TenantPolicy
from cinnabar_scheduler.tasks import HeadStart, Lease, LeaseToken, QueueState, Task, Verdict, Why
from tests.support.scheduler_adapters import LEASE_SECONDS, leaked_keys
from tests.support.scheduler_queue import QUEUE, ManualClock, held, task
from tests.support.servers import ValkeyServer

NAMES = [f"s{number}" for number in range(8)]
TENANTS = "abc"
# Backoff is random in each queue; with no room for chance the two must agree.
AT_ONCE = RetryRule(3, 0.001, 0.001)
RETRIES = QueuePolicy(max_faults=3, failed=AT_ONCE, unavailable=AT_ONCE)


class Queues(RuleBasedStateMachine):
    """Every operation on both; leases are matched by their task."""

    loop: asyncio.AbstractEventLoop
    url: str

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.policies = MemoryPolicy(Policy(default_queue=RETRIES))
        self.redis = connect(self.url, timeout_seconds=5)
        self.real = RedisQueue(
            self.redis, clock=self.clock, lease_seconds=LEASE_SECONDS, policies=self.policies
        )
        self.model = MemoryQueue(clock=self.clock, lease_seconds=LEASE_SECONDS, policies=self.policies)
        self.rebuild = 0
        self.capped_exactly = True
        self.leases: dict[str, tuple[Lease, Lease]] = {}
        self.known: set[str] = set()
        self.regrades: set[str] = set()
        self.last_fence = 0
        self._run(cast("Any", self.redis).flushdb())

    def teardown(self) -> None:
        self._run(self.redis.aclose())
        assert self._run(leaked_keys(self.url)) == []

    def _run(self, awaitable: Any) -> Any:
        return self.loop.run_until_complete(awaitable)

    def _both(self, name: str, *arguments: object, **named: object) -> tuple[Any, Any]:
        real, model = (getattr(queue, name)(*arguments, **named) for queue in (self.real, self.model))
        return self._run(real), self._run(model)

    @rule(
        names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=6),
        tenant=st.sampled_from(TENANTS),
        head_start=st.sampled_from(HeadStart),
        generation=st.integers(1, 3),
        delay_ms=st.integers(-500, 500),
        grade_ms=st.none() | st.integers(-10, 3_000),
    )
    def enqueue(
        self,
        names: list[str],
        tenant: str,
        head_start: HeadStart,
        generation: int,
        delay_ms: int,
        grade_ms: int | None,
    ) -> None:
        tasks: list[Task] = [
            task(
                name,
                tenant=tenant,
                head_start=head_start,
                generation=generation,
                ready_ms=self.clock.now_ms + delay_ms,
                grade_by_ms=None if grade_ms is None else self.clock.now_ms + grade_ms,
            )
            for name in names
        ]
        real, model = self._both("enqueue", tasks)
        assert real == model
        for one, added in zip(tasks, real, strict=True):
            if added:
                self.leases.pop(one.task, None)
                self.known.add(one.task)
                self.regrades.discard(one.task)
                if one.head_start is HeadStart.REGRADE:
                    self.regrades.add(one.task)

    @rule(limit=st.integers(1, 6), more_free=st.integers(0, 2))
    def lease(self, limit: int, more_free: int) -> None:
        held = self._held_by_tenant()
        real, model = self._both("lease", QUEUE, limit, free=limit + more_free)
        assert real.next_due_ms == model.next_due_ms
        assert [
            (one.task, one.generation, one.delivery, one.tenant, one.grade_by_ms) for one in real.leases
        ] == [(one.task, one.generation, one.delivery, one.tenant, one.grade_by_ms) for one in model.leases]
        for picked, one in enumerate(real.leases):
            assert one.task not in self.regrades or limit + more_free - picked >= 2
        for tenant in TENANTS:
            cap = self.policies.current.tenant(tenant).max_concurrency
            own = sum(one.tenant == tenant for one in real.leases)
            assert not own or cap is None or held.get(tenant, 0) + own <= cap
        for one, other in zip(real.leases, model.leases, strict=True):
            assert one.fence > self.last_fence
            self.last_fence = one.fence
            assert one.task not in self.leases
            self.leases[one.task] = one, other

    @rule(chosen=st.sets(st.sampled_from(NAMES), min_size=1), why=st.sampled_from(Why))
    def give_back(self, chosen: set[str], why: Why) -> None:
        pairs = [self.leases[name] for name in sorted(f"{one}/q1" for one in chosen) if name in self.leases]
        real = self._run(self.real.give_back(QUEUE, held([one for one, _ in pairs]), why))
        model = self._run(self.model.give_back(QUEUE, held([other for _, other in pairs]), why))
        assert real == model
        for (one, _), answer in zip(pairs, real, strict=True):
            if answer.verdict is Verdict.QUEUED:
                del self.leases[one.task]
                if why is not Why.RETURNED:
                    self.regrades.discard(one.task)  # an attempt comes back as RECOVERY

    @rule(chosen=st.sets(st.sampled_from(NAMES), min_size=1), generation=st.integers(1, 3))
    def remove(self, chosen: set[str], generation: int) -> None:
        before = {name for name in self.known if name.partition("/")[0] in chosen}
        (real, tokens), (model, _) = self._both(
            "remove", QUEUE, [(f"{name}/q1", generation) for name in sorted(chosen)]
        )
        assert real == model
        gone = self._run(self.real.missing([(QUEUE, name) for name in sorted(before)]))
        assert len(gone) == real
        assert set(tokens) == {self.leases[name][0].token for name in gone if name in self.leases}
        self.known -= gone
        for name in gone:
            self.leases.pop(name, None)

    @rule()
    def extend(self) -> None:
        assert self._run(self.real.extend(QUEUE, held([one for one, _ in self.leases.values()]))) == []
        assert self._run(self.model.extend(QUEUE, held([one for _, one in self.leases.values()]))) == []

    @rule()
    def expire(self) -> None:
        real, model = self._both("expired", QUEUE, 100)
        assert {one.task for one in real} == {one.task for one in model} <= set(self.leases)

    @rule(limit=st.integers(1, 4))
    def end_overdue(self, limit: int) -> None:
        real, model = self._both("overdue", QUEUE, limit)
        assert [(one.task, one.generation, one.tenant, one.revoked is None) for one in real] == [
            (one.task, one.generation, one.tenant, one.revoked is None) for one in model
        ]
        for one, other in zip(real, model, strict=True):
            revoked, _ = self.leases.get(one.task, (None, None))
            assert one.revoked == (revoked.token if revoked else None)
            fence = int(one.token.partition("-")[0])
            assert fence > self.last_fence
            self.last_fence = fence
            self.leases[one.task] = (
                _lease(one.task, one.token, one.tenant),
                _lease(one.task, other.token, one.tenant),
            )

    @rule(
        weights=st.lists(st.sampled_from([1, 2, 3, 10]), min_size=3, max_size=3),
        caps=st.lists(st.sampled_from([None, 1, 2]), min_size=3, max_size=3),
    )
    def change_policy(self, weights: list[int], caps: list[int | None]) -> None:
        tenants = {
            tenant: TenantPolicy(weight=weight, max_concurrency=cap)
            for tenant, weight, cap in zip(TENANTS, weights, caps, strict=True)
        }
        self.policies.change(Policy(default_queue=RETRIES, tenants=tenants))
        self._run(self.real.apply_policies())
        self.capped_exactly = False  # a lowered cap is noticed by the next lease

    @rule(state=st.sampled_from(QueueState))
    def control(self, state: QueueState) -> None:
        self._both("control", QUEUE, state)
        real, model = self._both("states")
        assert real == model
        assert real[QUEUE] is state

    @rule(whole=st.booleans())
    def lose_everything_and_rebuild(self, whole: bool) -> None:
        self.rebuild += 1
        assert self._both("begin_rebuild", self.rebuild) == (True, True)
        if whole:
            self._run(cast("Any", self.redis).flushdb())
            self.model.flush()
            self.known.clear()
            self.leases.clear()
            self.capped_exactly = True
            self.clock.advance(0.001)  # fences follow the clock over a loss of data
            assert self._both("finish_rebuild", self.rebuild) == (False, False)
            assert self._both("has_epoch") == (False, False)
            assert self._both("begin_rebuild", self.rebuild) == (True, True)
        assert self._both("begin_rebuild", self.rebuild - 1) == (False, False)
        assert self._both("finish_rebuild", self.rebuild) == (True, True)
        assert self._both("has_epoch") == (True, True)

    @rule(seconds=st.sampled_from([0.001, 0.2, 0.6, LEASE_SECONDS]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def _held_by_tenant(self) -> dict[str, int]:
        return Counter(one.tenant for one, _ in self.leases.values())

    @invariant()
    def nothing_is_lost(self) -> None:
        real, model = self._both("counts", QUEUE, "a")
        if not self.capped_exactly:
            real, model = replace(real, capped=0), replace(model, capped=0)
        assert real == model
        assert real.ready + real.delayed + real.leased == len(self.known)
        assert real.leased == len(self.leases)

    @invariant()
    def everything_is_known(self) -> None:
        seen: set[str] = set()
        cursor = None
        while True:
            page = self._run(self.real.known(QUEUE, cursor, 3))
            seen |= {one.task for one in page.tasks}
            cursor = page.cursor
            if cursor is None:
                break
        assert seen == self.known


def _lease(task: str, token: LeaseToken, tenant: str) -> Lease:
    return Lease(task, token, 0, 0, tenant, QUEUE, "", b"")


def test_the_queue_on_valkey_equals_its_model(valkey_server: ValkeyServer) -> None:
    loop = asyncio.new_event_loop()
    try:
        machine = type("Machine", (Queues,), {"loop": loop, "url": valkey_server.url_of(0)})
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
