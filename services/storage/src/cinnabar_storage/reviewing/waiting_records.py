"""Grades that wait for a person, as the domain sees them."""

from __future__ import annotations

from typing import NamedTuple

from cinnabar_storage.records import Grade, Micros, SubmissionKey


class WaitingReview(NamedTuple):
    """A grade that waits for a person; ``flags`` say why, ``create_time`` since when."""

    submission_id: str
    item_id: str
    course: str
    assignment: str
    author: str
    generation: int
    flags: tuple[str, ...]
    score: float
    max_score: float
    create_time: Micros

    @property
    def cursor(self) -> ReviewCursor:
        """Its place in the list."""
        return ReviewCursor(self.create_time, self.submission_id, self.item_id)


class ReviewCursor(NamedTuple):
    """A place in the list of reviews."""

    create_time: Micros
    submission_id: str
    item_id: str


FROM_THE_OLDEST = ReviewCursor(Micros(-1), "", "")
"""Before all reviews there can be."""


class ReviewQuery(NamedTuple):
    """Which reviews: the first ``limit`` after a place. An empty course, assignment or flag is any."""

    tenant: str
    course: str
    assignment: str
    flag: str
    after: ReviewCursor
    limit: int


class Acceptance(NamedTuple):
    """Somebody says that a grade is right as it is; ``etag`` is empty for unconditionally."""

    key: SubmissionKey
    item_id: str
    course: str
    assignment: str
    actor: str
    comment: str = ""
    etag: str = ""


class Accepted(NamedTuple):
    """The review as it was, and the grade that it was about."""

    review: WaitingReview
    grade: Grade
