"""Builders in the words of storage's domain; every call makes something new."""

from __future__ import annotations

import time
from itertools import count
from uuid import uuid4

from cinnabar_common.names import bucket_of, new_id
from cinnabar_storage.records import (
    GivenUp,
    Graded,
    Micros,
    NewRevision,
    NewSubmission,
    NewTask,
    SubmissionKey,
)

_numbers = count(1)


def new_tenant() -> str:
    """A tenant that nobody has used."""
    return f"tenant-{uuid4().hex[:12]}"


def submission(
    tenant: str,
    author: str | None = None,
    *,
    items: tuple[str, ...] = ("q1",),
    request_id: str | None = None,
    fingerprint: bytes = b"",
    answers: bytes = b"answers",
    assignment: str = "a1",
    course: str = "net",
    grade_after: int | None = None,
    grade_by: int | None = None,
) -> NewSubmission:
    """A submission, of a new author unless one is named; times in microseconds since 1970."""
    author = author or f"author-{next(_numbers)}"
    return NewSubmission(
        submission_id=new_id(bucket_of(tenant, author)),
        tenant=tenant,
        course=course,
        assignment=assignment,
        revision_id="revision",
        author=author,
        request_id=request_id,
        fingerprint=fingerprint,
        priority=1,
        answers=answers,
        max_score=2.5,
        create_time=Micros(time.time_ns() // 1000),
        tasks=tuple(NewTask(item, "text") for item in items),
        grade_after=None if grade_after is None else Micros(grade_after),
        grade_by=None if grade_by is None else Micros(grade_by),
    )


def sought(tenant: str, author: str, request_id: str, fingerprint: bytes = b"") -> NewSubmission:
    """A row that is only looked for."""
    nothing = ("", tenant, "", "", "", author, request_id, fingerprint, 0, b"", 0.0, Micros(0), ())
    return NewSubmission(*nothing, existing_only=True)


def grade(
    row: NewSubmission, item: str = "q1", *, fence: int = 1, generation: int = 1, tenant: str | None = None
) -> Graded:
    """A grade of one item."""
    fenced = (tenant or row.tenant, row.submission_id, item, generation, fence, f"{fence}-x", "worker")
    return Graded(*fenced, score=1.5, grade=f"under {fence}".encode())


def dead_letter(
    row: NewSubmission, item: str = "q1", *, fence: int = 1, generation: int = 1, reason: str = "broken"
) -> GivenUp:
    """A dead letter of one item."""
    fenced = (row.tenant, row.submission_id, item, generation, fence, f"{fence}-x", "worker")
    return GivenUp(*fenced, reason=reason, attempts=3)


def key(row: NewSubmission) -> SubmissionKey:
    """Its key."""
    return SubmissionKey(row.tenant, row.submission_id)


def revision(tenant: str, assignment: str, *, course: str = "net", spec: bytes = b"spec") -> NewRevision:
    """New content of an assignment."""
    revision_id = new_id(bucket_of(tenant, f"course:{course}"))
    return NewRevision(tenant, course, assignment, revision_id, spec)
