"""Leaders that die, stop and lose their lock; queues that lose their data. Real processes and servers."""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import grpc
import pytest

from cinnabar.scheduler.v1 import queue_service_pb2 as pb
from cinnabar.scheduler.v1.work_service_pb2 import Receipt
from cinnabar_common.redis_connection import connect
from tests.support.scheduler_process import SchedulerProcess, Shared, Suite
from tests.support.scheduler_worker import ScriptedWorker, worker
from tests.support.waiting import until

QUEUE = "free-text"
LEADING = '"leading"'
REBUILT = '"queues rebuilt"'


async def flush(redis_url: str) -> None:
    """Redis loses everything."""
    redis = cast("Any", connect(redis_url, timeout_seconds=5))
    await redis.flushdb()
    await redis.aclose()


def times_led(schedulers: Sequence[SchedulerProcess]) -> list[int]:
    """How often each took the lead."""
    return [one.log().count(LEADING) for one in schedulers]


async def leader_of(schedulers: Sequence[SchedulerProcess]) -> tuple[SchedulerProcess, SchedulerProcess]:
    """The leader and another one, right after the start."""
    await until(lambda: sum(times_led(schedulers)) == 1, "a leader")
    first, second = schedulers
    return (first, second) if first.log().count(LEADING) else (second, first)


async def all_ready(scheduler: SchedulerProcess, count: int, *, seconds: float = 10) -> None:
    """Waits until so many tasks are ready."""

    async def ready() -> bool:
        return (await scheduler.stats()).ready == count

    await until(ready, f"{count} ready tasks", seconds=seconds)


@asynccontextmanager
async def greeted(scheduler: SchedulerProcess) -> AsyncGenerator[ScriptedWorker]:
    """A worker that said hello."""
    async with worker(scheduler.target) as held:
        await held.hello()
        yield held


async def test_a_killed_leader_is_followed_within_seconds(parts: Suite) -> None:
    schedulers = [await parts.scheduler(), await parts.scheduler()]
    leader, other = await leader_of(schedulers)
    parts.storage.add_tasks(20, revision=parts.storage.add_revision())
    began = time.monotonic()
    await leader.process.kill()
    await flush(parts.redis_url)  # the lock goes too: whoever is left takes it
    await all_ready(other, 20, seconds=5)
    print(f"\nleader killed and Redis flushed: queued again after {time.monotonic() - began:.2f} s")  # noqa: T201
    await leader.process.start()
    began = time.monotonic()
    await other.process.kill()  # and now the lock stays behind
    await until(lambda: leader.log().count(LEADING) == 2, "the takeover", seconds=5)
    print(f"leader killed: followed after {time.monotonic() - began:.2f} s")  # noqa: T201


async def test_a_leader_that_leaves_is_followed_at_once(parts: Suite) -> None:
    schedulers = [await parts.scheduler(), await parts.scheduler()]
    leader, other = await leader_of(schedulers)
    began = time.monotonic()
    await leader.process.stop()
    await until(lambda: LEADING in other.log(), "the next leader", seconds=2)
    assert time.monotonic() - began < 2.5


async def test_a_stopped_leader_is_followed_and_declares_nothing_when_it_wakes(parts: Suite) -> None:
    schedulers = [await parts.scheduler(sweep_seconds="600"), await parts.scheduler(sweep_seconds="600")]
    leader, other = await leader_of(schedulers)
    parts.storage.add_tasks(20, revision=parts.storage.add_revision())
    parts.storage.add_tasks(30, revision=parts.storage.add_revision(), bucket=1000)
    parts.storage.pages.clear()
    asked = parts.storage.pages_asked
    await flush(parts.redis_url)
    await until(lambda: parts.storage.pages_asked >= asked + 2, "a rebuild under way")
    # After the loss of the lock either of the two may lead.
    led = times_led(schedulers)
    leader, other = (
        (leader, other) if led[schedulers.index(leader)] > led[schedulers.index(other)] else (other, leader)
    )
    began = time.monotonic()
    rebuilt, led_before = leader.log().count(REBUILT), other.log().count(LEADING)
    leader.process.pause()
    try:
        await until(lambda: other.log().count(LEADING) > led_before, "the takeover", seconds=5)
        print(f"\nleader stopped: followed after {time.monotonic() - began:.2f} s")  # noqa: T201
        parts.storage.pages.set()
        await all_ready(other, 50)
        await until(lambda: REBUILT in other.log(), "the rebuild of the new leader")
    finally:
        leader.process.resume()
    await until(lambda: '"leadership lost"' in leader.log(), "the old leader to notice")
    assert leader.log().count(REBUILT) == rebuilt
    assert (await leader.stats()).ready == 50
    assert sum(times_led(schedulers)) == 3  # the first, the one after the flush, and the takeover


async def test_a_flush_in_the_middle_of_a_rebuild_begins_it_again(parts: Suite) -> None:
    scheduler = await parts.scheduler(sweep_seconds="600")
    parts.storage.add_tasks(20, revision=parts.storage.add_revision())
    parts.storage.add_tasks(30, revision=parts.storage.add_revision(), bucket=1000)
    parts.storage.pages.clear()
    for _ in range(2):
        asked = parts.storage.pages_asked
        await flush(parts.redis_url)
        await until(lambda asked=asked: parts.storage.pages_asked >= asked + 2, "a rebuild under way")
    parts.storage.pages.set()
    await all_ready(scheduler, 50, seconds=5)
    await until(lambda: scheduler.log().count(REBUILT) == 2, "the end of the rebuild")


async def test_what_is_not_open_is_taken_out_of_the_queue_and_from_its_worker(parts: Suite) -> None:
    scheduler = await parts.scheduler(sweep_seconds="0.3")
    storage = parts.storage
    await scheduler.enqueue(storage.add_tasks(5, revision=storage.add_revision()))
    async with greeted(scheduler) as held:
        (lease,) = await held.take(1)
        waiting = next(name for name in storage.tasks if name != lease.task)
        del storage.tasks[waiting]
        storage.tasks[lease.task].grade = b"by somebody else"
        await held.until(lambda: lease.lease_token in held.cancelled, "a cancellation")

        async def found() -> bool:
            counts = await scheduler.queue.GetConservation(pb.GetConservationRequest(), timeout=5)
            return counts.orphaned + counts.missing > 0 or counts.queued + counts.leased == 3

        await until(found, "the findings")
        stats = await scheduler.stats()
        assert (stats.ready, stats.leased) == (3, 0)


async def test_a_pause_outlives_a_flush(parts: Suite) -> None:
    one, two = await parts.scheduler(), await parts.scheduler()
    storage = parts.storage
    await one.enqueue(storage.add_tasks(5, revision=storage.add_revision()))
    await one.queue.ControlQueue(pb.ControlQueueRequest(queue=QUEUE, state=pb.PAUSED, actor="ops"), timeout=5)
    assert storage.controls == {QUEUE: (pb.PAUSED, "ops")}
    async with greeted(one) as first, greeted(two) as second:
        await first.ready(10)
        await second.ready(10)
        assert (await two.stats()).state == pb.PAUSED
        await flush(parts.redis_url)

        async def rebuilt() -> bool:
            stats = await two.stats()
            return (stats.ready, stats.state) == (5, pb.PAUSED)

        await until(rebuilt, "a rebuilt and paused queue")
        await one.enqueue(storage.add_tasks(1, revision=storage.add_revision()))
        assert (await two.stats()).ready == 6
        assert not first.leased
        assert not second.leased
        await two.queue.ControlQueue(
            pb.ControlQueueRequest(queue=QUEUE, state=pb.RUNNING, actor="ops"), timeout=5
        )
        await until(lambda: len(first.leased) + len(second.leased) == 6, "all tasks", seconds=3)


async def test_deadlines_of_waiting_delayed_and_running_tasks(shared: Shared) -> None:
    storage = shared.storage
    revision = storage.add_revision()
    running = storage.add_tasks(1, revision=revision, grade_by=2.0)
    waiting = storage.add_tasks(1, revision=revision, grade_by=2.0)
    delayed = storage.add_tasks(1, revision=revision, grade_after=1.8, grade_by=2.0)
    in_time = storage.add_tasks(1, revision=revision, grade_by=600.0)
    await shared.scheduler.enqueue(running)
    async with greeted(shared.scheduler) as held:
        (lease,) = await held.take(1)
        await shared.other.enqueue([*waiting, *delayed, *in_time])
        late = [f"{task.submission_id}/{task.item_id}" for task in (*running, *waiting, *delayed)]
        await until(lambda: all(storage.tasks[name].dead for name in late), "dead letters", seconds=6)
        assert {cast("Any", storage.tasks[name].dead).reason for name in late} == {"the deadline passed"}
        await held.until(lambda: held.cancelled == {lease.lease_token}, "a cancellation")
        assert await held.grade([lease]) == [Receipt.STALE_LEASE]
        (left,) = await held.take(1)
        assert left.task == f"{in_time[0].submission_id}/{in_time[0].item_id}"
        assert await held.grade([left]) == [Receipt.COMMITTED]
        stats = await shared.scheduler.stats()
        assert (stats.ready, stats.delayed, stats.leased) == (0, 0, 0)


async def test_conservation_counts_everything_or_says_that_it_cannot(shared: Shared) -> None:
    storage = shared.storage
    revision = storage.add_revision()
    await shared.scheduler.enqueue(storage.add_tasks(4, revision=revision))
    await shared.other.enqueue(storage.add_tasks(2, revision=revision, bucket=1000, grade_after=60.0))
    async with greeted(shared.scheduler) as held:
        graded, _ = await held.take(2)
        assert await held.grade([graded]) == [Receipt.COMMITTED]
        counts = await shared.other.queue.GetConservation(pb.GetConservationRequest(), timeout=5)
        assert (counts.accepted, counts.open, counts.graded) == (6, 5, 1)
        assert (counts.queued, counts.waiting, counts.leased) == (2, 2, 1)
        assert (counts.dead_lettered, counts.cancelled, counts.balanced) == (0, 0, True)
        storage.lost_shards = {1}
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await shared.other.queue.GetConservation(pb.GetConservationRequest(), timeout=5)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        storage.lost_shards = set()


async def test_control_of_queues_is_refused_where_it_makes_no_sense(shared: Shared) -> None:
    control = shared.scheduler.queue.ControlQueue
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await control(pb.ControlQueueRequest(queue="nobodys", state=pb.PAUSED, actor="ops"), timeout=5)
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
    for request in (
        pb.ControlQueueRequest(queue=QUEUE, actor="ops"),
        pb.ControlQueueRequest(queue=QUEUE, state=pb.QueueState.ValueType(9), actor="ops"),
        pb.ControlQueueRequest(queue="no/name", state=pb.PAUSED, actor="ops"),
        pb.ControlQueueRequest(queue=QUEUE, state=pb.PAUSED),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as invalid:
            await control(request, timeout=5)
        assert invalid.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not shared.storage.controls
