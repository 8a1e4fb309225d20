"""Erasures, over gRPC."""

from __future__ import annotations

from cinnabar.storage.v1 import erasure_service_pb2 as pb
from cinnabar.storage.v1 import erasure_service_pb2_grpc
from cinnabar_storage import responses
from cinnabar_storage.checks import require
from cinnabar_storage.privacy.erasures import Erasures
from cinnabar_storage.privacy.records import Erasure
from cinnabar_storage.service import Context


class ErasureWriter(erasure_service_pb2_grpc.ErasureWriterServiceServicer):
    """Asks for erasures."""

    def __init__(self, erasures: Erasures) -> None:
        self._erasures = erasures

    async def EraseStudent(
        self, request: pb.EraseStudentRequest, context: Context
    ) -> pb.EraseStudentResponse:
        require(request, ("tenant", "student", "erasure_id", "actor", "reason"))
        erasure, cancelled, position = await self._erasures.begin(
            request.tenant,
            request.student,
            erasure_id=request.erasure_id,
            actor=request.actor,
            reason=request.reason,
        )
        return pb.EraseStudentResponse(
            erasure=_record(erasure),
            cancelled=[
                pb.EraseStudentResponse.Cancelled(
                    submission_id=key.submission_id, item_id=key.item_id, queue=queue
                )
                for key, queue in cancelled
            ],
            position=responses.position(position),
        )


class ErasureReader(erasure_service_pb2_grpc.ErasureReaderServiceServicer):
    """Reads proofs."""

    def __init__(self, erasures: Erasures) -> None:
        self._erasures = erasures

    async def GetErasure(self, request: pb.GetErasureRequest, context: Context) -> pb.GetErasureResponse:
        require(request, ("tenant", "erasure_id"))
        found = await self._erasures.get(request.tenant, request.erasure_id)
        return pb.GetErasureResponse(erasure=_record(found))


def _record(given: Erasure) -> pb.ErasureRecord:
    return pb.ErasureRecord(
        erasure_id=given.erasure_id,
        tenant=given.tenant,
        subject=given.subject,
        actor=given.actor,
        reason=given.reason,
        done=given.done,
        submissions=given.submissions,
        grades=given.grades,
        objects=given.objects,
        redacted_events=given.redacted_events,
        create_time=responses.timestamp(given.create_time),
        complete_time=None if given.complete_time is None else responses.timestamp(given.complete_time),
    )
