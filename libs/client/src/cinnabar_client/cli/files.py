"""The files that the command line reads: assignments in YAML, answers in JSON lines."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias, cast

import yaml

from cinnabar.gateway.v1.assignment_service_pb2 import Assignment
from cinnabar.gateway.v1.submission_service_pb2 import CreateSubmissionRequest
from cinnabar_client import convert
from cinnabar_client.convert import AssignmentDraft, InvalidInput
from cinnabar_common.errors import FieldViolation
from cinnabar_common.names import AssignmentName

Times: TypeAlias = tuple[dt.datetime | None, dt.datetime | None]
_KEYS = {"author", "item", "answer", "answers", "request_id", "course", "assignment"}
_IGNORED = {"id", "score", "reason", "language"}  # what a teacher adds to a collection of answers


@dataclass(slots=True)
class HandedIn:
    """The answers of one author to one assignment; ``line`` is where they begin in the file."""

    line: int
    name: AssignmentName
    author: str
    request_id: str = ""
    answers: dict[str, object] = field(default_factory=dict[str, object])


def read_assignments(path: Path) -> list[AssignmentDraft]:
    """The assignments of a YAML file. Raises InvalidInput, each path with the file's name."""
    try:
        return convert.drafts(yaml.safe_load(path.read_text("utf-8")))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path.name}:{mark.line + 1}" if mark is not None else path.name
        raise InvalidInput([FieldViolation(place, "is not YAML")]) from None
    except UnicodeDecodeError:
        raise InvalidInput([FieldViolation(path.name, "is not UTF-8 text")]) from None
    except InvalidInput as error:
        raise InvalidInput([named(path, violation) for violation in error.violations]) from None


def named(path: Path, violation: FieldViolation) -> FieldViolation:
    """The violation with the name of the file before its path."""
    place = f"{path.name}: {violation.field}" if violation.field else path.name
    return FieldViolation(place, violation.rule)


def read_handed_in(path: Path, target: AssignmentName | None) -> tuple[list[HandedIn], int]:
    """What a JSON lines file hands in, and how many lines were left out for naming another assignment.

    A line is {"author", "answers": {item: answer}} or {"author", "item", "answer"}; neighbouring lines of
    the second form with one author are one submission. "course" and "assignment" say where it goes when
    ``target`` does not; "request_id" makes the hand-in repeatable. Raises InvalidInput.
    """
    problems: list[FieldViolation] = []
    found: list[HandedIn] = []
    left_out = 0
    for number, entry in _objects(path, problems):
        place = f"{path.name}:{number}"
        if unknown := entry.keys() - _KEYS - _IGNORED:
            problems.append(FieldViolation(place, f"has unknown keys: {', '.join(sorted(unknown))}"))
            continue
        name = _name(entry, target)
        if name is None:
            problems.append(FieldViolation(place, "must name its course and assignment"))
            continue
        if target is not None and name != target:
            left_out += 1
            continue
        author, request_id = entry.get("author", ""), entry.get("request_id", "")
        if not isinstance(author, str) or not isinstance(request_id, str):
            problems.append(FieldViolation(place, "author and request_id must be texts"))
            continue
        if ("answers" in entry) == ("item" in entry):
            problems.append(FieldViolation(place, 'must have either "answers" or "item" and "answer"'))
        elif "answers" in entry:
            if not isinstance(entry["answers"], dict):
                problems.append(FieldViolation(place, "answers must be an object of answers by item"))
                continue
            answers = cast("dict[str, object]", entry["answers"])
            found.append(HandedIn(number, name, author, request_id, dict(answers)))
        else:
            item = str(entry["item"])
            last = found[-1] if found else None
            if last is None or (last.name, last.author) != (name, author) or item in last.answers:
                last = HandedIn(number, name, author, request_id)
                found.append(last)
            last.answers[item] = entry.get("answer", "")
    if problems:
        raise InvalidInput(problems)
    return found, left_out


async def requests_of(
    path: Path,
    handed_in: list[HandedIn],
    assignment: Callable[[str], Awaitable[Assignment]],
    times: Times = (None, None),
) -> list[CreateSubmissionRequest]:
    """The requests to send; ``assignment`` gives the assignment of a name. Raises InvalidInput.

    ``times`` are grade_after and grade_by of all of them.
    """
    problems: list[FieldViolation] = []
    requests: list[CreateSubmissionRequest] = []
    assignments: dict[AssignmentName, Assignment] = {}
    for entry in handed_in:
        if entry.name not in assignments:
            assignments[entry.name] = await assignment(str(entry.name))
        try:
            answers = convert.answers_to(assignments[entry.name], entry.answers)
        except InvalidInput as error:
            problems += [v.under(f"{path.name}:{entry.line}: answers") for v in error.violations]
            continue
        requests.append(
            convert.submission_request(
                entry.name,
                answers,
                author=entry.author,
                request_id=entry.request_id,
                grade_after=times[0],
                grade_by=times[1],
            )
        )
    if problems:
        raise InvalidInput(problems)
    return requests


def _objects(path: Path, problems: list[FieldViolation]) -> Iterator[tuple[int, dict[str, object]]]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                entry: object = json.loads(line)
            except ValueError:
                entry = None
            if isinstance(entry, dict):
                yield number, cast("dict[str, object]", entry)
            else:
                problems.append(FieldViolation(f"{path.name}:{number}", "is not a JSON object"))


def _name(entry: dict[str, object], target: AssignmentName | None) -> AssignmentName | None:
    course, assignment = entry.get("course"), entry.get("assignment")
    if course is None and assignment is None:
        return target
    return AssignmentName.parse(
        f"courses/{course if course is not None or target is None else target.course}"
        f"/assignments/{assignment if assignment is not None or target is None else target.assignment}"
    )
