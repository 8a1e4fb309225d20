"""How queues become complete again, and what is out of time."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pytest
import pytest_asyncio

from cinnabar_common.clock import SystemClock
from cinnabar_scheduler import recovery
from cinnabar_scheduler.adapters.memory import MemoryQueue
from cinnabar_scheduler.adapters.memory_board import MemoryBoard
from cinnabar_scheduler.adapters.memory_locks import MemoryLocks
from cinnabar_scheduler.conservation import Conservation
from cinnabar_scheduler.control import QueueControl
from cinnabar_scheduler.leadership import Leadership
from cinnabar_scheduler.locks import Held, Locks
from cinnabar_scheduler.open_tasks import PAGE
from cinnabar_scheduler.outcomes import Outcomes
from cinnabar_scheduler.ports import OpenTasks, StoreUnavailable
from cinnabar_scheduler.recovery import Recovery, pause_seconds
from cinnabar_scheduler.sweep import Sweep
from cinnabar_scheduler.tasks import DeadLetter, QueueName, QueueState, Task
from tests.support.scheduler_doubles import MemoryStore, RecordingBus
from tests.support.scheduler_queue import QUEUE, START_MS, ManualClock, task
from tests.support.waiting import until

FENCE = 100


class Parts:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.queue = MemoryQueue(clock=self.clock, lease_seconds=10)
        self.store, self.bus, self.locks = MemoryStore(), RecordingBus(), MemoryLocks(SystemClock())
        self.board = MemoryBoard()
        self.outcomes = Outcomes(
            self.queue,
            self.store,
            self.bus,
            self.bus.changed.append,
            self.bus.cancelled.extend,
            patience_seconds=0,
        )
        self.control = QueueControl(self.queue, self.store, lambda queue: None)
        self.conservation = Conservation(self.queue, self.store, self.board)
        self.recovery = self.scheduler()

    def scheduler(self, store: MemoryStore | None = None) -> Recovery:
        """The leader's work of one more scheduler on the same queues."""
        store = store or self.store
        return Recovery(
            self.queue,
            store,
            self.outcomes,
            Sweep(self.queue, store, self.board, self.outcomes.cancel, settle_seconds=0),
            QueueControl(self.queue, store, lambda queue: None),
            self.conservation,
            sweep_seconds=0.0,
        )

    def store_open(self, *counts: int) -> None:
        self.store.open_by_shard = [
            [task(f"shard{shard}-{number:06}") for number in range(count)]
            for shard, count in enumerate(counts)
        ]

    async def ready(self) -> int:
        return (await self.queue.counts(QUEUE)).ready

    async def held(self) -> Held:
        """The lock of a leader."""
        held = await Locks(self.locks, SystemClock()).acquire("leader", ttl_seconds=30, wait_seconds=0)
        assert held is not None
        return held


@pytest_asyncio.fixture
async def parts() -> AsyncGenerator[Parts]:
    parts = Parts()
    async with parts.outcomes.running():
        yield parts


async def test_a_lost_epoch_is_rebuilt_from_all_shards_and_pages(parts: Parts) -> None:
    parts.store_open(2 * PAGE + 1, 3)
    held = await parts.held()
    await parts.recovery.complete_once(held)
    assert await parts.ready() == 2 * PAGE + 4
    assert await parts.queue.has_epoch()
    parts.queue.flush()
    assert not await parts.queue.has_epoch()
    await parts.recovery.complete_once(held)
    assert await parts.ready() == 2 * PAGE + 4
    assert await parts.queue.has_epoch()


async def test_the_rebuild_adds_only_what_is_not_there(parts: Parts) -> None:
    parts.store_open(5, 0)
    await parts.queue.enqueue(parts.store.open_by_shard[0][:3])
    assert await parts.recovery.rebuild_once(FENCE) == 2


async def test_a_rebuild_keeps_times(parts: Parts) -> None:
    later = task("later", ready_ms=START_MS + 5_000)
    late = task("late", grade_by_ms=START_MS + 1_000)
    parts.store.open_by_shard = [[later, late], []]
    assert await parts.recovery.rebuild_once(FENCE) == 2
    counts = await parts.queue.counts(QUEUE)
    assert (counts.ready, counts.delayed) == (1, 1)
    parts.clock.advance(1)
    assert await parts.recovery.end_overdue_once() == 1
    assert [one.task for one in parts.store.outcomes] == [late.task]


async def test_an_epoch_does_not_begin_before_storage_told_all(parts: Parts) -> None:
    parts.store_open(PAGE, 3)
    parts.store.outages = 30
    with pytest.raises(StoreUnavailable):
        await parts.recovery.rebuild_once(FENCE)
    assert not await parts.queue.has_epoch()
    parts.store.outages = 0
    assert await parts.recovery.rebuild_once(FENCE) == PAGE + 3


class Interrupted(MemoryStore):
    """Storage that lets something happen between two pages."""

    def __init__(self, store: MemoryStore, parts: Parts) -> None:
        super().__init__(open_by_shard=store.open_by_shard)
        self.parts = parts
        self.flushes = 0
        self.rival: int | None = None

    async def open_tasks(
        self, shard: int, after: tuple[str, str] | None, limit: int, epoch: int = 0
    ) -> OpenTasks:
        page = await super().open_tasks(shard, after, limit, epoch)
        if shard == 1 and after is None:
            if self.flushes:
                self.flushes -= 1
                self.parts.queue.flush()
            if self.rival is not None:
                rival, self.rival = self.rival, None
                assert await self.parts.recovery.rebuild_once(rival) is not None
        return page


class Rebalanced(MemoryStore):
    """Storage whose tasks move to a shard that has just been read, ``times`` times."""

    def __init__(self, store: MemoryStore, times: int) -> None:
        super().__init__(open_by_shard=store.open_by_shard)
        self.times = times
        self.epochs: list[int] = []
        self._waiting = asyncio.Event()

    async def open_tasks(
        self, shard: int, after: tuple[str, str] | None, limit: int, epoch: int = 0
    ) -> OpenTasks:
        self.epochs.append(epoch)
        if self.times and len(set(self.epochs)) == 1:
            # Of the first reading: what is to move is read after it has moved to where it is not seen.
            if self.open_by_shard[shard]:
                await self._waiting.wait()
            elif not self._waiting.is_set():
                page = await super().open_tasks(shard, after, limit, epoch)
                self.move(1 - shard, shard)
                self._waiting.set()
                return page
        elif self.times > 1:
            self.times -= 1
            self.came[shard] = max(self.came) + 1
        return await super().open_tasks(shard, after, limit, epoch)


@pytest.mark.parametrize("times", [1, 2, 50])
@pytest.mark.parametrize("moves_from", [0, 1])
async def test_tasks_that_move_to_a_shard_that_was_read_are_queued(
    parts: Parts, times: int, moves_from: int
) -> None:
    parts.store_open(*((7, 0) if moves_from == 0 else (0, 7)))
    store = Rebalanced(parts.store, times)
    assert await parts.scheduler(store).rebuild_once(FENCE) == 7
    assert await parts.ready() == 7
    assert store.epochs[:2] == [1, 1]
    assert store.epochs[2] == 2
    assert len(store.epochs) <= 4  # however long it goes on


async def test_a_loss_in_the_middle_of_a_rebuild_begins_it_again(parts: Parts) -> None:
    parts.store_open(5, 3)
    store = Interrupted(parts.store, parts)
    store.flushes = 2
    await parts.scheduler(store).complete_once(await parts.held())
    assert store.flushes == 0
    assert await parts.queue.has_epoch()
    assert await parts.ready() == 8


async def test_a_rebuild_that_another_leader_overtook_declares_nothing(parts: Parts) -> None:
    parts.store_open(5, 3)
    store = Interrupted(parts.store, parts)
    store.rival = FENCE + 1
    assert await parts.scheduler(store).rebuild_once(FENCE) is None
    assert await parts.queue.has_epoch()  # by the other one
    assert await parts.ready() == 8
    assert await parts.recovery.rebuild_once(FENCE) is None  # one that woke up late
    assert await parts.queue.has_epoch()


async def test_a_leader_whose_lock_is_gone_does_not_begin(parts: Parts) -> None:
    parts.store_open(5, 0)
    held = await parts.held()
    parts.locks.flush()
    await parts.recovery.complete_once(held)
    assert await parts.ready() == 0
    assert not held.valid


async def test_the_sweep_finds_what_was_never_enqueued(parts: Parts) -> None:
    parts.store_open(4, 4)
    assert await parts.recovery.rebuild_once(FENCE) == 8
    await parts.queue.remove(QUEUE, [(one.task, 1) for one in parts.store.open_by_shard[0]])
    await parts.queue.lease(QUEUE, 2, free=2)
    findings = await parts.recovery.sweep_when_due()
    assert findings is not None
    assert (findings.missing, findings.orphaned) == (4, 0)
    assert await parts.board.last() == findings
    again = await parts.scheduler().sweep_when_due()
    assert again is not None
    assert (again.missing, again.orphaned) == (0, 0)
    assert await parts.ready() == 6
    assert not parts.bus.cancelled


async def test_the_sweep_removes_what_is_not_open_and_tells_who_works_on_it(parts: Parts) -> None:
    parts.store_open(3, 2)
    assert await parts.recovery.rebuild_once(FENCE) == 5
    (leased,) = (await parts.queue.lease(QUEUE, 1, free=1)).leases
    parts.store.end(leased.task)
    waiting = next(one for one in parts.store.open_by_shard[1] if one.task != leased.task)
    parts.store.end(waiting.task)
    findings = await parts.recovery.sweep_when_due()
    assert findings is not None
    assert (findings.missing, findings.orphaned) == (0, 2)
    assert parts.bus.cancelled == [leased.token] * 2  # here, and on the bus
    assert await parts.queue.missing([(QUEUE, leased.task), (QUEUE, waiting.task)]) == {
        leased.task,
        waiting.task,
    }
    assert await parts.ready() == 3


async def test_a_task_of_an_older_generation_is_replaced(parts: Parts) -> None:
    await parts.queue.begin_rebuild(FENCE)
    await parts.queue.finish_rebuild(FENCE)
    await parts.queue.enqueue([task("one", generation=1)])
    parts.store.open_by_shard = [[task("one", generation=2)], []]
    findings = await parts.recovery.sweep_when_due()
    assert findings is not None
    assert (findings.missing, findings.orphaned) == (1, 1)
    (lease,) = (await parts.queue.lease(QUEUE, 1, free=1)).leases
    assert lease.generation == 2


async def test_tasks_of_a_shard_that_is_away_are_left_alone(parts: Parts) -> None:
    parts.store_open(3, 2)
    assert await parts.recovery.rebuild_once(FENCE) == 5
    parts.store.end(parts.store.open_by_shard[0][0].task)
    parts.store.lost_shards = {1}
    findings = await parts.recovery.sweep_when_due()
    assert findings is not None
    assert (findings.missing, findings.orphaned) == (0, 1)
    assert await parts.ready() == 4


class Moving(MemoryStore):
    """Storage in which tasks move while they are looked at."""

    def __init__(self, store: MemoryStore, parts: Parts, arrives: Sequence[Task]) -> None:
        super().__init__(open_by_shard=store.open_by_shard)
        self.parts = parts
        self.arrives = arrives
        self.ends: list[Task] = []

    async def open_tasks(
        self, shard: int, after: tuple[str, str] | None, limit: int, epoch: int = 0
    ) -> OpenTasks:
        page = await super().open_tasks(shard, after, limit, epoch)
        for one in self.ends:  # graded after the page was read
            self.end(one.task)
            await self.parts.queue.remove(one.queue, [(one.task, one.generation)])
        return page

    async def open_generations(self, tasks: Sequence[tuple[str, str]]) -> list[int | None]:
        answer = await super().open_generations(tasks)
        for one in self.arrives:  # its removal was on the way
            await self.parts.queue.remove(one.queue, [(one.task, one.generation)])
        return answer


async def test_what_is_on_its_way_is_not_a_finding(parts: Parts) -> None:
    parts.store_open(4, 0)
    assert await parts.recovery.rebuild_once(FENCE) == 4
    first, second = parts.store.open_by_shard[0][:2]
    parts.store.end(first.task)
    store = Moving(parts.store, parts, [first])
    store.ends = [second]
    findings = await parts.scheduler(store).sweep_when_due()
    assert findings is not None
    assert (findings.missing, findings.orphaned) == (0, 0)
    assert await parts.ready() == 2


async def test_a_sweep_ends_when_the_epoch_does(parts: Parts) -> None:
    parts.store_open(4, 0)
    assert await parts.recovery.rebuild_once(FENCE) == 4
    parts.queue.flush()
    assert await parts.recovery.sweep_when_due() is None
    assert await parts.board.last() is None
    assert await parts.ready() == 0


async def test_pages_too_large_for_storage_are_asked_for_in_parts(parts: Parts) -> None:
    parts.store_open(300, 0)
    parts.store.largest_page = 130
    assert await parts.recovery.rebuild_once(FENCE) == 300
    assert sum(size > 130 for size in parts.store.pages) <= 4


async def test_expired_leases_go_back(parts: Parts) -> None:
    await parts.queue.enqueue([task(), task(queue=QueueName("numeric"))])
    (lease,) = (await parts.queue.lease(QUEUE, 1, free=1)).leases
    (other,) = (await parts.queue.lease(QueueName("numeric"), 1, free=1)).leases
    assert await parts.recovery.expire_once() == 0
    parts.clock.advance(10)
    assert await parts.recovery.expire_once() == 2
    assert await parts.ready() == 1
    assert set(parts.bus.cancelled) == {lease.token, other.token}


async def test_deadlines_end_waiting_delayed_and_running_tasks(parts: Parts) -> None:
    by = START_MS + 5_000
    tasks = [
        task("a-running", grade_by_ms=by),
        task("b-waiting", grade_by_ms=by),
        task("c-delayed", grade_by_ms=by, ready_ms=START_MS + 60_000),
        task("d-in-time", grade_by_ms=by + 60_000),
        task("e-whenever"),
    ]
    parts.store.open_by_shard = [tasks, []]
    assert await parts.recovery.rebuild_once(FENCE) == 5
    (running,) = (await parts.queue.lease(QUEUE, 1, free=1)).leases
    assert running.task == tasks[0].task
    assert await parts.recovery.end_overdue_once() == 0
    parts.clock.advance(5)
    assert await parts.recovery.end_overdue_once() == 3
    assert {one.task for one in parts.store.outcomes} == {one.task for one in tasks[:3]}
    assert all(
        isinstance(one.outcome, DeadLetter) and one.outcome.reason == "the deadline passed"
        for one in parts.store.outcomes
    )
    # A later fence than the worker's: its grade comes too late.
    assert all(one.fence > running.fence for one in parts.store.outcomes)
    assert set(parts.bus.cancelled) == {running.token}
    assert {one for changed in parts.bus.changed for one in changed.submissions} == {
        one.task.partition("/")[0] for one in tasks[:3]
    }
    assert await parts.queue.missing([(QUEUE, one.task) for one in tasks]) == {one.task for one in tasks[:3]}
    assert await parts.recovery.end_overdue_once() == 0


async def test_a_deadline_waits_for_storage_and_is_kept_once(parts: Parts) -> None:
    late = task("late", grade_by_ms=START_MS + 1_000)
    await parts.queue.enqueue([late])
    parts.clock.advance(1)
    parts.store.outages = 1
    assert await parts.recovery.end_overdue_once() == 1
    assert not parts.store.outcomes
    assert not await parts.queue.missing([(QUEUE, late.task)])
    assert await parts.recovery.end_overdue_once() == 0  # it is being ended, as far as anybody knows
    parts.clock.advance(11)
    assert await parts.recovery.end_overdue_once() == 1
    assert await parts.recovery.expire_once() == 0
    assert [one.task for one in parts.store.outcomes] == [late.task]
    assert await parts.queue.missing([(QUEUE, late.task)])


async def test_a_pause_is_there_before_the_tasks_are(parts: Parts) -> None:
    parts.store_open(3, 0)
    await parts.store.set_control(QUEUE, QueueState.PAUSED, "ops")
    assert await parts.recovery.rebuild_once(FENCE) == 3
    assert not (await parts.queue.lease(QUEUE, 1, free=1)).leases
    await parts.store.set_control(QUEUE, QueueState.RUNNING, "ops")
    assert await parts.control.align() == 1
    assert await parts.control.align() == 0
    assert len((await parts.queue.lease(QUEUE, 3, free=3)).leases) == 3


async def test_a_leader_does_all_of_it_and_survives_outages(parts: Parts) -> None:
    parts.store_open(3, 3)
    parts.queue.outage = True
    leadership = Leadership(Locks(parts.locks, SystemClock()), parts.recovery.lead)
    leader = asyncio.create_task(leadership.run())
    try:
        await until(lambda: leadership.is_leader, "a leader")
        parts.queue.outage = False
        await until(parts.queue.has_epoch, "the rebuild")
        assert await parts.ready() == 6
        parts.store.end(parts.store.open_by_shard[0][0].task)

        async def swept() -> bool:
            return await parts.ready() == 5

        await until(swept, "a sweep")
        parts.queue.flush()
        parts.locks.flush()
        await until(swept, "another rebuild")
        await until(lambda: leadership.is_leader, "the same leader again")
    finally:
        leader.cancel()
        await asyncio.wait((leader,))
    assert not leadership.is_leader


async def test_the_leader_counts_and_a_follower_does_not(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "COUNT_SECONDS", 0.0)
    parts.store_open(3, 0)
    leading = parts.scheduler()
    leader = asyncio.create_task(leading.lead(await parts.held()))
    await until(lambda: parts.conservation.last is not None, "a snapshot")
    assert parts.conservation.last is not None
    assert parts.conservation.last.stored.open == 3
    leader.cancel()
    await asyncio.wait((leader,))
    assert parts.conservation.last is None


@pytest.mark.parametrize(
    ("took", "pause"), [(0.01, 10.0), (0.6, 12.0), (2.0, 15.0), (14.0, 15.0), (40.0, 40.0)]
)
def test_a_sweep_that_takes_long_comes_less_often_but_within_bounds(took: float, pause: float) -> None:
    assert pause_seconds(10.0, took) == pause
