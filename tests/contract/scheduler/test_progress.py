"""How far tasks are: kept while their lease holds, and not a moment longer."""

import pytest

from cinnabar_scheduler.ports import QueueUnavailable
from cinnabar_scheduler.tasks import Lease, LeaseToken, Why
from tests.support.scheduler_adapters import LEASE_SECONDS, Harness, memory_harness
from tests.support.scheduler_queue import FREE, QUEUE, held, task


async def leases(harness: Harness, *names: str) -> list[Lease]:
    await harness.queue.enqueue([task(name) for name in names])
    return (await harness.queue.lease(QUEUE, len(names), free=FREE)).leases


async def keep(harness: Harness, lease: Lease, payload: bytes) -> list[LeaseToken]:
    return await harness.progress.keep(QUEUE, [(lease.task, lease.token, payload)])


async def known(harness: Harness, *given: Lease, generation: int = 1) -> list[bytes]:
    return await harness.progress.of(QUEUE, [(lease.task, generation) for lease in given])


async def test_the_newest_is_known_of_each_task(harness: Harness) -> None:
    a, b, c = await leases(harness, "a", "b", "c")
    told = [(a.task, a.token, b"half\n\x00"), (b.task, b.token, b"")]
    assert await harness.progress.keep(QUEUE, told) == []
    assert await keep(harness, a, b"nearly\nall") == []
    assert await known(harness, c, a, b) == [b"", b"nearly\nall", b""]
    assert await known(harness, a, generation=2) == [b""]
    assert await harness.progress.of(QUEUE, [("nobody/q1", 1)]) == [b""]
    assert await harness.progress.of(QUEUE, []) == []
    assert await harness.progress.keep(QUEUE, []) == []


async def test_progress_of_a_lease_that_was_lost_is_refused(harness: Harness) -> None:
    (first,) = await leases(harness, "a")
    assert await keep(harness, first, b"by the first") == []
    await harness.queue.give_back(QUEUE, held([first]), Why.FAULT)
    assert await known(harness, first) == [b""]
    (second,) = (await harness.queue.lease(QUEUE, 1, free=FREE)).leases
    assert await known(harness, second) == [b""]
    assert await keep(harness, first, b"late") == [first.token]
    assert await known(harness, second) == [b""]
    assert await keep(harness, second, b"by the second") == []
    assert await known(harness, second) == [b"by the second"]


@pytest.mark.parametrize("ending", ["removed", "newer generation", "overdue", "flushed"])
async def test_it_is_gone_with_its_task(harness: Harness, ending: str) -> None:
    await harness.queue.enqueue([task("a", grade_by_ms=harness.clock.now_ms + 1000)])
    (lease,) = (await harness.queue.lease(QUEUE, 1, free=FREE)).leases
    assert await keep(harness, lease, b"half") == []
    match ending:
        case "removed":
            assert (await harness.queue.remove(QUEUE, [(lease.task, 1)]))[0] == 1
        case "newer generation":
            await harness.queue.enqueue([task("a", generation=2)])
        case "overdue":
            harness.clock.advance(2)
            (over,) = await harness.queue.overdue(QUEUE, 1)
            assert over.revoked == lease.token
        case _:
            await harness.flush()
    assert await known(harness, lease) == [b""]
    assert await keep(harness, lease, b"late") == [lease.token]
    await harness.queue.enqueue([task("a", generation=3)])
    assert await known(harness, lease, generation=3) == [b""]


async def test_a_lease_out_of_time_that_nobody_took_back_yet_still_tells(harness: Harness) -> None:
    (lease,) = await leases(harness, "a")
    harness.clock.advance(LEASE_SECONDS * 2)
    assert await keep(harness, lease, b"slow") == []
    assert await known(harness, lease) == [b"slow"]


async def test_an_outage_is_told() -> None:
    harness = memory_harness()
    (lease,) = await leases(harness, "a")
    harness.queue.outage = True  # pyright: ignore[reportAttributeAccessIssue]  # it is the one in memory
    with pytest.raises(QueueUnavailable):
        await keep(harness, lease, b"half")
    with pytest.raises(QueueUnavailable):
        await known(harness, lease)
