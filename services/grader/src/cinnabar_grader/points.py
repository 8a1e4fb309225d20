"""Points: how fractions become scores that people can read and add up."""

from __future__ import annotations

import math
from collections.abc import Sequence

_FULL = 1 - 1e-9
_ROUNDS = 40  # halvings of an interval of 2: far below the smallest unit


def decimals_of(points: float) -> int:
    """Decimals of the scores of an item: 2, and more for items below one point."""
    return 2 if points >= 1 else 2 - math.floor(math.log10(points))


def score_of(fraction: float, points: float) -> float:
    """``fraction`` (0..1) of ``points``, rounded; never above ``points``, all of them for 1."""
    if fraction >= _FULL:
        return points
    if fraction <= 0:
        return 0.0
    return min(points, round(points * fraction, decimals_of(points)))


def apportion(fraction: float, matches: Sequence[float], maxima: Sequence[float]) -> list[float]:
    """Splits ``fraction`` of all points over criteria, so that better matched ones get more.

    ``matches`` (0..1 each) order the criteria; all are shifted by one common amount, and cut to
    0..1, so that the parts add up to the whole. The parts are multiples of the unit of
    ``decimals_of`` (largest remainder), each at most its maximum; their sum is the rounded
    ``fraction`` of all points, or up to a unit per criterion below where maxima are no multiples.
    """
    total = math.fsum(maxima)
    if fraction >= _FULL:
        return list(maxima)
    decimals = decimals_of(total)
    units = 10**decimals
    wanted = round(score_of(fraction, total) * units)
    shift = _shift(fraction * total, matches, maxima)
    exact = [points * _clip(match + shift) * units for match, points in zip(matches, maxima, strict=True)]
    caps = [math.floor(points * units + 1e-6) for points in maxima]
    parts = [min(math.floor(part + 1e-9), cap) for part, cap in zip(exact, caps, strict=True)]
    by_remainder = sorted(range(len(parts)), key=lambda index: parts[index] - exact[index])
    missing = wanted - sum(parts)
    while missing > 0 and parts != caps:
        for index in by_remainder:
            if missing > 0 and parts[index] < caps[index]:
                parts[index] += 1
                missing -= 1
    for index in reversed(by_remainder):
        taken = min(max(0, -missing), parts[index])
        parts[index] -= taken
        missing += taken
    return [round(part / units, decimals) for part in parts]


def total_of(parts: Sequence[float]) -> float:
    """The sum, free of the dust of binary fractions."""
    return round(math.fsum(parts), 12)


def _shift(target: float, matches: Sequence[float], maxima: Sequence[float]) -> float:
    low, high = -1.0, 1.0
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        reached = sum(points * _clip(match + middle) for match, points in zip(matches, maxima, strict=True))
        low, high = (middle, high) if reached < target else (low, middle)
    return (low + high) / 2


def _clip(value: float) -> float:
    return min(1.0, max(0.0, value))
