"""Numeric items: a value within a tolerance, in a unit that is accepted."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping

from cinnabar_grader.graders import NumberAnswer
from cinnabar_grader.phrases import Language, phrase
from cinnabar_grader.points import score_of
from cinnabar_grader.rules.judging import RuleGrader, Verdict

VERSION = "1"

_SLACK = 1e-12
"""Relative error that conversion of units and decimal input may bring in: some 4,000 ulp."""

_SAME = str.maketrans(
    {
        "−": "-",  # minus sign, also what NFKC makes of superscript minus
        "‐": "-",
        "‑": "-",
        "‒": "-",
        "–": "-",
        "—": "-",
        "⋅": "·",
        "∙": "·",
        "•": "·",
        "∕": "/",
        "⁄": "/",
        "Ω": "Ω",  # ohm sign
    }
)


def unit_key(unit: str) -> str:
    """What two spellings of a unit share: NFKC, one minus, one dot, no white space. Case counts."""
    return "".join(unicodedata.normalize("NFKC", unit).translate(_SAME).split())


class NumericRule:
    """Decides numeric items. ValueError when the specification makes no sense.

    An answer without a unit, or with one that is not accepted, is read as if it were in the main
    unit: when that is right it earns ``wrong_unit_credit`` (0..1) of the points.
    """

    slow = False

    def __init__(
        self,
        *,
        points: float,
        value: float,
        absolute_tolerance: float = 0.0,
        relative_tolerance: float = 0.0,
        unit: str = "",
        accepted_units: Mapping[str, float] | None = None,
        wrong_unit_credit: float = 0.0,
        language: Language = Language.ENGLISH,
    ) -> None:
        numbers = (value, absolute_tolerance, relative_tolerance, *(accepted_units or {}).values())
        if not all(map(math.isfinite, numbers)):
            raise ValueError("a number of the specification is not finite")
        if absolute_tolerance < 0 or relative_tolerance < 0:
            raise ValueError("a tolerance is negative")
        if not 0 <= wrong_unit_credit <= 1:
            raise ValueError("wrong_unit_credit is not 0 to 1")
        self.points = points
        self._value = value
        tolerance = max(absolute_tolerance, relative_tolerance * abs(value))
        self._distance = tolerance + _SLACK * max(abs(value), tolerance)
        self._factors = {unit_key(name): factor for name, factor in (accepted_units or {}).items()}
        self._factors[unit_key(unit)] = 1.0
        self._wrong_unit_score = score_of(wrong_unit_credit, points)
        self._right = Verdict(points, phrase(language, "correct"))
        self._off = Verdict(0.0, phrase(language, "number_off"))
        self._invalid = Verdict(0.0, phrase(language, "number_invalid"))
        self._unit_missing = Verdict(self._wrong_unit_score, phrase(language, "unit_missing"))
        self._unit_unknown = Verdict(self._wrong_unit_score, phrase(language, "unit_unknown"))

    def verdict(self, answer: NumberAnswer) -> Verdict:
        """Judges a number and its unit."""
        if not math.isfinite(answer.value):
            return self._invalid
        factor = self._factors.get(answer.unit)
        if factor is None:
            factor = self._factors.get(unit_key(answer.unit))
        if not abs(answer.value * (1.0 if factor is None else factor) - self._value) <= self._distance:
            return self._off
        if factor is not None:
            return self._right
        return self._unit_unknown if unit_key(answer.unit) else self._unit_missing


def numeric_grader() -> RuleGrader[NumberAnswer]:
    """The grader of the queue "numeric"."""
    return RuleGrader("numeric", version=VERSION, rule=NumericRule, answer=NumberAnswer)
