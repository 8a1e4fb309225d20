"""Who does the work of regrades: lanes, pauses, and what others left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

from cinnabar_common.clock import SystemClock
from cinnabar_common.errors import DependencyUnavailable
from cinnabar_gateway.adapters.memory import MemoryQueue
from cinnabar_gateway.handoff import Handoff
from cinnabar_gateway.records import CancelledTask, QueuedTask
from cinnabar_gateway.regrade_ports import Advance, RegradeKey, RegradeStore
from cinnabar_gateway.regrades import RegradeDriver
from tests.support.waiting import until

FIRST, SECOND, THIRD = (RegradeKey("uni", name) for name in ("first", "second", "third"))


class Steps:
    """The part of a store that the driver uses: each regrade takes some steps, and may fail once."""

    def __init__(self, **steps: int) -> None:
        self.left = steps
        self.fails: set[str] = set()
        self.claimable: list[RegradeKey] = []
        self.limits: set[int] = set()

    async def advance(self, key: RegradeKey, *, limit: int) -> Advance:
        self.limits.add(limit)
        if key.regrade_id in self.fails:
            self.fails.remove(key.regrade_id)
            self.claimable.append(key)
            raise DependencyUnavailable("storage")
        self.left[key.regrade_id] -= 1
        number = self.left[key.regrade_id]
        task = QueuedTask(f"{key.regrade_id}/q{number}", key.tenant, "text", 2, 1, "r/q", b"")
        return Advance([task], [CancelledTask("gone/q", "text")] if not number else [], number > 0)

    async def claim(self, limit: int) -> Sequence[RegradeKey]:
        claimed, self.claimable = self.claimable[:limit], self.claimable[limit:]
        return claimed

    @property
    def done(self) -> bool:
        return not any(self.left.values())


def driver_of(steps: Steps, queue: MemoryQueue, handoff: Handoff, **settings: float) -> RegradeDriver:
    chosen = {"poll_seconds": 3600.0, **settings}
    store = cast("RegradeStore", steps)
    return RegradeDriver(store, queue, handoff, SystemClock(), **chosen)  # pyright: ignore[reportArgumentType]


async def test_it_works_step_by_step_until_nothing_is_left() -> None:
    steps, queue = Steps(first=3, second=2), MemoryQueue()
    handoff = Handoff(queue)
    async with handoff.running(), driver_of(steps, queue, handoff, step_tasks=7).running() as driver:
        driver.take(FIRST)
        driver.take(FIRST)
        driver.take(SECOND)
        await until(lambda: steps.done, description="all steps are made")
        await until(lambda: len(queue.tasks) == 5, description="the queue has what was opened")
    assert steps.limits == {7}


async def test_what_fails_or_finds_no_lane_is_claimed_later() -> None:
    steps, queue = Steps(first=2, second=2, third=1), MemoryQueue()
    steps.fails = {"first"}
    handoff = Handoff(queue)
    driver = driver_of(steps, queue, handoff, lanes=1, poll_seconds=0.01)
    driver.take(FIRST)
    driver.take(SECOND)  # no lane is free
    steps.claimable = [SECOND, THIRD]
    assert await driver.adopt_once() == 0
    async with driver.running():
        await until(lambda: steps.done, description="everything was taken over")


async def test_it_waits_for_the_queue_to_take_what_was_opened() -> None:
    steps, queue = Steps(first=3), MemoryQueue()
    handoff = Handoff(queue)  # nobody empties it
    async with driver_of(steps, queue, handoff, step_tasks=1).running() as driver:
        driver.take(FIRST)
        await until(lambda: handoff.pending == 2, description="two steps fill what it may")
        for _ in range(50):
            await asyncio.sleep(0)
        assert steps.left["first"] == 1
        await handoff.run_once()
        await until(lambda: steps.done, description="it goes on")
