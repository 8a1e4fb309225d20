"""The arithmetic of conservation, and where its numbers come from."""

from dataclasses import replace

import pytest

from cinnabar_scheduler.adapters.memory import MemoryQueue
from cinnabar_scheduler.adapters.memory_board import MemoryBoard
from cinnabar_scheduler.conservation import Conservation, snapshot
from cinnabar_scheduler.ports import QueueUnavailable, StoreUnavailable
from cinnabar_scheduler.tasks import Findings, QueueCounts, QueueName, TaskCounts
from tests.support.scheduler_doubles import MemoryStore
from tests.support.scheduler_queue import QUEUE, START_MS, ManualClock, task

ONE = TaskCounts(accepted=10, open=4, dead_lettered=1, cancelled=2, graded=3)


@pytest.mark.parametrize("place", ["accepted", "open", "dead_lettered", "cancelled", "graded"])
def test_one_task_too_many_or_too_few_anywhere_unbalances(place: str) -> None:
    assert snapshot(ONE, [], None).balanced
    for change in (1, -1):
        assert not snapshot(replace(ONE, **{place: getattr(ONE, place) + change}), [], None).balanced


def test_queues_are_added_up() -> None:
    counts = [QueueCounts(1, 2, 3, None), QueueCounts(10, 20, 30, None)]
    found = snapshot(ONE, counts, Findings(missing=5, orphaned=6, ended_ms=START_MS))
    assert found.by_place() == {
        "open": 4,
        "dead_lettered": 1,
        "cancelled": 2,
        "graded": 3,
        "queued": 11,
        "waiting": 22,
        "leased": 33,
    }
    assert found.stored.accepted == 10
    assert (found.missing, found.orphaned) == (5, 6)
    before = snapshot(ONE, counts, None)
    assert (before.missing, before.orphaned) == (0, 0)


async def test_what_is_counted() -> None:
    clock = ManualClock()
    queue, store, board = MemoryQueue(clock=clock), MemoryStore(), MemoryBoard()
    store.open_by_shard = [[task(), task(ready_ms=START_MS + 1000)], [task(queue=QueueName("text"))]]
    await queue.enqueue([one for shard in store.open_by_shard for one in shard])
    await queue.lease(QUEUE, 1, free=2)
    await board.publish(Findings(1, 2, START_MS))
    conservation = Conservation(queue, store, board)
    found = await conservation.take()
    assert (found.queued, found.waiting, found.leased) == (1, 1, 1)
    assert found.stored == TaskCounts(3, 3, 0, 0, 0)
    assert found.findings == Findings(1, 2, START_MS)
    assert found.balanced


async def test_a_part_is_no_answer() -> None:
    queue, store = MemoryQueue(clock=ManualClock()), MemoryStore()
    conservation = Conservation(queue, store, MemoryBoard())
    store.lost_shards = {1}
    with pytest.raises(StoreUnavailable):
        await conservation.take()
    store.lost_shards = set()
    queue.outage = True
    with pytest.raises(QueueUnavailable):
        await conservation.take()
