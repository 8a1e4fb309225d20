"""Builders of what storage is asked to keep; every call makes something new."""

from __future__ import annotations

import time
from itertools import count

from google.protobuf.timestamp_pb2 import Timestamp

from cinnabar.storage.v1 import storage_service_pb2 as pb
from cinnabar_common.names import bucket_of, new_id

TENANT = "acme"
COURSE = "net"
ASSIGNMENT = "a1"

_numbers = count(1)


def revision_id(course: str = COURSE, tenant: str = TENANT) -> str:
    """An id in the bucket of the course."""
    return new_id(bucket_of(tenant, f"course:{course}"))


def submission_id(author: str, tenant: str = TENANT) -> str:
    """An id in the bucket of the author."""
    return new_id(bucket_of(tenant, author))


def new_submission(
    *,
    author: str | None = None,
    tenant: str = TENANT,
    assignment: str = ASSIGNMENT,
    items: tuple[str, ...] = ("q1",),
    request_id: str = "",
    fingerprint: bytes = b"",
    answers: bytes = b"answers",
) -> pb.NewSubmission:
    """A submission of some new author unless one is named."""
    author = author or f"author-{next(_numbers)}"
    now = time.time_ns()
    return pb.NewSubmission(
        submission_id=submission_id(author, tenant),
        tenant=tenant,
        course=COURSE,
        assignment=assignment,
        revision_id="some-revision",
        author=author,
        request_id=request_id,
        fingerprint=fingerprint,
        priority=1,
        answers=answers,
        max_score=2.5,
        tasks=[pb.NewSubmission.Task(item_id=item, queue="text") for item in items],
        create_time=Timestamp(seconds=now // 1_000_000_000, nanos=now % 1_000_000_000 // 1000 * 1000),
    )


def graded(
    submission: pb.NewSubmission, *, item: str = "q1", generation: int = 1, fence: int = 1, score: float = 1.0
) -> pb.FencedOutcome:
    """A grade of one of its items."""
    return pb.FencedOutcome(
        tenant=submission.tenant,
        submission_id=submission.submission_id,
        item_id=item,
        generation=generation,
        fence=fence,
        lease_token=f"{fence}-x",
        worker="worker-1",
        grade=pb.FencedOutcome.Grade(score=score, grade=f"grade under {fence}".encode()),
    )


def given_up(
    submission: pb.NewSubmission, *, item: str = "q1", generation: int = 1, fence: int = 1
) -> pb.FencedOutcome:
    """A dead letter of one of its items."""
    outcome = graded(submission, item=item, generation=generation, fence=fence)
    outcome.dead_letter.CopyFrom(pb.FencedOutcome.DeadLetter(reason="it broke", attempts=4))
    return outcome


def key(submission: pb.NewSubmission) -> pb.SubmissionKey:
    """Its key."""
    return pb.SubmissionKey(tenant=submission.tenant, submission_id=submission.submission_id)
