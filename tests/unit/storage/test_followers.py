"""How long a follower rests, and what it does when its step fails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from cinnabar_storage.trail.followers import Follower, Stepped


@dataclass
class ManualClock:
    now: float = 100.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


def follower(step: Callable[[], Awaitable[Stepped]], clock: ManualClock) -> Follower:
    return Follower("test", step, poll_seconds=0.5, clock=clock)


async def test_it_works_a_fifth_of_the_time_while_there_is_more() -> None:
    clock = ManualClock()

    async def step() -> Stepped:
        clock.now += 0.05
        return Stepped(10, more=True)

    assert round(await follower(step, clock).run_once(), 6) == 0.2


async def test_it_waits_for_the_next_look_when_all_is_read() -> None:
    clock = ManualClock()
    durations = [0.01, 0.3]

    async def step() -> Stepped:
        clock.now += durations.pop(0)
        return Stepped(3, more=False)

    subject = follower(step, clock)
    assert await subject.run_once() == 0.5
    assert round(await subject.run_once(), 6) == 1.2


async def test_a_step_that_fails_is_taken_again_later_and_later() -> None:
    clock = ManualClock()
    failing = True

    async def step() -> Stepped:
        if failing:
            raise ConnectionError("away")
        return Stepped(0, more=False)

    subject = follower(step, clock)
    pauses = [await subject.run_once() for _ in range(12)]
    assert pauses[:4] == [0.5, 1.0, 2.0, 4.0]
    assert pauses[-1] == 30.0
    failing = False
    assert await subject.run_once() == 0.5
    failing = True
    assert await subject.run_once() == 0.5
