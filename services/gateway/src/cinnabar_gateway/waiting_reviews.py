"""Grades that wait for a person: listing them, and saying that one is right as it is."""

from __future__ import annotations

from cinnabar_common.errors import EtagMismatch, ResourceNotFound
from cinnabar_common.names import AssignmentName, SubmissionName
from cinnabar_gateway.assignments import Assignments
from cinnabar_gateway.consistency import Positions
from cinnabar_gateway.identity import Identity, Role
from cinnabar_gateway.records import SubmissionKey
from cinnabar_gateway.waiting_review_ports import WaitingReviewStore
from cinnabar_gateway.waiting_review_records import (
    Acceptance,
    AcceptedReview,
    ReviewCursor,
    ReviewPage,
    ReviewScope,
)


class WaitingReviews:
    """For instructors alone. Overrides are the other way to end a review."""

    def __init__(self, store: WaitingReviewStore, assignments: Assignments) -> None:
        self._store = store
        self._assignments = assignments

    async def list(
        self,
        identity: Identity,
        scope: ReviewScope,
        *,
        after: ReviewCursor | None,
        limit: int,
        min_positions: Positions,
    ) -> ReviewPage:
        """Oldest first. RoleForbidden; ResourceNotFound for an assignment that does not exist."""
        identity.require("reviews.list", Role.INSTRUCTOR)
        page = await self._store.list_reviews(
            identity.tenant, scope, after=after, limit=limit, min_positions=min_positions
        )
        if scope.assignment and not page.reviews and not page.unreachable and after is None:
            # An empty list, or no such assignment?
            await self._assignments.get(
                identity, AssignmentName(scope.course, scope.assignment), min_positions
            )
        return page

    async def accept(
        self, identity: Identity, name: SubmissionName, item: str, *, comment: str, etag: str
    ) -> AcceptedReview:
        """RoleForbidden, ResourceNotFound, EtagMismatch."""
        identity.require("reviews.accept", Role.INSTRUCTOR)
        acceptance = Acceptance(
            key=SubmissionKey(identity.tenant, name.submission),
            course=name.course,
            assignment=name.assignment,
            item=item,
            actor=identity.actor,
            comment=comment,
            etag=etag,
        )
        try:
            return await self._store.accept_review(acceptance)
        except EtagMismatch as error:
            raise EtagMismatch(str(name)) from error
        except ResourceNotFound as error:
            raise ResourceNotFound(str(name)) from error
