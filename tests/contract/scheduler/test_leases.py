"""What holds a lease, and how a task comes back."""

import math

import pytest

from cinnabar_scheduler.tasks import HeadStart, Lease, LeaseToken, Verdict, Why
from tests.support.scheduler_adapters import LEASE_SECONDS, RETRIES, Harness
from tests.support.scheduler_queue import FREE, QUEUE, START_MS, held, task


async def one_lease(harness: Harness) -> Lease:
    (lease,) = (await harness.queue.lease(QUEUE, 1, free=FREE)).leases
    return lease


async def test_fences_rise_also_after_all_data_is_lost(harness: Harness) -> None:
    fences: list[int] = []
    for _ in range(3):
        await harness.queue.enqueue([task() for _ in range(20)])
        for limit in (7, 13):
            fences += [lease.fence for lease in (await harness.queue.lease(QUEUE, limit, free=FREE)).leases]
        await harness.flush()
        harness.clock.advance(0.001)
    assert len(fences) == 60
    assert fences == sorted(set(fences))


async def test_tokens_are_never_alike(harness: Harness) -> None:
    await harness.queue.enqueue([task() for _ in range(50)])
    leases = (await harness.queue.lease(QUEUE, 25, free=FREE)).leases + (
        await harness.other.lease(QUEUE, 25, free=FREE)
    ).leases
    assert len({lease.token for lease in leases}) == 50


async def test_an_extended_lease_does_not_expire(harness: Harness) -> None:
    await harness.queue.enqueue([task("kept"), task("silent")])
    kept, silent = (await harness.queue.lease(QUEUE, 2, free=FREE)).leases
    harness.clock.advance(LEASE_SECONDS * 0.9)
    assert await harness.queue.extend(QUEUE, held([kept])) == []
    harness.clock.advance(LEASE_SECONDS * 0.9)
    assert [one.token for one in await harness.queue.expired(QUEUE, 10)] == [silent.token]


async def test_extending_nothing_is_nothing(harness: Harness) -> None:
    assert await harness.queue.extend(QUEUE, []) == []
    assert await harness.queue.give_back(QUEUE, [], Why.FAULT) == []
    assert await harness.queue.remove(QUEUE, []) == (0, [])


async def test_extend_names_the_tokens_that_hold_nothing(harness: Harness) -> None:
    await harness.queue.enqueue([task("a")])
    lease = await one_lease(harness)
    stale, unknown = (lease.task, LeaseToken("1-old")), ("nobody/q1", LeaseToken("2-x"))
    assert await harness.queue.extend(QUEUE, [stale, *held([lease]), unknown]) == ["1-old", "2-x"]


async def test_an_expired_lease_is_found_by_one_caller_at_a_time(harness: Harness) -> None:
    await harness.queue.enqueue([task(generation=3, tenant="t7")])
    lease = await one_lease(harness)
    assert await harness.queue.expired(QUEUE, 10) == []
    harness.clock.advance(LEASE_SECONDS)
    (found,) = await harness.queue.expired(QUEUE, 10)
    assert (found.task, found.token, found.generation, found.tenant) == (lease.task, lease.token, 3, "t7")
    assert await harness.other.expired(QUEUE, 10) == []
    harness.clock.advance(LEASE_SECONDS)  # the first finder died
    assert [one.token for one in await harness.other.expired(QUEUE, 10)] == [lease.token]


async def test_expired_takes_at_most_the_limit(harness: Harness) -> None:
    await harness.queue.enqueue([task() for _ in range(5)])
    await harness.queue.lease(QUEUE, 5, free=FREE)
    harness.clock.advance(LEASE_SECONDS)
    assert [len(await harness.queue.expired(QUEUE, 2)) for _ in range(4)] == [2, 2, 1, 0]


@pytest.mark.parametrize("why", [Why.RETURNED, Why.FAULT])
async def test_what_was_not_the_graders_failure_is_ready_at_once(harness: Harness, why: Why) -> None:
    await harness.queue.enqueue([task("a")])
    lease = await one_lease(harness)
    (answer,) = await harness.queue.give_back(QUEUE, held([lease]), why)
    assert answer.verdict is Verdict.QUEUED
    again = await one_lease(harness)
    assert again.fence > lease.fence
    assert again.delivery == (1 if why is Why.RETURNED else 2)


async def test_a_token_gives_back_once(harness: Harness) -> None:
    await harness.queue.enqueue([task("a")])
    lease = await one_lease(harness)
    answers = await harness.queue.give_back(QUEUE, held([lease, lease]), Why.FAULT)
    assert [answer.verdict for answer in answers] == [Verdict.QUEUED, Verdict.LOST]
    again = await one_lease(harness)
    (late,) = await harness.queue.give_back(QUEUE, held([lease]), Why.FAILED)
    assert late.verdict is Verdict.LOST
    assert await harness.queue.extend(QUEUE, held([again])) == []


async def test_a_task_that_was_lost_goes_before_others(harness: Harness) -> None:
    await harness.queue.enqueue([task("lost", head_start=HeadStart.REGRADE)])
    lease = await one_lease(harness)
    await harness.queue.enqueue([task("exam", head_start=HeadStart.HIGH)])
    await harness.queue.give_back(QUEUE, held([lease]), Why.FAULT)
    assert (await one_lease(harness)).task == "lost/q1"


async def test_a_returned_task_keeps_its_place(harness: Harness) -> None:
    await harness.queue.enqueue([task("first", ready_ms=START_MS - 2), task("second", ready_ms=START_MS - 1)])
    lease = await one_lease(harness)
    await harness.queue.give_back(QUEUE, held([lease]), Why.RETURNED)
    assert [one.task for one in (await harness.queue.lease(QUEUE, 2, free=FREE)).leases] == [
        "first/q1",
        "second/q1",
    ]


@pytest.mark.parametrize(("failures", "bound_ms"), [(1, 1_000), (2, 2_000), (3, 3_000)])
async def test_failures_back_off_within_bounds_and_not_in_step(
    harness: Harness, failures: int, bound_ms: int
) -> None:
    await harness.queue.enqueue([task() for _ in range(60)])
    for _ in range(failures - 1):
        await harness.queue.give_back(
            QUEUE, held((await harness.queue.lease(QUEUE, 60, free=FREE)).leases), Why.FAILED
        )
        harness.clock.advance(RETRIES.failed.cap_seconds)
    leases = (await harness.queue.lease(QUEUE, 60, free=FREE)).leases
    answers = await harness.queue.give_back(QUEUE, held(leases), Why.FAILED)
    assert {answer.verdict for answer in answers} == {Verdict.QUEUED}
    arrivals: list[int] = []
    for step in range(10):
        arrivals.append(len((await harness.queue.lease(QUEUE, 60, free=FREE)).leases))
        if step < 9:
            harness.clock.advance(math.ceil(bound_ms / 9) / 1000)  # the clock of the queue has whole ms
    assert sum(arrivals) == 60
    assert sum(count > 0 for count in arrivals) >= 5


async def test_too_many_failures_give_up_and_count_deliveries(harness: Harness) -> None:
    await harness.queue.enqueue([task("a")])
    for _ in range(RETRIES.failed.attempts - 1):
        lease = await one_lease(harness)
        (answer,) = await harness.queue.give_back(QUEUE, held([lease]), Why.FAILED)
        assert answer.verdict is Verdict.QUEUED
        harness.clock.advance(RETRIES.failed.cap_seconds)
    lease = await one_lease(harness)
    (answer,) = await harness.queue.give_back(QUEUE, held([lease]), Why.FAILED)
    assert (answer.verdict, answer.deliveries) == (Verdict.GIVEN_UP, RETRIES.failed.attempts)
    counts = await harness.queue.counts(QUEUE)
    assert (counts.ready, counts.delayed, counts.leased) == (0, 0, 1)
    harness.clock.advance(LEASE_SECONDS)  # nobody committed the dead letter: it is found, and given up again
    assert [one.token for one in await harness.queue.expired(QUEUE, 10)] == [lease.token]
    (again,) = await harness.queue.give_back(QUEUE, held([lease]), Why.FAULT)
    assert again.verdict is Verdict.GIVEN_UP
    assert await harness.queue.remove(QUEUE, [("a/q1", 1)]) == (1, [lease.token])


async def test_faults_and_failures_are_counted_apart(harness: Harness) -> None:
    await harness.queue.enqueue([task("a")])
    verdicts: list[Verdict] = []
    for why in (Why.FAULT, Why.FAILED, Why.FAULT, Why.FAILED, Why.FAILED, Why.FAULT):
        lease = await one_lease(harness)
        (answer,) = await harness.queue.give_back(QUEUE, held([lease]), why)
        verdicts.append(answer.verdict)
        harness.clock.advance(RETRIES.failed.cap_seconds)
    assert verdicts == [Verdict.QUEUED] * 5 + [Verdict.GIVEN_UP]


async def test_returning_counts_as_nothing(harness: Harness) -> None:
    await harness.queue.enqueue([task("a")])
    for _ in range(20):
        lease = await one_lease(harness)
        assert lease.delivery == 1
        (answer,) = await harness.queue.give_back(QUEUE, held([lease]), Why.RETURNED)
        assert answer.verdict is Verdict.QUEUED
