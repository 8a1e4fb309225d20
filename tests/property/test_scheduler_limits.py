"""GCRA against its other form, and against what it promises about every window."""

from dataclasses import dataclass
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from cinnabar_scheduler.adapters.memory_admission import MemoryAdmission
from cinnabar_scheduler.admission import Result
from tests.support.scheduler_admission import charge, claim
from tests.support.scheduler_queue import ManualClock

calls = st.lists(
    st.tuples(st.integers(min_value=0, max_value=3_000), st.integers(min_value=0, max_value=12)),
    max_size=60,
)
limits = st.tuples(st.integers(min_value=1, max_value=50), st.integers(min_value=1, max_value=20))


@dataclass(slots=True)
class VirtualScheduling:
    """The other form of GCRA, in exact numbers: the time when all units are there again."""

    units: int
    period_ms: int
    free_at: Fraction = Fraction(0)

    def admit(self, now_ms: int, cost: int) -> bool:
        """Whether ``cost`` fits now; charges it."""
        interval = Fraction(self.period_ms, self.units)
        free_at = max(self.free_at, Fraction(now_ms)) + cost * interval
        if cost and free_at - now_ms > self.period_ms:
            return False
        self.free_at = free_at
        return True


async def run(units: int, seconds: int, steps: list[tuple[int, int]]) -> list[tuple[int, int, bool]]:
    """(ms since the start, cost, passed) of each call."""
    clock = ManualClock()
    start = clock.now_ms
    store, limit = MemoryAdmission(clock), charge(units, float(seconds))
    done: list[tuple[int, int, bool]] = []
    for wait_ms, cost in steps:
        clock.now_ms += wait_ms
        verdict = (await store.admit("uni", [claim(limit, cost=cost)]))[0]
        done.append((clock.now_ms - start, cost, verdict.result is Result.ADMITTED))
    return done


@given(limits, calls)
async def test_no_window_passes_more_than_the_burst_and_the_rate(
    limit: tuple[int, int], steps: list[tuple[int, int]]
) -> None:
    units, seconds = limit
    done = await run(units, seconds, steps)
    for first, (begin, _, _) in enumerate(done):
        passed = 0
        for now, cost, ok in done[first:]:
            passed += cost if ok else 0
            assert passed <= units + units * (now - begin) / (1000 * seconds) + 1e-5


@given(limits, calls)
@settings(max_examples=300)
async def test_the_two_forms_of_the_algorithm_agree(
    limit: tuple[int, int], steps: list[tuple[int, int]]
) -> None:
    units, seconds = limit
    reference = VirtualScheduling(units, seconds * 1000)
    for now, cost, ok in await run(units, seconds, steps):
        assert ok == reference.admit(now, cost)


@given(limits, st.integers(min_value=1, max_value=60))
async def test_a_refused_call_fits_after_the_wait_it_was_told(limit: tuple[int, int], cost: int) -> None:
    units, seconds = limit
    clock = ManualClock()
    store, level = MemoryAdmission(clock), charge(units, float(seconds))
    await store.admit("uni", [claim(level, cost=units)])
    verdict = (await store.admit("uni", [claim(level, cost=cost)]))[0]
    assert verdict.result is Result.LIMITED
    clock.now_ms += -(-verdict.retry_after_us // 1000)
    again = (await store.admit("uni", [claim(level, cost=cost)]))[0]
    assert (again.result is Result.ADMITTED) == (cost <= units)
