"""Rules that items of several kinds share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from cinnabar.grader.v1.item_pb2 import FreeTextSpec
from cinnabar_common.errors import FieldViolation
from cinnabar_common.names import ID_RULE, is_id

MAX_POINTS = 1_000_000
_POINTS_TOLERANCE = 1e-9  # relative; a sum of points is a sum of floats

Violations = Iterator[FieldViolation]


def ids(given: Sequence[str], at: str, field: str) -> Violations:
    """Rules of the ids of a list; absent ones are reported as required fields."""
    seen: set[str] = set()
    for index, one in enumerate(given):
        if one and not is_id(one):
            yield FieldViolation(f"{at}[{index}].{field}", ID_RULE)
        elif one and one in seen:
            yield FieldViolation(f"{at}[{index}].{field}", f"must be unique, but {one} is there twice")
        seen.add(one)


def not_blank(texts: Iterable[str], at: str) -> Violations:
    """Texts that say something."""
    for index, text in enumerate(texts):
        if not text.strip():
            yield FieldViolation(f"{at}[{index}]", "must not be blank")


def bytes_of_utf8(text: str, limit: int, at: str) -> Violations:
    """A text of at most ``limit`` bytes."""
    if len(text.encode()) > limit:
        yield FieldViolation(at, f"must be at most {limit} bytes of UTF-8")


def sum_of_points(parts: Sequence[float], points: float, at: str, *, may_be_zero: bool = False) -> Violations:
    """Parts that make the points of their item; none at all are left to other rules."""
    rule = f"must be {'0 or more' if may_be_zero else 'more than 0'} and at most {MAX_POINTS}"
    wrong = [
        index
        for index, part in enumerate(parts)
        if not (0 < part <= MAX_POINTS or (may_be_zero and part == 0))
    ]
    for index in wrong:
        yield FieldViolation(f"{at}[{index}].points", rule)
    total = math.fsum(parts) if not wrong else math.nan
    if parts and not wrong and not math.isclose(total, points, rel_tol=_POINTS_TOLERANCE):
        yield FieldViolation(at, f"must have {points:g} points together, not {total:g}")


def criteria(given: Sequence[FreeTextSpec.Criterion], points: float, at: str) -> Violations:
    """The parts of a rubric; there may be none."""
    yield from ids([one.criterion for one in given], at, "criterion")
    yield from sum_of_points([one.points for one in given], points, at)
