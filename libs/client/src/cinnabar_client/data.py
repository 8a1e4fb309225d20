"""Calls about data at rest: grades as a file and in numbers, and erasure."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Literal

from cinnabar.gateway.v1 import assignment_service_pb2 as assignments_pb
from cinnabar.gateway.v1 import operations_service_pb2 as operations_pb
from cinnabar.gateway.v1.assignment_service_pb2_grpc import AssignmentServiceStub
from cinnabar.gateway.v1.operations_service_pb2_grpc import OperationsServiceStub
from cinnabar_client.connection import Connection

ExportFormat = Literal["csv", "gradescope"]
_FORMATS: dict[ExportFormat, assignments_pb.ExportGradesRequest.Format.ValueType] = {
    "csv": assignments_pb.ExportGradesRequest.CSV,
    "gradescope": assignments_pb.ExportGradesRequest.GRADESCOPE,
}


class DataCalls:
    """The part of the client that these calls make up. Every method raises ApiError."""

    @property
    def _connection(self) -> Connection:
        raise RuntimeError("use the client inside of `async with`")

    async def export_grades(
        self, name: str, *, form: ExportFormat = "csv", latest_only: bool = False
    ) -> AsyncGenerator[bytes]:
        """The grades of an assignment as a file, in parts; with ``latest_only`` of each student the newest.

        The file is complete when this ends without an error. Leave it early only through
        ``contextlib.aclosing``.
        """
        request = assignments_pb.ExportGradesRequest(
            name=name, format=_FORMATS[form], latest_only=latest_only
        )
        stub = AssignmentServiceStub(self._connection.channel)
        async for part in self._connection.stream(stub.ExportGrades, request):
            yield part.data

    async def statistics(self, name: str) -> assignments_pb.AssignmentStatistics:
        """The grades of an assignment in numbers; a little behind, as its ``as_of_time`` says."""
        return await self._connection.unary(
            AssignmentServiceStub(self._connection.channel).GetAssignmentStatistics,
            assignments_pb.GetAssignmentStatisticsRequest(name=name),
        )

    async def erase_student(self, student: str, *, reason: str) -> operations_pb.Erasure:
        """Begins to erase everything about a student; ``get_erasure`` tells how far it is.

        The reason stays in the proof, and must not name the student.
        """
        return await self._connection.unary(
            OperationsServiceStub(self._connection.channel).EraseStudent,
            operations_pb.EraseStudentRequest(student=student, reason=reason),
        )

    async def get_erasure(self, name: str) -> operations_pb.Erasure:
        """The proof of an erasure, or how far it is; ``name`` is "erasures/{erasure}"."""
        return await self._connection.unary(
            OperationsServiceStub(self._connection.channel).GetErasure,
            operations_pb.GetErasureRequest(name=name),
        )
