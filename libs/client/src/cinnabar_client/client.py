"""The typed client of Cinnabar's public API."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self
from uuid import uuid4

import grpc
from google.protobuf.field_mask_pb2 import FieldMask

from cinnabar.gateway.v1 import assignment_service_pb2 as assignments_pb
from cinnabar.gateway.v1 import operations_service_pb2 as operations_pb
from cinnabar.gateway.v1 import submission_service_pb2 as submissions_pb
from cinnabar.gateway.v1.assignment_service_pb2 import Assignment
from cinnabar.gateway.v1.assignment_service_pb2_grpc import AssignmentServiceStub
from cinnabar.gateway.v1.operations_service_pb2_grpc import OperationsServiceStub
from cinnabar.gateway.v1.submission_service_pb2 import CreateSubmissionRequest, Submission
from cinnabar.gateway.v1.submission_service_pb2_grpc import SubmissionServiceStub
from cinnabar.grader.v1.grade_pb2 import Answer
from cinnabar_client import convert, uploads, watching
from cinnabar_client.connection import Connection, open_channel
from cinnabar_client.consistency import Tokens
from cinnabar_client.data import DataCalls
from cinnabar_client.errors import ApiError, detail_of, from_rpc, from_status
from cinnabar_client.models import ModelCalls
from cinnabar_client.pages import Page, pages
from cinnabar_client.patience import DEFAULT_PATIENCE_SECONDS
from cinnabar_client.regrades import RegradeCalls
from cinnabar_client.reviews import ReviewCalls
from cinnabar_client.shards import ShardCalls
from cinnabar_client.submitting import BATCH, IN_FLIGHT, Outbox, SubmitResult, Submitter
from cinnabar_client.waiting_reviews import WaitingReviewCalls

if TYPE_CHECKING:  # the generated module has it for type checkers only
    from cinnabar.gateway.v1.operations_service_pb2_grpc import OperationsServiceAsyncStub

DEFAULT_TIMEOUT_SECONDS = 10.0
_PAGE_SIZE = 500
MAX_REDRIVE = 1000
"""Dead letters that one call redrives."""


@dataclass(frozen=True, slots=True)
class RefusedRedrive:
    """A task that was not redriven, and why: it is no dead letter, or its shard is away."""

    submission: str
    item: str
    error: ApiError

    def to_json(self) -> dict[str, object]:
        """The refusal as one JSON object."""
        return {"submission": self.submission, "item": self.item, "error": self.error.to_json()}


@dataclass(frozen=True, slots=True)
class Redriven:
    """How many dead letters are queued again, what was refused, and whether a filter lists more.

    ``unreachable`` are the shards whose dead letters were not looked at.
    """

    redriven: int
    refused: Sequence[RefusedRedrive]
    more: bool
    unreachable: Sequence[str] = ()


class Client(DataCalls, ModelCalls, RegradeCalls, ReviewCalls, ShardCalls, WaitingReviewCalls):
    """One connection to the suite; ``async with Client("host:port", token=…) as client``.

    ``timeout`` is the deadline of each call in seconds. Reads, and creates (which always carry a request
    id), are tried up to five times within it while the answer is UNAVAILABLE. ``patience`` is how many
    seconds ``submit_many``, ``watch`` and ``wait_graded`` put up with the same trouble, and all calls with
    rate limits and other refusals that ask to come back.

    Every method raises ApiError. Reads show at least what this client has written, whatever replica answers;
    ``consistency_token`` is that of another client, whose writes shall show too. With ``read_own_writes``
    off nothing of this is carried, and reads may be a little behind.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str = "",
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        patience: float = DEFAULT_PATIENCE_SECONDS,
        read_own_writes: bool = True,
        consistency_token: str = "",
    ) -> None:
        self._address = address
        self._token = token
        self._timeout = timeout
        self._patience = patience
        self._tokens = Tokens(consistency_token, carried=read_own_writes)
        self._opened: Connection | None = None

    async def __aenter__(self) -> Self:
        self._opened = Connection(
            open_channel(self._address),
            token=self._token,
            timeout=self._timeout,
            patience=self._patience,
            tokens=self._tokens,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        connection, self._opened = self._connection, None
        await connection.channel.close()

    @property
    def _connection(self) -> Connection:
        if self._opened is None:
            raise RuntimeError("use the client inside of `async with`")
        return self._opened

    @property
    def consistency_token(self) -> str:
        """Stands for all that this client has written; "" for nothing. Who observes it sees that too.

        It is opaque, and good for callers of the same tenant.
        """
        return self._tokens.exported

    def observe(self, consistency_token: str) -> None:
        """From now on reads also show what ``consistency_token`` of another client stands for."""
        self._tokens.add(consistency_token)

    # Assignments

    async def create_assignment(
        self, course: str, assignment: Assignment | Mapping[str, object], *, assignment_id: str = ""
    ) -> Assignment:
        """Creates an assignment, from the message or from plain data as in a YAML file.

        The id is taken from ``assignment_id``, or the data's ``assignment``; the service makes one
        otherwise. Raises InvalidInput too.
        """
        if not isinstance(assignment, Assignment):
            draft = convert.drafts(dict(assignment))[0]
            assignment, assignment_id = draft.assignment, assignment_id or draft.assignment_id
        return await self._connection.unary(
            AssignmentServiceStub(self._connection.channel).CreateAssignment,
            assignments_pb.CreateAssignmentRequest(
                parent=f"courses/{course}", assignment=assignment, assignment_id=assignment_id
            ),
        )

    async def get_assignment(self, name: str) -> Assignment:
        """The assignment in its current revision."""
        return await self._connection.unary(
            AssignmentServiceStub(self._connection.channel).GetAssignment,
            assignments_pb.GetAssignmentRequest(name=name),
        )

    async def list_assignments(self, course: str) -> AsyncGenerator[Assignment]:
        """All assignments of a course, by id."""
        stub = AssignmentServiceStub(self._connection.channel)

        async def page(token: str) -> Page[Assignment]:
            answer = await self._connection.unary(
                stub.ListAssignments,
                assignments_pb.ListAssignmentsRequest(
                    parent=f"courses/{course}", page_size=_PAGE_SIZE, page_token=token
                ),
            )
            return Page(answer.assignments, answer.next_page_token)

        async for assignment in pages(page):
            yield assignment

    async def update_assignment(self, assignment: Assignment, *, fields: Sequence[str] = ()) -> Assignment:
        """Makes a new revision with ``fields`` of ``assignment``, by default those that are set.

        An etag in it refuses to overwrite somebody else's change (ABORTED / ETAG_MISMATCH).
        """
        return await self._connection.unary(
            AssignmentServiceStub(self._connection.channel).UpdateAssignment,
            assignments_pb.UpdateAssignmentRequest(
                assignment=assignment, update_mask=FieldMask(paths=fields) if fields else None
            ),
        )

    # Submissions

    async def submit(
        self,
        parent: str,
        answers: Sequence[Answer],
        *,
        author: str = "",
        request_id: str = "",
        priority: Submission.Priority.ValueType = Submission.PRIORITY_UNSPECIFIED,
        grade_after: dt.datetime | None = None,
        grade_by: dt.datetime | None = None,
    ) -> Submission:
        """Hands in one submission; when this returns it is accepted and will be graded.

        ``author`` may stay empty for a student. With the same ``request_id`` (made here when empty) the call
        may be repeated. It is graded at ``grade_after`` or later, and what has no grade at ``grade_by`` is
        given up. The answer's ``estimate`` says when to expect the grades. Raises InvalidInput too.
        """
        request = convert.submission_request(
            parent,
            answers,
            author=author,
            request_id=request_id or uuid4().hex,
            priority=priority,
            grade_after=grade_after,
            grade_by=grade_by,
        )
        return await self._connection.unary(
            SubmissionServiceStub(self._connection.channel).CreateSubmission, request
        )

    def submit_many(
        self,
        requests: Iterable[CreateSubmissionRequest] | AsyncIterable[CreateSubmissionRequest],
        *,
        batch: int = BATCH,
        in_flight: int = IN_FLIGHT,
    ) -> AsyncGenerator[SubmitResult]:
        """Hands in many over one stream; one result for each, in any order, as they come.

        Up to ``batch`` go into a message and ``in_flight`` messages wait for their acknowledgement; the
        source is read no faster than that. Refusals that may pass (UNAVAILABLE, RESOURCE_EXHAUSTED, a lost
        connection) are tried again by themselves within the client's patience, other refusals are results.
        Leave the loop early only through ``contextlib.aclosing``.
        """
        outbox = Outbox(batch=batch, in_flight=in_flight, patience=self._patience)
        return Submitter(self._connection, outbox, patience=self._patience).results(requests)

    async def get_submission(self, name: str) -> Submission:
        """The submission with the grades it has."""
        return await self._connection.unary(
            SubmissionServiceStub(self._connection.channel).GetSubmission,
            submissions_pb.GetSubmissionRequest(name=name),
        )

    async def list_submissions(self, parent: str, *, author: str = "") -> AsyncGenerator[Submission]:
        """All submissions of an assignment (of one author), newest first.

        When a part of them cannot be reached, the others are given, and then ApiError is raised: UNAVAILABLE,
        with what is missing as ``metadata["unreachable"]``.
        """
        stub = SubmissionServiceStub(self._connection.channel)

        async def page(token: str) -> Page[Submission]:
            answer = await self._connection.unary(
                stub.ListSubmissions,
                submissions_pb.ListSubmissionsRequest(
                    parent=parent, author=author, page_size=_PAGE_SIZE, page_token=token
                ),
            )
            return Page(answer.submissions, answer.next_page_token, answer.unreachable)

        async for submission in pages(page):
            yield submission

    def watch(self, name: str) -> AsyncGenerator[Submission]:
        """Each new state of a submission, the present one first, until it is graded, cancelled or failed.

        Connects again by itself. A failed one that an operator redrives can be watched again.
        """
        return watching.watch(self._connection, name, patience=self._patience)

    async def wait_graded(self, name: str, *, timeout: float = 60.0) -> Submission:
        """The submission once it is final (graded, cancelled or failed).

        Raises TimeoutError after ``timeout`` seconds.
        """
        async with asyncio.timeout(timeout):
            return await watching.final_state(self._connection, name, patience=self._patience)

    def wait_all_graded(
        self, names: Iterable[str] | AsyncIterable[str], *, concurrency: int = 64
    ) -> AsyncGenerator[Submission]:
        """Each of ``names`` once it is final, in any order; at most ``concurrency`` are watched at once.

        Bound it with ``asyncio.timeout``; leave the loop early only through ``contextlib.aclosing``.
        """
        return watching.final_states(
            self._connection, names, concurrency=concurrency, patience=self._patience
        )

    async def cancel(self, name: str) -> Submission:
        """Cancels what is not graded yet."""
        return await self._connection.unary(
            SubmissionServiceStub(self._connection.channel).CancelSubmission,
            submissions_pb.CancelSubmissionRequest(name=name),
        )

    # Files

    async def upload(
        self,
        parent: str,
        item: str,
        content: bytes,
        *,
        content_type: str = "text/plain",
        author: str = "",
    ) -> submissions_pb.Upload:
        """Uploads the answer to an item of an assignment, 1 byte to 16 MiB, past the suite.

        Hand it in soon, as ``Answer(item=item, file=Answer.File(upload=upload.name))``: it is gone at its
        ``expire_time`` otherwise.
        """
        return await uploads.upload(
            self._connection, parent, item, content, content_type=content_type, author=author
        )

    async def download(self, name: str) -> bytes:
        """What an uploaded answer or an artifact of a grader holds, compared with its checksum."""
        content, _ = await uploads.download(self._connection, name)
        return content

    # Operations

    @property
    def _operations(self) -> OperationsServiceAsyncStub:
        return OperationsServiceStub(self._connection.channel)

    async def queues(self) -> Sequence[operations_pb.Queue]:
        """All queues by name."""
        answer = await self._connection.unary(self._operations.ListQueues, operations_pb.ListQueuesRequest())
        return answer.queues

    async def pause_queue(self, queue: str) -> operations_pb.Queue:
        """Lets the tasks of a queue wait; submissions are still accepted."""
        return await self._connection.unary(
            self._operations.PauseQueue, operations_pb.PauseQueueRequest(queue=queue)
        )

    async def resume_queue(self, queue: str) -> operations_pb.Queue:
        """Ends a pause or a drain."""
        return await self._connection.unary(
            self._operations.ResumeQueue, operations_pb.ResumeQueueRequest(queue=queue)
        )

    async def drain_queue(self, queue: str) -> operations_pb.Queue:
        """Has the tasks of a queue graded, and new submissions that need it refused."""
        return await self._connection.unary(
            self._operations.DrainQueue, operations_pb.DrainQueueRequest(queue=queue)
        )

    async def conservation(self) -> operations_pb.Conservation:
        """Where every accepted task is, of all tenants."""
        return await self._connection.unary(
            self._operations.GetConservation, operations_pb.GetConservationRequest()
        )

    async def dead_letters(
        self, *, queue: str = "", parent: str = "", reason: str = ""
    ) -> AsyncGenerator[operations_pb.DeadLetter]:
        """Tasks that were given up: of one queue, of a course or assignment, whose reason contains a text.

        Ends like ``list_submissions`` when a part of them cannot be reached.
        """

        async def page(token: str) -> Page[operations_pb.DeadLetter]:
            request = operations_pb.ListDeadLettersRequest(
                queue=queue, parent=parent, reason=reason, page_size=_PAGE_SIZE, page_token=token
            )
            answer = await self._connection.unary(self._operations.ListDeadLetters, request)
            return Page(answer.dead_letters, answer.next_page_token, answer.unreachable)

        async for letter in pages(page):
            yield letter

    async def redrive(self, tasks: Sequence[tuple[str, str]]) -> Redriven:
        """Gives dead letters another chance, up to 1,000 pairs of submission name and item id."""
        return await self._redrive(
            operations_pb.RedriveDeadLettersRequest(
                tasks=[
                    operations_pb.RedriveDeadLettersRequest.Task(submission=submission, item=item)
                    for submission, item in tasks
                ]
            )
        )

    async def redrive_where(self, *, queue: str = "", parent: str = "", reason: str = "") -> Redriven:
        """Gives the first 1,000 dead letters of a filter another chance; ``more`` says to call again."""
        wanted = operations_pb.ListDeadLettersRequest(queue=queue, parent=parent, reason=reason)
        return await self._redrive(operations_pb.RedriveDeadLettersRequest(filter=wanted))

    async def _redrive(self, request: operations_pb.RedriveDeadLettersRequest) -> Redriven:
        answer = await self._connection.unary(self._operations.RedriveDeadLetters, request)
        refused = [
            RefusedRedrive(refusal.task.submission, refusal.task.item, from_status(refusal.error))
            for refusal in answer.refused
        ]
        return Redriven(answer.redriven, refused, answer.more, tuple(answer.unreachable))

    async def health(self) -> operations_pb.HealthReport:
        """The health of the suite; a report also when it is bad. ApiError when there is no report."""
        try:
            return await self._operations.GetHealth(
                operations_pb.GetHealthRequest(),
                timeout=self._connection.timeout,
                metadata=self._connection.metadata(),
            )
        except grpc.aio.AioRpcError as error:
            report = operations_pb.HealthReport()
            if detail_of(error, report):
                return report
            raise from_rpc(error) from error
