"""How much work is taken ahead when the event loop is late."""

import pytest

from cinnabar_grader.pace import SMALLEST_SHARE, Pace


def seconds_of(pace: Pace, lag: float, seconds: int = 1) -> list[bool]:
    return [pace.observe(lag) for _ in range(20 * seconds)]


@pytest.fixture
def pace() -> Pace:
    return Pace(samples_per_second=20)


def test_a_loop_on_time_takes_all(pace: Pace) -> None:
    assert not any(seconds_of(pace, 0.001, 5))
    assert pace.share == 1


def test_a_late_loop_takes_half_as_much_every_second_down_to_a_bound(pace: Pace) -> None:
    assert [any(seconds_of(pace, 0.08)) for _ in range(3)] == [True] * 3
    assert pace.share == 1 / 8
    seconds_of(pace, 0.08, 20)
    assert pace.share == SMALLEST_SHARE
    assert not any(seconds_of(pace, 0.08))


def test_it_comes_back_when_the_loop_does(pace: Pace) -> None:
    seconds_of(pace, 0.08, 3)
    assert any(seconds_of(pace, 0.0))
    assert pace.share == 1 / 4
    seconds_of(pace, 0.0, 2)
    assert pace.share == 1


def test_in_between_it_stays(pace: Pace) -> None:
    seconds_of(pace, 0.08, 2)
    before = pace.share
    seconds_of(pace, 0.04, 3)
    assert pace.share == before


def test_one_long_slice_is_no_overload(pace: Pace) -> None:
    pace.observe(0.4)
    seconds_of(pace, 0.0, 2)
    assert pace.share == 1


def test_a_timer_that_comes_early_is_on_time(pace: Pace) -> None:
    seconds_of(pace, -1.0, 2)
    assert (pace.share, pace.lag_seconds) == (1, 0)
