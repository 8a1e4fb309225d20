"""In which order the queue serves."""

import pytest

from cinnabar_scheduler.tasks import HeadStart
from tests.support.scheduler_adapters import Harness
from tests.support.scheduler_queue import FREE, QUEUE, START_MS, task


async def leased_names(harness: Harness, limit: int) -> list[str]:
    return [
        lease.task.partition("/")[0] for lease in (await harness.queue.lease(QUEUE, limit, free=FREE)).leases
    ]


async def test_one_class_is_served_in_the_order_of_ready_times(harness: Harness) -> None:
    await harness.queue.enqueue(
        [
            task("third", ready_ms=START_MS - 1),
            task("first", ready_ms=START_MS - 3),
            task("second", ready_ms=START_MS - 2),
        ]
    )
    assert await leased_names(harness, 10) == ["first", "second", "third"]


async def test_a_class_is_a_head_start_and_not_a_wall(harness: Harness) -> None:
    await harness.queue.enqueue(
        [
            task("old-regrade", head_start=HeadStart.REGRADE, ready_ms=START_MS - 120_001),
            task("exam", head_start=HeadStart.HIGH, ready_ms=START_MS),
            task("young-regrade", head_start=HeadStart.REGRADE, ready_ms=START_MS - 1_000),
            task("homework", head_start=HeadStart.NORMAL, ready_ms=START_MS),
        ]
    )
    assert await leased_names(harness, 10) == ["old-regrade", "exam", "homework", "young-regrade"]


async def test_a_tenant_with_one_task_waits_for_at_most_two_dispatches(harness: Harness) -> None:
    await harness.queue.enqueue([task(tenant="big", ready_ms=START_MS - 1_000) for _ in range(10_000)])
    await harness.queue.lease(QUEUE, 500, free=FREE)
    await harness.queue.enqueue([task("lonely", tenant="small")])
    assert "lonely" in await leased_names(harness, 2)


async def test_what_a_tenant_had_alone_is_not_held_against_it(harness: Harness) -> None:
    await harness.queue.enqueue([task(f"early{n:03}", tenant="early") for n in range(501)])
    await harness.queue.lease(QUEUE, 500, free=FREE)
    await harness.queue.enqueue([task(tenant="late") for _ in range(1_000)])
    assert "early500" in await leased_names(harness, 2)


async def test_tenants_take_turns(harness: Harness) -> None:
    for tenant, count in (("a", 50), ("b", 20), ("c", 5)):
        await harness.queue.enqueue([task(tenant=tenant) for _ in range(count)])
    leases = (await harness.queue.lease(QUEUE, 15, free=FREE)).leases
    tenants = [lease.tenant for lease in leases]
    assert {tenant: tenants.count(tenant) for tenant in "abc"} == {"a": 5, "b": 5, "c": 5}
    rest = [lease.tenant for lease in (await harness.queue.lease(QUEUE, 100, free=FREE)).leases]
    assert {tenant: rest.count(tenant) for tenant in "abc"} == {"a": 45, "b": 15, "c": 0}


async def test_a_tenant_that_comes_back_gets_no_credit_for_its_absence(harness: Harness) -> None:
    await harness.queue.enqueue([task(tenant="a"), task(tenant="b")])
    await harness.queue.lease(QUEUE, 2, free=FREE)
    await harness.queue.enqueue([task(tenant="a") for _ in range(300)])
    await harness.queue.lease(QUEUE, 200, free=FREE)
    await harness.queue.enqueue([task(tenant="b") for _ in range(300)])
    tenants = [lease.tenant for lease in (await harness.queue.lease(QUEUE, 20, free=FREE)).leases]
    assert tenants.count("a") == tenants.count("b") == 10


@pytest.mark.parametrize("delay_seconds", [0.001, 60.0])
async def test_a_delayed_task_is_not_served_before_it_is_due(harness: Harness, delay_seconds: float) -> None:
    due_ms = START_MS + round(delay_seconds * 1000)
    await harness.queue.enqueue([task("later", ready_ms=due_ms)])
    leased = await harness.queue.lease(QUEUE, 10, free=FREE)
    assert (leased.leases, leased.next_due_ms) == ([], due_ms)
    harness.clock.advance(delay_seconds - 0.001)
    assert await leased_names(harness, 10) == []
    harness.clock.advance(0.001)
    assert await leased_names(harness, 10) == ["later"]


async def test_a_task_dated_by_a_clock_that_goes_ahead_is_ready_at_once(harness: Harness) -> None:
    await harness.queue.enqueue([task("ahead", ready_ms=START_MS + 600_000, ready_now=True), task("now")])
    counts = await harness.queue.counts(QUEUE)
    assert (counts.ready, counts.delayed, counts.oldest_ready_ms) == (2, 0, START_MS)
    assert sorted(await leased_names(harness, 10)) == ["ahead", "now"]


async def test_large_answers_come_in_parts(harness: Harness) -> None:
    await harness.queue.enqueue([task(answer=b"x" * 1024 * 1024, tenant=f"t{n % 3}") for n in range(20)])
    sizes: list[int] = []
    while leases := (leased := await harness.queue.lease(QUEUE, 100, free=FREE)).leases:
        sizes.append(len(leases))
        assert leased.next_due_ms == (0 if sum(sizes) < 20 else None)
    assert sizes == [7, 7, 6]


async def test_one_answer_beyond_the_size_is_served_all_the_same(harness: Harness) -> None:
    await harness.queue.enqueue([task(answer=b"x" * 9 * 1024 * 1024), task()])
    assert len(await leased_names(harness, 10)) == 1
    assert len(await leased_names(harness, 10)) == 1
