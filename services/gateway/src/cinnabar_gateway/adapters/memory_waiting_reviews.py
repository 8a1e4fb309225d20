"""Grades that wait for a person, in this process's memory: the same promises."""

from __future__ import annotations

from collections.abc import Callable

from cinnabar_common.errors import EtagMismatch, ResourceNotFound
from cinnabar_gateway.adapters.memory_etags import etag_of
from cinnabar_gateway.consistency import Position, Positions
from cinnabar_gateway.records import Grade, Submission, SubmissionKey
from cinnabar_gateway.waiting_review_records import (
    Acceptance,
    AcceptedReview,
    ReviewCursor,
    ReviewPage,
    ReviewScope,
    WaitingReview,
)


class MemoryWaitingReviews:
    """Implements the port WaitingReviewStore over the submissions of somebody else.

    ``written`` counts a write of theirs; ``told`` is called with what goes into their audit.
    """

    def __init__(
        self,
        submissions: dict[SubmissionKey, Submission],
        *,
        written: Callable[[], Position],
        told: Callable[[SubmissionKey, Grade, str, str, str], None],
    ) -> None:
        self._submissions = submissions
        self._written = written
        self._told = told
        self._waiting: dict[tuple[SubmissionKey, str], WaitingReview] = {}

    def graded(
        self, stored: Submission, grade: Grade, doubts: tuple[str, ...] | None, max_score: float
    ) -> None:
        """A grade counts now: it waits when there are ``doubts``, else nothing of its item does."""
        key = SubmissionKey(stored.tenant, stored.submission_id)
        if doubts is None:
            self.ended(key, grade.item)
            return
        self._waiting[key, grade.item] = WaitingReview(
            submission=stored.name,
            item=grade.item,
            generation=grade.generation,
            author=stored.author,
            flags=doubts,
            score=grade.score,
            max_score=max_score,
            create_time_us=grade.create_time_us,
        )

    def ended(self, key: SubmissionKey, item: str) -> None:
        """A person gave the item a grade."""
        self._waiting.pop((key, item), None)

    async def list_reviews(
        self,
        tenant: str,
        scope: ReviewScope,
        *,
        after: ReviewCursor | None,
        limit: int,
        min_positions: Positions,
    ) -> ReviewPage:
        """See WaitingReviewStore."""
        found = sorted(
            (
                review
                for (key, _), review in self._waiting.items()
                if key.tenant == tenant
                and scope.course in ("", review.submission.course)
                and scope.assignment in ("", review.submission.assignment)
                and (not scope.flag or scope.flag in review.flags)
                and (after is None or review.cursor > after)
            ),
            key=lambda review: review.cursor,
        )
        return ReviewPage(tuple(found[:limit]), more=len(found) > limit)

    async def accept_review(self, acceptance: Acceptance) -> AcceptedReview:
        """See WaitingReviewStore."""
        place = (acceptance.key, acceptance.item)
        review = self._waiting.get(place)
        wanted = (acceptance.course, acceptance.assignment)
        if review is None or (review.submission.course, review.submission.assignment) != wanted:
            raise ResourceNotFound(acceptance.key.submission_id)
        stored = self._submissions[acceptance.key]
        if acceptance.etag not in ("", etag_of(stored)):
            raise EtagMismatch(acceptance.key.submission_id)
        del self._waiting[place]
        grade = next(grade for grade in stored.grades if grade.item == acceptance.item)
        self._told(acceptance.key, grade, acceptance.actor, "accept-review", acceptance.comment)
        return AcceptedReview(review, grade, (self._written(),))
