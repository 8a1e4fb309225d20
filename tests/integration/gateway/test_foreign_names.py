"""Names of others and names of nothing are answered alike, by every call that takes a name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message

from cinnabar.gateway.v1 import assignment_service_pb2 as assignments_pb
from cinnabar.gateway.v1 import grading_service_pb2 as grading_pb
from cinnabar.gateway.v1 import operations_service_pb2 as operations_pb
from cinnabar.gateway.v1 import regrade_service_pb2 as regrades_pb
from cinnabar.gateway.v1 import review_service_pb2 as reviews_pb
from cinnabar.gateway.v1 import submission_service_pb2 as pb
from cinnabar_common.names import AssignmentName, SubmissionName, bucket_of, new_id
from tests.support.gateway_suite import PARENT, Real, create_request
from tests.support.gateway_world import (
    COURSE,
    INSTRUCTOR,
    OTHER_STUDENT,
    STUDENT,
    Metadata,
    answers,
    credential,
    items,
    refusal_in,
    refusal_of,
)

ELSEWHERE = "elsewhere"
Make = Callable[[str], Message]
Names = dict[str, tuple[str, Metadata]]


@dataclass(frozen=True, slots=True)
class Call:
    """A call that takes a name of one kind: of a submission, an assignment or a regrade."""

    method: str
    make: Make
    role: str = "instructor"


def _grading(name: str) -> Message:
    parent = AssignmentName.parse(name)
    assert parent is not None
    return grading_pb.SubmitGradingRequest(
        course=parent.course, assignment=parent.assignment, author="ann", answers=answers()[:3]
    )


def _update(name: str) -> Message:
    return assignments_pb.UpdateAssignmentRequest(
        assignment=assignments_pb.Assignment(name=name, display_name="x")
    )


OF_SUBMISSIONS = [
    Call("SubmissionService/GetSubmission", lambda name: pb.GetSubmissionRequest(name=name), "student"),
    Call("SubmissionService/WatchSubmission", lambda name: pb.WatchSubmissionRequest(name=name), "student"),
    Call("SubmissionService/CancelSubmission", lambda name: pb.CancelSubmissionRequest(name=name), "student"),
    Call("SubmissionService/ListGradings", lambda name: pb.ListGradingsRequest(parent=name), "student"),
    Call("SubmissionService/ListAuditEvents", lambda name: pb.ListAuditEventsRequest(parent=name)),
    Call(
        "ReviewService/AcceptReview",
        lambda name: reviews_pb.AcceptReviewRequest(name=name, item="pick"),
    ),
    Call(
        "SubmissionService/OverrideGrade",
        lambda name: pb.OverrideGradeRequest(name=name, item="pick", score=1, reason="because"),
    ),
    Call(
        "SubmissionService/RegradeSubmission",
        lambda name: pb.RegradeSubmissionRequest(name=name, reason="because"),
    ),
]
OF_ASSIGNMENTS = [
    Call(
        "AssignmentService/GetAssignment",
        lambda name: assignments_pb.GetAssignmentRequest(name=name),
        "student",
    ),
    Call("AssignmentService/UpdateAssignment", _update),
    Call("AssignmentService/ExportGrades", lambda name: assignments_pb.ExportGradesRequest(name=name)),
    Call("SubmissionService/ListSubmissions", lambda name: pb.ListSubmissionsRequest(parent=name), "student"),
    Call(
        "SubmissionService/CreateSubmission",
        lambda name: pb.CreateSubmissionRequest(
            parent=name, submission=pb.Submission(author="ann", answers=answers()[:3])
        ),
    ),
    Call(
        "SubmissionService/BatchCreateSubmissions",
        lambda name: pb.BatchCreateSubmissionsRequest(parent=name, requests=[create_request("ann")]),
    ),
    Call("GradingService/SubmitGrading", _grading),
    Call("ReviewService/ListReviews", lambda name: reviews_pb.ListReviewsRequest(parent=name)),
    Call("RegradeService/ListRegrades", lambda name: regrades_pb.ListRegradesRequest(parent=name)),
    Call(
        "RegradeService/CreateRegrade",
        lambda name: regrades_pb.CreateRegradeRequest(
            parent=name, regrade=regrades_pb.Regrade(reason="because", shadow=True)
        ),
    ),
]
OF_REGRADES = [
    Call("RegradeService/GetRegrade", lambda name: regrades_pb.GetRegradeRequest(name=name)),
    Call("RegradeService/GetRegradeReport", lambda name: regrades_pb.GetRegradeReportRequest(name=name)),
    Call("RegradeService/PromoteRegrade", lambda name: regrades_pb.PromoteRegradeRequest(name=name)),
    Call("RegradeService/DiscardRegrade", lambda name: regrades_pb.DiscardRegradeRequest(name=name)),
]


async def refusal(real: Real, call: Call, name: str, metadata: Metadata) -> tuple[object, ...]:
    """What the call is told, with the name taken out; () when it is served."""
    method: grpc.aio.UnaryStreamMultiCallable[Any, bytes] = real.channel.unary_stream(
        f"/cinnabar.gateway.v1.{call.method}", request_serializer=_serialized
    )
    answer = method(call.make(name), metadata=metadata, timeout=20)
    try:
        await answer.read()
    except grpc.aio.AioRpcError as error:
        told = refusal_of(error)
        details = {key: value.replace(name, "NAME") for key, value in told.metadata.items()}
        return told.code, told.reason, told.message.replace(name, "NAME"), details, told.retry_after
    return ()


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()


async def differing(real: Real, calls: list[Call], names: Callable[[Call], Names]) -> list[str]:
    """Every call that a name is not simply unknown to."""
    unknown = (
        grpc.StatusCode.NOT_FOUND,
        "RESOURCE_NOT_FOUND",
        "NAME does not exist",
        {"resource": "NAME"},
        None,
    )
    return [
        f"{call.method} of {kind}: {told}"
        for call in calls
        for kind, (name, metadata) in names(call).items()
        if (told := await refusal(real, call, name, metadata)) != unknown
    ]


async def test_others_and_nothing_look_alike(real: Real) -> None:
    await real.assignments.CreateAssignment(
        assignments_pb.CreateAssignmentRequest(
            parent=COURSE, assignment=assignments_pb.Assignment(items=items()[:3]), assignment_id="other"
        ),
        metadata=INSTRUCTOR,
    )
    created = await real.submissions.CreateSubmission(create_request(), metadata=STUDENT)
    mine = SubmissionName.parse(created.name)
    assert mine is not None
    nobodys = new_id(bucket_of("uni", "ann"))

    def foreign(call: Call) -> Metadata:
        return credential(call.role, "ann", tenant=ELSEWHERE)

    def own(call: Call) -> Metadata:
        return credential(call.role, "ann")

    def submissions(call: Call) -> Names:
        names = {
            "another tenant's": (created.name, foreign(call)),
            "nobody's": (f"{PARENT}/submissions/{nobodys}", own(call)),
            "no id of ours": (f"{PARENT}/submissions/none", own(call)),
            "another assignment's": (f"{COURSE}/assignments/other/submissions/{mine.submission}", own(call)),
            "an unknown assignment's": (f"{COURSE}/assignments/x/submissions/{mine.submission}", own(call)),
        }
        if call.role == "student":
            names["another student's"] = (created.name, OTHER_STUDENT)
        return names

    def assignments(call: Call) -> Names:
        return {
            "another tenant's": (PARENT, foreign(call)),
            "nobody's": (f"{COURSE}/assignments/none", own(call)),
            "an unknown course's": ("courses/none/assignments/rules", own(call)),
        }

    regrade = await real.regrades.CreateRegrade(
        regrades_pb.CreateRegradeRequest(
            parent=PARENT, regrade=regrades_pb.Regrade(reason="because", shadow=True)
        ),
        metadata=INSTRUCTOR,
    )
    regrade_id = regrade.name.rpartition("/")[2]

    def regrades(call: Call) -> Names:
        return {
            "another tenant's": (regrade.name, foreign(call)),
            "nobody's": (f"{PARENT}/regrades/{nobodys}", own(call)),
            "no id of ours": (f"{PARENT}/regrades/none", own(call)),
            "another assignment's": (f"{COURSE}/assignments/other/regrades/{regrade_id}", own(call)),
        }

    assert await differing(real, OF_SUBMISSIONS, submissions) == []
    assert await differing(real, OF_ASSIGNMENTS, assignments) == []
    assert await differing(real, OF_REGRADES, regrades) == []

    # A redrive names tasks, and is told task by task.
    told: set[tuple[object, ...]] = set()
    for name, metadata in submissions(Call("", _update, "operator")).values():
        task = operations_pb.RedriveDeadLettersRequest.Task(submission=name, item="pick")
        answer = await real.operations.RedriveDeadLetters(
            operations_pb.RedriveDeadLettersRequest(tasks=[task]), metadata=metadata
        )
        [refused] = answer.refused
        one = refusal_in(refused.error)
        told.add((one.code, one.reason, one.message.replace(name, "NAME")))
    assert told == {(grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND", "NAME/items/pick does not exist")}
