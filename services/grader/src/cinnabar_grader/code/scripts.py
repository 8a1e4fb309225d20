"""Results that a script of the instructor's wrote, in the forms of Gradescope and PrairieLearn.

The file comes out of a box in which a student's program ran. It is read as something that anybody may have
written: within limits, and either as a whole or not at all.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from cinnabar_grader.code.item import ScriptForm
from cinnabar_grader.code.texts import cut
from cinnabar_grader.graders import TestResult, TestVerdict
from cinnabar_grader.points import score_of, total_of

RESULTS = "results/results.json"
MAX_BYTES = 1024 * 1024
MAX_RESULTS = 200
MAX_NAME = 200
_DUST = 1e-9
_HIDDEN = frozenset({"hidden", "after_due_date", "after_published"})


class BrokenResults(ValueError):
    """The file is not what it must be; the message holds nothing of it."""


@dataclass(slots=True, frozen=True)
class Results:
    """``score`` of the item's points; ``parts`` says whether the tests' scores make it."""

    score: float
    tests: Sequence[TestResult]
    parts: bool
    message: str = ""


def read(content: bytes | None, form: ScriptForm, points: float) -> Results:
    """Results on the scale of ``points``. BrokenResults, which names the rule, when they are none.

    ``content`` is None when there is no file, or none that could be collected.
    """
    if content is None:
        raise BrokenResults(f"there is no file {RESULTS}")
    if len(content) > MAX_BYTES:
        raise BrokenResults(f"{RESULTS} has more than {MAX_BYTES} bytes")
    try:
        raw = json.loads(content, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise BrokenResults(f"{RESULTS} is not JSON") from None
    if not isinstance(raw, dict):
        raise BrokenResults(f"{RESULTS} is not an object")
    found = cast(dict[str, Any], raw)
    return _gradescope(found, points) if form is ScriptForm.GRADESCOPE else _prairielearn(found, points)


def _gradescope(raw: dict[str, Any], points: float) -> Results:
    entries = _entries(raw)
    most = [_number(entry, "max_score") for entry in entries]
    scores = [_number(entry, "score") for entry in entries]
    whole = _number(raw, "score")
    hidden = _text(raw, "visibility") in _HIDDEN
    return _results(
        entries,
        scores,
        most,
        # Without maxima a score is of the points of the item itself.
        whole=whole,
        scale=math.fsum(one or 0.0 for one in most) or points,
        points=points,
        hidden=[hidden or _text(entry, "visibility") in _HIDDEN for entry in entries],
        texts=[_text(entry, "output") for entry in entries],
        outputs=[""] * len(entries),
        message=_text(raw, "output"),
    )


def _prairielearn(raw: dict[str, Any], points: float) -> Results:
    gradable = raw.get("gradable", True)
    if not isinstance(gradable, bool):
        raise BrokenResults("gradable is neither true nor false")
    message = _text(raw, "message") or _text(raw, "output")
    if not gradable:
        errors: object = raw.get("format_errors", "")
        told = cast(list[object], errors)[:20] if isinstance(errors, list) else [errors]
        message = "\n".join([*map(str, told), message])
        test = TestResult("test-1", TestVerdict.COMPILE_ERROR, 0.0, points, message=cut(message.strip()))
        return Results(0.0, [test], parts=False, message=cut(message.strip()))
    entries = _entries(raw)
    return _results(
        entries,
        [_number(entry, "points") for entry in entries],
        [_number(entry, "max_points") for entry in entries],
        whole=_number(raw, "score"),
        scale=1.0,
        points=points,
        hidden=[False] * len(entries),
        texts=[_text(entry, "message") or _text(entry, "description") for entry in entries],
        outputs=[_text(entry, "output") for entry in entries],
        message=message,
    )


def _results(
    entries: Sequence[dict[str, Any]],
    scores: Sequence[float | None],
    most: Sequence[float | None],
    *,
    whole: float | None,
    scale: float,
    points: float,
    hidden: Sequence[bool],
    texts: Sequence[str],
    outputs: Sequence[str],
    message: str,
) -> Results:
    """``whole`` of ``scale`` is the score where it is given; the scores of the tests of their maxima else."""
    total = math.fsum(one or 0.0 for one in most)
    for number, (score, limit) in enumerate(zip(scores, most, strict=True), start=1):
        if limit is not None and score is not None and score > limit * (1 + _DUST):
            raise BrokenResults(f"test {number} has more points than it can have")
    complete = (
        bool(entries)
        and total > 0
        and all(score is not None and limit is not None for score, limit in zip(scores, most, strict=True))
    )
    if whole is None:
        if not entries:
            raise BrokenResults("there is neither a score nor a test")
        if any(score is None for score in scores):
            raise BrokenResults("a test has no score, and there is no score of the whole")
        whole = math.fsum(score or 0.0 for score in scores)
        scale = total if complete else points
        parts = complete
    else:
        parts = complete and math.isclose(
            whole / scale, math.fsum(score or 0.0 for score in scores) / total, abs_tol=1e-6
        )
    share = whole / scale
    if share > 1 + _DUST:
        raise BrokenResults("the score is more than can be had")
    factor = points / total if parts else 1.0
    tests = [
        _test(
            number,
            entry,
            score=(score or 0.0) * factor,
            most=(limit if limit is not None else score or 0.0) * factor,
            hidden=secret,
            message=text,
            output=output,
        )
        for number, (entry, score, limit, secret, text, output) in enumerate(
            zip(entries, scores, most, hidden, texts, outputs, strict=True), start=1
        )
    ]
    score = min(points, total_of([test.score for test in tests])) if parts else score_of(share, points)
    return Results(score, tests, parts, cut(message))


def _test(
    number: int, entry: dict[str, Any], *, score: float, most: float, hidden: bool, message: str, output: str
) -> TestResult:
    passed = entry.get("status") == "passed" or score > 0 or most == 0
    if entry.get("status") == "failed" and score <= 0:
        passed = False
    return TestResult(
        f"test-{number}",
        TestVerdict.ACCEPTED if passed else TestVerdict.WRONG_ANSWER,
        total_of([min(score, most)]),
        total_of([most]),
        title=cut(_text(entry, "name"), MAX_NAME),
        hidden=hidden,
        message=cut(message),
        output=cut(output),
    )


def _entries(raw: dict[str, Any]) -> Sequence[dict[str, Any]]:
    tests: object = raw.get("tests") or []
    if not isinstance(tests, list):
        raise BrokenResults("tests is not a list")
    entries = cast(list[object], tests)
    if len(entries) > MAX_RESULTS:
        raise BrokenResults(f"there are more than {MAX_RESULTS} tests")
    if not all(isinstance(entry, dict) for entry in entries):
        raise BrokenResults("a test is not an object")
    return cast(Sequence[dict[str, Any]], entries)


def _number(raw: dict[str, Any], name: str) -> float | None:
    value = raw.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BrokenResults(f"{name} is not a number")
    if not 0 <= value <= 1e9:  # false for what is no number, too
        raise BrokenResults(f"{name} is negative or not finite")
    return float(value)


def _text(raw: dict[str, Any], name: str) -> str:
    value = raw.get(name)
    return value if isinstance(value, str) else ""


def _refuse(text: str) -> object:
    raise ValueError(f"{text} is no number")
