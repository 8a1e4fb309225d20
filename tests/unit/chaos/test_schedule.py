"""The schedule of a campaign is a pure function of its seed and its length."""

import subprocess
import sys
from collections import Counter

import pytest

from tests.support.chaos_schedule import (
    LINKS,
    LONG,
    SERVICES,
    SHORT,
    Kind,
    Shape,
    Step,
    schedule,
)

SHAPES = {"long": LONG, "short": SHORT}


def planned_seconds(steps: tuple[Step, ...], shape: Shape) -> float:
    """How long the steps are meant to take."""
    return sum(step.gap + step.hold + shape.recovery for step in steps)


@pytest.mark.parametrize("seconds", [0.0, 60.0, 600.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_same_seed_gives_the_same_schedule(shape: str, seconds: float) -> None:
    first = schedule(7, seconds, SHAPES[shape])
    assert first == schedule(7, seconds, SHAPES[shape])
    assert first != schedule(8, seconds, SHAPES[shape])


def test_it_is_the_same_in_another_process() -> None:
    code = "from tests.support.chaos_schedule import *; print(schedule(7, 90.0, LONG))"
    other = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env={"PYTHONHASHSEED": "1"}
    )
    assert other.stdout.strip() == str(schedule(7, 90.0, LONG))


@pytest.mark.parametrize("seconds", [30.0, 300.0, 1800.0])
def test_it_fills_the_time_it_is_given(seconds: float) -> None:
    longest_step = LONG.gap[1] + LONG.valkey_away + LONG.recovery
    for seed in range(20):
        steps = schedule(seed, seconds, LONG)
        assert seconds <= planned_seconds(steps, LONG) <= seconds + longest_step


@pytest.mark.parametrize("shape", SHAPES)
def test_one_round_has_every_kind_and_every_service(shape: str) -> None:
    for seed in range(20):
        faults = [fault for step in schedule(seed, 0, SHAPES[shape]) for fault in step.faults]
        left_out = set[Kind]() if SHAPES[shape].every_replica else {Kind.FLUSH}
        assert {fault.kind for fault in faults} == set(Kind) - left_out
        links = [tuple(fault.target.split(">")) for fault in faults if ">" in fault.target]
        assert len(set(links)) == len(links) == (len(LINKS) if SHAPES[shape].every_replica else 3)
        assert set(links) <= set(LINKS)
        for kind in (Kind.KILL, Kind.PAUSE, Kind.AWAY):
            struck = {fault.target.rpartition("-")[0] for fault in faults if fault.kind is kind}
            assert struck >= {name.rpartition("-")[0] for name in SERVICES}
        assert sorted(fault.amount for fault in faults if fault.kind is Kind.CLOCK) == [-600.0, 600.0]


@pytest.mark.parametrize("shape", SHAPES)
def test_faults_that_come_together_share_no_process(shape: str) -> None:
    sizes: Counter[int] = Counter()
    for seed in range(20):
        for step in schedule(seed, 300.0, SHAPES[shape]):
            processes = [name for fault in step.faults for name in fault.processes]
            assert len(processes) == len(set(processes))
            sizes[len(step.faults)] += 1
            if any(
                fault.kind in (Kind.FLUSH_IN_REBUILD, Kind.LEADER_KILLED_IN_REBUILD) for fault in step.faults
            ):
                assert len(step.faults) == 1
    assert set(sizes) == set(range(1, SHAPES[shape].together + 1))
