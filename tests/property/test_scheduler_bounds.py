"""The bounds of docs/scheduling.md, on a real Valkey, for any tenants, weights and work."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, cast

import hypothesis.strategies as st
from hypothesis import HealthCheck, given, settings

from cinnabar_common.redis_connection import connect
from cinnabar_scheduler.adapters.memory import STRIDE, MemoryPolicy
from cinnabar_scheduler.adapters.redis_queue import RedisQueue
from cinnabar_scheduler.policy import Policy, TenantPolicy
from cinnabar_scheduler.tasks import HeadStart, Lease, Task
from tests.support.scheduler_queue import FREE, QUEUE, START_MS, ManualClock, task
from tests.support.servers import ValkeyServer

BOUNDED = settings(
    max_examples=25,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
WEIGHTS = st.integers(1, 20)


def play(url: str, policy: Policy, story: Callable[[RedisQueue, ManualClock], Awaitable[None]]) -> None:
    """Runs a story on an empty database."""

    async def run() -> None:
        redis, clock = connect(url, timeout_seconds=5), ManualClock()
        try:
            await cast("Any", redis).flushdb()
            await story(
                RedisQueue(redis, clock=clock, lease_seconds=3600, policies=MemoryPolicy(policy)), clock
            )
            await cast("Any", redis).flushdb()
        finally:
            await redis.aclose()

    asyncio.run(run())


async def dispatch(queue: RedisQueue, sizes: list[int], *, total: int) -> list[Lease]:
    """Leases in batches of these sizes, again and again, until so many were leased or nothing is left."""
    leases: list[Lease] = []
    while len(leases) < total:
        for size in sizes:
            found = (await queue.lease(QUEUE, size, free=FREE)).leases
            leases += found
            if not found:
                return leases
    return leases


@BOUNDED
@given(
    weights=st.lists(WEIGHTS, min_size=2, max_size=8),
    served_before=st.integers(0, 60),
    own=st.integers(1, 6),
    own_weight=WEIGHTS,
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
)
def test_a_new_tenant_waits_for_a_bounded_number_of_dispatches(
    valkey_server: ValkeyServer,
    weights: list[int],
    served_before: int,
    own: int,
    own_weight: int,
    sizes: list[int],
) -> None:
    """Its k-th task waits for at most 1 + floor((k - 1) * own stride / stride of j) tasks of each other j."""
    tenants = {f"big{number}": weight for number, weight in enumerate(weights)} | {"new": own_weight}
    policy = Policy(tenants={name: TenantPolicy(weight=weight) for name, weight in tenants.items()})

    async def story(queue: RedisQueue, clock: ManualClock) -> None:
        backlog = [task(tenant=name, ready_ms=START_MS - 1_000) for name in tenants if name != "new"]
        await queue.enqueue([task(tenant=one.tenant, ready_ms=one.ready_ms) for one in backlog * 300])
        await dispatch(queue, sizes, total=served_before)
        await queue.enqueue([task(tenant="new") for _ in range(own)])
        leases = await dispatch(queue, sizes, total=280)
        before: Counter[str] = Counter()
        nth = 0
        for lease in leases:
            if lease.tenant == "new":
                for other, weight in tenants.items():
                    bound = 1 + nth * (STRIDE // own_weight) // (STRIDE // weight)
                    assert other == "new" or before[other] <= bound
                nth += 1
            before[lease.tenant] += 1
        assert nth == own or len(leases) >= 280

    play(valkey_server.url_of(0), policy, story)


@BOUNDED
@given(
    arrivals=st.lists(
        st.tuples(st.sampled_from(HeadStart), st.integers(0, 400_000)), min_size=1, max_size=60
    ),
    sizes=st.lists(st.integers(1, 7), min_size=1, max_size=4),
)
def test_a_task_waits_for_no_more_than_its_head_start_allows(
    valkey_server: ValkeyServer, arrivals: list[tuple[HeadStart, int]], sizes: list[int]
) -> None:
    """Within a tenant nothing goes first that became ready later by more than the difference."""

    async def story(queue: RedisQueue, clock: ManualClock) -> None:
        tasks: dict[str, Task] = {}
        for head_start, age_ms in arrivals:
            one = task(head_start=head_start, ready_ms=START_MS - age_ms)
            tasks[one.task] = one
        await queue.enqueue(list(tasks.values()))
        order = [tasks[lease.task] for lease in await dispatch(queue, sizes, total=len(tasks))]
        assert len(order) == len(tasks)
        for at, later in enumerate(order):
            for earlier in order[:at]:
                difference = earlier.head_start - later.head_start
                assert earlier.ready_ms - later.ready_ms <= difference
                if earlier.head_start is later.head_start:  # never overtaken by newer work of its class
                    assert earlier.ready_ms <= later.ready_ms

    play(valkey_server.url_of(0), Policy(), story)


def test_one_task_next_to_many_thousands(valkey_server: ValkeyServer) -> None:
    async def story(queue: RedisQueue, clock: ManualClock) -> None:
        await queue.enqueue([task(tenant="big") for _ in range(20_000)])
        for number in range(20):
            await queue.lease(QUEUE, 100 + number, free=FREE)
            await queue.enqueue([task(f"lonely{number:02}", tenant=f"small{number:02}")])
            names = [lease.task for lease in (await queue.lease(QUEUE, 2, free=FREE)).leases]
            assert f"lonely{number:02}/q1" in names

    play(valkey_server.url_of(0), Policy(), story)
