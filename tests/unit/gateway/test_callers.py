"""Who may do what."""

import grpc
import pytest
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cinnabar.gateway.v1 import assignment_service_pb2 as assignments_pb
from cinnabar.gateway.v1 import operations_service_pb2 as operations_pb
from cinnabar.gateway.v1 import submission_service_pb2 as pb
from cinnabar_common.config import ConfigError, load
from cinnabar_gateway.config import GatewayConfig
from tests.support.gateway_world import (
    COURSE,
    INSTRUCTOR,
    OPERATOR,
    PARENT,
    SECRET,
    STUDENT,
    Metadata,
    World,
    as_created,
    create_request,
    items,
    refusal_of,
)

CREATE = assignments_pb.CreateAssignmentRequest(
    parent=COURSE, assignment=assignments_pb.Assignment(items=items()), assignment_id="a2"
)
UPDATE = assignments_pb.UpdateAssignmentRequest(
    assignment=assignments_pb.Assignment(name=PARENT, display_name="x")
)
BATCH = pb.BatchCreateSubmissionsRequest(parent=PARENT, requests=[create_request(author="ann")])
REDRIVE = operations_pb.RedriveDeadLettersRequest(
    tasks=[operations_pb.RedriveDeadLettersRequest.Task(submission=f"{PARENT}/submissions/s", item="i")]
)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer dev.uni.student",
        "Bearer dev.uni.dean.ann",
        "Bearer dev.Uni.student.ann",
        "Bearer dev.uni.student.ann.x",
        "Bearer prod.uni.student.ann",
        "Basic dev.uni.student.ann",
    ],
)
async def test_a_call_without_a_credential_is_refused(gateway: World, header: str | None) -> None:
    metadata = () if header is None else (("authorization", header),)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await gateway.submissions.CreateSubmission(create_request(), metadata=metadata)
    refusal = refusal_of(raised.value)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_INVALID")
    assert not gateway.storage.submissions


async def test_two_credentials_are_none(gateway: World) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await gateway.submissions.CreateSubmission(create_request(), metadata=STUDENT + INSTRUCTOR)
    assert refusal_of(raised.value).reason == "CREDENTIAL_INVALID"


@pytest.mark.parametrize(
    ("role", "metadata", "method", "request_", "action"),
    [
        ("student", STUDENT, "assignments.CreateAssignment", CREATE, "assignments.create"),
        ("student", STUDENT, "assignments.UpdateAssignment", UPDATE, "assignments.update"),
        ("operator", OPERATOR, "assignments.CreateAssignment", CREATE, "assignments.create"),
        ("operator", OPERATOR, "submissions.CreateSubmission", create_request(), "submissions.create"),
        ("operator", OPERATOR, "submissions.BatchCreateSubmissions", BATCH, "submissions.create"),
        (
            "operator",
            OPERATOR,
            "submissions.CancelSubmission",
            pb.CancelSubmissionRequest(name=f"{PARENT}/submissions/s"),
            "submissions.cancel",
        ),
        (
            "student",
            STUDENT,
            "submissions.ListSubmissions",
            pb.ListSubmissionsRequest(parent=PARENT, author="bob"),
            "submissions.list_of_others",
        ),
        ("student", STUDENT, "operations.ListQueues", operations_pb.ListQueuesRequest(), "queues.list"),
        (
            "instructor",
            INSTRUCTOR,
            "operations.ListDeadLetters",
            operations_pb.ListDeadLettersRequest(),
            "dead_letters.list",
        ),
        ("instructor", INSTRUCTOR, "operations.RedriveDeadLetters", REDRIVE, "dead_letters.redrive"),
    ],
)
async def test_a_role_may_not(
    gateway: World, role: str, metadata: Metadata, method: str, request_: Message, action: str
) -> None:
    service, _, name = method.partition(".")
    before = dict(gateway.storage.assignments)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await getattr(getattr(gateway, service), name)(request_, metadata=metadata)
    refusal = refusal_of(raised.value)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_FORBIDDEN")
    assert refusal.metadata == {"role": role, "action": action}
    assert gateway.storage.assignments == before
    assert not gateway.storage.submissions


async def test_an_instructor_may_ask_for_high_priority(gateway: World) -> None:
    request = create_request(author="ann")
    request.submission.priority = pb.Submission.Priority.HIGH
    created = await gateway.submissions.CreateSubmission(request, metadata=INSTRUCTOR)
    assert created.priority == pb.Submission.Priority.HIGH


async def test_an_operator_reads_what_students_wrote(gateway: World) -> None:
    created = await gateway.submission()
    read = await gateway.submissions.GetSubmission(
        pb.GetSubmissionRequest(name=created.name), metadata=OPERATOR
    )
    assert as_created(read) == created


async def test_health_needs_no_credential(gateway: World) -> None:
    stub = health_pb2_grpc.HealthStub(gateway.channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    report = await gateway.operations.GetHealth(operations_pb.GetHealthRequest())
    assert report.status == "healthy"


def test_only_development_credentials_are_taken_yet() -> None:
    env = {
        "GATEWAY_STORAGE_TARGET": "127.0.0.1:1",
        "GATEWAY_SCHEDULER_TARGET": "127.0.0.1:2",
        "GATEWAY_AUTH": "jwt",
        "GATEWAY_TOKEN_KEY": SECRET,
    }
    with pytest.raises(ConfigError) as raised:
        load(GatewayConfig, prefix="GATEWAY_", env=env)
    assert raised.value.problems == ["GATEWAY_AUTH='jwt' must be 'development'"]
    assert load(GatewayConfig, prefix="GATEWAY_", env=env | {"GATEWAY_AUTH": "development"}).auth
