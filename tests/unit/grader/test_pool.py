"""How many workers there should be: thresholds, patience, and that nothing makes the pool flap."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinnabar_grader import machine
from cinnabar_grader.pool import Backlog, Pool, PoolTerms, at_most, fitting, together

TERMS = PoolTerms()
NOTHING = Backlog()


class Simulation:
    """A pool under a load that is told second by second; work fills the workers first, the rest waits."""

    def __init__(self, terms: PoolTerms = TERMS) -> None:
        self.now = 0.0
        self.terms = terms
        self.pool = Pool(terms, self.now)
        self.sizes = [self.pool.size]

    def run(self, seconds: float, load: float) -> None:
        """``load``: workers that the work of each second needs."""
        for _ in range(int(seconds)):
            self.now += 1.0
            busy = min(self.pool.size, int(load))
            rest = max(0.0, load - busy)
            backlog = Backlog(ready=int(rest > 0), work_seconds=rest * self.terms.backlog_seconds)
            self.pool.observe(self.now, busy=busy, held=busy, backlog=backlog)
            size = self.pool.decide(self.now)
            if size != self.sizes[-1]:
                assert abs(size - self.sizes[-1]) == 1
                self.sizes.append(size)

    @property
    def turns(self) -> int:
        """How often growing became shrinking, or the other way round."""
        steps = [after - before for before, after in itertools.pairwise(self.sizes)]
        return sum(one != other for one, other in itertools.pairwise(steps))


def test_the_defaults_are_those_of_the_document() -> None:
    assert (TERMS.min_workers, TERMS.max_workers, TERMS.up, TERMS.down, TERMS.check_seconds) == (
        3,
        20,
        0.8,
        0.3,
        30,
    )


def test_grows_by_one_at_a_check_while_the_pressure_is_high_up_to_the_most() -> None:
    it = Simulation()
    it.run(29, load=100)
    assert it.pool.size == 3
    it.run(1, load=100)
    assert it.pool.size == 4
    it.run(30, load=100)
    assert it.pool.size == 5
    it.run(30 * 30, load=100)
    assert it.pool.size == 20


def test_shrinks_by_one_after_several_quiet_checks_down_to_the_least() -> None:
    it = Simulation()
    it.run(30 * 3, load=100)
    assert it.pool.size == 6
    it.run(30 * 2, load=0)
    assert it.pool.size == 6
    it.run(30, load=0)
    assert it.pool.size == 5
    it.run(30 * 10, load=0)
    assert it.pool.size == 3


def observed(*, busy: int, held: int = 0, backlog: Backlog, terms: PoolTerms = TERMS) -> int:
    """The size after one check, with this all the time."""
    pool = Pool(terms, 0.0)
    for second in range(1, 31):
        pool.observe(float(second), busy=busy, held=held or busy, backlog=backlog)
    return pool.decide(30.0)


@pytest.mark.parametrize(
    ("backlog", "grows"),
    [
        (Backlog(ready=1000, work_seconds=1.0), False),  # many, but done in no time
        (Backlog(ready=2, work_seconds=600.0), True),  # few, but long
        (Backlog(ready=2, work_seconds=600.0, graders=200), False),  # others do their part
        (Backlog(ready=3), True),  # nothing measured: one worker each
        (Backlog(ready=1), False),
        (Backlog(ready=1, work_seconds=0.1, oldest_age_seconds=60), False),  # some worker is idle
    ],
)
def test_what_counts_is_the_work_and_not_the_number_of_tasks(backlog: Backlog, grows: bool) -> None:
    assert observed(busy=0, backlog=backlog) == (4 if grows else 3)


def test_when_all_work_and_the_oldest_waits_for_long_there_are_too_few() -> None:
    waiting = Backlog(ready=1, work_seconds=0.001, oldest_age_seconds=6)
    terms = PoolTerms(up=1.0, down=0.0)
    assert observed(busy=3, backlog=waiting, terms=terms) == 4
    assert observed(busy=3, backlog=Backlog(ready=1, work_seconds=0.001), terms=terms) == 4
    assert observed(busy=2, backlog=waiting, terms=terms) == 3


def test_time_under_lease_that_is_waiting_here_is_not_taken_for_work() -> None:
    backlog = Backlog(ready=10, work_seconds=100.0)
    assert observed(busy=1, held=1, backlog=backlog) == 4
    assert observed(busy=1, held=32, backlog=backlog) == 3


@given(st.lists(st.tuples(st.integers(1, 4), st.floats(0, 40)), min_size=1, max_size=20))
@settings(max_examples=40)
def test_bounds_hold_and_it_never_shrinks_without_patience(pieces: list[tuple[int, float]]) -> None:
    it = Simulation()
    quiet = 0
    for checks, load in pieces:
        for _ in range(checks):
            before = it.pool.size
            it.run(30, load)
            assert TERMS.min_workers <= it.pool.size <= TERMS.max_workers
            quiet = quiet + 1 if load < TERMS.down * before else 0
            if it.pool.size < before:
                assert quiet >= TERMS.patience


@given(
    st.floats(0, 60),
    st.integers(3, 20),
    st.tuples(st.floats(0.05, 2), st.floats(0, 0.5)),
)
@settings(max_examples=40)
def test_a_load_that_stays_makes_it_settle(load: float, start: int, thresholds: tuple[float, float]) -> None:
    up, part = thresholds
    it = Simulation(PoolTerms(up=up, down=up * part))
    it.pool.size = start
    it.sizes = [start]
    it.run(30 * 3 * 20, load)
    assert it.turns == 0
    settled = it.pool.size
    it.run(30 * 10, load)
    assert it.pool.size == settled


@given(st.integers(1, 80), st.integers(1, 60), st.floats(5, 60))
@settings(max_examples=40)
def test_bursts_with_pauses_below_the_patience_do_not_make_it_flap(on: int, off: int, load: float) -> None:
    it = Simulation()
    for _ in range(20):
        it.run(on, load)
        it.run(off, 0)
    assert it.turns <= 1


def test_terms_that_would_flap_are_refused() -> None:
    for wrong in (
        {"up": 0.5, "down": 0.3},
        {"min_workers": 0},
        {"min_workers": 9, "max_workers": 8},
        {"patience": 0},
    ):
        with pytest.raises(ValueError, match=r"thresholds|workers|positive"):
            PoolTerms(**wrong)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("cores", "gib", "least", "most"),
    [
        (1, 64, 1, 1),
        (2, 24, 1, 2),
        (4, 64, 2, 4),
        (8, 64, 3, 8),
        (64, 64, 3, 20),
        (64, 3, 3, 3),
        (16, 1, 1, 1),
    ],
)
def test_workers_that_use_cores_and_memory_fit_the_machine(
    cores: int, gib: int, least: int, most: int
) -> None:
    terms = fitting(TERMS, cores=cores, memory_bytes=gib << 30, worker_bytes=512 << 20)
    assert (terms.min_workers, terms.max_workers) == (least, most)


def test_a_kind_may_have_a_bound_of_its_own() -> None:
    assert (at_most(TERMS, 2).min_workers, at_most(TERMS, 2).max_workers) == (2, 2)
    assert at_most(TERMS, 8) == PoolTerms(max_workers=8)


def test_queues_that_the_same_workers_serve_are_added_up() -> None:
    both = together(
        [
            Backlog(ready=2, work_seconds=3.0, oldest_age_seconds=1.0, graders=4),
            Backlog(ready=1, work_seconds=1.0, oldest_age_seconds=7.0, graders=2),
            Backlog(),
        ]
    )
    assert both == Backlog(ready=3, work_seconds=4.0, oldest_age_seconds=7.0, graders=4)
    assert together([Backlog(ready=1), Backlog(ready=1, work_seconds=1.0)]).work_seconds is None
    assert together([]) == Backlog(work_seconds=0.0)


def test_what_the_machine_has(tmp_path: Path) -> None:
    assert machine.cores(tmp_path) >= 1
    (tmp_path / "cpu.max").write_text("50000 100000")
    assert machine.cores(tmp_path) == 1
    (tmp_path / "cpu.max").write_text("max 100000")
    assert machine.cores(tmp_path) >= 1
    meminfo = tmp_path / "meminfo"
    assert machine.free_memory(tmp_path, meminfo) > 1 << 40
    meminfo.write_text("MemTotal: 2000 kB\nMemAvailable: 1000 kB\n")
    assert machine.free_memory(tmp_path, meminfo) == 1_024_000
    (tmp_path / "memory.max").write_text("5000")
    (tmp_path / "memory.current").write_text("2000")
    assert machine.free_memory(tmp_path, meminfo) == 3000
