"""What an assignment must look like; the rules are those of item.proto."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence

from cinnabar.gateway.v1.assignment_service_pb2 import Assignment
from cinnabar.grader.v1.item_pb2 import ChoiceSpec, FreeTextSpec, Item, NumericSpec, TextSpec
from cinnabar_common.errors import FieldViolation
from cinnabar_common.names import ID_RULE, is_id
from cinnabar_gateway.required import missing

MAX_ASSIGNMENT_BYTES = 4 * 1024 * 1024
MAX_DISPLAY_NAME = 200
MAX_ITEMS = 200
MAX_PROMPT_BYTES = 64 * 1024
MAX_POINTS = 1_000_000
MAX_OPTIONS = 100
MAX_ACCEPTED = 1000
MAX_UNIT = 64
MAX_PATTERN = 1000
MAX_REFERENCES = 20
_POINTS_TOLERANCE = 1e-9  # relative; the sum of a rubric is a sum of floats
_TIMESTAMP_SECONDS = (-62_135_596_800, 253_402_300_799)  # years 1 to 9999, google.protobuf.Timestamp

Violations = Iterator[FieldViolation]


def assignment_violations(assignment: Assignment, at: str = "assignment") -> Violations:
    """Every rule that ``assignment`` breaks, with paths below ``at``."""
    size = assignment.ByteSize()
    if size > MAX_ASSIGNMENT_BYTES:
        yield FieldViolation(at, f"must be at most {MAX_ASSIGNMENT_BYTES} bytes")
        return
    yield from missing(assignment, at=at)
    if len(assignment.display_name) > MAX_DISPLAY_NAME:
        yield FieldViolation(f"{at}.display_name", f"must be at most {MAX_DISPLAY_NAME} characters")
    if len(assignment.items) > MAX_ITEMS:
        yield FieldViolation(f"{at}.items", f"must be at most {MAX_ITEMS}")
        return
    if assignment.HasField("close_time"):
        first, last = _TIMESTAMP_SECONDS
        time = assignment.close_time
        if not (first <= time.seconds <= last and 0 <= time.nanos < 1_000_000_000):
            yield FieldViolation(f"{at}.close_time", "must be a time in the years 1 to 9999")
    yield from _ids([item.item for item in assignment.items], f"{at}.items", "item")
    for index, item in enumerate(assignment.items):
        yield from _item(item, f"{at}.items[{index}]")


def _item(item: Item, at: str) -> Violations:
    if len(item.prompt.encode()) > MAX_PROMPT_BYTES:
        yield FieldViolation(f"{at}.prompt", f"must be at most {MAX_PROMPT_BYTES} bytes of UTF-8")
    if not 0 < item.points <= MAX_POINTS:
        yield FieldViolation(f"{at}.points", f"must be more than 0 and at most {MAX_POINTS}")
    match item.WhichOneof("grader"):
        case None:
            yield FieldViolation(at, "must have one of choice, numeric, text, free_text")
        case "choice":
            yield from _choice(item.choice, f"{at}.choice")
        case "numeric":
            yield from _numeric(item.numeric, f"{at}.numeric")
        case "text":
            yield from _text(item.text, f"{at}.text")
        case "free_text":
            yield from _free_text(item.free_text, item.points, f"{at}.free_text")


def _choice(spec: ChoiceSpec, at: str) -> Violations:
    if spec.options and not 2 <= len(spec.options) <= MAX_OPTIONS:
        yield FieldViolation(f"{at}.options", f"must be 2 to {MAX_OPTIONS}")
    yield from _ids([option.id for option in spec.options], f"{at}.options", "id")
    options = {option.id for option in spec.options}
    seen: set[str] = set()
    for index, correct in enumerate(spec.correct):
        if correct not in options:
            yield FieldViolation(f"{at}.correct[{index}]", "must be the id of an option")
        elif correct in seen:
            yield FieldViolation(f"{at}.correct[{index}]", "must not be listed twice")
        seen.add(correct)


def _numeric(spec: NumericSpec, at: str) -> Violations:
    if not math.isfinite(spec.value):
        yield FieldViolation(f"{at}.value", "must be finite")
    if not 0 <= spec.absolute_tolerance < math.inf:
        yield FieldViolation(f"{at}.absolute_tolerance", "must be 0 or more and finite")
    if not 0 <= spec.relative_tolerance < 1:
        yield FieldViolation(f"{at}.relative_tolerance", "must be 0 or more and below 1")
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


def _text(spec: TextSpec, at: str) -> Violations:
    if bool(spec.accepted) == bool(spec.pattern):
        yield FieldViolation(at, "must have either accepted or pattern")
    if len(spec.accepted) > MAX_ACCEPTED:
        yield FieldViolation(f"{at}.accepted", f"must be at most {MAX_ACCEPTED}")
        return
    yield from _not_blank(spec.accepted, f"{at}.accepted")
    if len(spec.pattern) > MAX_PATTERN:
        yield FieldViolation(f"{at}.pattern", f"must be at most {MAX_PATTERN} characters")
    elif spec.pattern:
        try:
            re.compile(spec.pattern)
        except (re.error, RecursionError, OverflowError) as error:
            yield FieldViolation(f"{at}.pattern", f"is not a regular expression: {error}")


def _free_text(spec: FreeTextSpec, points: float, at: str) -> Violations:
    if len(spec.references) > MAX_REFERENCES:
        yield FieldViolation(f"{at}.references", f"must be 1 to {MAX_REFERENCES}")
    yield from _not_blank(spec.references, f"{at}.references")
    yield from _ids([criterion.criterion for criterion in spec.criteria], f"{at}.criteria", "criterion")
    fair = True
    for index, criterion in enumerate(spec.criteria):
        if not 0 < criterion.points <= MAX_POINTS:
            fair = False
            yield FieldViolation(
                f"{at}.criteria[{index}].points", f"must be more than 0 and at most {MAX_POINTS}"
            )
    total = math.fsum(criterion.points for criterion in spec.criteria)
    if spec.criteria and fair and not math.isclose(total, points, rel_tol=_POINTS_TOLERANCE):
        yield FieldViolation(f"{at}.criteria", f"must have {points:g} points together, not {total:g}")


def _ids(ids: Sequence[str], at: str, field: str) -> Violations:
    """Rules of the ids of a list; absent ones are reported as required fields."""
    seen: set[str] = set()
    for index, one in enumerate(ids):
        if one and not is_id(one):
            yield FieldViolation(f"{at}[{index}].{field}", ID_RULE)
        elif one and one in seen:
            yield FieldViolation(f"{at}[{index}].{field}", f"must be unique, but {one} is there twice")
        seen.add(one)


def _not_blank(texts: Iterable[str], at: str) -> Violations:
    for index, text in enumerate(texts):
        if not text.strip():
            yield FieldViolation(f"{at}[{index}]", "must not be blank")


def _without_spaces(text: str) -> str:
    return "".join(text.split())
