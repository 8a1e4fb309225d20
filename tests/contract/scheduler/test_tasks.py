"""What the queue knows of tasks, epochs and locks."""

from dataclasses import replace

from cinnabar_scheduler.tasks import KNOWN_QUEUES, QueueName
from tests.support.scheduler_adapters import Harness
from tests.support.scheduler_queue import FREE, QUEUE, START_MS, task

NUMERIC = QueueName("numeric")


async def test_a_task_is_there_once_however_often_it_is_enqueued(harness: Harness) -> None:
    one, two = task("one"), task("two")
    assert await harness.queue.enqueue([one, one, two]) == [True, False, True]
    assert await harness.queue.enqueue([two, task("three"), one]) == [False, True, False]
    assert (await harness.queue.counts(QUEUE)).ready == 3
    assert len((await harness.queue.lease(QUEUE, 10, free=FREE)).leases) == 3
    assert await harness.queue.enqueue([one]) == [False]
    assert (await harness.queue.lease(QUEUE, 10, free=FREE)).leases == []


async def test_flags_of_a_mixed_batch_are_in_its_order(harness: Harness) -> None:
    await harness.queue.enqueue([task("b", queue=NUMERIC), task("c")])
    batch = [task("a"), task("b", queue=NUMERIC), task("c"), task("d", queue=NUMERIC)]
    assert await harness.queue.enqueue(batch) == [True, False, False, True]


async def test_more_than_one_batch_of_the_store(harness: Harness) -> None:
    tasks = [task(f"many{n:04}") for n in range(2_500)]
    await harness.queue.enqueue([tasks[1_001]])
    added = await harness.queue.enqueue(tasks)
    assert added.count(False) == 1
    assert added[1_001] is False


async def test_a_newer_generation_replaces_an_older_one_wherever_it_is(harness: Harness) -> None:
    ready, delayed, leased = task("ready"), task("delayed", ready_ms=START_MS + 5_000), task("leased")
    await harness.queue.enqueue([leased])
    old = (await harness.queue.lease(QUEUE, 1, free=FREE)).leases[0]
    await harness.queue.enqueue([ready, delayed])
    newer = [task(name, generation=2, answer=b"new") for name in ("ready", "delayed", "leased")]
    assert await harness.queue.enqueue(newer) == [True, True, True]
    counts = await harness.queue.counts(QUEUE)
    assert (counts.ready, counts.delayed, counts.leased) == (3, 0, 0)
    assert await harness.queue.extend(QUEUE, [(old.task, old.token)]) == [old.token]
    leases = (await harness.queue.lease(QUEUE, 10, free=FREE)).leases
    assert [(lease.generation, lease.answer, lease.delivery) for lease in leases] == [(2, b"new", 1)] * 3
    assert await harness.queue.enqueue([ready, delayed, leased]) == [False, False, False]


async def test_a_lease_carries_its_task_unchanged(harness: Harness) -> None:
    answer = bytes(range(256)) * 2
    await harness.queue.enqueue([task("s", tenant="t9", generation=7, item_key="rev/q1", answer=answer)])
    (lease,) = (await harness.queue.lease(QUEUE, 1, free=FREE)).leases
    assert (lease.task, lease.submission, lease.item, lease.tenant) == ("s/q1", "s", "q1", "t9")
    assert (lease.generation, lease.delivery, lease.queue) == (7, 1, QUEUE)
    assert (lease.item_key, lease.revision, lease.answer) == ("rev/q1", "rev", answer)
    assert not lease.upgrade


async def test_a_lease_says_that_its_task_is_an_upgrade(harness: Harness) -> None:
    await harness.queue.enqueue([replace(task("s", item_key="rev/q1", answer=b"a"), upgrade=True)])
    (lease,) = (await harness.queue.lease(QUEUE, 1, free=FREE)).leases
    assert (lease.upgrade, lease.item_key, lease.answer) == (True, "rev/q1", b"a")


async def test_missing_names_what_no_queue_knows(harness: Harness) -> None:
    await harness.queue.enqueue([task("a"), task("b", queue=NUMERIC)])
    asked = [(QUEUE, "a/q1"), (QUEUE, "x/q1"), (NUMERIC, "b/q1"), (NUMERIC, "y/q1")]
    assert await harness.queue.missing(asked) == {"x/q1", "y/q1"}
    assert await harness.queue.missing([]) == set()


async def test_remove_forgets_tasks_wherever_they_are(harness: Harness) -> None:
    await harness.queue.enqueue([task("leased")])
    (lease,) = (await harness.queue.lease(QUEUE, 1, free=FREE)).leases
    await harness.queue.enqueue([task("ready"), task("delayed", ready_ms=START_MS + 5_000)])
    names = [(f"{name}/q1", 1) for name in ("leased", "ready", "delayed", "unknown")]
    assert await harness.queue.remove(QUEUE, names) == (3, [lease.token])
    counts = await harness.queue.counts(QUEUE)
    assert (counts.ready, counts.delayed, counts.leased) == (0, 0, 0)
    assert await harness.queue.remove(QUEUE, names) == (0, [])
    harness.clock.advance(10)
    assert (await harness.queue.lease(QUEUE, 10, free=FREE)).leases == []


async def test_remove_leaves_a_newer_generation(harness: Harness) -> None:
    await harness.queue.enqueue([task("a", generation=2)])
    assert await harness.queue.remove(QUEUE, [("a/q1", 1)]) == (0, [])
    assert await harness.queue.remove(QUEUE, [("a/q1", 2)]) == (1, [])


async def test_removing_the_last_task_of_a_tenant_leaves_others_in_turn(harness: Harness) -> None:
    await harness.queue.enqueue([task("gone", tenant="a"), task("stays", tenant="b")])
    await harness.queue.remove(QUEUE, [("gone/q1", 1)])
    leases = (await harness.queue.lease(QUEUE, 10, free=FREE)).leases
    assert [lease.task for lease in leases] == ["stays/q1"]


async def test_counts(harness: Harness) -> None:
    await harness.queue.enqueue([task(ready_ms=START_MS - 100)])
    await harness.queue.lease(QUEUE, 1, free=FREE)
    await harness.queue.enqueue(
        [
            task(tenant="a", ready_ms=START_MS - 50),
            task(tenant="b", ready_ms=START_MS - 70),
            task(ready_ms=START_MS + 1),
        ]
    )
    counts = await harness.queue.counts(QUEUE)
    assert (counts.ready, counts.delayed, counts.leased) == (2, 1, 1)
    assert counts.oldest_ready_ms == START_MS - 70
    assert (await harness.queue.counts(NUMERIC)).oldest_ready_ms is None


async def test_queues_are_those_known_and_those_used(harness: Harness) -> None:
    await harness.queue.enqueue([task(queue=QueueName("essay"))])
    assert await harness.queue.queues() == {*KNOWN_QUEUES, "essay"}
    assert await harness.other.queues() == await harness.queue.queues()


async def test_an_epoch_ends_with_the_data(harness: Harness) -> None:
    assert not await harness.queue.has_epoch()
    assert await harness.queue.begin_rebuild(1)
    assert await harness.queue.finish_rebuild(1)
    assert await harness.queue.has_epoch()
    assert await harness.queue.enqueue([task("a", queue=QueueName("essay"))]) == [True]
    await harness.flush()
    assert not await harness.queue.has_epoch()
    assert await harness.queue.enqueue([task("a", queue=QueueName("essay"))]) == [True]
    assert "essay" in await harness.queue.queues()
