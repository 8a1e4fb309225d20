"""Grades that people give."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cinnabar_common.errors import (
    EtagMismatch,
    FieldViolation,
    InvalidRequest,
    ResourceNotFound,
    SuiteError,
)
from cinnabar_common.names import AssignmentName, SubmissionName, task_id
from cinnabar_gateway.consistency import Positions, merged
from cinnabar_gateway.identity import Identity
from cinnabar_gateway.ports import AssignmentStore, Queue
from cinnabar_gateway.records import Assignment, CancelledTask, Submission, SubmissionKey
from cinnabar_gateway.review_ports import ReviewStore
from cinnabar_gateway.review_records import ItemFacts, Override
from cinnabar_gateway.submissions import Submissions

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a person wants: ``grade`` makes the serialized Grade, given the points of the item."""

    item: str
    score: float
    grade: Callable[[float], bytes]
    reason: str
    etag: str


class Overrides:
    """Grades by people, over whatever is there. Callers have checked the role."""

    def __init__(
        self,
        store: ReviewStore,
        submissions: Submissions,
        assignments: AssignmentStore,
        queue: Queue,
        *,
        items_of: Callable[[Assignment], Mapping[str, ItemFacts]],
    ) -> None:
        """``items_of`` reads the items of a revision by id."""
        self._store = store
        self._submissions = submissions
        self._assignments = assignments
        self._queue = queue
        self._items_of = items_of

    async def override(
        self, identity: Identity, name: SubmissionName, wanted: Wanted, min_positions: Positions
    ) -> tuple[Submission, Positions]:
        """Gives the item its grade; returns the submission after it, and where to read it.

        The points are those of the revision that the item's grade was made by, or
        else of the submission's. InvalidRequest, ResourceNotFound, EtagMismatch.
        """
        before = await self._submissions.get(identity, name, min_positions)
        graded_by = {grade.item: grade.revision_id for grade in before.grades}.get(wanted.item, "")
        facts = await self._facts(before, graded_by or before.revision_id, wanted.item, min_positions)
        if not 0 <= wanted.score <= facts.points:
            raise InvalidRequest([FieldViolation("score", f"must be 0 to {facts.points:g}")])
        override = Override(
            key=SubmissionKey(identity.tenant, name.submission),
            item=wanted.item,
            score=wanted.score,
            grade=wanted.grade(facts.points),
            actor=identity.actor,
            reason=wanted.reason,
            etag=wanted.etag,
            revision_id=graded_by,
        )
        try:
            overridden = await self._store.override_grade(override)
        except EtagMismatch as error:
            raise EtagMismatch(str(name)) from error
        except ResourceNotFound as error:
            raise ResourceNotFound(str(name)) from error
        # Whoever grades it is told to stop, and whoever watches it to look.
        try:
            await self._queue.cancel([CancelledTask(task_id(name.submission, wanted.item), facts.queue)])
        except SuiteError as error:  # storage refuses a later grade in any case
            log.warning("override not announced", extra={"submission": str(name), "error": error.message})
        after = await self._submissions.get(identity, name, merged(min_positions, overridden.positions))
        return after, overridden.positions

    async def _facts(
        self, submission: Submission, revision_id: str, item: str, min_positions: Positions
    ) -> ItemFacts:
        """Of an item of the submission. InvalidRequest when it has no such item."""
        parent = AssignmentName(submission.parent.course, submission.parent.assignment)
        revision = await self._assignments.get_assignment(
            submission.tenant, parent, revision_id=revision_id, min_positions=min_positions
        )
        facts = None if revision is None else self._items_of(revision).get(item)
        if facts is None:
            raise InvalidRequest([FieldViolation("item", "is not an item of the submission")])
        return facts
