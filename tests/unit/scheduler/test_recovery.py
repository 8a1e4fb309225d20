"""How queues become complete again."""

from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio

from cinnabar_scheduler.adapters.memory import MemoryQueue
from cinnabar_scheduler.outcomes import Outcomes
from cinnabar_scheduler.ports import QueueUnavailable, StoreUnavailable
from cinnabar_scheduler.recovery import PAGE, Recovery
from cinnabar_scheduler.tasks import QueueName
from tests.support.scheduler_doubles import MemoryStore, RecordingBus
from tests.support.scheduler_queue import FREE, QUEUE, ManualClock, task


class Parts:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.queue = MemoryQueue(clock=self.clock, lease_seconds=10, owner="one")
        self.store, self.bus = MemoryStore(), RecordingBus()
        self.outcomes = Outcomes(
            self.queue, self.store, self.bus, self.bus.changed.append, self.bus.cancelled.extend
        )
        self.recovery = Recovery(self.queue, self.store, self.outcomes, sweep_seconds=0.0)

    def store_open(self, *counts: int) -> None:
        self.store.open_by_shard = [
            [task(f"shard{shard}-{number:06}") for number in range(count)]
            for shard, count in enumerate(counts)
        ]

    async def ready(self) -> int:
        return (await self.queue.counts(QUEUE)).ready


@pytest_asyncio.fixture
async def parts() -> AsyncGenerator[Parts]:
    parts = Parts()
    async with parts.outcomes.running():
        yield parts


async def test_a_lost_epoch_is_rebuilt_from_all_shards_and_pages(parts: Parts) -> None:
    parts.store_open(2 * PAGE + 1, 3)
    assert await parts.recovery.rebuild_once() == 2 * PAGE + 4
    assert await parts.ready() == 2 * PAGE + 4
    assert await parts.queue.has_epoch()
    assert await parts.recovery.rebuild_once() == 0
    parts.queue.flush()
    assert await parts.recovery.rebuild_once() == 2 * PAGE + 4


async def test_the_rebuild_adds_only_what_is_not_there(parts: Parts) -> None:
    parts.store_open(5, 0)
    await parts.queue.enqueue(parts.store.open_by_shard[0][:3])
    assert await parts.recovery.rebuild_once() == 2


async def test_an_epoch_does_not_begin_before_storage_told_all(parts: Parts) -> None:
    parts.store_open(PAGE, 3)
    parts.store.outages = 10
    with pytest.raises(StoreUnavailable):
        await parts.recovery.rebuild_once()
    assert not await parts.queue.has_epoch()
    parts.store.outages = 0
    assert await parts.recovery.rebuild_once() == PAGE + 3


async def test_one_scheduler_rebuilds_at_a_time(parts: Parts) -> None:
    parts.store_open(5, 0)
    other = parts.queue.other("two")
    assert await other.acquire("rebuild", seconds=30)
    assert await parts.recovery.rebuild_once() == 0
    parts.clock.advance(31)  # the other one died
    assert await parts.recovery.rebuild_once() == 5
    assert await other.acquire("rebuild", seconds=30)


async def test_the_sweep_finds_what_was_never_enqueued(parts: Parts) -> None:
    parts.store_open(4, 4)
    await parts.queue.enqueue(parts.store.open_by_shard[0])
    await parts.queue.lease(QUEUE, 2, free=FREE)
    assert await parts.recovery.sweep_when_due() == 4
    assert await parts.recovery.sweep_once() == 0
    assert await parts.ready() == 6


async def test_one_scheduler_sweeps_at_a_time(parts: Parts) -> None:
    parts.store_open(4, 0)
    assert await parts.queue.other("two").acquire("sweep", seconds=30)
    assert await parts.recovery.sweep_once() == 0
    assert await parts.ready() == 0


async def test_pages_too_large_for_storage_are_asked_for_in_parts(parts: Parts) -> None:
    parts.store_open(300, 0)
    parts.store.largest_page = 130
    assert await parts.recovery.rebuild_once() == 300
    assert max(parts.store.pages[2:]) <= 130


async def test_expired_leases_go_back(parts: Parts) -> None:
    await parts.queue.enqueue([task(), task(queue=QueueName("numeric"))])
    (lease,) = (await parts.queue.lease(QUEUE, 1, free=FREE)).leases
    (other,) = (await parts.queue.lease(QueueName("numeric"), 1, free=FREE)).leases
    assert await parts.recovery.expire_once() == 0
    parts.clock.advance(10)
    assert await parts.recovery.expire_once() == 2
    assert await parts.ready() == 1
    assert set(parts.bus.cancelled) == {lease.token, other.token}


async def test_loops_survive_outages(parts: Parts) -> None:
    parts.queue.outage = True
    with pytest.raises(QueueUnavailable):
        await parts.recovery.expire_once()
    async with parts.recovery.running():
        parts.queue.outage = False
        assert await parts.recovery.rebuild_once() == 0
        assert await parts.queue.has_epoch()
