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
    DependencyUnavailable,
    FieldViolation,
    InvalidRequest,
    PageTokenInvalid,
    ResourceNotFound,
    StateForbids,
    SuiteError,
)
from cinnabar_common.names import ID_RULE, SubmissionName, is_id, split_task_id, task_id
from cinnabar_gateway import (
    convert,
    data_convert,
    dead_letter_filters,
    identity,
    model_convert,
    shard_convert,
)
from cinnabar_gateway.calls import Context, send_positions
from cinnabar_gateway.erasures import Erasures
from cinnabar_gateway.identity import Identity, Role
from cinnabar_gateway.models import ModelStates
from cinnabar_gateway.operations import MAX_REDRIVE, Operations
from cinnabar_gateway.records import QueueState, RedriveFate
from cinnabar_gateway.required import REQUIRED_RULE, missing
from cinnabar_gateway.review_service import ReviewCalls
from cinnabar_gateway.shards import ShardStore

_ONE_OF_RULE = "must be given, or else a filter, and not both"
_FORBIDDEN = {
    RedriveFate.OPEN: "OPEN",
    RedriveFate.CANCELLED: "CANCELLED",
    RedriveFate.GRADED: "GRADED",
}


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

    def __init__(
        self,
        operations: Operations,
        clock: Clock,
        reviews: ReviewCalls,
        erasures: Erasures,
        shards: ShardStore,
        models: ModelStates,
    ) -> None:
        self._shards = shards
        self._models = models
        self._operations = operations
        self._reviews = reviews
        self._erasures = erasures
        self._clock = clock

    async def ListQueues(self, request: pb.ListQueuesRequest, context: Context) -> pb.ListQueuesResponse:
        _operator("queues.list")
        return pb.ListQueuesResponse(queues=map(convert.queue, await self._operations.queues()))

    async def PauseQueue(self, request: pb.PauseQueueRequest, context: Context) -> pb.Queue:
        return await self._control("queues.pause", request.queue, QueueState.PAUSED)

    async def ResumeQueue(self, request: pb.ResumeQueueRequest, context: Context) -> pb.Queue:
        return await self._control("queues.resume", request.queue, QueueState.RUNNING)

    async def DrainQueue(self, request: pb.DrainQueueRequest, context: Context) -> pb.Queue:
        return await self._control("queues.drain", request.queue, QueueState.DRAINING)

    async def _control(self, action: str, queue: str, state: QueueState) -> pb.Queue:
        caller = _operator(action)
        if not is_id(queue):
            raise InvalidRequest([FieldViolation("queue", ID_RULE if queue else REQUIRED_RULE)])
        return convert.queue(await self._operations.control(caller, queue, state))

    async def GetConservation(self, request: pb.GetConservationRequest, context: Context) -> pb.Conservation:
        _operator("conservation.get")
        return convert.conservation(await self._operations.conservation())

    async def ListDeadLetters(
        self, request: pb.ListDeadLettersRequest, context: Context
    ) -> pb.ListDeadLettersResponse:
        caller = _operator("dead_letters.list")
        if violations := list(dead_letter_filters.violations(request)):
            raise InvalidRequest(violations)
        limit = pagination.page_size(request.page_size)
        parameters = ("dead_letters", caller.tenant, *dead_letter_filters.parameters(request))
        cursor = pagination.decode_token(request.page_token, *parameters)
        page = await self._operations.dead_letters(
            caller, dead_letter_filters.wanted(request), after=_cursor(cursor), limit=limit
        )
        last = page.letters[-1] if page.more else None
        cursor = task_id(last.submission.submission, last.task.item) if last is not None else ""
        return pb.ListDeadLettersResponse(
            dead_letters=map(convert.dead_letter, page.letters),
            next_page_token=pagination.encode_token(cursor, *parameters) if cursor else "",
            unreachable=map(convert.shard_name, page.unreachable),
        )

    async def RedriveDeadLetters(
        self, request: pb.RedriveDeadLettersRequest, context: Context
    ) -> pb.RedriveDeadLettersResponse:
        caller = _operator("dead_letters.redrive")
        if bool(request.tasks) == request.HasField("filter"):
            raise InvalidRequest(
                [FieldViolation("tasks", _ONE_OF_RULE), FieldViolation("filter", "excludes tasks")]
            )
        if request.HasField("filter"):
            return await self._redrive_all(caller, request.filter, context)
        tasks = _named_tasks(request)
        fates, positions = await self._operations.redrive(caller, tasks)
        await send_positions(context, positions)
        return pb.RedriveDeadLettersResponse(
            redriven=fates.count(RedriveFate.REDRIVEN),
            refused=[
                _refusal(task, fate)
                for task, fate in zip(request.tasks, fates, strict=True)
                if fate is not RedriveFate.REDRIVEN
            ],
        )

    async def _redrive_all(
        self, caller: Identity, wanted: pb.ListDeadLettersRequest, context: Context
    ) -> pb.RedriveDeadLettersResponse:
        violations = list(dead_letter_filters.violations(wanted, "filter"))
        violations += [
            FieldViolation(f"filter.{field}", "must be empty")
            for field in ("page_size", "page_token")
            if getattr(wanted, field)
        ]
        if violations:
            raise InvalidRequest(violations)
        done = await self._operations.redrive_all(caller, dead_letter_filters.wanted(wanted))
        await send_positions(context, done.positions)
        return pb.RedriveDeadLettersResponse(
            redriven=sum(fate is RedriveFate.REDRIVEN for _, fate in done.fates),
            # Nobody named these: only those that still are dead letters were not redriven.
            refused=[
                _refusal(
                    pb.RedriveDeadLettersRequest.Task(
                        submission=str(letter.submission), item=letter.task.item
                    ),
                    fate,
                )
                for letter, fate in done.fates
                if fate is RedriveFate.UNAVAILABLE
            ],
            more=done.more,
            unreachable=map(convert.shard_name, done.unreachable),
        )

    async def VerifyAudit(self, request: pb.VerifyAuditRequest, context: Context) -> pb.VerifyAuditResponse:
        _operator("audit.verify")
        return await self._reviews.verify()

    async def ListShards(self, request: pb.ListShardsRequest, context: Context) -> pb.ListShardsResponse:
        _operator("shards.list")
        return shard_convert.shards(await self._shards.shards())

    async def RebalanceShards(
        self, request: pb.RebalanceShardsRequest, context: Context
    ) -> pb.ListShardsResponse:
        actor = _actor(_operator("shards.rebalance"))
        return shard_convert.shards(await self._shards.rebalance(request.drained_shards, actor))

    async def MoveBuckets(self, request: pb.MoveBucketsRequest, context: Context) -> pb.ListShardsResponse:
        actor = _actor(_operator("shards.move"))
        return shard_convert.shards(await self._shards.move_buckets(request.buckets, request.to_shard, actor))

    async def ListModelProviders(
        self, request: pb.ListModelProvidersRequest, context: Context
    ) -> pb.ListModelProvidersResponse:
        caller = _operator("models.list")
        return model_convert.models(await self._models.providers(), await self._models.budgets(caller.tenant))

    async def EraseStudent(self, request: pb.EraseStudentRequest, context: Context) -> pb.Erasure:
        caller = _operator("students.erase")
        student, reason = data_convert.erase_request(request)
        erasure, position = await self._erasures.erase(caller, student, reason)
        await send_positions(context, (position,))
        return data_convert.erasure(erasure)

    async def GetErasure(self, request: pb.GetErasureRequest, context: Context) -> pb.Erasure:
        caller = _operator("erasures.get")
        erasure_id = data_convert.erasure_id(request.name)
        return data_convert.erasure(await self._erasures.get(caller, erasure_id))

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


def _actor(caller: Identity) -> str:
    """Shards belong to all tenants, so the audit needs the operator's own."""
    return f"{caller.tenant}/{caller.actor}"


def _named_tasks(request: pb.RedriveDeadLettersRequest) -> list[tuple[SubmissionName, str]]:
    """(submission, item id) of each task. InvalidRequest."""
    violations = list(missing(request))
    if len(request.tasks) > MAX_REDRIVE:
        violations.append(FieldViolation("tasks", f"must be 1 to {MAX_REDRIVE}"))
    tasks: list[tuple[SubmissionName, str]] = []
    for index, task in enumerate(request.tasks):
        name = SubmissionName.parse(task.submission)
        if name is not None:
            tasks.append((name, task.item))
        elif task.submission:
            rule = "must be courses/{course}/assignments/{assignment}/submissions/{submission}"
            violations.append(FieldViolation(f"tasks[{index}].submission", rule))
        if task.item and not is_id(task.item):
            violations.append(FieldViolation(f"tasks[{index}].item", ID_RULE))
    if violations:
        raise InvalidRequest(violations)
    return tasks


def _refusal(
    task: pb.RedriveDeadLettersRequest.Task, fate: RedriveFate
) -> pb.RedriveDeadLettersResponse.Refusal:
    resource = f"{task.submission}/items/{task.item}"
    error: SuiteError
    if fate is RedriveFate.UNAVAILABLE:
        error = DependencyUnavailable("storage")
    elif (state := _FORBIDDEN.get(fate)) is not None:
        error = StateForbids(resource, state)
    else:
        error = ResourceNotFound(resource)
    return pb.RedriveDeadLettersResponse.Refusal(task=task, error=error.to_status())


def _cursor(text: str) -> tuple[str, str]:
    if not text:
        return ("", "")
    try:
        return split_task_id(text)
    except ValueError as error:
        raise PageTokenInvalid from error
