"""Operators change queues while the leader brings Redis in line: what they said last holds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from cinnabar_scheduler.adapters.memory import MemoryQueue
from cinnabar_scheduler.control import QueueControl
from cinnabar_scheduler.tasks import QueueName, QueueState
from tests.support.scheduler_doubles import MemoryStore
from tests.support.scheduler_queue import QUEUE, ManualClock

Change = Callable[[], Awaitable[None]]


async def nothing() -> None:
    """No operator is at work."""


class BusyStore(MemoryStore):
    """``meanwhile`` happens once, right after the controls were read."""

    meanwhile: Change = staticmethod(nothing)

    async def controls(self) -> dict[QueueName, QueueState]:
        read = await super().controls()
        change, self.meanwhile = self.meanwhile, nothing
        await change()
        return read


@pytest.mark.parametrize("state", [QueueState.RUNNING, QueueState.DRAINING])
@pytest.mark.parametrize("remembered", [QueueState.RUNNING, QueueState.DRAINING])
async def test_a_change_during_an_alignment_is_not_undone(state: QueueState, remembered: QueueState) -> None:
    queue, store = MemoryQueue(clock=ManualClock()), BusyStore()
    control = QueueControl(queue, store, lambda name: None)
    await store.set_control(QUEUE, remembered, "ann")
    await queue.control(QUEUE, state)

    async def pause() -> None:
        await control.change(QUEUE, QueueState.PAUSED, "bob")

    store.meanwhile = pause
    await control.align()
    assert (await queue.states())[QUEUE] is QueueState.PAUSED
    assert await control.align() == 0
