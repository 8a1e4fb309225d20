"""A page token is good for its own list alone: the call, the tenant and all other parameters."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from cinnabar.gateway.v1 import assignment_service_pb2 as assignments_pb
from cinnabar.gateway.v1 import operations_service_pb2 as operations_pb
from cinnabar.gateway.v1 import review_service_pb2 as reviews_pb
from cinnabar.gateway.v1 import submission_service_pb2 as pb
from tests.support.gateway_world import (
    COURSE,
    INSTRUCTOR,
    OPERATOR,
    PARENT,
    STUDENT,
    Metadata,
    World,
    credential,
    key_of,
    refusal_of,
)

List = Callable[..., Message]


async def refused(gateway: World, method: str, request: Message, metadata: Metadata) -> str:
    """The reason why the list is refused; "" when it is given."""
    service, _, name = method.partition(".")
    try:
        await getattr(getattr(gateway, service), name)(request, metadata=metadata)
    except grpc.aio.AioRpcError as error:
        return refusal_of(error).reason
    return ""


@pytest.fixture
async def submission(gateway: World) -> pb.Submission:
    """Two assignments, and two submissions of which one has two grades and two dead letters."""
    await gateway.assignment("a2")
    await gateway.submission()
    created = await gateway.submission()
    for item in ("pick", "count"):
        gateway.grade(created, item, doubts=())
    for item in ("name", "explain"):
        gateway.storage.dead_letter(key_of(created), item, reason="it broke", attempts=3)
    return created


def _request(kind: Callable[..., Message], **fields: Any) -> Message:
    return kind(**fields)


LISTS: list[tuple[str, List, Metadata, list[dict[str, Any]]]] = [
    (
        "assignments.ListAssignments",
        partial(_request, assignments_pb.ListAssignmentsRequest, parent=COURSE, page_size=1),
        INSTRUCTOR,
        [{"parent": "courses/law"}],
    ),
    (
        "submissions.ListSubmissions",
        partial(_request, pb.ListSubmissionsRequest, parent=PARENT, page_size=1),
        INSTRUCTOR,
        [{"parent": f"{COURSE}/assignments/a2"}, {"author": "ann"}, {"author": "bob"}],
    ),
    (
        "operations.ListDeadLetters",
        partial(_request, operations_pb.ListDeadLettersRequest, page_size=1),
        OPERATOR,
        [{"queue": "text"}, {"parent": COURSE}, {"parent": PARENT}, {"reason": "broke"}],
    ),
    (
        "reviews.ListReviews",
        partial(_request, reviews_pb.ListReviewsRequest, parent=PARENT, page_size=1),
        INSTRUCTOR,
        [{"parent": "courses/-/assignments/-"}, {"flag": "ODD"}],
    ),
]


@pytest.mark.parametrize(("method", "make", "caller", "others"), LISTS, ids=[one[0] for one in LISTS])
async def test_a_token_of_one_list_is_none_of_another(
    gateway: World,
    submission: pb.Submission,
    method: str,
    make: List,
    caller: Metadata,
    others: list[dict[str, Any]],
) -> None:
    service, _, name = method.partition(".")
    call = getattr(getattr(gateway, service), name)
    token = (await call(make(), metadata=caller)).next_page_token
    assert token
    assert await refused(gateway, method, make(page_token=token), caller) == ""
    assert await refused(gateway, method, make(page_token=token, page_size=7), caller) == ""
    role = caller[0][1].split(".")[2]
    foreign = credential(role, "prof", tenant="elsewhere")
    wrong: list[tuple[str, Message, Metadata]] = [
        *((method, make(page_token=token, **other), caller) for other in others),
        (method, make(page_token=token), foreign),
        *(
            (other, other_make(page_token=token), its)
            for other, other_make, its, _ in LISTS
            if other != method
        ),
        (
            "submissions.ListGradings",
            pb.ListGradingsRequest(parent=submission.name, page_token=token),
            STUDENT,
        ),
        (
            "submissions.ListAuditEvents",
            pb.ListAuditEventsRequest(parent=submission.name, page_token=token),
            INSTRUCTOR,
        ),
    ]
    for other, request, metadata in wrong:
        assert await refused(gateway, other, request, metadata) == "PAGE_TOKEN_INVALID", (other, request)


async def test_a_token_of_a_history_is_none_of_another(gateway: World, submission: pb.Submission) -> None:
    grading = pb.ListGradingsRequest(parent=submission.name, page_size=1)
    token = (await gateway.submissions.ListGradings(grading, metadata=INSTRUCTOR)).next_page_token
    assert token
    method = "submissions.ListGradings"
    mine = pb.ListGradingsRequest(parent=submission.name, page_token=token)
    assert await refused(gateway, method, mine, INSTRUCTOR) == ""
    assert await refused(gateway, method, mine, STUDENT) == "PAGE_TOKEN_INVALID"  # who sees other rows
    other = pb.ListGradingsRequest(parent=f"{PARENT}/submissions/x", page_token=token)
    assert await refused(gateway, method, other, INSTRUCTOR) == "PAGE_TOKEN_INVALID"
    events = pb.ListAuditEventsRequest(parent=submission.name, page_token=token)
    assert await refused(gateway, "submissions.ListAuditEvents", events, INSTRUCTOR) == "PAGE_TOKEN_INVALID"
