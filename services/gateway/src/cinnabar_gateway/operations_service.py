"""The public OperationsService."""

from __future__ import annotations

import grpc
from google.rpc import status_pb2

from cinnabar.gateway.v1 import operations_service_pb2 as pb
from cinnabar.gateway.v1.operations_service_pb2_grpc import OperationsServiceServicer
from cinnabar.type.v1.error_reason_pb2 import ErrorReason
from cinnabar_common import pagination
from cinnabar_common.clock import Clock
from cinnabar_common.errors import (
    DEFAULT_RETRY_SECONDS,
    FieldViolation,
    InvalidRequest,
    PageTokenInvalid,
    SuiteError,
)
from cinnabar_common.names import ID_RULE, SubmissionName, is_id, split_task_id, task_id
from cinnabar_gateway import convert, identity
from cinnabar_gateway.calls import Context
from cinnabar_gateway.identity import Identity, Role
from cinnabar_gateway.operations import Operations
from cinnabar_gateway.required import missing

MAX_REDRIVE = 1000


class SuiteUnhealthy(SuiteError):
    """{dependency} cannot be reached now: try again later"""

    code = grpc.StatusCode.UNAVAILABLE
    reason = ErrorReason.DEPENDENCY_UNAVAILABLE
    retry_seconds = DEFAULT_RETRY_SECONDS

    def __init__(self, report: pb.HealthReport) -> None:
        failed = [check.name for check in report.checks if check.status != "healthy"]
        super().__init__(dependency=", ".join(failed))
        self._report = report

    def to_status(self) -> status_pb2.Status:
        """The status of the error, with the report as one more detail."""
        status = super().to_status()
        status.details.add().Pack(self._report)
        return status


class OperationsService(OperationsServiceServicer):
    """Speaks gRPC; knows nothing of schedulers and storage."""

    def __init__(self, operations: Operations, clock: Clock) -> None:
        self._operations = operations
        self._clock = clock

    async def ListQueues(self, request: pb.ListQueuesRequest, context: Context) -> pb.ListQueuesResponse:
        _operator("queues.list")
        return pb.ListQueuesResponse(queues=map(convert.queue, await self._operations.queues()))

    async def ListDeadLetters(
        self, request: pb.ListDeadLettersRequest, context: Context
    ) -> pb.ListDeadLettersResponse:
        caller = _operator("dead_letters.list")
        if request.queue and not is_id(request.queue):
            raise InvalidRequest([FieldViolation("queue", ID_RULE)])
        limit = pagination.page_size(request.page_size)
        parameters = ("dead_letters", caller.tenant, request.queue)
        cursor = pagination.decode_token(request.page_token, *parameters)
        page = await self._operations.dead_letters(
            caller, queue=request.queue, after=_cursor(cursor), limit=limit
        )
        more = len(page) == limit
        last = task_id(page[-1].submission.submission, page[-1].task.item) if more else ""
        return pb.ListDeadLettersResponse(
            dead_letters=map(convert.dead_letter, page),
            next_page_token=pagination.encode_token(last, *parameters) if more else "",
        )

    async def RedriveDeadLetters(
        self, request: pb.RedriveDeadLettersRequest, context: Context
    ) -> pb.RedriveDeadLettersResponse:
        caller = _operator("dead_letters.redrive")
        violations = list(missing(request))
        if len(request.tasks) > MAX_REDRIVE:
            violations.append(FieldViolation("tasks", f"must be 1 to {MAX_REDRIVE}"))
        tasks: list[tuple[str, str]] = []
        for index, task in enumerate(request.tasks):
            name = SubmissionName.parse(task.submission)
            if name is not None:
                tasks.append((name.submission, task.item))
            elif task.submission:
                rule = "must be courses/{course}/assignments/{assignment}/submissions/{submission}"
                violations.append(FieldViolation(f"tasks[{index}].submission", rule))
            if task.item and not is_id(task.item):
                violations.append(FieldViolation(f"tasks[{index}].item", ID_RULE))
        if violations:
            raise InvalidRequest(violations)
        return pb.RedriveDeadLettersResponse(redriven=await self._operations.redrive(caller, tasks))

    async def GetHealth(self, request: pb.GetHealthRequest, context: Context) -> pb.HealthReport:
        verdicts = await self._operations.health()
        report = convert.health_report(verdicts, int(self._clock.time() * 1e6))
        if not all(verdict.healthy for verdict in verdicts):
            raise SuiteUnhealthy(report)
        return report


def _operator(action: str) -> Identity:
    caller = identity.current()
    caller.require(action, Role.OPERATOR)
    return caller


def _cursor(text: str) -> tuple[str, str]:
    if not text:
        return ("", "")
    try:
        return split_task_id(text)
    except ValueError as error:
        raise PageTokenInvalid from error
