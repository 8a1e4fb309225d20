"""What becomes of tasks whose worker is done, or gone."""

import asyncio
from collections.abc import AsyncGenerator

import pytest_asyncio

from cinnabar_scheduler.adapters.memory import MemoryPolicy, MemoryQueue
from cinnabar_scheduler.outcomes import Failure, Fate, Outcomes
from cinnabar_scheduler.policy import Policy, QueuePolicy, RetryRule
from cinnabar_scheduler.tally import Tally
from cinnabar_scheduler.tasks import DeadLetter, ExpiredLease, Grade, Lease, Why
from tests.support.scheduler_doubles import MemoryStore, RecordingBus
from tests.support.scheduler_queue import FREE, QUEUE, ManualClock, held, task

GRADE = Grade(4.0, b"grade")


class Parts:
    def __init__(self) -> None:
        self.clock = ManualClock()
        policy = Policy(default_queue=QueuePolicy(max_faults=2, failed=RetryRule(2, 1.0, 60.0)))
        self.queue = MemoryQueue(clock=self.clock, lease_seconds=10, policies=MemoryPolicy(policy))
        self.tally = Tally()
        self.store, self.bus, self.here = MemoryStore(), RecordingBus(), RecordingBus()
        self.outcomes = Outcomes(
            self.queue,
            self.store,
            self.bus,
            self.here.changed.append,
            self.here.cancelled.extend,
            patience_seconds=0.5,
            tally=self.tally,
        )

    async def lease(self, count: int = 1) -> list[Lease]:
        await self.queue.enqueue([task() for _ in range(count)])
        return (await self.queue.lease(QUEUE, count, free=FREE)).leases

    async def counts(self) -> tuple[int, int, int]:
        counts = await self.queue.counts(QUEUE)
        return counts.ready, counts.delayed, counts.leased


@pytest_asyncio.fixture
async def parts() -> AsyncGenerator[Parts]:
    parts = Parts()
    async with parts.outcomes.running():
        yield parts


async def test_a_grade_is_committed_under_its_fence_then_forgotten_and_told(parts: Parts) -> None:
    one, two = await parts.lease(2)
    fates = await parts.outcomes.grade("w1", [(one, GRADE), (two, GRADE)])
    assert fates == [Fate.COMMITTED, Fate.COMMITTED]
    written = parts.store.outcomes[0]
    assert (written.task, written.fence, written.token) == (one.task, one.fence, one.token)
    assert (written.worker, written.tenant, written.generation, written.outcome) == ("w1", "t1", 1, GRADE)
    assert await parts.counts() == (0, 0, 0)
    assert [changed.submissions for changed in parts.bus.changed] == [[one.submission, two.submission]]
    assert parts.here.changed == parts.bus.changed
    assert parts.bus.changed[0].positions[0].lsn == 2


async def test_a_second_grade_changes_nothing_and_tells_nobody(parts: Parts) -> None:
    (one,) = await parts.lease()
    await parts.outcomes.grade("w1", [(one, GRADE)])
    assert await parts.outcomes.grade("w2", [(one, GRADE)]) == [Fate.ALREADY_GRADED]
    assert len(parts.store.outcomes) == len(parts.bus.changed) == 1


async def test_who_works_on_a_task_graded_meanwhile_is_told_to_stop(parts: Parts) -> None:
    (late,) = await parts.lease()
    await parts.queue.give_back(QUEUE, held([late]), Why.FAULT)
    (current,) = (await parts.queue.lease(QUEUE, 1, free=FREE)).leases
    assert await parts.outcomes.grade("w1", [(late, GRADE)]) == [Fate.COMMITTED]
    assert parts.here.cancelled == parts.bus.cancelled == [current.token]


async def test_a_short_outage_of_storage_is_waited_out(parts: Parts) -> None:
    (one,) = await parts.lease()
    parts.store.outages = 2
    assert await parts.outcomes.grade("w1", [(one, GRADE)]) == [Fate.COMMITTED]
    assert await parts.counts() == (0, 0, 0)


async def test_a_long_outage_of_storage_gives_the_task_back_without_counting_it(parts: Parts) -> None:
    (one,) = await parts.lease()
    parts.store.outages = 1_000
    assert await parts.outcomes.grade("w1", [(one, GRADE)]) == [Fate.RETRYING]
    assert await parts.counts() == (1, 0, 0)
    (again,) = (await parts.queue.lease(QUEUE, 1, free=FREE)).leases
    assert again.delivery == 1


async def test_one_lost_shard_does_not_hold_up_another(parts: Parts) -> None:
    lost, good = await parts.lease(2)
    parts.store.unavailable = {lost.task}
    waiting = asyncio.create_task(parts.outcomes.grade("w1", [(lost, GRADE)]))
    async with asyncio.timeout(0.4):
        assert await parts.outcomes.grade("w2", [(good, GRADE)]) == [Fate.COMMITTED]
    assert not waiting.done()
    parts.store.unavailable = set()
    assert await waiting == [Fate.COMMITTED]


async def test_a_grade_is_committed_though_the_queue_is_down(parts: Parts) -> None:
    (one,) = await parts.lease()
    parts.queue.outage = True
    assert await parts.outcomes.grade("w1", [(one, GRADE)]) == [Fate.COMMITTED]
    parts.queue.outage = False
    assert await parts.counts() == (0, 0, 1)  # delivered again in the end, refused by the fence
    parts.clock.advance(10)
    (expired,) = await parts.queue.expired(QUEUE, 10)
    await parts.outcomes.expire(QUEUE, [expired])
    (again,) = (await parts.queue.lease(QUEUE, 1, free=FREE)).leases
    assert await parts.outcomes.grade("w2", [(again, GRADE)]) == [Fate.ALREADY_GRADED]
    assert await parts.counts() == (0, 0, 0)


async def test_failures_retry_then_become_a_dead_letter(parts: Parts) -> None:
    (one,) = await parts.lease()
    assert await parts.outcomes.fail("w1", [(one, Failure("first"))]) == [Fate.RETRYING]
    parts.clock.advance(2)
    (two,) = (await parts.queue.lease(QUEUE, 1, free=FREE)).leases
    assert await parts.outcomes.fail("w1", [(two, Failure("second"))]) == [Fate.DEAD_LETTERED]
    assert parts.store.outcomes[0].outcome == DeadLetter("second", 2)
    assert parts.store.outcomes[0].fence == two.fence
    assert await parts.counts() == (0, 0, 0)
    assert len(parts.bus.changed) == 1


async def test_a_dead_letter_that_storage_cannot_take_stays_under_its_lease(parts: Parts) -> None:
    (one,) = await parts.lease()
    await parts.outcomes.lose("w1", [one])
    (two,) = (await parts.queue.lease(QUEUE, 1, free=FREE)).leases
    parts.store.outages = 1_000
    await parts.outcomes.lose("w1", [two])
    assert await parts.counts() == (0, 0, 1)
    parts.store.outages = 0
    parts.clock.advance(10)
    await parts.outcomes.expire(QUEUE, await parts.queue.expired(QUEUE, 10))
    assert isinstance(parts.store.outcomes[0].outcome, DeadLetter)
    assert await parts.counts() == (0, 0, 0)


async def test_an_outcome_without_lease_is_stale(parts: Parts) -> None:
    (one,) = await parts.lease()
    await parts.queue.remove(QUEUE, [(one.task, 1)])
    assert await parts.outcomes.fail("w1", [(one, Failure("late"))]) == [Fate.STALE_LEASE]
    assert parts.store.outcomes == []


async def test_a_failure_told_while_the_queue_is_down_is_left_to_expire(parts: Parts) -> None:
    (one,) = await parts.lease()
    parts.queue.outage = True
    assert await parts.outcomes.fail("w1", [(one, Failure("late"))]) == [Fate.STALE_LEASE]
    assert await parts.outcomes.release([one]) == [Fate.RETURNED]
    parts.queue.outage = False
    assert await parts.counts() == (0, 0, 1)


async def test_expired_leases_are_cancelled_everywhere(parts: Parts) -> None:
    (one,) = await parts.lease()
    await parts.outcomes.expire(QUEUE, [ExpiredLease(one.task, one.token, 1, "t1")])
    assert parts.here.cancelled == parts.bus.cancelled == [one.token]
    assert await parts.counts() == (1, 0, 0)


async def test_when_the_scheduler_stops_what_waits_goes_back() -> None:
    parts = Parts()
    (one,) = await parts.lease()
    parts.store.outages = 1_000
    async with parts.outcomes.running():
        waiting = asyncio.create_task(parts.outcomes.grade("w1", [(one, GRADE)]))
        await asyncio.sleep(0)
    assert await waiting == [Fate.RETRYING]
    assert await parts.counts() == (1, 0, 0)


async def test_failures_of_all_classes_in_one_report(parts: Parts) -> None:
    failed, away, hopeless, stale = await parts.lease(4)
    await parts.outcomes.release([stale])
    fates = await parts.outcomes.fail(
        "w1",
        [
            (hopeless, Failure("broken item", Why.PERMANENT)),
            (failed, Failure("crash")),
            (stale, Failure("late", Why.PERMANENT)),
            (away, Failure("no model", Why.UNAVAILABLE)),
        ],
    )
    assert fates == [Fate.DEAD_LETTERED, Fate.RETRYING, Fate.STALE_LEASE, Fate.RETRYING]
    (buried,) = parts.store.outcomes
    assert (buried.task, buried.outcome) == (hopeless.task, DeadLetter("broken item", 1))
    assert await parts.counts() == (1, 2, 0)


async def test_what_became_of_outcomes_is_counted(parts: Parts) -> None:
    good, twice, bad, broken, back, lost = await parts.lease(6)
    await parts.outcomes.grade("w1", [(good, GRADE), (twice, GRADE)])
    await parts.outcomes.grade("w2", [(twice, GRADE)])
    await parts.outcomes.fail("w1", [(bad, Failure("broken item", Why.PERMANENT))])
    await parts.outcomes.reject("w1", [(broken, Failure("no result"))])
    await parts.outcomes.release([back])
    await parts.outcomes.lose("w1", [lost])
    parts.outcomes.stale(3)
    assert parts.tally.outcomes == {
        (QUEUE, "committed"): 2,
        (QUEUE, "already graded"): 1,
        (QUEUE, "dead lettered"): 1,
        (QUEUE, "rejected"): 1,
        (QUEUE, "returned"): 1,
        ("", "stale lease"): 3,
    }
    assert (parts.tally.given_up[QUEUE], parts.tally.lost[QUEUE]) == (1, 1)
