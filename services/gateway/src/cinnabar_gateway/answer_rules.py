"""What the answers to a revision must look like, compiled once per revision.

``accept`` is the way of thousands of submissions a second: it says yes or no,
and encodes what it saw. Only for a no does ``violations`` walk again and find
words. A test holds the two together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cinnabar.gateway.v1.assignment_service_pb2 import Assignment
from cinnabar.grader.v1.grade_pb2 import Answer
from cinnabar.grader.v1.item_pb2 import Item
from cinnabar_common.errors import FieldViolation
from cinnabar_common.names import ID_RULE, UploadName, is_id
from cinnabar_common.queues import queue_of
from cinnabar_gateway import records, source_files
from cinnabar_gateway.item_rules.closed import MAX_UNIT
from cinnabar_gateway.records import TaskPlan

MAX_TEXT_BYTES = 256 * 1024
MAX_CODE_BYTES = 256 * 1024
MAX_CHOSEN = 100
MAX_ANSWERS_BYTES = 4 * 1024 * 1024
_BYTES_PER_CHARACTER = 4  # at most, in UTF-8
FILE = "file"
AWAITED = b""
"""The encoded answer of a task that is not known yet; no answer is encoded like this."""
_FILE_RULE = "must be courses/{course}/assignments/{assignment}/uploads/{upload}, of this assignment"
_FIELDS_OF: Mapping[str, tuple[str, ...]] = {
    "choice": ("choice",),
    "numeric": ("number",),
    "text": ("text", FILE),
    "free_text": ("text", FILE),
    "code": ("code", "text", FILE),
    "custom": ("text", "choice", "number", FILE, "code"),
}
"""The fields of an answer that may be set, by kind of item; the usual one first."""

_Fits = Callable[[Answer], bool]


@dataclass(frozen=True, slots=True)
class _ItemRule:
    plan: TaskPlan
    field: str
    """The usual one; ``fits`` is its rule."""
    fits: _Fits
    others: Mapping[str, _Fits]
    """Rules of the other fields that may be set instead, but for files."""
    fields: tuple[str, ...]
    options: frozenset[str] | None
    """Of a choice item; None where any id may be chosen."""


class AnswerRules:
    """One revision of an assignment, as those who hand in meet it."""

    def __init__(self, revision: records.Assignment) -> None:
        spec = Assignment.FromString(revision.spec)
        self.name = revision.name
        self.revision_id = revision.revision_id
        self.revised = revision.update_time_us > revision.create_time_us
        self.max_score = math.fsum(item.points for item in spec.items)
        self.close_time_us = spec.close_time.ToMicroseconds() if spec.HasField("close_time") else None
        self._rules = {item.item: _rule(item, revision.revision_id) for item in spec.items}
        self.takes_files = frozenset(item for item, rule in self._rules.items() if FILE in rule.fields)

    def accept(self, answers: Sequence[Answer]) -> list[tuple[TaskPlan, bytes]] | None:
        """Each task with its serialized answer, in the order of the answers; None when a rule is broken.

        A task whose answer is a file has AWAITED instead: what the file is is not known yet.
        """
        rules = self._rules
        if len(answers) != len(rules):
            return None
        tasks: list[tuple[TaskPlan, bytes]] = []
        seen: set[str] = set()
        size = 0
        for answer in answers:
            item = answer.item
            rule = rules.get(item)
            if rule is None:
                return None
            given = answer.WhichOneof("value")
            fits = rule.fits if given == rule.field else rule.others.get(given or "")
            if fits is not None:
                if not fits(answer):
                    return None
                encoded = answer.SerializeToString()
            elif given == FILE and item in self.takes_files and self._is_upload(answer):
                encoded = AWAITED
            else:
                return None
            seen.add(item)
            size += len(encoded)
            tasks.append((rule.plan, encoded))
        return tasks if len(seen) == len(rules) and size <= MAX_ANSWERS_BYTES else None

    def _is_upload(self, answer: Answer) -> bool:
        name = UploadName.parse(answer.file.upload)
        return name is not None and name.parent == self.name

    def violations(self, answers: Sequence[Answer], at: str) -> Iterator[FieldViolation]:
        """Every rule that the answers break, with paths below ``at`` (the list's own path)."""
        size = sum(answer.ByteSize() for answer in answers)
        if size > MAX_ANSWERS_BYTES:
            yield FieldViolation(at, f"must be at most {MAX_ANSWERS_BYTES} bytes together")
        seen: set[str] = set()
        for index, answer in enumerate(answers):
            path = f"{at}[{index}]"
            if answer.item and answer.item not in self._rules:
                yield FieldViolation(f"{path}.item", "is not an item of the assignment")
            elif answer.item in seen:
                yield FieldViolation(f"{path}.item", "must be answered once, but is answered twice")
            elif answer.item in self.takes_files and answer.HasField(FILE):
                if answer.file.upload and not self._is_upload(answer):
                    yield FieldViolation(f"{path}.file.upload", _FILE_RULE)
            elif answer.item:
                yield from _violations(self._rules[answer.item], answer, path)
            seen.add(answer.item)
        for item in self._rules:
            if item not in seen:
                yield FieldViolation(at, f"must answer every item, but there is no answer to {item}")


def _rule(item: Item, revision_id: str) -> _ItemRule:
    kind = item.WhichOneof("grader") or ""
    plan = TaskPlan(item.item, queue_of(item), f"{revision_id}/{item.item}")
    options = frozenset(option.id for option in item.choice.options) if kind == "choice" else None
    fields = _FIELDS_OF[kind]
    fits: dict[str, _Fits] = {
        "text": _text_fits,
        "number": _number_fits,
        "choice": _choice_fits(options),
        "code": _code_fits,
    }
    others = {field: fits[field] for field in fields[1:] if field != FILE}
    return _ItemRule(plan, fields[0], fits[fields[0]], others, fields, options)


def _text_fits(answer: Answer) -> bool:
    text = answer.text
    return len(text) * _BYTES_PER_CHARACTER <= MAX_TEXT_BYTES or len(text.encode()) <= MAX_TEXT_BYTES


def _number_fits(answer: Answer) -> bool:
    number = answer.number
    return math.isfinite(number.value) and len(number.unit) <= MAX_UNIT


def _choice_fits(options: frozenset[str] | None) -> _Fits:
    def fits(answer: Answer) -> bool:
        chosen = answer.choice.options
        distinct = set(chosen)
        return len(distinct) == len(chosen) and (
            distinct <= options
            if options is not None
            else len(chosen) <= MAX_CHOSEN and all(map(is_id, chosen))
        )

    return fits


def _code_fits(answer: Answer) -> bool:
    return source_files.fits(answer.code.files, max_bytes=MAX_CODE_BYTES)


def _violations(rule: _ItemRule, answer: Answer, at: str) -> Iterator[FieldViolation]:
    given = answer.WhichOneof("value")
    if given is None:
        yield FieldViolation(at, f"must have {_words(rule)}: that is how item {answer.item} is answered")
    elif given not in rule.fields:
        yield FieldViolation(
            f"{at}.{given}", f"is the wrong type: item {answer.item} is answered with {_words(rule)}"
        )
    elif given == "text" and not _text_fits(answer):
        yield FieldViolation(f"{at}.text", f"must be at most {MAX_TEXT_BYTES} bytes of UTF-8")
    elif given == "number":
        if not math.isfinite(answer.number.value):
            yield FieldViolation(f"{at}.number.value", "must be finite")
        if len(answer.number.unit) > MAX_UNIT:
            yield FieldViolation(f"{at}.number.unit", f"must be at most {MAX_UNIT} characters")
    elif given == "choice":
        yield from _choice_violations(rule, answer, f"{at}.choice.options")
    elif given == "code":
        yield from source_files.violations(answer.code.files, f"{at}.code.files", MAX_CODE_BYTES)


def _choice_violations(rule: _ItemRule, answer: Answer, at: str) -> Iterator[FieldViolation]:
    if rule.options is None and len(answer.choice.options) > MAX_CHOSEN:
        yield FieldViolation(at, f"must be at most {MAX_CHOSEN}")
        return
    seen: set[str] = set()
    for index, option in enumerate(answer.choice.options):
        if rule.options is not None and option not in rule.options:
            yield FieldViolation(f"{at}[{index}]", "is not an option of the item")
        elif rule.options is None and not is_id(option):
            yield FieldViolation(f"{at}[{index}]", ID_RULE)
        elif option in seen:
            yield FieldViolation(f"{at}[{index}]", "must not be chosen twice")
        seen.add(option)


def _words(rule: _ItemRule) -> str:
    """The fields that may be set, in words: "text or file"."""
    *first, last = rule.fields
    return f"{', '.join(first)} or {last}" if first else last
