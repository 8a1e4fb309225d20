"""Between tenants: weights, caps, who comes back where; and what regrades may take."""

from collections import Counter
from dataclasses import replace

import pytest

from cinnabar_scheduler.policy import TenantPolicy
from cinnabar_scheduler.tasks import HeadStart, Lease, Why
from tests.support.scheduler_adapters import LEASE_SECONDS, POLICY, Harness
from tests.support.scheduler_queue import FREE, QUEUE, START_MS, held, task


async def leases(harness: Harness, limit: int, *, free: int = FREE) -> list[Lease]:
    return (await harness.queue.lease(QUEUE, limit, free=free)).leases


async def tenants(harness: Harness, limit: int) -> Counter[str]:
    return Counter(lease.tenant for lease in await leases(harness, limit))


async def decide(harness: Harness, **named: TenantPolicy) -> None:
    harness.policies.change(replace(POLICY, tenants=named))
    await harness.apply()


async def test_shares_follow_weights(harness: Harness) -> None:
    weights = {"a": 1, "b": 3, "c": 10}
    await decide(harness, **{tenant: TenantPolicy(weight=weight) for tenant, weight in weights.items()})
    for tenant in weights:
        await harness.queue.enqueue([task(tenant=tenant) for _ in range(300)])
    assert await tenants(harness, 280) == {"a": 20, "b": 60, "c": 200}
    served: Counter[str] = Counter()
    for _ in range(14):
        served += await tenants(harness, 5)
    for tenant, weight in weights.items():
        assert abs(served[tenant] - 70 * weight / 14) <= 1


async def test_a_tenant_that_comes_and_goes_takes_no_more_than_its_turns(harness: Harness) -> None:
    await harness.queue.enqueue([task(tenant="z") for _ in range(100)])
    served: Counter[str] = Counter()
    for _ in range(40):
        await harness.queue.enqueue([task(tenant="a")])
        served += await tenants(harness, 1)
    assert abs(served["a"] - served["z"]) <= 1


async def test_a_cap_is_never_exceeded_and_holds_up_nobody_else(harness: Harness) -> None:
    await decide(harness, a=TenantPolicy(max_concurrency=3))
    await harness.queue.enqueue([task(tenant="a") for _ in range(10)])
    await harness.queue.enqueue([task(tenant="b") for _ in range(10)])
    assert await tenants(harness, 4) == {"a": 2, "b": 2}
    assert await tenants(harness, 100) == {"a": 1, "b": 8}
    assert await leases(harness, 100) == []
    counts = await harness.queue.counts(QUEUE)
    assert (counts.ready, counts.capped, counts.tenants) == (7, 7, 1)


@pytest.mark.parametrize("end", ["removed", "returned", "fault", "expired"])
async def test_the_end_of_a_lease_lets_the_next_of_a_capped_tenant_go(harness: Harness, end: str) -> None:
    await decide(harness, a=TenantPolicy(max_concurrency=2))
    await harness.queue.enqueue([task(f"a{n}", tenant="a", ready_ms=START_MS + n - 10) for n in range(5)])
    first, second = await leases(harness, 10)
    if end == "removed":
        await harness.queue.remove(QUEUE, [(first.task, 1)])
    elif end == "expired":
        harness.clock.advance(LEASE_SECONDS)
        await harness.queue.extend(QUEUE, held([second]))
        (over,) = await harness.queue.expired(QUEUE, 10)
        await harness.queue.give_back(QUEUE, [(over.task, over.token)], Why.FAULT)
    else:
        await harness.queue.give_back(QUEUE, held([first]), Why(end))
    (third,) = await leases(harness, 10)
    assert third.task == ("a2/q1" if end == "removed" else "a0/q1")


async def test_a_cap_that_is_raised_or_lifted_frees_at_once(harness: Harness) -> None:
    await decide(harness, a=TenantPolicy(max_concurrency=1))
    await harness.queue.enqueue([task(tenant="a") for _ in range(5)])
    assert len(await leases(harness, 10)) == 1
    await decide(harness, a=TenantPolicy(max_concurrency=3))
    assert (await harness.queue.counts(QUEUE)).capped == 0
    assert len(await leases(harness, 10)) == 2
    await decide(harness)
    assert len(await leases(harness, 10)) == 2


async def test_a_cap_that_is_lowered_waits_for_leases_to_end(harness: Harness) -> None:
    await harness.queue.enqueue([task(tenant="a") for _ in range(6)])
    running = await leases(harness, 3)
    await decide(harness, a=TenantPolicy(max_concurrency=2))
    for lease in running[:2]:
        assert await leases(harness, 10) == []
        await harness.queue.remove(QUEUE, [(lease.task, 1)])
    assert len(await leases(harness, 10)) == 1


async def test_who_was_at_its_cap_claims_no_turns_that_it_missed(harness: Harness) -> None:
    await decide(harness, a=TenantPolicy(max_concurrency=1))
    await harness.queue.enqueue([task(tenant="a") for _ in range(300)])
    await harness.queue.enqueue([task(tenant="b") for _ in range(300)])
    assert await tenants(harness, 200) == {"a": 1, "b": 199}
    await decide(harness)
    served = await tenants(harness, 20)
    assert abs(served["a"] - served["b"]) <= 2


async def test_regrades_never_take_the_last_free_credit(harness: Harness) -> None:
    old = START_MS - 1_000_000
    await harness.queue.enqueue([task(f"r{n}", head_start=HeadStart.REGRADE, ready_ms=old) for n in range(5)])
    assert await leases(harness, 1, free=1) == []
    assert len(await leases(harness, 2, free=2)) == 1
    assert len(await leases(harness, 2, free=3)) == 2
    await harness.queue.enqueue([task("fresh", tenant="other")])
    names = [lease.task for lease in await leases(harness, 1, free=1)]
    assert names == ["fresh/q1"]
    assert len(await leases(harness, 9, free=9)) == 2


async def test_with_credits_to_spare_a_regrade_is_one_class_among_others(harness: Harness) -> None:
    await harness.queue.enqueue(
        [
            task("old-regrade", head_start=HeadStart.REGRADE, ready_ms=START_MS - 60_001),
            task("homework", ready_ms=START_MS),
            task("new-regrade", head_start=HeadStart.REGRADE, ready_ms=START_MS),
        ]
    )
    names = [lease.task.partition("/")[0] for lease in await leases(harness, 3)]
    assert names == ["old-regrade", "homework", "new-regrade"]


async def test_regrades_that_had_to_wait_push_nobody_back_for_it(harness: Harness) -> None:
    await harness.queue.enqueue([task(tenant="r", head_start=HeadStart.REGRADE) for _ in range(100)])
    await harness.queue.enqueue([task(tenant="w") for _ in range(200)])
    for _ in range(50):
        (lease,) = await leases(harness, 1, free=1)
        assert lease.tenant == "w"
    served = await tenants(harness, 20)
    assert abs(served["r"] - served["w"]) <= 2


async def test_counts_of_a_tenant_and_of_tenants(harness: Harness) -> None:
    await harness.queue.enqueue(
        [
            task(tenant="a"),
            task(tenant="a", head_start=HeadStart.REGRADE),
            task(tenant="a", ready_ms=START_MS + 1),
            task(tenant="b", head_start=HeadStart.REGRADE),
        ]
    )
    counts = await harness.queue.counts(QUEUE, "a")
    assert (counts.ready, counts.delayed, counts.tenant_ready, counts.tenants) == (3, 1, 2, 2)
    assert (await harness.queue.counts(QUEUE, "nobody")).tenant_ready == 0
