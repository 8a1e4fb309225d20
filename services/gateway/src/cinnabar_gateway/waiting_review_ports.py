"""What the domain needs of the store of grades that wait for a person."""

from __future__ import annotations

from typing import Protocol

from cinnabar_gateway.consistency import Positions
from cinnabar_gateway.waiting_review_records import (
    Acceptance,
    AcceptedReview,
    ReviewCursor,
    ReviewPage,
    ReviewScope,
)


class WaitingReviewStore(Protocol):
    """Where they are kept. All methods may raise DependencyUnavailable and Overloaded.

    Of an item at most one waits: that of the grade that counts. A grade without a
    doubt ends it, and so does a person's.
    """

    async def list_reviews(
        self,
        tenant: str,
        scope: ReviewScope,
        *,
        after: ReviewCursor | None,
        limit: int,
        min_positions: Positions,
    ) -> ReviewPage:
        """Oldest first, those after ``after``, up to ``limit`` (1 to 1,000).

        What lies on shards that cannot be reached is missing, and they are named.
        """
        ...

    async def accept_review(self, acceptance: Acceptance) -> AcceptedReview:
        """Ends a review, in one step with the audit; the grade stays as it is.

        ResourceNotFound when none of the item waits in that course and assignment,
        EtagMismatch when the submission has changed.
        """
        ...
