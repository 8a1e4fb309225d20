"""No order of events gives two holders who both believe in their lock."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from cinnabar_scheduler.adapters.memory_locks import MemoryLocks
from cinnabar_scheduler.locks import Held
from cinnabar_scheduler.ports import LocksUnavailable
from tests.support.scheduler_queue import ManualClock

TTL = 3.0
# Drift of each process's clock, as a part of the server's time.
RATES = (0.92, 1.0, 1.08)

# Around the TTL is where holders could overlap.
Way = st.sampled_from([0.0, 0.0, 0.0, 0.0, 0.3, 2.9, 3.05])
Step = st.tuples(
    st.integers(0, len(RATES) - 1),
    st.sampled_from(["take", "take", "take", "pass", "pass", "confirm", "release", "flush"]),
    Way,
    Way,
    st.sampled_from(["answered", "answered", "answered", "answered", "answer lost", "never arrived"]),
)


class DriftingClock:
    """A process's clock: another zero and another rate than the server's."""

    def __init__(self, server: ManualClock, rate: float) -> None:
        self._server = server
        self._rate = rate

    def time(self) -> float:
        return self._server.time()

    def monotonic(self) -> float:
        return 1_000 * self._rate + self._server.monotonic() * self._rate


class Network(MemoryLocks):
    """The way to the server: each call takes time, and may be lost either way."""

    def __init__(self, server: MemoryLocks, clock: ManualClock) -> None:
        super().__init__(clock)
        self._server = server
        self._time = clock
        self.there = self.back = 0.0
        self.fate = "answered"

    def _go(self) -> None:
        self._time.advance(self.there + 0.001)
        if self.fate == "never arrived":
            raise LocksUnavailable

    def _return(self) -> None:
        self._time.advance(self.back)
        if self.fate == "answer lost":
            raise LocksUnavailable

    async def take(self, name: str, token: str, ttl_seconds: float) -> int | None:
        self._go()
        answer = await self._server.take(name, token, ttl_seconds)
        self._return()
        return answer

    async def renew(self, name: str, token: str, ttl_seconds: float) -> bool:
        self._go()
        answer = await self._server.renew(name, token, ttl_seconds)
        self._return()
        return answer

    async def release(self, name: str, token: str) -> bool:
        self._go()
        answer = await self._server.release(name, token)
        self._return()
        return answer


@settings(max_examples=500, deadline=None)
@given(st.lists(Step, min_size=2, max_size=60))
def test_at_most_one_valid_holder_and_rising_fences(steps: list[tuple[int, str, float, float, str]]) -> None:
    asyncio.run(_play(steps))


async def _play(steps: list[tuple[int, str, float, float, str]]) -> None:
    clock = ManualClock()
    server = MemoryLocks(clock)
    network = Network(server, clock)
    clocks = [DriftingClock(clock, rate) for rate in RATES]
    held = [Held(network, own, "a", TTL) for own in clocks]
    flushed_under: list[Held] = []
    last_fence = 0
    for process, action, there, back, fate in steps:
        network.there, network.back, network.fate = there, back, fate
        mine = held[process]
        try:
            match action:
                case "take" if not mine.valid:
                    # A holder is used once; a try whose answer was lost is tried again.
                    mine = held[process] = (
                        mine if mine.fence == 0 else Held(network, clocks[process], "a", TTL)
                    )
                    if await mine.take():
                        assert mine.fence > last_fence
                        last_fence = mine.fence
                case "confirm":
                    await mine.confirm()
                case "release":
                    await mine.release()
                    assert not mine.valid
                case "flush":
                    server.flush()
                    flushed_under += [one for one in held if one.valid]
                case _:
                    clock.advance(there or 1.0)
        except LocksUnavailable:
            pass
        # A flush takes the lock from under its holder, who hears of it at the next renewal.
        flushed_under = [one for one in flushed_under if one.valid]
        assert sum(one.valid for one in held if one not in flushed_under) <= 1
