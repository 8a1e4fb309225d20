"""The storage service, as the domain's store of statistics and erasures."""

from __future__ import annotations

from typing import TypeVar

import grpc

from cinnabar.storage.v1 import erasure_service_pb2, statistics_service_pb2
from cinnabar.storage.v1.erasure_service_pb2_grpc import ErasureReaderServiceStub, ErasureWriterServiceStub
from cinnabar.storage.v1.statistics_service_pb2_grpc import StatisticsReaderServiceStub
from cinnabar.type.v1.error_reason_pb2 import ErrorReason
from cinnabar_common.errors import SuiteError, from_rpc_error
from cinnabar_common.names import AssignmentName, task_id
from cinnabar_gateway import deadlines
from cinnabar_gateway.adapters import storage_messages as messages
from cinnabar_gateway.consistency import Position
from cinnabar_gateway.data_ports import AssignmentScores, Erasure, Scores
from cinnabar_gateway.records import CancelledTask

_DEPENDENCY = "storage"
Q = TypeVar("Q")
A = TypeVar("A")


class DataClient:
    """Implements the port DataStore. The channel stays the caller's."""

    def __init__(self, channel: grpc.aio.Channel, *, timeout_seconds: float = 5.0) -> None:
        """No call takes longer than ``timeout_seconds``, nor than the caller's deadline."""
        self._statistics = StatisticsReaderServiceStub(channel)
        self._writer = ErasureWriterServiceStub(channel)
        self._reader = ErasureReaderServiceStub(channel)
        self._timeout = timeout_seconds

    async def _call(self, method: grpc.aio.UnaryUnaryMultiCallable[Q, A], request: Q) -> A:
        try:
            return await method(request, timeout=deadlines.within(self._timeout))
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, _DEPENDENCY) from error

    async def assignment_scores(self, tenant: str, name: AssignmentName) -> AssignmentScores:
        """See DataStore."""
        request = statistics_service_pb2.GetAssignmentScoresRequest(
            tenant=tenant, course=name.course, assignment=name.assignment
        )
        response = await self._call(self._statistics.GetAssignmentScores, request)
        scores = tuple(
            Scores(
                item=one.item_id,
                criterion=one.criterion,
                count=one.count,
                mean=one.mean,
                standard_deviation=one.standard_deviation,
                histogram=tuple(one.histogram),
            )
            for one in response.scores
        )
        return AssignmentScores(scores, response.as_of_time.ToMicroseconds(), tuple(response.unreachable))

    async def erase_student(
        self, tenant: str, student: str, *, erasure_id: str, actor: str, reason: str
    ) -> tuple[Erasure, list[CancelledTask], Position]:
        """See DataStore."""
        request = erasure_service_pb2.EraseStudentRequest(
            tenant=tenant, student=student, erasure_id=erasure_id, actor=actor, reason=reason
        )
        response = await self._call(self._writer.EraseStudent, request)
        cancelled = [
            CancelledTask(task_id(one.submission_id, one.item_id), one.queue) for one in response.cancelled
        ]
        return _erasure(response.erasure), cancelled, messages.position(response.position)

    async def get_erasure(self, tenant: str, erasure_id: str) -> Erasure | None:
        """See DataStore."""
        request = erasure_service_pb2.GetErasureRequest(tenant=tenant, erasure_id=erasure_id)
        try:
            response = await self._call(self._reader.GetErasure, request)
        except SuiteError as error:
            if error.error_reason == ErrorReason.RESOURCE_NOT_FOUND:
                return None
            raise
        return _erasure(response.erasure)


def _erasure(message: erasure_service_pb2.ErasureRecord) -> Erasure:
    return Erasure(
        erasure_id=message.erasure_id,
        subject=message.subject,
        actor=message.actor,
        reason=message.reason,
        submissions=message.submissions,
        grades=message.grades,
        objects=message.objects,
        redacted_events=message.redacted_events,
        create_time_us=message.create_time.ToMicroseconds(),
        complete_time_us=message.complete_time.ToMicroseconds() if message.done else None,
    )
