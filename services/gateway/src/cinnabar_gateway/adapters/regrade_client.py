"""The storage service, as the domain's store of regrades."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar

import grpc

from cinnabar.storage.v1 import regrade_service_pb2 as pb
from cinnabar.storage.v1.regrade_service_pb2_grpc import (
    StorageRegradeReaderServiceStub,
    StorageRegradeWriterServiceStub,
)
from cinnabar.type.v1.error_reason_pb2 import ErrorReason
from cinnabar_common.errors import EtagMismatch, ResourceNotFound, StateForbids, SuiteError, from_rpc_error
from cinnabar_common.names import AssignmentName, RegradeName, SubmissionName, task_id
from cinnabar_gateway import deadlines
from cinnabar_gateway.adapters import storage_messages as messages
from cinnabar_gateway.consistency import Position
from cinnabar_gateway.records import CancelledTask, QueuedTask
from cinnabar_gateway.regrade_ports import (
    REGRADE_PRIORITY,
    Advance,
    Change,
    CriterionDelta,
    Decision,
    NewRegrade,
    Regrade,
    RegradeFilter,
    RegradeKey,
    RegradeReport,
    RegradeState,
    Reopening,
)

_DEPENDENCY = "storage"
_State = pb.RegradeRecord.State
_STATES = {_State.Value(state.name): state for state in RegradeState}
_Decision = pb.DecideRegradeRequest.Decision
Q = TypeVar("Q")
A = TypeVar("A")


class RegradeClient:
    """Implements the port RegradeStore. The channel stays the caller's."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        *,
        timeout_seconds: float = 5.0,
        report_timeout_seconds: float = 60.0,
    ) -> None:
        """No call takes longer than these, nor than the caller's deadline; a report reads every grade."""
        self._writer = StorageRegradeWriterServiceStub(channel)
        self._reader = StorageRegradeReaderServiceStub(channel)
        self._timeout = timeout_seconds
        self._report_timeout = report_timeout_seconds

    async def _call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Q, A],
        request: Q,
        resource: object,
        *,
        seconds: float | None = None,
    ) -> A:
        try:
            return await method(request, timeout=deadlines.within(seconds or self._timeout))
        except grpc.aio.AioRpcError as error:
            meant = from_rpc_error(error, _DEPENDENCY)
            raise _meant(meant, str(resource)) from error

    async def create(self, new: NewRegrade) -> tuple[Regrade, Position]:
        """See RegradeStore."""
        record = pb.RegradeRecord(
            regrade_id=new.name.regrade,
            tenant=new.tenant,
            course=new.name.course,
            assignment=new.name.assignment,
            filter=_filter_message(new.filter),
            revision_id=new.revision_id,
            shadow=new.shadow,
            reason=new.reason,
            actor=new.actor,
            priority=REGRADE_PRIORITY,
        )
        request = pb.CreateRegradeRequest(regrade=record)
        response = await self._call(self._writer.CreateRegrade, request, new.name)
        return _regrade(response.regrade), messages.position(response.position)

    async def get(self, tenant: str, name: RegradeName) -> Regrade:
        """See RegradeStore."""
        request = pb.GetRegradeRequest(
            tenant=tenant, regrade_id=name.regrade, course=name.course, assignment=name.assignment
        )
        return _regrade((await self._call(self._reader.GetRegrade, request, name)).regrade)

    async def list(self, tenant: str, parent: AssignmentName, *, before: str, limit: int) -> list[Regrade]:
        """See RegradeStore."""
        request = pb.ListRegradesRequest(
            tenant=tenant, course=parent.course, assignment=parent.assignment, before=before, limit=limit
        )
        response = await self._call(self._reader.ListRegrades, request, parent)
        return list(map(_regrade, response.regrades))

    async def decide(
        self, tenant: str, name: RegradeName, decision: Decision, actor: str
    ) -> tuple[Regrade, Position]:
        """See RegradeStore."""
        request = pb.DecideRegradeRequest(
            tenant=tenant,
            regrade_id=name.regrade,
            decision=_Decision.Value(decision.name),
            actor=actor,
            course=name.course,
            assignment=name.assignment,
        )
        response = await self._call(self._writer.DecideRegrade, request, name)
        return _regrade(response.regrade), messages.position(response.position)

    async def advance(self, key: RegradeKey, *, limit: int) -> Advance:
        """See RegradeStore."""
        request = pb.AdvanceRegradeRequest(tenant=key.tenant, regrade_id=key.regrade_id, limit=limit)
        response = await self._call(self._writer.AdvanceRegrade, request, f"regrades/{key.regrade_id}")
        return Advance(
            list(map(messages.queued_task, response.opened)),
            [CancelledTask(task_id(one.submission_id, one.item_id), one.queue) for one in response.cancelled],
            response.busy,
        )

    async def claim(self, limit: int) -> Sequence[RegradeKey]:
        """See RegradeStore."""
        request = pb.ClaimRegradesRequest(limit=limit)
        response = await self._call(self._writer.ClaimRegrades, request, "regrades")
        return [RegradeKey(one.tenant, one.regrade_id) for one in response.regrades]

    async def reopen(self, wanted: Reopening) -> tuple[list[QueuedTask], Position]:
        """See RegradeStore."""
        request = pb.RegradeSubmissionRequest(
            tenant=wanted.tenant,
            submission_id=wanted.name.submission,
            items=wanted.items,
            revision_id=wanted.revision_id,
            reason=wanted.reason,
            actor=wanted.actor,
            priority=REGRADE_PRIORITY,
            etag=wanted.etag,
        )
        response = await self._call(self._writer.RegradeSubmission, request, wanted.name)
        return list(map(messages.queued_task, response.opened)), messages.position(response.position)

    async def report(self, tenant: str, name: RegradeName, *, pass_share: float) -> RegradeReport:
        """See RegradeStore."""
        request = pb.GetRegradeReportRequest(
            tenant=tenant,
            regrade_id=name.regrade,
            course=name.course,
            assignment=name.assignment,
            pass_share=pass_share,
        )
        response = await self._call(
            self._reader.GetRegradeReport, request, name, seconds=self._report_timeout
        )
        return _report(response, name)


def _meant(error: SuiteError, resource: str) -> SuiteError:
    """The domain's word for what storage said."""
    match error.error_reason:
        case ErrorReason.RESOURCE_NOT_FOUND:
            return ResourceNotFound(resource)
        case ErrorReason.ETAG_MISMATCH:
            return EtagMismatch(resource)
        case ErrorReason.STATE_FORBIDS:
            return StateForbids(resource, error.metadata.get("state", ""))
        case _:
            return error


def _filter_message(given: RegradeFilter) -> pb.RegradeFilter:
    message = pb.RegradeFilter(authors=given.authors, items=given.items, score_below=given.score_below)
    if given.created_after_us is not None:
        message.created_after.CopyFrom(messages.timestamp(given.created_after_us))
    if given.created_before_us is not None:
        message.created_before.CopyFrom(messages.timestamp(given.created_before_us))
    return message


def _micros_if(given: pb.RegradeFilter, field: Literal["created_after", "created_before"]) -> int | None:
    return getattr(given, field).ToMicroseconds() if given.HasField(field) else None


def _regrade(record: pb.RegradeRecord) -> Regrade:
    given = record.filter
    return Regrade(
        tenant=record.tenant,
        name=RegradeName(record.course, record.assignment, record.regrade_id),
        filter=RegradeFilter(
            authors=tuple(given.authors),
            items=tuple(given.items),
            created_after_us=_micros_if(given, "created_after"),
            created_before_us=_micros_if(given, "created_before"),
            score_below=given.score_below if given.HasField("score_below") else None,
        ),
        revision_id=record.revision_id,
        shadow=record.shadow,
        reason=record.reason,
        actor=record.actor,
        state=_STATES[record.state],
        create_time_us=record.create_time.ToMicroseconds(),
        opened=record.opened,
        graded=record.graded,
        failed=record.failed,
        skipped=record.skipped,
        promoted=record.promoted,
        overtaken=record.overtaken,
    )


def _report(response: pb.GetRegradeReportResponse, name: RegradeName) -> RegradeReport:
    return RegradeReport(
        compared=response.compared,
        unchanged=response.unchanged,
        raised=response.raised,
        lowered=response.lowered,
        failed_to_passed=response.failed_to_passed,
        passed_to_failed=response.passed_to_failed,
        deltas=tuple(
            CriterionDelta(
                one.item, one.criterion, one.compared, one.mean_delta, one.rms_delta, tuple(one.histogram)
            )
            for one in response.deltas
        ),
        largest=tuple(
            Change(
                SubmissionName(name.course, name.assignment, one.submission_id),
                one.item,
                one.old_score,
                one.new_score,
                one.max_score,
            )
            for one in response.largest
        ),
    )
