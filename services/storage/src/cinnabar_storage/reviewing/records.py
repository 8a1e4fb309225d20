"""Grades that people give, and the history of grades, as the domain sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cinnabar_storage.records import Grade, SubmissionKey


class Override(NamedTuple):
    """A grade that a person gives; ``etag`` is empty for unconditionally.

    ``revision_id`` is the one whose points it was given by, empty for that of the submission.
    """

    key: SubmissionKey
    item_id: str
    score: float
    grade: bytes
    actor: str
    reason: str
    etag: str = ""
    revision_id: str = ""


class Overridden(NamedTuple):
    """The generation of the grade, and whether it was written now."""

    generation: int
    applied: bool


class GradingQuery(NamedTuple):
    """Which grades of a submission: the first ``limit`` after (item, generation)."""

    key: SubmissionKey
    shadows: bool
    after_item_id: str
    after_generation: int
    limit: int


class Grading(NamedTuple):
    """A grade in the history of its item, and whether it is the one that counts."""

    grade: Grade
    current: bool


class Gradings(NamedTuple):
    """A part of the history, and whether it goes on."""

    gradings: Sequence[Grading]
    more: bool


def audit_detail(old: float | None, new: float, reason: str) -> str:
    """What the audit says about an override."""
    before = "none" if old is None else repr(old)
    return f"score {before} -> {new!r}; {reason}"
