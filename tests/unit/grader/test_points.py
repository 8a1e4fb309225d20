"""Scores are rounded so that people can add them up."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinnabar_grader.points import apportion, decimals_of, score_of, total_of


@pytest.mark.parametrize(
    ("fraction", "points", "score"),
    [
        (0.0, 5, 0),
        (-0.5, 5, 0),
        (1.0, 0.333, 0.333),
        (1.5, 5, 5),
        (1 / 3, 10, 3.33),
        (2 / 3, 1, 0.67),
        (0.5, 0.01, 0.005),
        (0.999, 1_000_000, 999_000),
    ],
)
def test_score_of(fraction: float, points: float, score: float) -> None:
    assert score_of(fraction, points) == score


@pytest.mark.parametrize(("points", "decimals"), [(1, 2), (100, 2), (0.5, 3), (0.01, 4), (0.1, 3)])
def test_decimals_of(points: float, decimals: int) -> None:
    assert decimals_of(points) == decimals


@pytest.mark.parametrize(
    ("fraction", "matches", "maxima", "parts"),
    [
        (0.5, [0.5, 0.5], [2, 2], [1, 1]),
        (0.5, [1.0, 0.0], [2, 2], [2, 0]),
        (0.5, [0.9, 0.3], [3, 1], [1.95, 0.05]),
        (1.0, [0.1, 0.9], [1, 2], [1, 2]),
        (0.0, [0.7, 0.9], [1, 2], [0, 0]),
        (1 / 3, [0.4, 0.4, 0.4], [1, 1, 1], [0.34, 0.33, 0.33]),
    ],
)
def test_apportion(fraction: float, matches: list[float], maxima: list[float], parts: list[float]) -> None:
    assert sorted(apportion(fraction, matches, maxima)) == sorted(parts)


RUBRIC = st.lists(
    st.tuples(st.floats(0, 1), st.integers(1, 10_000).map(lambda units: units / 100)), min_size=1, max_size=10
)


@given(fraction=st.floats(0, 1), rubric=RUBRIC)
def test_parts_are_within_bounds_and_make_the_whole(
    fraction: float, rubric: list[tuple[float, float]]
) -> None:
    matches, maxima = [match for match, _ in rubric], [points for _, points in rubric]
    whole = math.fsum(maxima)
    parts = apportion(fraction, matches, maxima)
    assert all(0 <= part <= most for part, most in zip(parts, maxima, strict=True))
    assert total_of(parts) == pytest.approx(score_of(fraction, whole), abs=1e-9)


@given(fraction=st.floats(0.01, 0.99), better=st.floats(0, 1), worse=st.floats(0, 1))
def test_a_better_match_never_gets_less(fraction: float, better: float, worse: float) -> None:
    better, worse = max(better, worse), min(better, worse)
    first, second = apportion(fraction, [better, worse], [5, 5])
    assert first >= second - 0.01


@given(fraction=st.floats(0, 1), maxima=st.lists(st.floats(1e-4, 1e6), min_size=1, max_size=6))
def test_any_points_are_split_within_their_bounds(fraction: float, maxima: list[float]) -> None:
    parts = apportion(fraction, [0.5] * len(maxima), maxima)
    assert all(0 <= part <= most for part, most in zip(parts, maxima, strict=True))
    assert total_of(parts) <= math.fsum(maxima) * (1 + 1e-9)
