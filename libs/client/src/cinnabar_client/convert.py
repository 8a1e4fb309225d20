"""Plain data (YAML, JSON, the command line) to the messages of the API. Finds all problems at once."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn, TypeVar, cast

from google.protobuf.message import Message

from cinnabar.gateway.v1.assignment_service_pb2 import Assignment
from cinnabar.gateway.v1.submission_service_pb2 import CreateSubmissionRequest, Submission
from cinnabar.grader.v1.grade_pb2 import Answer
from cinnabar.grader.v1.item_pb2 import Item, SourceFile
from cinnabar_client.filling import filled, join, keyed
from cinnabar_common.errors import FieldViolation
from cinnabar_common.names import ID_RULE, AssignmentName, CourseName, is_id

M = TypeVar("M", bound=Message)
_NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(\S.*?)?\s*")


class InvalidInput(ValueError):
    """The data cannot be sent; ``violations`` name the path and the rule of everything that is wrong."""

    def __init__(self, violations: Sequence[FieldViolation]) -> None:
        super().__init__("\n".join(f"{v.field}: {v.rule}" if v.field else v.rule for v in violations))
        self.violations = tuple(violations)


@dataclass(frozen=True, slots=True)
class AssignmentDraft:
    """An assignment as a person writes it. ``course`` and ``assignment_id`` are "" where not given."""

    course: str
    assignment_id: str
    assignment: Assignment
    path: str = ""


def drafts(data: object) -> list[AssignmentDraft]:
    """The assignments of a YAML document: one mapping, or a list of them.

    Keys: ``course``, ``assignment`` (both optional), ``display_name``, ``close_time``, ``items``; an item has
    the fields of ``cinnabar.grader.v1.Item``. Raises InvalidInput with paths such as
    ``[1].items[0].free_text.references``.
    """
    several = isinstance(data, list)
    parts = cast("list[object]", data) if several else [data]
    problems: list[FieldViolation] = []
    found: list[AssignmentDraft] = []
    for index, part in enumerate(parts):
        path = f"[{index}]" if several else ""
        if not isinstance(part, dict):
            problems.append(FieldViolation(path, "must be a mapping with display_name and items"))
            continue
        rest = keyed(cast("dict[object, object]", part))
        course, assignment_id = (_own_id(rest, key, path, problems) for key in ("course", "assignment"))
        assignment = filled(Assignment(), rest, path, problems)
        if not assignment.items and "items" not in rest:
            problems.append(FieldViolation(join(path, "items"), "must have at least one item"))
        found.append(AssignmentDraft(course, assignment_id, assignment, path))
    if not parts:
        problems.append(FieldViolation("", "holds no assignment"))
    if problems:
        raise InvalidInput(problems)
    return found


def assignment_from(data: Mapping[str, object]) -> Assignment:
    """The message of one assignment. Raises InvalidInput."""
    return drafts(dict(data))[0].assignment


def in_file(violations: Iterable[FieldViolation], draft: AssignmentDraft) -> list[FieldViolation]:
    """What the service found wrong in a request, by the paths of the file that it was made from."""
    found: list[FieldViolation] = []
    for violation in violations:
        field = violation.field
        match field.split(".", 1):
            case ["assignment", rest]:
                field = rest
            case ["assignment_id"]:
                field = "assignment"
            case ["parent"]:
                field = "course"
            case _:
                pass
        found.append(FieldViolation(join(draft.path, field), violation.rule))
    return found


def answer_to(item: Item, value: object) -> Answer:
    """The answer ``value`` to ``item``, by the item's kind.

    Text: a string. Choice: a list of option ids, or one string of them with commas. Numeric: a number, a
    string such as "9.81 m/s^2", or {"number": 9.81, "unit": "m/s^2"}. Code: its one source as a string, or
    {"files": {path: content}}. Custom: a string, a list of option ids, or any of the wrappings. The
    wrappings {"text": …} and {"choice": […]} are understood too. Raises InvalidInput.
    """
    kind = item.WhichOneof("grader")
    if isinstance(value, dict):
        given = cast("dict[str, object]", value)
        if kind == "numeric" and given.keys() <= {"number", "unit"} and "number" in given:
            return _number(item.item, given["number"], given.get("unit", ""))
        if kind in ("code", "custom") and given.keys() == {"files"}:
            return _program(item, given["files"])
        if kind == "custom" and "number" in given and given.keys() <= {"number", "unit"}:
            return _number(item.item, given["number"], given.get("unit", ""))
        key = "choice" if kind == "choice" or (kind == "custom" and "choice" in given) else "text"
        if given.keys() != {key}:
            raise _bad(item, f"must be an answer to a {kind} item")
        value = given[key]
    match kind, value:
        case "choice", str():
            options = [part.strip() for part in value.split(",") if part.strip()]
            return Answer(item=item.item, choice=Answer.Choice(options=options))
        case "choice" | "custom", list():
            return Answer(
                item=item.item,
                choice=Answer.Choice(options=[str(option) for option in cast("list[object]", value)]),
            )
        case "numeric", str():
            match = _NUMBER.fullmatch(value)
            if match is None:
                raise _bad(item, "must be a number, and its unit after it")
            return _number(item.item, float(match[1]), match[2] or "")
        case "numeric", int() | float():
            return _number(item.item, value, "")
        case "text" | "free_text" | "code" | "custom", str():
            return Answer(item=item.item, text=value)
        case None, _:
            raise _bad(item, "is an item of a kind that this program does not know")
        case _:
            raise _bad(item, f"must be an answer to a {kind} item")


def answers_to(assignment: Assignment, values: Mapping[str, object]) -> list[Answer]:
    """Answers by item id, in the order of the items. Raises InvalidInput, also for unknown items."""
    items = {item.item: item for item in assignment.items}
    problems = [
        FieldViolation(name, f"is no item of {assignment.name}; there are {', '.join(items)}")
        for name in values
        if name not in items
    ]
    answers: list[Answer] = []
    for name, item in items.items():
        if name in values:
            try:
                answers.append(answer_to(item, values[name]))
            except InvalidInput as error:
                problems += error.violations
    if problems:
        raise InvalidInput(problems)
    return answers


def submission_request(
    parent: AssignmentName | str,
    answers: Sequence[Answer],
    *,
    author: str = "",
    request_id: str = "",
    priority: Submission.Priority.ValueType = Submission.PRIORITY_UNSPECIFIED,
    grade_after: dt.datetime | None = None,
    grade_by: dt.datetime | None = None,
) -> CreateSubmissionRequest:
    """A submission to be made; without ``request_id`` the client adds one when it sends it.

    It is graded at ``grade_after`` or later, and given up at ``grade_by``; both know their time zone.
    """
    request = CreateSubmissionRequest(
        parent=str(parent),
        submission=Submission(author=author, answers=answers, priority=priority),
        request_id=request_id,
    )
    for target, moment in (("grade_after", grade_after), ("grade_by", grade_by)):
        if moment is not None:
            if moment.tzinfo is None:
                raise InvalidInput([FieldViolation(target, "must have a time zone")])
            getattr(request.submission, target).FromDatetime(moment)
    return request


def course_or_assignment(text: str) -> str:
    """The resource name that COURSE or COURSE/ASSIGNMENT means; a resource name and "" stay as they are."""
    if not text or CourseName.parse(text) or AssignmentName.parse(text):
        return text
    if "/" in text:
        return str(assignment_name(text))
    return str(CourseName.parse(f"courses/{text}") or _unknown_course(text))


def _unknown_course(text: str) -> NoReturn:
    raise InvalidInput([FieldViolation("", f"{text!r} is not COURSE or COURSE/ASSIGNMENT")])


def assignment_name(text: str) -> AssignmentName:
    """COURSE/ASSIGNMENT, or the whole resource name. Raises InvalidInput."""
    name = AssignmentName.parse(text)
    if name is None and text.count("/") == 1:
        course, _, assignment = text.partition("/")
        name = AssignmentName.parse(f"courses/{course}/assignments/{assignment}")
    if name is None:
        raise InvalidInput([FieldViolation("", f"{text!r} is not COURSE/ASSIGNMENT; each {ID_RULE}")])
    return name


def _own_id(rest: dict[str, object], key: str, path: str, problems: list[FieldViolation]) -> str:
    value = rest.pop(key, "")
    if isinstance(value, str) and (not value or is_id(value)):
        return value
    problems.append(FieldViolation(join(path, key), ID_RULE))
    return ""


def _number(item: str, value: object, unit: object) -> Answer:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidInput([FieldViolation(item, "must be a finite number")])
    if not isinstance(unit, str):
        raise InvalidInput([FieldViolation(item, "must have a text as its unit")])
    return Answer(item=item, number=Answer.Number(value=float(value), unit=unit))


def _program(item: Item, files: object) -> Answer:
    contents = cast("dict[object, object]", files) if isinstance(files, dict) else {}
    if not contents or not all(isinstance(text, str) for pair in contents.items() for text in pair):
        raise _bad(item, "must have files: contents by path, all of them texts")
    sources = [SourceFile(path=str(path), content=str(content)) for path, content in contents.items()]
    return Answer(item=item.item, code=Answer.Code(files=sources))


def _bad(item: Item, rule: str) -> InvalidInput:
    return InvalidInput([FieldViolation(item.item, rule)])
