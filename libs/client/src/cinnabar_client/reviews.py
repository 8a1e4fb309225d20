"""Calls about grades that people give, what became of grades, and the audit."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from cinnabar.gateway.v1 import operations_service_pb2 as operations_pb
from cinnabar.gateway.v1 import submission_service_pb2 as submissions_pb
from cinnabar.gateway.v1.operations_service_pb2_grpc import OperationsServiceStub
from cinnabar.gateway.v1.submission_service_pb2_grpc import SubmissionServiceStub
from cinnabar_client.connection import Connection
from cinnabar_client.pages import Page, pages

_PAGE_SIZE = 200
VERIFY_SECONDS = 600.0
"""Deadline of a verification, which reads the whole audit."""


class ReviewCalls:
    """The part of the client that these calls make up. Every method raises ApiError."""

    @property
    def _connection(self) -> Connection:
        raise RuntimeError("use the client inside of `async with`")

    async def override_grade(
        self, name: str, item: str, score: float, *, reason: str, feedback: str = "", etag: str = ""
    ) -> submissions_pb.Submission:
        """Gives an item of a submission a grade by hand; instructors only. Returns the submission after it.

        With ``etag`` (of the submission as it was read) only if nobody has graded anything of it
        meanwhile: or else ABORTED, ETAG_MISMATCH. Repeating the call is safe.
        """
        request = submissions_pb.OverrideGradeRequest(
            name=name, item=item, score=score, feedback=feedback, reason=reason, etag=etag
        )
        stub = SubmissionServiceStub(self._connection.channel)
        return await self._connection.unary(stub.OverrideGrade, request)

    async def gradings(self, name: str) -> AsyncGenerator[submissions_pb.Grading]:
        """All grades that a submission ever had, by item and generation."""
        stub = SubmissionServiceStub(self._connection.channel)

        async def page(token: str) -> Page[submissions_pb.Grading]:
            answer = await self._connection.unary(
                stub.ListGradings,
                submissions_pb.ListGradingsRequest(parent=name, page_size=_PAGE_SIZE, page_token=token),
            )
            return Page(answer.gradings, answer.next_page_token)

        async for grading in pages(page):
            yield grading

    async def audit_events(self, name: str) -> AsyncGenerator[submissions_pb.AuditEvent]:
        """What was done to a submission, oldest first; instructors only."""
        stub = SubmissionServiceStub(self._connection.channel)

        async def page(token: str) -> Page[submissions_pb.AuditEvent]:
            answer = await self._connection.unary(
                stub.ListAuditEvents,
                submissions_pb.ListAuditEventsRequest(parent=name, page_size=_PAGE_SIZE, page_token=token),
            )
            return Page(answer.events, answer.next_page_token)

        async for event in pages(page):
            yield event

    async def verify_audit(self) -> operations_pb.VerifyAuditResponse:
        """Computes all seals over the audit again; operators only. Takes a while where there is much."""
        return await self._connection.unary(
            OperationsServiceStub(self._connection.channel).VerifyAudit,
            operations_pb.VerifyAuditRequest(),
            timeout=VERIFY_SECONDS,
        )
