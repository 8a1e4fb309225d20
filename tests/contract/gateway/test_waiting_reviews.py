"""Grades that wait for a person, from memory and from the real storage service alike."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

import pytest

from cinnabar_common.errors import EtagMismatch, ResourceNotFound
from cinnabar_gateway.consistency import Positions, merged
from cinnabar_gateway.records import NewSubmission, SubmissionKey
from cinnabar_gateway.review_records import Override
from cinnabar_gateway.waiting_review_records import (
    Acceptance,
    ReviewCursor,
    ReviewScope,
    WaitingReview,
)
from tests.contract.gateway.test_stores import key as key_of
from tests.contract.gateway.test_stores import submission
from tests.support.gateway_stores import Backend

FLAGS = ("OFF_TOPIC", "COPY")


async def graded(
    backend: Backend, tenant: str, *doubts: tuple[str, ...]
) -> tuple[list[NewSubmission], Positions]:
    """A submission for each, graded in this order."""
    rows: list[NewSubmission] = []
    positions: Positions = ()
    for number, flags in enumerate(doubts):
        new = submission(tenant, f"author-{number}")
        await backend.store.create_submissions([new])
        written = await backend.grade(key_of(new), "q1", score=1.5, grade=b"by a grader", doubts=flags)
        rows, positions = [*rows, new], merged(positions, written)
    return rows, positions


async def waiting(
    backend: Backend, tenant: str, positions: Positions, scope: ReviewScope | None = None, *, limit: int = 100
) -> list[WaitingReview]:
    """All of them, read in pages."""
    found: list[WaitingReview] = []
    after: ReviewCursor | None = None
    while True:
        page = await backend.waiting_reviews.list_reviews(
            tenant, scope or ReviewScope("", "", ""), after=after, limit=limit, min_positions=positions
        )
        assert page.unreachable == ()
        found += page.reviews
        if not page.more:
            return found
        after = found[-1].cursor


def acceptance(row: NewSubmission, *, etag: str = "") -> Acceptance:
    return Acceptance(
        key=key_of(row),
        course=row.name.course,
        assignment=row.name.assignment,
        item="q1",
        actor="instructor/ann",
        comment="it is right",
        etag=etag,
    )


async def test_they_are_listed_by_age_and_by_what_is_asked(backend: Backend) -> None:
    tenant = f"tenant-{uuid4().hex[:12]}"
    rows, positions = await graded(backend, tenant, FLAGS, (), ("COPY",))
    found = await waiting(backend, tenant, positions)
    assert [one.submission.submission for one in found] == [row.submission_id for row in rows]
    assert await waiting(backend, tenant, positions, limit=1) == found
    first, row = found[0], rows[0]
    assert (first.item, first.generation, first.author, first.flags) == ("q1", 1, row.author, FLAGS)
    assert (first.score, first.max_score) == (1.5, 4.0)
    assert str(first.submission).startswith(f"{row.name}/submissions/")
    course, assignment = row.name.course, row.name.assignment
    for scope, some in (
        (ReviewScope(course, "", ""), found),
        (ReviewScope(course, assignment, ""), found),
        (ReviewScope(course, assignment, "COPY"), [found[0], found[2]]),
        (ReviewScope("", "", "OFF_TOPIC"), [found[0]]),
        (ReviewScope("other", "", ""), []),
        (ReviewScope(course, "other", ""), []),
    ):
        assert await waiting(backend, tenant, positions, scope, limit=1) == some
    assert await waiting(backend, f"tenant-{uuid4().hex[:12]}", positions) == []


async def test_accepting_takes_it_off_and_leaves_the_grade(backend: Backend) -> None:
    tenant = f"tenant-{uuid4().hex[:12]}"
    [row], positions = await graded(backend, tenant, FLAGS)
    [stored] = await backend.store.get_submissions([key_of(row)], positions)
    [shown] = await waiting(backend, tenant, positions)
    for wrong in (
        replace(acceptance(row), item="q2"),
        replace(acceptance(row), course="other"),
        replace(acceptance(row), assignment="other"),
        replace(acceptance(row), key=SubmissionKey("other", row.submission_id)),
        replace(acceptance(row), key=SubmissionKey(tenant, "nothing")),
    ):
        with pytest.raises(ResourceNotFound):
            await backend.waiting_reviews.accept_review(wrong)
    with pytest.raises(EtagMismatch):
        await backend.waiting_reviews.accept_review(acceptance(row, etag='"stale"'))
    done = await backend.waiting_reviews.accept_review(acceptance(row, etag=stored.etag))
    assert done.review == shown
    assert (done.grade.grade, done.grade.score, done.grade.generation) == (b"by a grader", 1.5, 1)
    assert await waiting(backend, tenant, done.positions) == []
    [after] = await backend.store.get_submissions([key_of(row)], done.positions)
    assert after == stored
    with pytest.raises(ResourceNotFound):
        await backend.waiting_reviews.accept_review(acceptance(row))
    events = await backend.reviews.list_audit_events(
        key_of(row), after=None, limit=10, min_positions=done.positions
    )
    [told] = [one for one in events.events if one.action == "accept-review"]
    assert (told.actor, told.item, told.detail) == ("instructor/ann", "q1", "it is right")


async def test_a_person_s_grade_takes_it_off(backend: Backend) -> None:
    tenant = f"tenant-{uuid4().hex[:12]}"
    [row], _ = await graded(backend, tenant, FLAGS)
    override = Override(
        key=key_of(row),
        item="q1",
        score=2.0,
        grade=b"by hand",
        actor="instructor/ann",
        reason="why",
        etag="",
        revision_id="",
    )
    done = await backend.reviews.override_grade(override)
    assert await waiting(backend, tenant, done.positions) == []
