"""Grades by people, the history of submissions, and the seals of the audit; times in µs since 1970 (UTC)."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from cinnabar_gateway.consistency import Positions
from cinnabar_gateway.records import Grade, SubmissionKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """A grade that a person gives; ``grade`` is a serialized Grade, ``etag`` "" for unconditionally."""

    key: SubmissionKey
    item: str
    score: float
    grade: bytes
    actor: str
    reason: str
    etag: str
    revision_id: str


@dataclass(frozen=True, slots=True)
class ItemFacts:
    """What an item of a revision is worth, and the queue of its tasks."""

    points: float
    queue: str


class GradingKind(enum.Enum):
    """How a grade came to be; the names are those of the public API."""

    GRADED = 1
    OVERRIDDEN = 2
    SHADOW = 3
    PROMOTED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Grading:
    """A grade in the history of its item; ``revision_id`` is "" for that of the submission."""

    grade: Grade
    kind: GradingKind
    actor: str
    reason: str
    regrade_id: str
    current: bool


@dataclass(frozen=True, slots=True)
class GradingPage:
    """A part of the history, and whether it goes on."""

    gradings: tuple[Grading, ...]
    more: bool


@dataclass(frozen=True, slots=True, order=True)
class AuditCursor:
    """A place in the list of events."""

    time_us: int
    audit_id: int
    shard: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """Something that was done to a submission."""

    cursor: AuditCursor
    actor: str
    action: str
    item: str
    generation: int
    detail: str
    sealed: bool


@dataclass(frozen=True, slots=True)
class AuditPage:
    """A part of the audit of a submission, and whether it goes on."""

    events: tuple[AuditEvent, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class SealLink:
    """The last seal that was checked."""

    seal: int
    last_xid: int
    last_audit_id: int
    hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SealCheck:
    """What some seals of a shard say; ``breaks`` are (number of the seal, what is wrong)."""

    seals: int
    events: int
    redacted: int
    breaks: tuple[tuple[int, str], ...]
    link: SealLink
    more: bool
    unsealed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditVerdict:
    """What all seals say: ``breaks`` are (shard, number of the seal, what is wrong), ``heads`` by shard."""

    seals: int
    events: int
    unsealed: int
    redacted: int
    breaks: tuple[tuple[int, int, str], ...]
    heads: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Overridden:
    """Whether it was written now, and where to read it."""

    applied: bool
    positions: Positions
