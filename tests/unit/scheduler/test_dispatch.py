"""How ready tasks reach workers with credits."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from cinnabar_common.clock import SystemClock
from cinnabar_scheduler.adapters.memory import MemoryQueue
from cinnabar_scheduler.dispatch import RETRY_SECONDS, Attachment, Delivery, Dispatcher, Pause
from cinnabar_scheduler.items import ItemSource
from cinnabar_scheduler.ports import Leased
from cinnabar_scheduler.session import WorkerSession
from cinnabar_scheduler.tasks import Lease, QueueName
from tests.support.scheduler_doubles import MemoryStore
from tests.support.scheduler_queue import QUEUE, task

ITEMS = {"rev1/q1": b"item 1", "rev2/q1": b"item 2"}


class Parts:
    """A dispatcher over memory; what it hands out is in ``deliveries`` by worker."""

    def __init__(self) -> None:
        self.store = MemoryStore(items_by_key=dict(ITEMS))
        self.queue = MemoryQueue(clock=SystemClock(), on_wake=lambda queue: self.dispatcher.wake(queue))
        self.unknown: list[Lease] = []
        self.dispatcher = Dispatcher(self.queue, ItemSource(self.store), self.unknown.extend)
        self.deliveries: dict[str, list[Delivery]] = {}
        self.delivered = asyncio.Event()

    def attach(self, worker: str, credits: int, *queues: str) -> Attachment:
        session = WorkerSession(max_credits=10_000)
        session.hello(worker, queues or (QUEUE,))
        if credits:
            session.ready(QUEUE, credits)
        inbox = self.deliveries.setdefault(worker, [])

        def deliver(delivery: Delivery) -> None:
            inbox.append(delivery)
            self.delivered.set()

        attachment = Attachment(session, deliver)
        self.dispatcher.attach(attachment)
        return attachment

    def leased(self, worker: str) -> list[Lease]:
        return [lease for delivery in self.deliveries[worker] for lease in delivery.leases]


@pytest.fixture
def parts() -> Parts:
    return Parts()


@pytest.mark.parametrize(
    ("credits", "tasks", "shares"),
    [
        ((10, 10), 10, (5, 5)),
        ((30, 10), 20, (15, 5)),
        ((1, 100), 50, (0, 50)),
        ((3, 3, 3), 4, (2, 1, 1)),
        ((5, 5), 20, (5, 5)),
        ((7,), 3, (3,)),
    ],
)
async def test_leases_are_dealt_in_proportion_to_credits(
    parts: Parts, credits: tuple[int, ...], tasks: int, shares: tuple[int, ...]
) -> None:
    for number, grant in enumerate(credits):
        parts.attach(f"w{number}", grant)
    await parts.queue.enqueue([task() for _ in range(tasks)])
    await parts.dispatcher.run_once(QUEUE)
    got = tuple(len(parts.leased(f"w{number}")) for number in range(len(credits)))
    assert got == shares
    everything = [lease.task for worker in parts.deliveries for lease in parts.leased(worker)]
    assert len(everything) == len(set(everything)) == min(tasks, sum(credits))


async def test_a_full_batch_is_followed_by_the_next_at_once(parts: Parts) -> None:
    parts.attach("w1", 2)
    await parts.queue.enqueue([task() for _ in range(2)])
    assert await parts.dispatcher.run_once(QUEUE) == Pause(0)


async def test_nothing_is_leased_without_credits(parts: Parts) -> None:
    parts.attach("w1", 0)
    await parts.queue.enqueue([task()])
    await parts.dispatcher.run_once(QUEUE)
    assert (await parts.queue.counts(QUEUE)).leased == 0


async def test_an_item_is_sent_once_on_a_stream(parts: Parts) -> None:
    parts.attach("w1", 10)
    await parts.queue.enqueue([task(), task(), task(item_key="rev2/q1")])
    await parts.dispatcher.run_once(QUEUE)
    await parts.queue.enqueue([task(item_key="rev2/q1")])
    await parts.dispatcher.run_once(QUEUE)
    assert [delivery.items for delivery in parts.deliveries["w1"]] == [ITEMS, {}]
    parts.attach("w2", 100)
    await parts.queue.enqueue([task()])
    await parts.dispatcher.run_once(QUEUE)
    assert parts.deliveries["w2"][0].items == {"rev1/q1": b"item 1"}
    assert parts.store.item_calls == 1


async def test_a_task_without_item_is_told_and_not_handed_out(parts: Parts) -> None:
    parts.attach("w1", 10)
    await parts.queue.enqueue([task("orphan", item_key="rev9/q1"), task("good")])
    await parts.dispatcher.run_once(QUEUE)
    assert [lease.task for lease in parts.unknown] == ["orphan/q1"]
    assert [lease.task for lease in parts.leased("w1")] == ["good/q1"]


async def test_when_storage_is_away_what_is_known_goes_out_and_the_rest_waits(parts: Parts) -> None:
    parts.attach("w1", 10)
    await parts.queue.enqueue([task("first")])
    await parts.dispatcher.run_once(QUEUE)
    await parts.queue.enqueue([task("unknown", item_key="rev2/q1"), task("known")])
    parts.store.outages = 1
    assert await parts.dispatcher.run_once(QUEUE) == Pause(RETRY_SECONDS, wakeable=False)
    assert [lease.task for lease in parts.leased("w1")] == ["first/q1", "known/q1"]
    assert (await parts.queue.counts(QUEUE)).ready == 1
    await parts.dispatcher.run_once(QUEUE)
    last = parts.leased("w1")[-1]
    assert (last.task, last.delivery) == ("unknown/q1", 1)


async def test_what_a_worker_left_behind_goes_back(parts: Parts) -> None:
    attachment = parts.attach("w1", 5)
    leave_after_lease = parts.queue.lease

    async def lease(queue: QueueName, limit: int, *, free: int) -> Leased:
        leased = await leave_after_lease(queue, limit, free=free)
        parts.dispatcher.detach(attachment)
        return leased

    parts.queue.lease = lease
    await parts.queue.enqueue([task(), task()])
    await parts.dispatcher.run_once(QUEUE)
    counts = await parts.queue.counts(QUEUE)
    assert (counts.ready, counts.leased) == (2, 0)


async def test_a_lost_queue_is_asked_again_later(parts: Parts) -> None:
    parts.attach("w1", 1)
    parts.queue.outage = True
    assert await parts.dispatcher.run_once(QUEUE) == Pause(RETRY_SECONDS)


async def test_an_enqueue_reaches_an_idle_worker_without_polling(parts: Parts) -> None:
    async with parts.dispatcher.running():
        parts.attach("w1", 100)
        parts.dispatcher.wake(QUEUE)
        await _until(lambda: _idle(parts), "an idle loop")
        delays: list[float] = []
        for _ in range(20):
            parts.delivered.clear()
            began = time.monotonic()
            await parts.queue.enqueue([task()])
            async with asyncio.timeout(5):
                await parts.delivered.wait()
            delays.append(time.monotonic() - began)
        assert sorted(delays)[10] < 0.05


async def test_a_delayed_task_goes_out_when_it_is_due(parts: Parts) -> None:
    async with parts.dispatcher.running():
        parts.attach("w1", 1)
        due_ms = int(time.time() * 1000) + 150
        await parts.queue.enqueue([task(ready_ms=due_ms)])
        parts.dispatcher.wake(QUEUE)
        async with asyncio.timeout(5):
            await parts.delivered.wait()
        assert 0 <= time.time() * 1000 - due_ms < 500


async def test_a_queue_that_nobody_serves_any_more_costs_nothing(parts: Parts) -> None:
    async with parts.dispatcher.running():
        attachment = parts.attach("w1", 1)
        parts.dispatcher.wake(QUEUE)
        names = {item.get_name() for item in asyncio.all_tasks()}
        assert f"dispatch-{QUEUE}" in names
        parts.dispatcher.detach(attachment)
        parts.dispatcher.wake(QUEUE)

        async def ended() -> bool:
            return f"dispatch-{QUEUE}" not in {item.get_name() for item in asyncio.all_tasks()}

        await _until(ended, "the end of the loop")
        parts.attach("w2", 1)
        await parts.queue.enqueue([task()])
        async with asyncio.timeout(5):
            await parts.delivered.wait()


async def test_cancelling_tells_the_one_who_holds_the_lease(parts: Parts) -> None:
    first, second = parts.attach("w1", 1), parts.attach("w2", 1)
    await parts.queue.enqueue([task(), task()])
    await parts.dispatcher.run_once(QUEUE)
    (lease,) = parts.leased("w2")
    parts.dispatcher.cancel([lease.token])
    assert [delivery.cancelled for delivery in parts.deliveries["w2"]] == [(), [lease.token]]
    assert len(parts.deliveries["w1"]) == 1
    assert not second.session.held
    assert first.session.held


async def _idle(parts: Parts) -> bool:
    return (await parts.queue.counts(QUEUE)).ready == 0


async def _until(condition: Callable[[], Awaitable[bool]], description: str) -> None:
    try:
        async with asyncio.timeout(5):
            while not await condition():  # noqa: ASYNC110 - only asking tells
                await asyncio.sleep(0.001)
    except TimeoutError:
        raise AssertionError(f"not within 5 s: {description}") from None
