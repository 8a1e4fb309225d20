"""The gateway on the real storage service and scheduler, with a real rules grader, all in this process."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from cinnabar.gateway.v1.assignment_service_pb2 import Assignment, CreateAssignmentRequest
from cinnabar.gateway.v1.assignment_service_pb2_grpc import AssignmentServiceStub
from cinnabar.gateway.v1.operations_service_pb2_grpc import OperationsServiceStub
from cinnabar.gateway.v1.regrade_service_pb2_grpc import RegradeServiceStub
from cinnabar.gateway.v1.submission_service_pb2 import CreateSubmissionRequest, Submission
from cinnabar.gateway.v1.submission_service_pb2_grpc import SubmissionServiceStub
from cinnabar_common.channels import channel
from cinnabar_gateway.app import running as gateway_running
from cinnabar_gateway.config import GatewayConfig
from cinnabar_grader.app import running as grader_running
from cinnabar_grader.config import GraderConfig
from cinnabar_local.ports import Ports
from cinnabar_scheduler.app import running as scheduler_running
from cinnabar_scheduler.config import SchedulerConfig
from tests.support.gateway_world import COURSE, INSTRUCTOR, SECRET, answers, items

if TYPE_CHECKING:
    from cinnabar.gateway.v1.assignment_service_pb2_grpc import AssignmentServiceAsyncStub
    from cinnabar.gateway.v1.operations_service_pb2_grpc import OperationsServiceAsyncStub
    from cinnabar.gateway.v1.regrade_service_pb2_grpc import RegradeServiceAsyncStub
    from cinnabar.gateway.v1.submission_service_pb2_grpc import SubmissionServiceAsyncStub

PARENT = f"{COURSE}/assignments/rules"
_RULES = ("choice", "numeric", "text")


@dataclass(frozen=True, slots=True, kw_only=True)
class Real:
    """Stubs of a gateway, and how to start what stands behind it."""

    address: str
    channel: grpc.aio.Channel
    assignments: AssignmentServiceAsyncStub
    submissions: SubmissionServiceAsyncStub
    operations: OperationsServiceAsyncStub
    regrades: RegradeServiceAsyncStub
    scheduler_target: str
    redis_url: str
    storage_target: str

    async def assignment(self) -> Assignment:
        """Creates an assignment of the items that rules grade."""
        return await self.assignments.CreateAssignment(
            CreateAssignmentRequest(
                parent=COURSE, assignment=Assignment(items=items()[:3]), assignment_id="rules"
            ),
            metadata=INSTRUCTOR,
        )

    def scheduler(self) -> AbstractAsyncContextManager[object]:
        """A scheduler at the address that the gateway expects it at."""
        return scheduler_running(
            SchedulerConfig(
                redis_url=self.redis_url, storage_target=self.storage_target, listen=self.scheduler_target
            )
        )

    def grader(self) -> AbstractAsyncContextManager[object]:
        """A grader for the items that rules grade."""
        return grader_running(
            GraderConfig(scheduler_target=self.scheduler_target, listen="127.0.0.1:0", queues=_RULES)
        )


def create_request(author: str = "", request_id: str = "") -> CreateSubmissionRequest:
    """A submission to it that earns 2 of 4 points: only one of two right options is chosen."""
    return CreateSubmissionRequest(
        parent=PARENT, submission=Submission(author=author, answers=answers()[:3]), request_id=request_id
    )


@asynccontextmanager
async def real_gateway(storage_target: str, redis_url: str, **settings: float) -> AsyncGenerator[Real]:
    """A gateway whose scheduler is not started yet; ``settings`` are fields of GatewayConfig."""
    target = f"127.0.0.1:{Ports().of('scheduler')}"
    config = GatewayConfig(
        storage_target=storage_target,
        scheduler_target=target,
        auth="development",
        token_key=(SECRET,),
        listen="127.0.0.1:0",
        **{"grace_seconds": 0.5, **settings},  # pyright: ignore[reportArgumentType]
    )
    async with gateway_running(config) as port, channel(f"127.0.0.1:{port}") as connection:
        yield Real(
            address=f"127.0.0.1:{port}",
            channel=connection,
            assignments=AssignmentServiceStub(connection),
            submissions=SubmissionServiceStub(connection),
            operations=OperationsServiceStub(connection),
            regrades=RegradeServiceStub(connection),
            scheduler_target=target,
            redis_url=redis_url,
            storage_target=storage_target,
        )
