"""The queue on Valkey does what the queue in memory does, whatever is done to them, and loses no task."""

import asyncio
from typing import Any, cast

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from cinnabar_scheduler.adapters.memory import MemoryQueue
from cinnabar_scheduler.adapters.redis_connection import connect
from cinnabar_scheduler.adapters.redis_queue import RedisQueue
from cinnabar_scheduler.tasks import HeadStart, Lease, Task, Verdict, Why
from tests.support.scheduler_adapters import LEASE_SECONDS, POLICY, leaked_keys
from tests.support.scheduler_queue import QUEUE, ManualClock, held, task
from tests.support.servers import ValkeyServer

NAMES = [f"s{number}" for number in range(8)]
# Backoff is random in each queue; with no room for chance the two must agree.
NO_BACKOFF = type(POLICY)(backoff_base_ms=1, backoff_cap_ms=1, max_failures=3, max_faults=3)


class Queues(RuleBasedStateMachine):
    """Every operation on both; leases are matched by their task."""

    loop: asyncio.AbstractEventLoop
    url: str

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.redis = connect(self.url, timeout_seconds=5)
        self.real = RedisQueue(
            self.redis, clock=self.clock, lease_seconds=LEASE_SECONDS, policy=NO_BACKOFF, owner="one"
        )
        self.model = MemoryQueue(
            clock=self.clock, lease_seconds=LEASE_SECONDS, policy=NO_BACKOFF, owner="one"
        )
        self.leases: dict[str, tuple[Lease, Lease]] = {}
        self.known: set[str] = set()
        self.last_fence = 0
        self._run(cast("Any", self.redis).flushdb())

    def teardown(self) -> None:
        self._run(self.redis.aclose())
        assert self._run(leaked_keys(self.url)) == []

    def _run(self, awaitable: Any) -> Any:
        return self.loop.run_until_complete(awaitable)

    def _both(self, name: str, *arguments: object) -> tuple[Any, Any]:
        return tuple(self._run(getattr(queue, name)(*arguments)) for queue in (self.real, self.model))  # pyright: ignore[reportReturnType]

    @rule(
        names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=6),
        tenant=st.sampled_from("ab"),
        head_start=st.sampled_from(HeadStart),
        generation=st.integers(1, 3),
        delay_ms=st.integers(-500, 500),
    )
    def enqueue(
        self, names: list[str], tenant: str, head_start: HeadStart, generation: int, delay_ms: int
    ) -> None:
        tasks: list[Task] = [
            task(
                name,
                tenant=tenant,
                head_start=head_start,
                generation=generation,
                ready_ms=self.clock.now_ms + delay_ms,
            )
            for name in names
        ]
        real, model = self._both("enqueue", tasks)
        assert real == model
        for one, added in zip(tasks, real, strict=True):
            if added:
                self.leases.pop(one.task, None)
                self.known.add(one.task)

    @rule(limit=st.integers(1, 6))
    def lease(self, limit: int) -> None:
        real, model = self._both("lease", QUEUE, limit)
        assert real.next_due_ms == model.next_due_ms
        assert [(one.task, one.generation, one.delivery, one.tenant) for one in real.leases] == [
            (one.task, one.generation, one.delivery, one.tenant) for one in model.leases
        ]
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

    @rule(seconds=st.sampled_from([0.001, 0.2, 0.6, LEASE_SECONDS]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @invariant()
    def nothing_is_lost(self) -> None:
        real, model = self._both("counts", QUEUE)
        assert real == model
        assert real.ready + real.delayed + real.leased == len(self.known)
        assert real.leased == len(self.leases)


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
