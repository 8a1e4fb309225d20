"""Numeric items."""

import math

import pytest

from cinnabar_grader.graders import NumberAnswer
from cinnabar_grader.rules.numeric import NumericRule, unit_key

SPEED = NumericRule(
    points=4,
    value=25.0,
    absolute_tolerance=0.1,
    relative_tolerance=0.02,
    unit="m/s",
    accepted_units={"km/h": 1 / 3.6, "cm s^-1": 0.01},
    wrong_unit_credit=0.5,
)
COUNT = NumericRule(points=1, value=0.3)


@pytest.mark.parametrize(
    ("value", "unit", "score", "words"),
    [
        (25, "m/s", 4, "Correct"),
        (25.5, "m/s", 4, "Correct"),  # the relative tolerance is the wider one
        (24.5, "m/s", 4, "Correct"),
        (25.51, "m/s", 0, "outside"),
        (-25, "m/s", 0, "outside"),
        (25, " m / s ", 4, "Correct"),
        (90, "km/h", 4, "Correct"),
        (90, "km ∕ h", 4, "Correct"),
        (25, "km/h", 0, "outside"),
        (2500, "cm s^-1", 4, "Correct"),
        (2500, "cm s^−1", 4, "Correct"),
        (2500, "cms^–1", 4, "Correct"),
        (25, "", 2, "missing"),
        (25, "  ", 2, "missing"),
        (25, "mph", 2, "not one that is accepted"),
        (25, "M/S", 2, "not one that is accepted"),
        (26, "mph", 0, "outside"),
        (math.nan, "m/s", 0, "finite"),
        (math.inf, "m/s", 0, "finite"),
        (-math.inf, "", 0, "finite"),
        (1e308, "km/h", 0, "outside"),
    ],
)
def test_speed(value: float, unit: str, score: float, words: str) -> None:
    verdict = SPEED.verdict(NumberAnswer(value, unit))
    assert verdict.score == score
    assert words in verdict.feedback


@pytest.mark.parametrize(
    ("value", "unit", "score"), [(0.3, "", 1), (0.1 + 0.2, "", 1), (0.3000001, "", 0), (0.3, "pieces", 0)]
)
def test_a_bare_number_without_tolerance(value: float, unit: str, score: float) -> None:
    assert COUNT.verdict(NumberAnswer(value, unit)).score == score


def test_conversion_may_cost_some_digits() -> None:
    metres = NumericRule(points=1, value=1001, unit="m", accepted_units={"km": 1000})
    assert 1.001 * 1000 != 1001
    assert metres.verdict(NumberAnswer(1.001, "km")).score == 1


def test_zero_is_a_value() -> None:
    zero = NumericRule(points=1, value=0, relative_tolerance=0.5)
    assert zero.verdict(NumberAnswer(-0.0)).score == 1
    assert zero.verdict(NumberAnswer(1e-300)).score == 0


def test_an_overflowing_conversion_is_wrong() -> None:
    huge = NumericRule(points=1, value=1, unit="a", accepted_units={"b": 1e300})
    assert huge.verdict(NumberAnswer(1e300, "b")).score == 0


@pytest.mark.parametrize(
    ("one", "other"), [("µm", "μm"), ("m s⁻¹", "ms-1"), ("N·m", "N⋅m"), ("m²", "m2"), ("\u2126", "Ω")]
)
def test_spellings_of_a_unit(one: str, other: str) -> None:
    assert unit_key(one) == unit_key(other)


@pytest.mark.parametrize(("one", "other"), [("mW", "MW"), ("m/s", "m*s"), ("", "1")])
def test_units_that_differ(one: str, other: str) -> None:
    assert unit_key(one) != unit_key(other)


@pytest.mark.parametrize(
    ("value", "absolute", "relative", "credit", "words"),
    [
        (math.nan, 0, 0, 0, "not finite"),
        (1, math.inf, 0, 0, "not finite"),
        (1, -1, 0, 0, "negative"),
        (1, 0, -0.1, 0, "negative"),
        (1, 0, 0, 1.1, "wrong_unit_credit"),
    ],
)
def test_broken_specifications(
    value: float, absolute: float, relative: float, credit: float, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        NumericRule(
            points=1,
            value=value,
            absolute_tolerance=absolute,
            relative_tolerance=relative,
            wrong_unit_credit=credit,
        )
