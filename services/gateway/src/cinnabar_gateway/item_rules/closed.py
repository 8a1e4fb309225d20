"""Items that rules decide: choice, numeric and text."""

from __future__ import annotations

import math
import re

import regex

from cinnabar.grader.v1.item_pb2 import ChoiceSpec, NumericSpec, TextSpec
from cinnabar_common.errors import FieldViolation
from cinnabar_gateway.item_rules.backtracking import Budget, TooComplex, is_exponential
from cinnabar_gateway.item_rules.lists import Violations, ids, not_blank
from cinnabar_gateway.item_rules.quiet import quiet

MAX_OPTIONS = 100
MAX_ACCEPTED = 1000
MAX_UNIT = 64
MAX_PATTERN = 1000


def choice(spec: ChoiceSpec, at: str) -> Violations:
    """Every rule that a choice item breaks."""
    if spec.options and not 2 <= len(spec.options) <= MAX_OPTIONS:
        yield FieldViolation(f"{at}.options", f"must be 2 to {MAX_OPTIONS}")
    yield from ids([option.id for option in spec.options], f"{at}.options", "id")
    options = {option.id for option in spec.options}
    seen: set[str] = set()
    for index, correct in enumerate(spec.correct):
        if correct not in options:
            yield FieldViolation(f"{at}.correct[{index}]", "must be the id of an option")
        elif correct in seen:
            yield FieldViolation(f"{at}.correct[{index}]", "must not be listed twice")
        seen.add(correct)


def numeric(spec: NumericSpec, at: str) -> Violations:
    """Every rule that a numeric item breaks."""
    if not math.isfinite(spec.value):
        yield FieldViolation(f"{at}.value", "must be finite")
    yield from tolerances(spec.absolute_tolerance, spec.relative_tolerance, at)
    if not 0 <= spec.wrong_unit_credit <= 1:
        yield FieldViolation(f"{at}.wrong_unit_credit", "must be 0 to 1")
    if len(spec.unit) > MAX_UNIT:
        yield FieldViolation(f"{at}.unit", f"must be at most {MAX_UNIT} characters")
    if spec.accepted_units and not spec.unit.strip():
        yield FieldViolation(f"{at}.unit", "must be set when there are accepted_units")
    if len(spec.accepted_units) > MAX_ACCEPTED:
        yield FieldViolation(f"{at}.accepted_units", f"must be at most {MAX_ACCEPTED}")
        return
    seen = {_without_spaces(spec.unit)}
    for index, accepted in enumerate(spec.accepted_units):
        unit = _without_spaces(accepted.unit)
        path = f"{at}.accepted_units[{index}]"
        if accepted.unit and not unit:
            yield FieldViolation(f"{path}.unit", "must not be blank")
        elif len(accepted.unit) > MAX_UNIT:
            yield FieldViolation(f"{path}.unit", f"must be at most {MAX_UNIT} characters")
        elif unit and unit in seen:
            yield FieldViolation(f"{path}.unit", "must not be listed twice")
        seen.add(unit)
        if not 0 < accepted.factor < math.inf:
            yield FieldViolation(f"{path}.factor", "must be more than 0 and finite")


def tolerances(absolute: float, relative: float, at: str) -> Violations:
    """How far a number may be off."""
    if not 0 <= absolute < math.inf:
        yield FieldViolation(f"{at}.absolute_tolerance", "must be 0 or more and finite")
    if not 0 <= relative < 1:
        yield FieldViolation(f"{at}.relative_tolerance", "must be 0 or more and below 1")


def text(spec: TextSpec, at: str, budget: Budget) -> Violations:
    """Every rule that a text item breaks; judging its pattern is paid from ``budget``."""
    if bool(spec.accepted) == bool(spec.pattern):
        yield FieldViolation(at, "must have either accepted or pattern")
    if len(spec.accepted) > MAX_ACCEPTED:
        yield FieldViolation(f"{at}.accepted", f"must be at most {MAX_ACCEPTED}")
        return
    yield from not_blank(spec.accepted, f"{at}.accepted")
    if len(spec.pattern) > MAX_PATTERN:
        yield FieldViolation(f"{at}.pattern", f"must be at most {MAX_PATTERN} characters")
    elif spec.pattern:
        yield from _pattern(spec, f"{at}.pattern", budget)


def _pattern(spec: TextSpec, at: str, budget: Budget) -> Violations:
    try:
        with quiet():
            re.compile(spec.pattern)
            # What graders match with.
            regex.compile(spec.pattern, 0 if spec.case_sensitive else regex.IGNORECASE)
        exponential = is_exponential(spec.pattern, case_sensitive=spec.case_sensitive, budget=budget)
    except (re.error, regex.error, RecursionError, OverflowError) as error:
        yield FieldViolation(at, f"is not a regular expression: {error}")
    except TooComplex:
        yield FieldViolation(at, "is too complex to tell whether it can take exponential time: simplify it")
    else:
        if exponential:
            rule = (
                "can take exponential time: it repeats something that matches the same text in several ways,"
                " as in (a+)+"
            )
            yield FieldViolation(at, rule)


def _without_spaces(text: str) -> str:
    return "".join(text.split())
