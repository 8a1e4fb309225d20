"""Grades that wait for a person, as the domain knows them."""

from __future__ import annotations

from dataclasses import dataclass

from cinnabar_common.names import SubmissionName
from cinnabar_gateway.consistency import Positions
from cinnabar_gateway.records import Grade, SubmissionKey


@dataclass(frozen=True, slots=True, order=True)
class ReviewCursor:
    """A place in the list of reviews: since when one waits (µs since 1970), its submission and item."""

    time_us: int
    submission_id: str
    item: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingReview:
    """A grade that waits for a person."""

    submission: SubmissionName
    item: str
    generation: int
    author: str
    flags: tuple[str, ...]
    score: float
    max_score: float
    create_time_us: int

    @property
    def cursor(self) -> ReviewCursor:
        """Its place in the list."""
        return ReviewCursor(self.create_time_us, self.submission.submission, self.item)


@dataclass(frozen=True, slots=True)
class ReviewScope:
    """Which reviews of a tenant; "" is any. An assignment needs its course."""

    course: str
    assignment: str
    flag: str


@dataclass(frozen=True, slots=True)
class ReviewPage:
    """A part of the list, whether it goes on, and the shards whose reviews are missing."""

    reviews: tuple[WaitingReview, ...]
    more: bool
    unreachable: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """Somebody says that a grade is right as it is; ``etag`` "" for unconditionally."""

    key: SubmissionKey
    course: str
    assignment: str
    item: str
    actor: str
    comment: str
    etag: str


@dataclass(frozen=True, slots=True)
class AcceptedReview:
    """The review as it was, its grade, and where to read that it is gone."""

    review: WaitingReview
    grade: Grade
    positions: Positions
