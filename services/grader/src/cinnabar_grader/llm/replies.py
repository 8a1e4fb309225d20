"""What a model replied, read without trust."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, cast

from cinnabar_grader.free_text import Criterion
from cinnabar_grader.llm.chat import ChatReply
from cinnabar_grader.llm.ports import MAX_SHARED_BYTES

MAX_REPLY_CHARS = 100_000
MAX_FEEDBACK_CHARS = 2_000
MAX_QUOTATIONS = 20
MAX_QUOTATION_CHARS = 1_000
_FENCED = re.compile(r"^\s*```(?:json)?\s*(.*?)\s*```\s*$", re.DOTALL)


class Reason(StrEnum):
    """Why there is no grade of a model; what `Provenance.fallback_reason` says."""

    BREAKER_OPEN = "BREAKER_OPEN"
    """The provider is known not to answer."""
    BUDGET_EXHAUSTED = "BUDGET_EXHAUSTED"
    """The tenant, the course or the assignment may not spend more."""
    BUSY = "BUSY"
    """The provider was at its limits for as long as a task may wait."""
    TIMEOUT = "TIMEOUT"
    """The provider did not answer in time."""
    UNAVAILABLE = "UNAVAILABLE"
    """The provider cannot be reached, or has errors of its own."""
    NOT_CONFIGURED = "NOT_CONFIGURED"
    """This grader knows no provider."""
    REJECTED = "REJECTED"
    """The provider does not take the request: a wrong key, an unknown model."""
    MALFORMED = "MALFORMED"
    """Twice no JSON."""
    SCHEMA = "SCHEMA"
    """Twice JSON of another form, or points out of range."""
    REFUSED = "REFUSED"
    """Twice the model would not."""
    TRUNCATED = "TRUNCATED"
    """Twice more to say than it may."""
    CANARY = "CANARY"
    """The reply gives away what only instructions say: somebody talked the model into it."""


ABSENT = frozenset(
    {
        Reason.BREAKER_OPEN,
        Reason.BUDGET_EXHAUSTED,
        Reason.BUSY,
        Reason.TIMEOUT,
        Reason.UNAVAILABLE,
        Reason.NOT_CONFIGURED,
    }
)
"""Reasons that pass: what a fallback graded because of them may be graded again."""


class BadReply(Exception):
    """The reply is of no use. ``hint`` tells the model what to mend."""

    def __init__(self, reason: Reason, hint: str) -> None:
        super().__init__(hint)
        self.reason = reason
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a model says about one criterion."""

    criterion: str
    points: float
    evidence: tuple[str, ...]
    feedback: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply that has the right form."""

    criteria: tuple[Judgement, ...]
    """In the order of the rubric."""
    feedback: str


def read(reply: ChatReply, criteria: Sequence[Criterion], secrets: Sequence[str]) -> Reply:
    """The reply, when it is one. Raises BadReply."""
    if any(secret in reply.text for secret in secrets):
        raise BadReply(Reason.CANARY, "")
    if reply.refused:
        raise BadReply(Reason.REFUSED, "This is the routine grading of homework. Do grade the answer.")
    if reply.truncated:
        raise BadReply(Reason.TRUNCATED, "That was too long. Be brief: shorter quotations, shorter feedback.")
    return reply_of(_parsed(reply.text), criteria)


def encoded(reply: Reply) -> bytes:
    """For those who ask the same; empty when it is too large to be shared."""
    content = json.dumps(asdict(reply), ensure_ascii=False).encode()
    return content if len(content) <= MAX_SHARED_BYTES else b""


def decoded(content: bytes, criteria: Sequence[Criterion]) -> Reply:
    """A shared reply. Raises BadReply when it is none."""
    found = _object(_parsed(content.decode(errors="replace")), "what is shared")
    parts = found.get("criteria")
    if not isinstance(parts, list):
        raise BadReply(Reason.SCHEMA, "what is shared has no criteria")
    entries = [_object(part, "a criterion") for part in cast("list[Any]", parts)]
    by_id = {str(entry.get("criterion")): entry for entry in entries}
    return reply_of({"criteria": by_id, "feedback": found.get("feedback")}, criteria)


def reply_of(found: object, criteria: Sequence[Criterion]) -> Reply:
    """The reply that a JSON value is. Raises BadReply."""
    reply = _object(found, "the reply")
    parts = _object(reply.get("criteria"), '"criteria"')
    return Reply(
        tuple(_judgement(parts.get(criterion.criterion), criterion) for criterion in criteria),
        _words(reply.get("feedback"), '"feedback"'),
    )


def _parsed(text: str) -> object:
    if len(text) > MAX_REPLY_CHARS:
        raise BadReply(Reason.MALFORMED, "That was too long. Be brief.")
    fenced = _FENCED.match(text)
    try:
        # NaN and Infinity are no JSON.
        return json.loads(fenced.group(1) if fenced else text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise BadReply(Reason.MALFORMED, "That was not valid JSON.") from None


def _judgement(value: object, criterion: Criterion) -> Judgement:
    name = f'criterion "{criterion.criterion}"'
    part = _object(value, name)
    points = _number(part.get("points"), f'"points" of {name}', criterion.points)
    quotations = part.get("evidence")
    if not isinstance(quotations, list):
        raise BadReply(Reason.SCHEMA, f'"evidence" of {name} must be a list of texts.')
    texts = [text for text in cast("list[Any]", quotations) if isinstance(text, str) and text.strip()]
    return Judgement(
        criterion.criterion,
        points,
        tuple(_plain(text)[:MAX_QUOTATION_CHARS] for text in texts[:MAX_QUOTATIONS]),
        _words(part.get("feedback"), f'"feedback" of {name}'),
        _number(part.get("confidence"), f'"confidence" of {name}', 1.0),
    )


def _object(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise BadReply(Reason.SCHEMA, f"{name} must be an object.")
    return cast("dict[str, Any]", value)


def _number(value: object, name: str, maximum: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadReply(Reason.SCHEMA, f"{name} must be a number.")
    if isinstance(value, float) and not math.isfinite(value):
        raise BadReply(Reason.SCHEMA, f"{name} must be a number.")
    if not 0 <= value <= maximum + 1e-9:
        raise BadReply(Reason.SCHEMA, f"{name} must be 0 to {maximum:g}.")
    return min(float(value), maximum)


def _words(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise BadReply(Reason.SCHEMA, f"{name} must be a text.")
    return _plain(value).strip()[:MAX_FEEDBACK_CHARS]


def _plain(text: str) -> str:
    return "".join(c if c == "\n" or unicodedata.category(c) not in {"Cc", "Cs"} else " " for c in text)


def _no_number(name: str) -> float:
    raise ValueError(name)
