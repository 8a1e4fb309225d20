"""What exported grades look like: CSV, and Gradescope's results.json."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from cinnabar.gateway.v1.assignment_service_pb2 import Assignment, ExportGradesRequest
from cinnabar.grader.v1.grade_pb2 import Grade, TestResult
from cinnabar_common.errors import FieldViolation, InvalidRequest, SuiteError
from cinnabar_common.names import AssignmentName
from cinnabar_gateway.exports import Export, ExportedSubmission, Points
from cinnabar_gateway.records import ItemState, SubmissionState
from cinnabar_gateway.submissions import progress_of, state_of

# Envoy holds a message in memory until it is complete.
_MAX_PART_BYTES = 256 * 1024
_INCOMPLETE = "INCOMPLETE"
# A spreadsheet takes a cell that begins so for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def points_of_items(spec: bytes) -> Points:
    """The points of each item of a serialized ``cinnabar.gateway.v1.Assignment``, in its order."""
    return {item.item: item.points for item in Assignment.FromString(spec).items}


class Format(Protocol):
    """How a file of grades is written."""

    content_type: str
    extension: str

    def header(self, items: Sequence[str]) -> str:
        """What comes first; ``items`` are the columns."""
        ...

    def rows(self, submissions: Sequence[ExportedSubmission], items: Sequence[str]) -> str:
        """One line for each."""
        ...

    def incomplete(self, message: str) -> str:
        """The last line of a file that is not complete."""
        ...


def format_of(wanted: ExportGradesRequest.Format.ValueType) -> Format:
    """Raises InvalidRequest for a number that means nothing."""
    match wanted:
        case ExportGradesRequest.FORMAT_UNSPECIFIED | ExportGradesRequest.CSV:
            return Csv()
        case ExportGradesRequest.GRADESCOPE:
            return Gradescope()
        case _:
            raise InvalidRequest([FieldViolation("format", "must be CSV or GRADESCOPE")])


def file_name(name: AssignmentName, wanted: Format) -> str:
    """What a browser calls the file; ids have no character that would need quoting."""
    return f"{name.course}-{name.assignment}.{wanted.extension}"


async def parts(export: Export, wanted: Format) -> AsyncGenerator[bytes]:
    """The file in parts of up to 256 KiB.

    When a page cannot be read the error is raised, and before it the file gets a
    last line that says so: a reader who does not see the error finds it there.
    """
    for part in _cut(wanted.header(export.items)):
        yield part
    async with aclosing(export.pages()) as pages:
        try:
            async for page in pages:
                for part in _cut(wanted.rows(page, export.items)):
                    yield part
        except SuiteError as error:
            yield wanted.incomplete(f"this file is not complete: {error.message}").encode()
            raise


def _cut(text: str) -> Iterator[bytes]:
    encoded = text.encode()
    for start in range(0, len(encoded), _MAX_PART_BYTES):
        yield encoded[start : start + _MAX_PART_BYTES]


@dataclass(frozen=True, slots=True)
class _ItemResult:
    """What a line says about one item; ``grade`` is None while there is none."""

    item: str
    state: ItemState
    points: float
    generation: int
    grade: Grade | None

    @property
    def score(self) -> float | None:
        """Points earned; None while nothing was."""
        return None if self.grade is None else self.grade.score


def _results(one: ExportedSubmission) -> list[_ItemResult]:
    progress = progress_of(one.submission)
    results: list[_ItemResult] = []
    for item, points in one.points.items():
        known = progress.get(item)
        if known is None:
            continue
        grade = None if known.grade is None else Grade.FromString(known.grade.grade)
        results.append(
            _ItemResult(
                item, known.state, points if grade is None else grade.max_score, known.generation, grade
            )
        )
    return results


def _state(one: ExportedSubmission) -> SubmissionState:
    return state_of(list(progress_of(one.submission).values()))


def _total(numbers: Iterator[float]) -> float:
    return round(math.fsum(numbers), 9)


class Csv:
    """RFC 4180, UTF-8, with one header line.

    Every text is made of names that this suite checks, of a-z, 0-9, '-' and '/'. Of these only a '-' at the
    beginning could make a spreadsheet compute, and gets an apostrophe before it. Numbers are never negative.
    """

    content_type = "text/csv; charset=utf-8; header=present"
    extension = "csv"

    def header(self, items: Sequence[str]) -> str:
        """See Format."""
        columns = ["student", "submission", "state", "score", "points"]
        for item in items:
            columns += [f"{item} score", f"{item} points"]
        return _lines([list(map(_cell, columns))])

    def rows(self, submissions: Sequence[ExportedSubmission], items: Sequence[str]) -> str:
        """See Format."""
        return _lines([self._row(one, items) for one in submissions])

    def _row(self, one: ExportedSubmission, items: Sequence[str]) -> list[str]:
        results = {result.item: result for result in _results(one)}
        row = [
            _cell(one.submission.author),
            _cell(str(one.submission.name)),
            _state(one).name,
            _number(_total(result.score or 0.0 for result in results.values())),
            _number(_total(result.points for result in results.values())),
        ]
        for item in items:
            result = results.get(item)
            row.append("" if result is None or result.score is None else _number(result.score))
            row.append("" if result is None else _number(result.points))
        return row

    def incomplete(self, message: str) -> str:
        """See Format."""
        return _lines([[f"{_INCOMPLETE}: {message}"]])


def _lines(rows: Sequence[Sequence[str]]) -> str:
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows(rows)
    return buffer.getvalue()


def _cell(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text


def _number(value: float) -> str:
    return f"{value:.12g}"


class Gradescope:
    """JSON lines: the name, the student, and what Gradescope's autograder finds in results.json.

    Of its fields: ``score``, ``output``, ``visibility``, ``tests`` (``name``, ``number``, ``score``,
    ``max_score``, ``status``, ``output``, ``visibility``, ``extra_data``) and ``extra_data``; see
    https://gradescope-autograders.readthedocs.io/en/latest/specs/.
    """

    content_type = "application/x-ndjson"
    extension = "jsonl"

    def header(self, items: Sequence[str]) -> str:
        """See Format: nothing."""
        return ""

    def rows(self, submissions: Sequence[ExportedSubmission], items: Sequence[str]) -> str:
        """See Format."""
        return "".join(f"{json.dumps(self._line(one), ensure_ascii=False)}\n" for one in submissions)

    def _line(self, one: ExportedSubmission) -> dict[str, object]:
        results = _results(one)
        state = _state(one)
        document: dict[str, object] = {
            "score": _total(result.score or 0.0 for result in results),
            "visibility": "visible",
            "tests": [
                test for number, result in enumerate(results, start=1) for test in _tests(number, result)
            ],
            "extra_data": {"state": state.name, "revision_id": one.submission.revision_id},
        }
        output = [
            f"{result.item}: {result.grade.feedback}"
            for result in results
            if result.grade is not None and result.grade.tests and result.grade.feedback
        ]
        if state is not SubmissionState.GRADED:
            output.insert(0, f"Not all of it is graded: {state.name}.")
        if output:
            document["output"] = "\n".join(output)
        return {
            "submission": str(one.submission.name),
            "student": one.submission.author,
            "results": document,
        }

    def incomplete(self, message: str) -> str:
        """See Format."""
        return json.dumps({"error": f"{_INCOMPLETE}: {message}"}) + "\n"


def _tests(number: int, result: _ItemResult) -> list[dict[str, object]]:
    """The tests of a program one by one; any other item is a test itself."""
    if result.grade is None or not result.grade.tests:
        return [_test(number, result)]
    return [
        {
            "name": f"{result.item}: {one.title or one.test}",
            "number": f"{number}.{index}",
            "score": one.score,
            "max_score": one.max_score,
            "status": "passed" if one.verdict == TestResult.ACCEPTED else "failed",
            "visibility": "hidden" if one.hidden else "visible",
            "output": "\n".join(filter(None, [one.message, one.output])),
            "output_format": "text",
            "extra_data": {
                "item": result.item,
                "test": one.test,
                "verdict": TestResult.Verdict.Name(one.verdict),
                "state": result.state.name,
                "generation": result.generation,
                "needs_review": result.grade.needs_review,
                "flags": list(result.grade.flags),
            },
        }
        for index, one in enumerate(result.grade.tests, start=1)
    ]


def _test(number: int, result: _ItemResult) -> dict[str, object]:
    test: dict[str, object] = {
        "name": result.item,
        "number": str(number),
        "max_score": result.points,
        "visibility": "visible",
    }
    grade = result.grade
    if grade is None:
        return test | {"output": f"Not graded: {result.state.name}."}
    test["score"] = grade.score
    test["status"] = "passed" if grade.score >= result.points else "failed"
    if output := "\n".join(
        filter(None, [grade.feedback, *(_words(one.feedback, one.criterion) for one in grade.criteria)])
    ):
        test["output"] = output
        test["output_format"] = "text"
    test["extra_data"] = {
        "state": result.state.name,
        "generation": result.generation,
        "needs_review": grade.needs_review,
        "flags": list(grade.flags),
        "criteria": [
            {
                "criterion": one.criterion,
                "score": one.score,
                "max_score": one.max_score,
                "grader": one.provenance.grader,
                "version": one.provenance.version,
                "model": one.provenance.model,
                "fallback": one.provenance.fallback,
            }
            for one in grade.criteria
        ],
    }
    return test


def _words(feedback: str, criterion: str) -> str:
    return f"{criterion}: {feedback}" if feedback else ""
