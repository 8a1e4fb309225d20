"""A real gateway server over gRPC, on the in-memory adapters, and words to talk to it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from cinnabar.gateway.v1.assignment_service_pb2 import Assignment, CreateAssignmentRequest
from cinnabar.gateway.v1.assignment_service_pb2_grpc import AssignmentServiceStub
from cinnabar.gateway.v1.grading_service_pb2_grpc import GradingServiceStub
from cinnabar.gateway.v1.operations_service_pb2_grpc import OperationsServiceStub
from cinnabar.gateway.v1.regrade_service_pb2_grpc import RegradeServiceStub
from cinnabar.gateway.v1.review_service_pb2_grpc import ReviewServiceStub
from cinnabar.gateway.v1.submission_service_pb2 import CreateSubmissionRequest, Submission
from cinnabar.gateway.v1.submission_service_pb2_grpc import SubmissionServiceStub
from cinnabar.grader.v1.grade_pb2 import Answer, Grade
from cinnabar.grader.v1.item_pb2 import ChoiceSpec, FreeTextSpec, Item, NumericSpec, TextSpec
from cinnabar_common.channels import channel
from cinnabar_common.clock import Clock, SystemClock
from cinnabar_common.names import SubmissionName
from cinnabar_gateway.adapters.memory import MemoryChanges, MemoryQueue, MemoryStorage
from cinnabar_gateway.adapters.memory_admission import MemoryAdmissions
from cinnabar_gateway.adapters.memory_data import MemoryData
from cinnabar_gateway.adapters.model_client import ModelClient
from cinnabar_gateway.adapters.regrade_client import RegradeClient
from cinnabar_gateway.adapters.shard_client import ShardClient
from cinnabar_gateway.app import Gateway, Outside, running_with
from cinnabar_gateway.config import GatewayConfig
from cinnabar_gateway.consistency import TOKEN_KEY, Positions, TokenKeys
from cinnabar_gateway.models import ModelStates
from cinnabar_gateway.ports import HealthProbe, Queue
from cinnabar_gateway.records import SubmissionKey

if TYPE_CHECKING:  # the generated module has them for type checkers only
    from cinnabar.gateway.v1.assignment_service_pb2_grpc import AssignmentServiceAsyncStub
    from cinnabar.gateway.v1.grading_service_pb2_grpc import GradingServiceAsyncStub
    from cinnabar.gateway.v1.operations_service_pb2_grpc import OperationsServiceAsyncStub
    from cinnabar.gateway.v1.regrade_service_pb2_grpc import RegradeServiceAsyncStub
    from cinnabar.gateway.v1.review_service_pb2_grpc import ReviewServiceAsyncStub
    from cinnabar.gateway.v1.submission_service_pb2_grpc import SubmissionServiceAsyncStub

TENANT = "uni"
COURSE = "courses/net"
PARENT = "courses/net/assignments/a1"
SECRET = "a secret of the tests: long enough"
KEYS = TokenKeys((SECRET,))

Metadata = tuple[tuple[str, str], ...]


def credential(role: str, user: str, *, tenant: str = TENANT) -> Metadata:
    """Metadata that names a caller."""
    return (("authorization", f"Bearer dev.{tenant}.{role}.{user}"),)


def token_for(positions: Positions, *, tenant: str = TENANT) -> Metadata:
    """Metadata with a consistency token as the gateway makes it."""
    return ((TOKEN_KEY, KEYS.encode(tenant, positions)),)


async def token_from(call: grpc.aio.Call) -> str:
    """The token that the answer of a call came with; "" for none."""
    return str(dict(await call.initial_metadata()).get(TOKEN_KEY, ""))


STUDENT = credential("student", "ann")
OTHER_STUDENT = credential("student", "bob")
INSTRUCTOR = credential("instructor", "prof")
OPERATOR = credential("operator", "root")


def items() -> list[Item]:
    """One item of each kind: pick, count, name, explain."""
    return [
        Item(
            item="pick",
            prompt="Which of these are transport protocols?",
            points=2,
            choice=ChoiceSpec(
                options=[
                    ChoiceSpec.Option(id="tcp"),
                    ChoiceSpec.Option(id="udp"),
                    ChoiceSpec.Option(id="ip"),
                ],
                correct=["tcp", "udp"],
            ),
        ),
        Item(
            item="count",
            points=1,
            numeric=NumericSpec(
                value=1500,
                absolute_tolerance=1,
                unit="byte",
                accepted_units=[NumericSpec.AcceptedUnit(unit="bit", factor=0.125)],
            ),
        ),
        Item(item="name", points=1, text=TextSpec(accepted=["three-way handshake"])),
        Item(
            item="explain",
            points=4,
            free_text=FreeTextSpec(
                references=["The window limits what is in flight."],
                criteria=[
                    FreeTextSpec.Criterion(criterion="window", description="Names the window", points=1.5),
                    FreeTextSpec.Criterion(criterion="flight", description="Data in flight", points=2.5),
                ],
            ),
        ),
    ]


def answers() -> list[Answer]:
    """A good answer to each of ``items``."""
    return [
        Answer(item="pick", choice=Answer.Choice(options=["tcp"])),
        Answer(item="count", number=Answer.Number(value=1500, unit="byte")),
        Answer(item="name", text="three-way handshake"),
        Answer(item="explain", text="It says how much may be unacknowledged."),
    ]


def create_request(
    *, author: str = "", request_id: str = "", parent: str = PARENT
) -> CreateSubmissionRequest:
    """A good request."""
    return CreateSubmissionRequest(
        parent=parent, submission=Submission(author=author, answers=answers()), request_id=request_id
    )


@dataclass(slots=True, kw_only=True)
class World:
    """A gateway, what stands behind it, and stubs."""

    gateway: Gateway
    storage: MemoryStorage
    queue: MemoryQueue
    admissions: MemoryAdmissions
    changes: MemoryChanges
    channel: grpc.aio.Channel
    assignments: AssignmentServiceAsyncStub
    submissions: SubmissionServiceAsyncStub
    regrades: RegradeServiceAsyncStub
    reviews: ReviewServiceAsyncStub
    grading: GradingServiceAsyncStub
    operations: OperationsServiceAsyncStub

    async def assignment(self, assignment_id: str = "a1", *, metadata: Metadata = INSTRUCTOR) -> Assignment:
        """Creates an assignment of all kinds of items."""
        return await self.assignments.CreateAssignment(
            CreateAssignmentRequest(
                parent=COURSE,
                assignment=Assignment(display_name="Transport", items=items()),
                assignment_id=assignment_id,
            ),
            metadata=metadata,
        )

    async def submission(self, *, metadata: Metadata = STUDENT, author: str = "") -> Submission:
        """Creates a submission to it."""
        return await self.submissions.CreateSubmission(create_request(author=author), metadata=metadata)

    def grade(
        self,
        submission: Submission,
        item: str,
        score: float = 1.0,
        *,
        doubts: tuple[str, ...] | None = None,
        tenant: str = TENANT,
    ) -> Positions:
        """Commits a grade, as a grader's outcome would, and announces it; one with ``doubts`` waits."""
        grade = Grade(
            score=score, max_score=4, feedback="well", needs_review=doubts is not None, flags=doubts
        )
        positions = self.storage.grade(
            key_of(submission, tenant=tenant),
            item,
            score=score,
            grade=grade.SerializeToString(),
            doubts=doubts,
            max_score=4.0,
        )
        self.changes.announce([key_of(submission).submission_id], positions)
        return positions


def as_created(submission: Submission) -> Submission:
    """What was read, as the answer to its create was: that has no etag."""
    assert submission.etag
    created = Submission()
    created.CopyFrom(submission)
    created.ClearField("etag")
    return created


def key_of(submission: Submission, *, tenant: str = TENANT) -> SubmissionKey:
    """The key under which a submission is stored."""
    name = SubmissionName.parse(submission.name)
    assert name is not None
    return SubmissionKey(tenant, name.submission)


def config(**changes: object) -> GatewayConfig:
    """A configuration for tests: a free port, a watch timer that never helps."""
    settings: dict[str, object] = {
        "storage_target": "127.0.0.1:1",
        "scheduler_target": "127.0.0.1:1",
        "auth": "development",
        "token_key": (SECRET,),
        "listen": "127.0.0.1:0",
        "watch_reread_seconds": 3600.0,
        "grace_seconds": 0.2,
    }
    return GatewayConfig(**(settings | changes))  # pyright: ignore[reportArgumentType]


@asynccontextmanager
async def world(
    *,
    storage: MemoryStorage | None = None,
    queue: MemoryQueue | None = None,
    front: Queue | None = None,
    admissions: MemoryAdmissions | None = None,
    probes: tuple[HealthProbe, ...] = (),
    clock: Clock | None = None,
    models: ModelStates | None = None,
    **changes: object,
) -> AsyncGenerator[World]:
    """A gateway and its stubs; ``front`` stands before the queue, ``changes`` are settings."""
    admissions = admissions or MemoryAdmissions()
    nowhere = grpc.aio.insecure_channel("127.0.0.1:1")  # there are no regrades without storage
    storage, queue, source = storage or MemoryStorage(), queue or MemoryQueue(), MemoryChanges()
    outside = Outside(
        assignments=storage,
        submissions=storage,
        uploads=storage.uploads,
        data=MemoryData(storage),
        reviews=storage.reviews,
        waiting_reviews=storage.waiting_reviews,
        regrades=RegradeClient(nowhere, timeout_seconds=0.5),
        shards=ShardClient(nowhere, timeout_seconds=0.5),
        models=models or ModelClient(nowhere, timeout_seconds=0.5),
        queue=front or queue,
        admissions=admissions,
        changes=[source],
        probes=probes,
        clock=clock or SystemClock(),
    )
    async with (
        running_with(config(**changes), outside) as gateway,
        channel(f"127.0.0.1:{gateway.port}") as connection,
    ):
        yield World(
            gateway=gateway,
            storage=storage,
            queue=queue,
            admissions=admissions,
            changes=source,
            channel=connection,
            regrades=RegradeServiceStub(connection),
            reviews=ReviewServiceStub(connection),
            assignments=AssignmentServiceStub(connection),
            submissions=SubmissionServiceStub(connection),
            grading=GradingServiceStub(connection),
            operations=OperationsServiceStub(connection),
        )


@dataclass(frozen=True, slots=True)
class Refusal:
    """A failed call, as a client sees it."""

    code: grpc.StatusCode
    reason: str
    metadata: dict[str, str]
    fields: tuple[str, ...]
    rules: tuple[str, ...]
    message: str
    retry_after: float | None


async def refused(call: Awaitable[object]) -> Refusal:
    """The refusal of a call that must fail."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return refusal_of(error)
    raise AssertionError("it was not refused")


def refusal_of(error: grpc.aio.AioRpcError) -> Refusal:
    """Everything that our errors promise to carry."""
    status = rpc_status.from_call(error)
    assert status is not None, error
    return refusal_in(status)


def refusal_in(status: status_pb2.Status) -> Refusal:
    """The same from a status inside of a message."""
    info, bad, retry = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.BadRequest(),
        error_details_pb2.RetryInfo(),
    )
    for detail in status.details:
        for kind in (info, bad, retry):
            detail.Unpack(kind)  # does nothing for another kind
    assert info.domain == "cinnabar.dev"
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    return Refusal(
        code=code,
        reason=info.reason,
        metadata=dict(info.metadata),
        fields=tuple(violation.field for violation in bad.field_violations),
        rules=tuple(violation.description for violation in bad.field_violations),
        message=status.message,
        retry_after=retry.retry_delay.ToMicroseconds() / 1e6 if retry.HasField("retry_delay") else None,
    )
