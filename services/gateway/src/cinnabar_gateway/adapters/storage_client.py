"""The storage service, as the domain's stores."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TypeVar

import grpc

from cinnabar.storage.v1 import revision_service_pb2
from cinnabar.storage.v1 import storage_service_pb2 as pb
from cinnabar.storage.v1.revision_service_pb2_grpc import RevisionReaderServiceStub
from cinnabar.storage.v1.storage_service_pb2_grpc import StorageReaderServiceStub, StorageWriterServiceStub
from cinnabar.type.v1.error_reason_pb2 import ErrorReason
from cinnabar_common.errors import (
    DependencyUnavailable,
    EtagMismatch,
    ResourceExists,
    ResourceNotFound,
    SuiteError,
    from_rpc_error,
)
from cinnabar_common.names import AssignmentName, task_id
from cinnabar_gateway import deadlines
from cinnabar_gateway.adapters import storage_messages as messages
from cinnabar_gateway.adapters.chunks import chunks
from cinnabar_gateway.consistency import Position, Positions
from cinnabar_gateway.records import (
    Assignment,
    AssignmentPage,
    CancelledTask,
    Committed,
    DeadLetterFilter,
    DeadLetterPage,
    Fate,
    NewSubmission,
    Redriven,
    Submission,
    SubmissionKey,
    SubmissionPage,
)

DEPENDENCY = "storage"
_MAX_CREATES = 10_000
Q = TypeVar("Q")
A = TypeVar("A")


class StorageClient:
    """Implements the ports AssignmentStore and SubmissionStore. The channel stays the caller's."""

    def __init__(self, channel: grpc.aio.Channel, *, timeout_seconds: float = 5.0) -> None:
        """No call takes longer than ``timeout_seconds``, nor than the caller's deadline."""
        self._writer = StorageWriterServiceStub(channel)
        self._reader = StorageReaderServiceStub(channel)
        self._revisions = RevisionReaderServiceStub(channel)
        self._timeout = timeout_seconds

    async def _call(self, method: grpc.aio.UnaryUnaryMultiCallable[Q, A], request: Q) -> A:
        try:
            return await method(request, timeout=deadlines.within(self._timeout))
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, DEPENDENCY) from error

    async def create_assignment(self, assignment: Assignment) -> tuple[Assignment, Position]:
        """See AssignmentStore."""
        request = pb.CreateAssignmentRequest(assignment=messages.assignment_message(assignment))
        try:
            response = await self._call(self._writer.CreateAssignment, request)
        except SuiteError as error:
            raise _meant(error, assignment.name) from error
        return messages.assignment(response.assignment), messages.position(response.position)

    async def update_assignment(
        self, assignment: Assignment, expected_revision_id: str
    ) -> tuple[Assignment, Position]:
        """See AssignmentStore."""
        request = pb.UpdateAssignmentRequest(
            assignment=messages.assignment_message(assignment), expected_revision_id=expected_revision_id
        )
        try:
            response = await self._call(self._writer.UpdateAssignment, request)
        except SuiteError as error:
            raise _meant(error, assignment.name) from error
        return messages.assignment(response.assignment), messages.position(response.position)

    async def get_assignment(
        self, tenant: str, name: AssignmentName, *, revision_id: str, min_positions: Positions
    ) -> Assignment | None:
        """See AssignmentStore."""
        key = pb.GetAssignmentsRequest.Key(
            tenant=tenant, course=name.course, assignment=name.assignment, revision_id=revision_id
        )
        request = pb.GetAssignmentsRequest(
            keys=[key], min_positions=messages.position_messages(min_positions)
        )
        response = await self._call(self._reader.GetAssignments, request)
        return messages.assignment(response.assignments[0]) if response.assignments else None

    async def list_assignments(
        self, tenant: str, course: str, *, after: str, limit: int, min_positions: Positions
    ) -> AssignmentPage:
        """See AssignmentStore."""
        request = pb.ListAssignmentsRequest(
            tenant=tenant,
            course=course,
            after=after,
            limit=limit,
            min_positions=messages.position_messages(min_positions),
        )
        response = await self._call(self._reader.ListAssignments, request)
        page = tuple(map(messages.assignment, response.assignments))
        return AssignmentPage(page, more=response.more or len(page) == limit)

    async def list_revisions(
        self, tenant: str, name: AssignmentName, *, before: str, limit: int
    ) -> list[str]:
        """See AssignmentStore."""
        request = revision_service_pb2.ListRevisionsRequest(
            tenant=tenant, course=name.course, assignment=name.assignment, before=before, limit=limit
        )
        response = await self._call(self._revisions.ListRevisions, request)
        return list(response.revision_ids)

    async def create_submissions(self, new: Sequence[NewSubmission]) -> list[Committed]:
        """See SubmissionStore."""
        parts = list(chunks(new, lambda one: len(one.answers), max_items=_MAX_CREATES))
        if len(parts) == 1:
            return await self._create(new)
        done = await asyncio.gather(*(self._create_or_not(part) for part in parts))
        return [one for part in done for one in part]

    async def _create_or_not(self, new: Sequence[NewSubmission]) -> list[Committed]:
        """A part that fails says nothing about the others."""
        try:
            return await self._create(new)
        except SuiteError:
            return [Committed(Fate.UNAVAILABLE, one.submission_id, ()) for one in new]

    async def _create(self, new: Sequence[NewSubmission]) -> list[Committed]:
        request = pb.CreateSubmissionsRequest(submissions=map(messages.new_submission_message, new))
        response = await self._call(self._writer.CreateSubmissions, request)
        positions = messages.positions(response.positions)
        fates = messages.FATES
        return [Committed(fates[one.status], one.submission_id, positions) for one in response.results]

    async def get_submissions(
        self, keys: Sequence[SubmissionKey], min_positions: Positions
    ) -> list[Submission]:
        """See SubmissionStore."""
        positions = messages.position_messages(min_positions)
        wanted = [pb.SubmissionKey(tenant=key.tenant, submission_id=key.submission_id) for key in keys]
        found: list[Submission] = []
        while wanted:
            request = pb.GetSubmissionsRequest(submissions=wanted, min_positions=positions)
            response = await self._call(self._reader.GetSubmissions, request)
            found.extend(map(messages.submission, response.submissions))
            if len(response.left_out) >= len(wanted):  # it would go on for ever
                raise DependencyUnavailable(DEPENDENCY)
            wanted = list(response.left_out)
        return found

    async def list_submissions(
        self,
        tenant: str,
        parent: AssignmentName,
        *,
        author: str,
        before: str,
        limit: int,
        min_positions: Positions,
    ) -> SubmissionPage:
        """See SubmissionStore."""
        request = pb.ListSubmissionsRequest(
            tenant=tenant,
            course=parent.course,
            assignment=parent.assignment,
            author=author,
            before=before,
            limit=limit,
            min_positions=messages.position_messages(min_positions),
        )
        response = await self._call(self._reader.ListSubmissions, request)
        page = tuple(map(messages.submission, response.submissions))
        # A storage of the release before says no more than "as many as were asked for".
        return SubmissionPage(page, response.more or len(page) == limit, tuple(response.unreachable))

    async def cancel_submission(
        self, key: SubmissionKey, actor: str
    ) -> tuple[list[CancelledTask], Positions]:
        """See SubmissionStore."""
        request = pb.CancelSubmissionsRequest(
            submissions=[pb.SubmissionKey(tenant=key.tenant, submission_id=key.submission_id)], actor=actor
        )
        response = await self._call(self._writer.CancelSubmissions, request)
        if response.unavailable:
            raise DependencyUnavailable(DEPENDENCY)
        cancelled = [
            CancelledTask(task_id(task.submission_id, task.item_id), task.queue)
            for task in response.cancelled
        ]
        return cancelled, messages.positions(response.positions)

    async def list_dead_letters(
        self, tenant: str, wanted: DeadLetterFilter, *, after: tuple[str, str], limit: int
    ) -> DeadLetterPage:
        """See SubmissionStore."""
        request = pb.ListDeadLettersRequest(
            tenant=tenant,
            queue=wanted.queue,
            course=wanted.course,
            assignment=wanted.assignment,
            reason=wanted.reason,
            after_submission_id=after[0],
            after_item_id=after[1],
            limit=limit,
        )
        if wanted.given_up_after_us is not None:
            request.given_up_after.CopyFrom(messages.timestamp(wanted.given_up_after_us))
        if wanted.given_up_before_us is not None:
            request.given_up_before.CopyFrom(messages.timestamp(wanted.given_up_before_us))
        response = await self._call(self._reader.ListDeadLetters, request)
        page = tuple(map(messages.dead_letter, response.dead_letters))
        return DeadLetterPage(page, response.more or len(page) == limit, tuple(response.unreachable))

    async def redrive(
        self,
        tenant: str,
        tasks: Sequence[tuple[str, str]],
        actor: str,
        *,
        parent: AssignmentName | None = None,
    ) -> Redriven:
        """See SubmissionStore."""
        request = pb.RedriveTasksRequest(
            tenant=tenant,
            tasks=[
                pb.RedriveTasksRequest.Task(submission_id=submission_id, item_id=item)
                for submission_id, item in tasks
            ],
            actor=actor,
            course="" if parent is None else parent.course,
            assignment="" if parent is None else parent.assignment,
        )
        response = await self._call(self._writer.RedriveTasks, request)
        return Redriven(
            list(map(messages.queued_task, response.tasks)),
            [messages.REDRIVE_FATES[result] for result in response.results],
            messages.positions(response.positions),
        )


def _meant(error: SuiteError, name: AssignmentName) -> SuiteError:
    """The domain's word for what storage said about an assignment."""
    match error.error_reason:
        case ErrorReason.RESOURCE_EXISTS:
            return ResourceExists(str(name))
        case ErrorReason.RESOURCE_NOT_FOUND:
            return ResourceNotFound(str(name))
        case ErrorReason.ETAG_MISMATCH:
            return EtagMismatch(str(name))
        case _:
            return error
