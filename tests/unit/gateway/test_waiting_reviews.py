"""Grades that wait for a person, as callers see them."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.message import Message

from cinnabar.gateway.v1 import review_service_pb2 as pb
from cinnabar.gateway.v1 import submission_service_pb2 as submissions_pb
from tests.support.gateway_world import (
    COURSE,
    INSTRUCTOR,
    OPERATOR,
    OTHER_STUDENT,
    PARENT,
    STUDENT,
    Metadata,
    World,
    credential,
    refused,
    token_from,
)

EVERYWHERE = "courses/-/assignments/-"
ELSEWHERE = credential("instructor", "prof", tenant="elsewhere")


async def listed(
    gateway: World, parent: str = EVERYWHERE, *, flag: str = "", page_size: int = 0
) -> list[pb.Review]:
    found: list[pb.Review] = []
    token = ""
    while True:
        request = pb.ListReviewsRequest(parent=parent, flag=flag, page_size=page_size, page_token=token)
        page = await gateway.reviews.ListReviews(request, metadata=INSTRUCTOR)
        assert list(page.unreachable) == []
        found += page.reviews
        token = page.next_page_token
        if not token:
            return found


async def test_an_instructor_sees_what_waits_and_accepts_it(gateway: World) -> None:
    first, second = await gateway.submission(), await gateway.submission(metadata=OTHER_STUDENT)
    gateway.grade(first, "explain", 1.5, doubts=("OFF_TOPIC", "COPY"))
    gateway.grade(second, "explain", 2, doubts=("COPY",))
    gateway.grade(second, "name", 1)
    for parent in (EVERYWHERE, f"{COURSE}/assignments/-", PARENT):
        for page_size in (0, 1):
            found = await listed(gateway, parent, page_size=page_size)
            assert [(one.submission, one.item) for one in found] == [
                (first.name, "explain"),
                (second.name, "explain"),
            ]
    [shown] = await listed(gateway, flag="OFF_TOPIC")
    assert (shown.author, shown.score, shown.max_score, shown.generation) == ("ann", 1.5, 4, 1)
    assert list(shown.flags) == ["OFF_TOPIC", "COPY"]
    assert not shown.HasField("grade")
    assert shown.create_time.seconds > 0

    seen = await gateway.submissions.GetSubmission(
        submissions_pb.GetSubmissionRequest(name=first.name), metadata=INSTRUCTOR
    )
    request = pb.AcceptReviewRequest(name=first.name, item="explain", comment="fair", etag=seen.etag)
    call = gateway.reviews.AcceptReview(request, metadata=INSTRUCTOR)
    accepted = await call
    assert await token_from(call)
    assert (accepted.grade.score, accepted.grade.feedback) == (1.5, "well")
    accepted.ClearField("grade")
    assert accepted == shown
    assert [one.submission for one in await listed(gateway)] == [second.name]
    after = await gateway.submissions.GetSubmission(
        submissions_pb.GetSubmissionRequest(name=first.name), metadata=INSTRUCTOR
    )
    assert after == seen
    again = await refused(gateway.reviews.AcceptReview(request, metadata=INSTRUCTOR))
    assert (again.code, again.reason) == (grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND")


async def test_an_override_ends_it_and_an_old_etag_does_not(gateway: World) -> None:
    created = await gateway.submission()
    gateway.grade(created, "explain", doubts=())
    stale = pb.AcceptReviewRequest(name=created.name, item="explain", etag='"old"')
    refusal = await refused(gateway.reviews.AcceptReview(stale, metadata=INSTRUCTOR))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    assert refusal.metadata["resource"] == created.name
    await gateway.submissions.OverrideGrade(
        submissions_pb.OverrideGradeRequest(name=created.name, item="explain", score=2, reason="why"),
        metadata=INSTRUCTOR,
    )
    assert await listed(gateway) == []


@pytest.mark.parametrize("caller", [STUDENT, OPERATOR], ids=["student", "operator"])
async def test_only_instructors_may(gateway: World, caller: Metadata) -> None:
    created = await gateway.submission()
    gateway.grade(created, "explain", doubts=())
    for call in (
        gateway.reviews.ListReviews(pb.ListReviewsRequest(parent=PARENT), metadata=caller),
        gateway.reviews.AcceptReview(
            pb.AcceptReviewRequest(name=created.name, item="explain"), metadata=caller
        ),
    ):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_FORBIDDEN")
    assert len(await listed(gateway)) == 1


async def test_what_is_of_others_or_of_nobody_is_not_found(gateway: World) -> None:
    created = await gateway.submission()
    gateway.grade(created, "explain", doubts=())
    everything = await gateway.reviews.ListReviews(
        pb.ListReviewsRequest(parent=EVERYWHERE), metadata=ELSEWHERE
    )
    assert (list(everything.reviews), everything.next_page_token) == ([], "")
    other = created.name.replace("/a1/", "/a2/")
    for name, item, caller in (
        (created.name, "explain", ELSEWHERE),
        (created.name, "pick", INSTRUCTOR),
        (created.name, "nothing", INSTRUCTOR),
        (other, "explain", INSTRUCTOR),
        (f"{PARENT}/submissions/nothing", "explain", INSTRUCTOR),
    ):
        refusal = await refused(
            gateway.reviews.AcceptReview(pb.AcceptReviewRequest(name=name, item=item), metadata=caller)
        )
        assert (refusal.code, refusal.metadata) == (grpc.StatusCode.NOT_FOUND, {"resource": name})
    for parent, caller in ((PARENT, ELSEWHERE), (f"{COURSE}/assignments/nothing", INSTRUCTOR)):
        refusal = await refused(
            gateway.reviews.ListReviews(pb.ListReviewsRequest(parent=parent), metadata=caller)
        )
        assert (refusal.code, refusal.metadata) == (grpc.StatusCode.NOT_FOUND, {"resource": parent})
    assert len(await listed(gateway)) == 1


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (pb.ListReviewsRequest(), ["parent"]),
        (pb.ListReviewsRequest(parent="courses/net"), ["parent"]),
        (pb.ListReviewsRequest(parent="courses/-/assignments/a1"), ["parent"]),
        (pb.ListReviewsRequest(parent="courses/A/assignments/-"), ["parent"]),
        (pb.ListReviewsRequest(parent=PARENT, flag="x" * 129), ["flag"]),
        (pb.ListReviewsRequest(parent=PARENT, flag="a\nb"), ["flag"]),
        (pb.ListReviewsRequest(parent="", flag="\0"), ["parent", "flag"]),
        (pb.ListReviewsRequest(parent=PARENT, page_size=-1), ["page_size"]),
        (pb.AcceptReviewRequest(), ["name", "item"]),
        (pb.AcceptReviewRequest(name=PARENT, item="x"), ["name"]),
        (pb.AcceptReviewRequest(name=f"{PARENT}/submissions/s", item="A b"), ["item"]),
        (
            pb.AcceptReviewRequest(
                name=f"{PARENT}/submissions/s", item="x", comment="y" * 1001, etag="z" * 129
            ),
            ["comment", "etag"],
        ),
        (
            pb.AcceptReviewRequest(name=f"{PARENT}/submissions/s", item="x", comment="\0", etag="\0"),
            ["comment", "etag"],
        ),
    ],
)
async def test_bad_input_is_named(gateway: World, request_: Message, fields: list[str]) -> None:
    listing = isinstance(request_, pb.ListReviewsRequest)
    method = gateway.reviews.ListReviews if listing else gateway.reviews.AcceptReview
    refusal = await refused(method(request_, metadata=INSTRUCTOR))  # pyright: ignore[reportArgumentType]
    assert (refusal.code, list(refusal.fields)) == (grpc.StatusCode.INVALID_ARGUMENT, fields)
