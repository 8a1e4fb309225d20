"""Deadlines, classes of failure, control of queues, walking over them, and rebuilds."""

import pytest

from cinnabar_scheduler.tasks import KnownTask, QueueName, QueueState, Verdict, Why
from tests.support.scheduler_adapters import LEASE_SECONDS, RETRIES, Harness
from tests.support.scheduler_queue import FREE, QUEUE, START_MS, held, task

ESSAY = QueueName("essay")


async def test_overdue_tasks_are_found_wherever_they_are(harness: Harness) -> None:
    await harness.queue.enqueue([task("leased", grade_by_ms=START_MS + 1_000)])
    (lease,) = (await harness.queue.lease(QUEUE, 1, free=FREE)).leases
    assert lease.grade_by_ms == START_MS + 1_000
    await harness.queue.enqueue(
        [
            task("ready", tenant="t2", generation=3, grade_by_ms=START_MS + 2_000),
            task("delayed", ready_ms=START_MS + 60_000, grade_by_ms=START_MS + 3_000),
            task("in-time", grade_by_ms=START_MS + 3_001),
            task("whenever"),
        ]
    )
    assert await harness.queue.overdue(QUEUE, 10) == []
    harness.clock.advance(3)
    found = await harness.queue.overdue(QUEUE, 10)
    assert [(one.task, one.generation, one.tenant, one.revoked) for one in found] == [
        ("leased/q1", 1, "t1", lease.token),
        ("ready/q1", 3, "t2", None),
        ("delayed/q1", 1, "t1", None),
    ]
    assert await harness.queue.extend(QUEUE, held([lease])) == [lease.token]
    fences = [int(one.token.partition("-")[0]) for one in found]
    assert fences == sorted({lease.fence, *fences})[1:]
    counts = await harness.queue.counts(QUEUE)
    assert (counts.ready, counts.delayed, counts.leased) == (2, 0, 3)
    for one in found:
        removed, tokens = await harness.queue.remove(QUEUE, [(one.task, one.generation)])
        assert (removed, tokens) == (1, [one.token])


async def test_an_overdue_task_is_held_for_one_finder_and_found_again_later(harness: Harness) -> None:
    await harness.queue.enqueue([task(grade_by_ms=START_MS) for _ in range(3)])
    first = await harness.queue.overdue(QUEUE, 2)
    second = await harness.other.overdue(QUEUE, 2)
    assert (len(first), len(second)) == (2, 1)
    assert await harness.queue.overdue(QUEUE, 10) == []
    harness.clock.advance(LEASE_SECONDS)
    again = await harness.other.overdue(QUEUE, 10)
    assert {one.revoked for one in again} == {one.token for one in (*first, *second)}


async def test_a_later_generation_has_its_own_deadline(harness: Harness) -> None:
    await harness.queue.enqueue([task("a", grade_by_ms=START_MS + 1)])
    await harness.queue.enqueue([task("a", generation=2)])
    harness.clock.advance(1)
    assert await harness.queue.overdue(QUEUE, 10) == []


async def test_each_class_of_failure_is_counted_apart(harness: Harness) -> None:
    await harness.queue.enqueue([task("a")])
    rest = [Why.UNAVAILABLE] * (RETRIES.unavailable.attempts - 1)
    for why in (*rest, Why.FAILED, Why.FAILED, Why.FAULT, Why.FAULT, Why.FAILED):
        (lease,) = (await harness.queue.lease(QUEUE, 1, free=FREE)).leases
        (answer,) = await harness.queue.give_back(QUEUE, held([lease]), why)
        assert answer.verdict is Verdict.QUEUED
        harness.clock.advance(RETRIES.unavailable.cap_seconds)
    (lease,) = (await harness.queue.lease(QUEUE, 1, free=FREE)).leases
    (answer,) = await harness.queue.give_back(QUEUE, held([lease]), Why.UNAVAILABLE)
    assert (answer.verdict, answer.deliveries) == (Verdict.GIVEN_UP, lease.delivery)


async def test_what_no_retry_can_help_is_given_up_at_once_and_for_good(harness: Harness) -> None:
    await harness.queue.enqueue([task("a")])
    (lease,) = (await harness.queue.lease(QUEUE, 1, free=FREE)).leases
    (answer,) = await harness.queue.give_back(QUEUE, held([lease]), Why.PERMANENT)
    assert (answer.verdict, answer.deliveries) == (Verdict.GIVEN_UP, 1)
    harness.clock.advance(LEASE_SECONDS)  # whoever wanted to commit the dead letter died
    (over,) = await harness.queue.expired(QUEUE, 10)
    (again,) = await harness.queue.give_back(QUEUE, [(over.task, over.token)], Why.FAULT)
    assert again.verdict is Verdict.GIVEN_UP


async def test_a_failed_task_goes_first_after_its_backoff(harness: Harness) -> None:
    await harness.queue.enqueue([task("failed", ready_ms=START_MS)])
    (lease,) = (await harness.queue.lease(QUEUE, 1, free=FREE)).leases
    await harness.queue.give_back(QUEUE, held([lease]), Why.FAILED)
    harness.clock.advance(RETRIES.failed.cap_seconds)
    await harness.queue.enqueue([task("new", ready_ms=START_MS)])
    (first,) = (await harness.queue.lease(QUEUE, 1, free=FREE)).leases
    assert (first.task, first.delivery) == ("failed/q1", 2)


async def test_a_paused_queue_takes_tasks_and_leases_none(harness: Harness) -> None:
    await harness.queue.enqueue([task("before")])
    (lease,) = (await harness.queue.lease(QUEUE, 1, free=FREE)).leases
    await harness.queue.control(QUEUE, QueueState.PAUSED)
    assert await harness.queue.enqueue([task("after"), task(ready_ms=START_MS + 1)]) == [True, True]
    harness.clock.advance(0.001)
    leased = await harness.other.lease(QUEUE, 10, free=FREE)
    assert (leased.leases, leased.next_due_ms) == ([], None)
    assert (await harness.queue.counts(QUEUE)).state is QueueState.PAUSED
    assert await harness.queue.remove(QUEUE, [(lease.task, 1)]) == (1, [lease.token])
    await harness.queue.control(QUEUE, QueueState.RUNNING)
    assert len((await harness.other.lease(QUEUE, 10, free=FREE)).leases) == 2


@pytest.mark.parametrize("queue", [QUEUE, ESSAY])
async def test_states_of_all_queues(harness: Harness, queue: QueueName) -> None:
    await harness.queue.control(queue, QueueState.DRAINING)
    states = await harness.other.states()
    assert states.pop(queue) is QueueState.DRAINING
    assert set(states) >= {"choice", "numeric", "text"}
    assert set(states.values()) == {QueueState.RUNNING}
    await harness.queue.enqueue([task(queue=queue)])
    assert len((await harness.queue.lease(queue, 1, free=FREE)).leases) == 1


async def test_a_walk_sees_every_task_in_every_state(harness: Harness) -> None:
    await harness.queue.enqueue([task("leased", tenant="t3", generation=2)])
    await harness.queue.lease(QUEUE, 1, free=FREE)
    await harness.queue.enqueue([task(f"many{n:04}") for n in range(1_200)])
    await harness.queue.enqueue([task("delayed", ready_ms=START_MS + 1)])
    seen: set[KnownTask] = set()
    cursor, pages = None, 0
    while pages == 0 or cursor is not None:
        page = await harness.queue.known(QUEUE, cursor, 100)
        assert len(page.tasks) < 1_000
        seen.update(page.tasks)
        cursor, pages = page.cursor, pages + 1
    assert pages > 2
    assert len(seen) == 1_202
    assert KnownTask("leased/q1", "t3", 2) in seen
    assert KnownTask("delayed/q1", "t1", 1) in seen


async def test_a_rebuild_of_a_lower_fence_is_refused(harness: Harness) -> None:
    assert await harness.queue.begin_rebuild(5)
    assert not await harness.other.begin_rebuild(4)
    assert not await harness.queue.has_epoch()
    assert await harness.other.begin_rebuild(6)
    assert not await harness.queue.finish_rebuild(5)
    assert await harness.other.finish_rebuild(6)
    assert await harness.queue.has_epoch()
    assert not await harness.queue.begin_rebuild(5)
    assert await harness.queue.has_epoch()


async def test_a_loss_in_the_middle_of_a_rebuild_is_seen(harness: Harness) -> None:
    assert await harness.queue.begin_rebuild(1)
    await harness.queue.enqueue([task()])
    await harness.flush()
    await harness.queue.enqueue([task()])
    assert not await harness.queue.finish_rebuild(1)
    assert not await harness.queue.has_epoch()
    assert await harness.queue.begin_rebuild(1)
    assert await harness.queue.finish_rebuild(1)


async def test_a_rebuild_keeps_tasks_leases_and_states(harness: Harness) -> None:
    await harness.queue.enqueue([task("a"), task("b")])
    (lease,) = (await harness.queue.lease(QUEUE, 1, free=FREE)).leases
    await harness.queue.control(QUEUE, QueueState.DRAINING)
    assert await harness.queue.begin_rebuild(1)
    assert await harness.queue.enqueue([task("a"), task("b"), task("c")]) == [False, False, True]
    assert await harness.queue.finish_rebuild(1)
    assert await harness.queue.extend(QUEUE, held([lease])) == []
    counts = await harness.queue.counts(QUEUE)
    assert (counts.ready, counts.leased, counts.state) == (2, 1, QueueState.DRAINING)


async def test_a_queue_used_for_the_first_time_is_no_loss(harness: Harness) -> None:
    assert await harness.queue.begin_rebuild(1)
    await harness.queue.enqueue([task(queue=ESSAY)])
    assert await harness.queue.finish_rebuild(1)
    await harness.other.enqueue([task(queue=QueueName("drawing"))])
    assert await harness.queue.has_epoch()
