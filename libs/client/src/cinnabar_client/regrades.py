"""Calls about regrades."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING

from cinnabar.gateway.v1 import regrade_service_pb2 as pb
from cinnabar.gateway.v1.regrade_service_pb2_grpc import RegradeServiceStub
from cinnabar.gateway.v1.submission_service_pb2 import RegradeSubmissionRequest, Submission
from cinnabar.gateway.v1.submission_service_pb2_grpc import SubmissionServiceStub
from cinnabar_client.connection import Connection
from cinnabar_client.pages import Page, pages

if TYPE_CHECKING:  # the generated module has it for type checkers only
    from cinnabar.gateway.v1.regrade_service_pb2_grpc import RegradeServiceAsyncStub

_PAGE_SIZE = 50
_POLL_SECONDS = 0.2
REPORT_SECONDS = 60.0
"""Deadline of a report, which reads every grade of the regrade."""
BUSY = frozenset({pb.Regrade.OPENING, pb.Regrade.GRADING, pb.Regrade.PROMOTING})
"""States that end by themselves."""


class RegradeCalls:
    """The part of the client that these calls make up. Every method raises ApiError; instructors only."""

    @property
    def _connection(self) -> Connection:
        raise RuntimeError("use the client inside of `async with`")

    @property
    def _regrades(self) -> RegradeServiceAsyncStub:
        return RegradeServiceStub(self._connection.channel)

    async def regrade_submission(
        self, name: str, *, reason: str, items: Sequence[str] = (), revision_id: str = "", etag: str = ""
    ) -> Submission:
        """Grades items of one submission again, at the lowest priority; watch it to see the new grades.

        Without ``items`` all that no person graded; without ``revision_id`` by the one that was answered.
        """
        request = RegradeSubmissionRequest(
            name=name, items=items, revision_id=revision_id, reason=reason, etag=etag
        )
        stub = SubmissionServiceStub(self._connection.channel)
        return await self._connection.unary(stub.RegradeSubmission, request)

    async def create_regrade(
        self,
        parent: str,
        *,
        reason: str,
        shadow: bool = False,
        revision_id: str = "",
        authors: Sequence[str] = (),
        items: Sequence[str] = (),
        created_after: dt.datetime | None = None,
        created_before: dt.datetime | None = None,
        score_below: float | None = None,
    ) -> pb.Regrade:
        """Starts to grade an assignment again: all of it, or what the filter takes.

        The grades of a ``shadow`` count when it is promoted. ``score_below`` is a share of an item's points.
        """
        wanted = pb.Regrade.Filter(authors=authors, items=items, score_below=score_below)
        if created_after is not None:
            wanted.created_after.FromDatetime(created_after)
        if created_before is not None:
            wanted.created_before.FromDatetime(created_before)
        regrade = pb.Regrade(filter=wanted, revision_id=revision_id, shadow=shadow, reason=reason)
        request = pb.CreateRegradeRequest(parent=parent, regrade=regrade)
        return await self._connection.unary(self._regrades.CreateRegrade, request)

    async def get_regrade(self, name: str) -> pb.Regrade:
        """How far it is."""
        return await self._connection.unary(self._regrades.GetRegrade, pb.GetRegradeRequest(name=name))

    async def list_regrades(self, parent: str) -> AsyncGenerator[pb.Regrade]:
        """All regrades of an assignment, newest first."""

        async def page(token: str) -> Page[pb.Regrade]:
            request = pb.ListRegradesRequest(parent=parent, page_size=_PAGE_SIZE, page_token=token)
            answer = await self._connection.unary(self._regrades.ListRegrades, request)
            return Page(answer.regrades, answer.next_page_token)

        async for regrade in pages(page):
            yield regrade

    async def regrade_report(self, name: str, *, pass_share: float = 0.0) -> pb.RegradeReport:
        """What it changes; an item is passed from ``pass_share`` of its points on, 0 means 0.5."""
        request = pb.GetRegradeReportRequest(name=name, pass_share=pass_share)
        return await self._connection.unary(self._regrades.GetRegradeReport, request, timeout=REPORT_SECONDS)

    async def promote_regrade(self, name: str) -> pb.Regrade:
        """Makes the grades of a shadow count, in the background. Repeating the call is safe."""
        request = pb.PromoteRegradeRequest(name=name)
        return await self._connection.unary(self._regrades.PromoteRegrade, request)

    async def discard_regrade(self, name: str) -> pb.Regrade:
        """Gives a regrade up. Repeating the call is safe."""
        request = pb.DiscardRegradeRequest(name=name)
        return await self._connection.unary(self._regrades.DiscardRegrade, request)

    async def wait_regrade(self, name: str, *, timeout: float = 600.0) -> pb.Regrade:
        """The regrade once nothing of it is under way. Raises TimeoutError after ``timeout`` seconds."""
        async with asyncio.timeout(timeout):
            while True:
                regrade = await self.get_regrade(name)
                if regrade.state not in BUSY:
                    return regrade
                await asyncio.sleep(_POLL_SECONDS)
