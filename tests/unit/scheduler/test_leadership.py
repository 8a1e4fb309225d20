"""Who leads."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from cinnabar_common.clock import SystemClock
from cinnabar_scheduler.adapters.memory_locks import MemoryLocks
from cinnabar_scheduler.leadership import LOCK, Leadership
from cinnabar_scheduler.locks import Held, Locks
from tests.support.waiting import until

TTL = 0.6


@dataclass(slots=True)
class Candidates:
    """Candidates on one store, the fences they led under, and those at work now."""

    store: MemoryLocks = field(default_factory=lambda: MemoryLocks(SystemClock()))
    fences: list[int] = field(default_factory=list[int])
    working: list[str] = field(default_factory=list[str])

    def worker(self, name: str) -> Callable[[Held], Awaitable[None]]:
        """Leader work that only says that it runs."""

        async def work(held: Held) -> None:
            self.fences.append(held.fence)
            self.working.append(name)
            try:
                await asyncio.Event().wait()
            finally:
                self.working.remove(name)

        return work

    @asynccontextmanager
    async def standing(self, name: str) -> AsyncGenerator[Leadership]:
        """One candidate; gives the lock back on the way out."""
        leadership = Leadership(Locks(self.store, SystemClock()), self.worker(name), ttl_seconds=TTL)
        task = asyncio.create_task(leadership.run())
        try:
            yield leadership
        finally:
            task.cancel()
            await asyncio.wait((task,))


async def test_one_of_many_leads() -> None:
    candidates = Candidates()
    async with candidates.standing("a") as a, candidates.standing("b") as b, candidates.standing("c") as c:
        await until(lambda: len(candidates.working) == 1, "a leader")
        assert sum(one.is_leader for one in (a, b, c)) == 1


async def test_a_leader_that_leaves_is_followed_at_once() -> None:
    candidates = Candidates()
    async with candidates.standing("a") as a:
        await until(lambda: a.is_leader, "a to lead")
        async with candidates.standing("b") as b:
            assert not b.is_leader
    assert candidates.store.holder(LOCK) is None
    async with candidates.standing("c") as c:
        await until(lambda: c.is_leader, "c to lead", seconds=TTL / 2)
    assert candidates.fences == sorted(set(candidates.fences))
    assert not candidates.working


async def test_a_lock_that_was_lost_with_all_data_is_taken_again() -> None:
    candidates = Candidates()
    async with candidates.standing("a") as a:
        await until(lambda: a.is_leader, "a to lead")
        candidates.store.flush()
        await until(lambda: len(candidates.fences) == 2, "a to lead again", seconds=TTL)
        assert candidates.fences[0] < candidates.fences[1]
        assert candidates.working == ["a"]


async def test_nobody_leads_while_the_store_is_away() -> None:
    candidates = Candidates()
    async with candidates.standing("a") as a:
        await until(lambda: a.is_leader, "a to lead")
        candidates.store.outage = True
        await until(lambda: not candidates.working, "the work to end")
        assert not a.is_leader
        candidates.store.outage = False
        await until(lambda: a.is_leader, "a to lead again")


async def test_an_error_of_the_work_is_not_hidden() -> None:
    async def work(held: Held) -> None:
        raise ZeroDivisionError

    store = MemoryLocks(SystemClock())
    with pytest.raises(ZeroDivisionError):
        await Leadership(Locks(store, SystemClock()), work).run()
    assert store.holder(LOCK) is None
