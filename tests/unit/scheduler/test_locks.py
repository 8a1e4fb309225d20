"""The lock as its holders see it."""

import asyncio

import pytest

from cinnabar_common.clock import SystemClock
from cinnabar_scheduler.adapters.memory_locks import MemoryLocks
from cinnabar_scheduler.locks import MARGIN, Held, LockLost, Locks, LockTimeout
from cinnabar_scheduler.ports import LocksUnavailable
from tests.support.scheduler_queue import ManualClock
from tests.support.waiting import until

TTL = 3.0


def manual() -> tuple[ManualClock, MemoryLocks, Locks]:
    """Locks whose waits move the clock."""
    clock = ManualClock()
    store = MemoryLocks(clock)

    async def sleep(seconds: float) -> None:
        clock.advance(seconds)

    return clock, store, Locks(store, clock, sleep=sleep)


def real() -> tuple[MemoryLocks, Locks]:
    """Locks in real time."""
    store = MemoryLocks(SystemClock())
    return store, Locks(store, SystemClock())


async def test_waiting_has_a_bound() -> None:
    clock, _, locks = manual()
    first = await locks.acquire("a", ttl_seconds=60, wait_seconds=0)
    assert first is not None
    began = clock.monotonic()
    assert await locks.acquire("a", ttl_seconds=60, wait_seconds=5) is None
    assert 4.7 <= clock.monotonic() - began <= 5
    assert first.valid


async def test_a_waiter_gets_the_lock_of_a_dead_holder_when_it_runs_out() -> None:
    clock, _, locks = manual()
    first = await locks.acquire("a", ttl_seconds=TTL, wait_seconds=0)
    began = clock.monotonic()
    second = await locks.acquire("a", ttl_seconds=TTL, wait_seconds=10)
    assert first is not None
    assert second is not None
    assert TTL <= clock.monotonic() - began <= TTL + 0.25
    assert second.fence > first.fence
    assert second.valid
    assert not first.valid
    assert not await first.confirm()
    await first.release()
    assert second.valid
    assert await second.confirm()


async def test_an_unreachable_store_is_told_after_the_wait() -> None:
    clock, store, locks = manual()
    store.outage = True
    began = clock.monotonic()
    with pytest.raises(LocksUnavailable):
        await locks.acquire("a", ttl_seconds=TTL, wait_seconds=2)
    assert clock.monotonic() - began <= 2


async def test_a_holder_doubts_before_the_store_forgets() -> None:
    clock, _, locks = manual()
    held = await locks.acquire("a", ttl_seconds=TTL, wait_seconds=0)
    assert held is not None
    clock.advance(TTL * (1 - MARGIN) - 0.01)
    assert held.valid
    clock.advance(0.02)
    assert not held.valid
    assert await locks.acquire("a", ttl_seconds=TTL, wait_seconds=0) is None  # the store still has it
    assert not await held.confirm()  # what was doubted once is lost


async def test_the_time_of_a_slow_answer_is_the_holders_loss() -> None:
    clock, store, _ = manual()

    class Slow(MemoryLocks):
        async def take(self, name: str, token: str, ttl_seconds: float) -> int | None:
            fence = await store.take(name, token, ttl_seconds)
            clock.advance(1.0)  # on the way back
            return fence

    held = Held(Slow(clock), clock, "a", TTL)
    assert await held.take()
    assert held.seconds_left == pytest.approx(TTL * (1 - MARGIN) - 1.0)  # pyright: ignore[reportUnknownMemberType]
    late = Held(Slow(clock), clock, "b", 1.0)
    assert not await late.take()


async def test_the_lock_is_kept_for_longer_than_its_ttl_and_given_back() -> None:
    store, locks = real()
    async with locks.hold("a", ttl_seconds=0.3, wait_seconds=0) as held:
        began = SystemClock().monotonic()
        await until(lambda: SystemClock().monotonic() - began > 0.7, "more than two TTLs")
        assert held.valid
        with pytest.raises(LockTimeout):
            async with locks.hold("a", ttl_seconds=0.3, wait_seconds=0):
                raise AssertionError("two holders")
    assert store.holder("a") is None
    assert not held.valid


async def test_a_lock_that_the_store_lost_ends_the_work_at_the_next_renewal() -> None:
    store, locks = real()

    async def work() -> None:
        async with locks.hold("a", ttl_seconds=3, wait_seconds=0):
            store.flush()
            await asyncio.Event().wait()

    began = SystemClock().monotonic()
    with pytest.raises(LockLost):
        await work()
    assert SystemClock().monotonic() - began < 2
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_asking_tells_of_the_loss_at_once() -> None:
    store, locks = real()

    async def work() -> None:
        async with locks.hold("a", ttl_seconds=30, wait_seconds=0) as held:
            store.flush()
            assert not await held.confirm()
            await asyncio.Event().wait()

    began = SystemClock().monotonic()
    with pytest.raises(LockLost):
        await work()
    assert SystemClock().monotonic() - began < 1


async def test_work_ends_before_the_lock_can_have_run_out_at_an_unreachable_store() -> None:
    store, locks = real()
    tokens: list[str | None] = []

    async def work() -> None:
        async with locks.hold("a", ttl_seconds=0.5, wait_seconds=0):
            store.outage = True
            try:
                await asyncio.Event().wait()
            finally:
                tokens.append(store.holder("a"))

    with pytest.raises(LockLost):
        await work()
    assert tokens != [None]  # the store still kept everybody else out


async def test_an_outage_shorter_than_the_ttl_is_survived() -> None:
    store, locks = real()
    async with locks.hold("a", ttl_seconds=0.6, wait_seconds=0) as held:
        store.outage = True
        await until(lambda: held.seconds_left < 0.3, "a missed renewal")
        store.outage = False
        await until(lambda: held.seconds_left > 0.4, "a renewal")


async def test_errors_and_cancellation_of_the_work_are_its_own() -> None:
    store, locks = real()
    with pytest.raises(ZeroDivisionError):
        async with locks.hold("a", ttl_seconds=3, wait_seconds=0):
            raise ZeroDivisionError
    assert store.holder("a") is None

    started = asyncio.Event()

    async def work() -> None:
        async with locks.hold("a", ttl_seconds=3, wait_seconds=0):
            started.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert store.holder("a") is None


async def test_a_waiter_that_is_cancelled_leaves_no_lock_behind() -> None:
    store, _ = real()
    asked = asyncio.Event()

    class Silent(MemoryLocks):
        async def take(self, name: str, token: str, ttl_seconds: float) -> int | None:
            await store.take(name, token, ttl_seconds)
            asked.set()
            return await asyncio.Future[int]()  # the answer is lost

        async def release(self, name: str, token: str) -> bool:
            return await store.release(name, token)

    waiter = asyncio.create_task(
        Locks(Silent(SystemClock()), SystemClock()).acquire("a", ttl_seconds=30, wait_seconds=30)
    )
    await asked.wait()
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert store.holder("a") is None
