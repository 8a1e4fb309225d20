"""The public API in memory, for tests of the client: it grades at once, and fails when a test says so.

It speaks through the real server plumbing (errors, deadlines, health), so that what a client sees of a
refusal is what a real gateway sends.
"""

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from cinnabar.gateway.v1 import assignment_service_pb2 as assignments_pb
from cinnabar.gateway.v1 import assignment_service_pb2_grpc as assignments_grpc
from cinnabar.gateway.v1 import operations_service_pb2 as operations_pb
from cinnabar.gateway.v1 import operations_service_pb2_grpc as operations_grpc
from cinnabar.gateway.v1 import submission_service_pb2 as submissions_pb
from cinnabar.gateway.v1 import submission_service_pb2_grpc as submissions_grpc
from cinnabar.gateway.v1.assignment_service_pb2 import Assignment
from cinnabar.gateway.v1.operations_service_pb2 import Queue
from cinnabar.gateway.v1.submission_service_pb2 import (
    CreateSubmissionRequest,
    CreateSubmissionResult,
    ItemResult,
    Submission,
)
from cinnabar.grader.v1.grade_pb2 import CriterionScore, Grade, Provenance
from cinnabar_common.errors import (
    FieldViolation,
    InvalidRequest,
    RequestIdReused,
    ResourceExists,
    ResourceNotFound,
    SuiteError,
)
from cinnabar_common.health import HealthBoard
from cinnabar_common.server import serving

Context = grpc.aio.ServicerContext[Any, Any]
TOKEN = "cinnabar-consistency-token"


@dataclass
class MemoryGateway(
    assignments_grpc.AssignmentServiceServicer,
    submissions_grpc.SubmissionServiceServicer,
    operations_grpc.OperationsServiceServicer,
):
    """``failures[method]`` are raised by its next calls (items, for the stream), one each.

    ``drops[method]`` says how many messages the next streams of a method send before they break off.
    ``unreachable`` is missing from all pages of submissions but the first.
    ``counted`` are the answers of GetConservation, the last one again and again.
    ``objects`` is where forms and links lead; nobody is there by default.
    With ``hold`` submissions stay QUEUED until ``grade``; ``stuck[method]`` calls never get an answer.
    """

    assignments: dict[str, Assignment] = field(default_factory=dict[str, Assignment])
    submissions: dict[str, Submission] = field(default_factory=dict[str, Submission])
    requests: dict[tuple[str, str], CreateSubmissionRequest] = field(
        default_factory=dict[tuple[str, str], CreateSubmissionRequest]
    )
    failures: dict[str, deque[SuiteError]] = field(default_factory=lambda: defaultdict(deque))
    drops: dict[str, deque[int]] = field(default_factory=lambda: defaultdict(deque))
    calls: list[str] = field(default_factory=list[str])
    tokens: list[str] = field(default_factory=list[str])
    created: int = 0
    streams: list[list[int]] = field(default_factory=list[list[int]])
    uploads: dict[str, submissions_pb.Upload] = field(default_factory=dict[str, submissions_pb.Upload])
    objects: str = "http://127.0.0.1:1"
    hold: bool = False
    stuck: Counter[str] = field(default_factory=Counter[str])
    healthy: bool = True
    page: int = 2
    unreachable: list[str] = field(default_factory=list[str])
    queues: list[Queue] = field(default_factory=list[Queue])
    counted: deque[operations_pb.Conservation] = field(default_factory=deque[operations_pb.Conservation])
    redriven: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    letters: list[operations_pb.DeadLetter] = field(default_factory=list[operations_pb.DeadLetter])
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def _enter(self, method: str, context: Context) -> None:
        self.calls.append(method)
        metadata = dict(context.invocation_metadata() or ())
        self.tokens.append(str(metadata.get(TOKEN, "")))
        if self.failures[method]:
            raise self.failures[method].popleft()

    async def CreateAssignment(
        self, request: assignments_pb.CreateAssignmentRequest, context: Context
    ) -> Assignment:
        self._enter("CreateAssignment", context)
        for index, item in enumerate(request.assignment.items):
            if item.points <= 0:
                raise InvalidRequest([FieldViolation(f"assignment.items[{index}].points", "must be over 0")])
        name = f"{request.parent}/assignments/{request.assignment_id or 'made'}"
        if name in self.assignments:
            raise ResourceExists(name)
        made = Assignment(name=name, revision_id="r1")
        made.MergeFrom(request.assignment)
        made.create_time.GetCurrentTime()
        made.update_time.GetCurrentTime()
        self.assignments[name] = made
        return made

    async def GetAssignment(
        self, request: assignments_pb.GetAssignmentRequest, context: Context
    ) -> Assignment:
        self._enter("GetAssignment", context)
        return self._assignment(request.name)

    async def UpdateAssignment(
        self, request: assignments_pb.UpdateAssignmentRequest, context: Context
    ) -> Assignment:
        self._enter("UpdateAssignment", context)
        made = self._assignment(request.assignment.name)
        made.ClearField("items")
        made.MergeFrom(request.assignment)
        made.revision_id = "r2"
        return made

    async def ListAssignments(
        self, request: assignments_pb.ListAssignmentsRequest, context: Context
    ) -> assignments_pb.ListAssignmentsResponse:
        self._enter("ListAssignments", context)
        found = [a for name, a in sorted(self.assignments.items()) if name.startswith(f"{request.parent}/")]
        start, following = self._page(request.page_token, len(found))
        return assignments_pb.ListAssignmentsResponse(
            assignments=found[start : start + self.page], next_page_token=following
        )

    async def CreateSubmission(self, request: CreateSubmissionRequest, context: Context) -> Submission:
        self._enter("CreateSubmission", context)
        made = self._create(request)
        context.set_trailing_metadata(((TOKEN, f"write-{self.created}"),))
        return made

    async def BatchCreateSubmissions(
        self, request: submissions_pb.BatchCreateSubmissionsRequest, context: Context
    ) -> submissions_pb.BatchCreateSubmissionsResponse:
        self._enter("BatchCreateSubmissions", context)
        return submissions_pb.BatchCreateSubmissionsResponse(
            results=[self._result(request) for request in request.requests]
        )

    async def StreamCreateSubmissions(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, request_iterator: AsyncIterator[submissions_pb.StreamCreateSubmissionsRequest], context: Context
    ) -> None:
        self._enter("StreamCreateSubmissions", context)
        drops = self.drops["StreamCreateSubmissions"]
        left = drops.popleft() if drops else None
        self.streams.append([])
        async for message in request_iterator:
            self.streams[-1].append(len(message.requests))
            await self._unless_stuck("StreamCreateSubmissions")
            results = [self._result(request) for request in message.requests]
            if left == 0:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the connection broke")
            await context.write(
                submissions_pb.StreamCreateSubmissionsResponse(
                    batch_id=message.batch_id, results=results, consistency_token=f"write-{self.created}"
                )
            )
            left = None if left is None else left - 1
        context.set_trailing_metadata(((TOKEN, f"write-{self.created}"),))

    async def GetSubmission(
        self, request: submissions_pb.GetSubmissionRequest, context: Context
    ) -> Submission:
        self._enter("GetSubmission", context)
        await self._unless_stuck("GetSubmission")
        return self._submission(request.name)

    async def ListSubmissions(
        self, request: submissions_pb.ListSubmissionsRequest, context: Context
    ) -> submissions_pb.ListSubmissionsResponse:
        self._enter("ListSubmissions", context)
        found = [
            submission
            for name, submission in reversed(self.submissions.items())
            if name.startswith(f"{request.parent}/") and request.author in ("", submission.author)
        ]
        start, following = self._page(request.page_token, len(found))
        return submissions_pb.ListSubmissionsResponse(
            submissions=found[start : start + self.page],
            next_page_token=following,
            unreachable=self.unreachable if start else [],
        )

    async def WatchSubmission(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, request: submissions_pb.WatchSubmissionRequest, context: Context
    ) -> None:
        self._enter("WatchSubmission", context)
        drops = self.drops["WatchSubmission"]
        left = drops.popleft() if drops else None
        shown: Submission | None = None
        while True:
            async with self.changed:
                while self._submission(request.name) == shown:
                    await self.changed.wait()
                shown = Submission()
                shown.CopyFrom(self._submission(request.name))
            await context.write(submissions_pb.WatchSubmissionResponse(submission=shown))
            if shown.state in (Submission.GRADED, Submission.FAILED):
                return
            left = None if left is None else left - 1
            if left == 0:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the connection broke")

    async def CreateUpload(
        self, request: submissions_pb.CreateUploadRequest, context: Context
    ) -> submissions_pb.Upload:
        self._enter("CreateUpload", context)
        upload = submissions_pb.Upload()
        upload.CopyFrom(request.upload)
        upload.name = f"{request.parent}/uploads/u{len(self.uploads)}"
        upload.url = self.objects
        upload.fields.add(name="key", value="k")
        self.uploads[upload.name] = upload
        return upload

    async def CreateDownload(
        self, request: submissions_pb.CreateDownloadRequest, context: Context
    ) -> submissions_pb.Download:
        self._enter("CreateDownload", context)
        upload = self.uploads.get(request.name)
        if upload is None:
            raise ResourceNotFound(request.name)
        return submissions_pb.Download(
            url=f"{self.objects}/k", size_bytes=upload.size_bytes, sha256=upload.sha256
        )

    async def CancelSubmission(
        self, request: submissions_pb.CancelSubmissionRequest, context: Context
    ) -> Submission:
        self._enter("CancelSubmission", context)
        submission = self._submission(request.name)
        submission.state = Submission.CANCELLED
        return submission

    async def ListQueues(
        self, request: operations_pb.ListQueuesRequest, context: Context
    ) -> operations_pb.ListQueuesResponse:
        self._enter("ListQueues", context)
        return operations_pb.ListQueuesResponse(queues=self.queues)

    async def PauseQueue(self, request: operations_pb.PauseQueueRequest, context: Context) -> Queue:
        self._enter("PauseQueue", context)
        return self._control(request.queue, Queue.PAUSED)

    async def ResumeQueue(self, request: operations_pb.ResumeQueueRequest, context: Context) -> Queue:
        self._enter("ResumeQueue", context)
        return self._control(request.queue, Queue.RUNNING)

    async def DrainQueue(self, request: operations_pb.DrainQueueRequest, context: Context) -> Queue:
        self._enter("DrainQueue", context)
        return self._control(request.queue, Queue.DRAINING)

    def _control(self, name: str, state: Queue.State.ValueType) -> Queue:
        found = next((queue for queue in self.queues if queue.queue == name), None)
        if found is None:
            raise ResourceNotFound(f"queues/{name}")
        found.state = state
        return found

    async def GetConservation(
        self, request: operations_pb.GetConservationRequest, context: Context
    ) -> operations_pb.Conservation:
        self._enter("GetConservation", context)
        return self.counted.popleft() if len(self.counted) > 1 else self.counted[0]

    async def ListDeadLetters(
        self, request: operations_pb.ListDeadLettersRequest, context: Context
    ) -> operations_pb.ListDeadLettersResponse:
        self._enter("ListDeadLetters", context)
        found = self._letters(request)
        start, following = self._page(request.page_token, len(found))
        return operations_pb.ListDeadLettersResponse(
            dead_letters=found[start : start + self.page], next_page_token=following
        )

    def _letters(self, request: operations_pb.ListDeadLettersRequest) -> list[operations_pb.DeadLetter]:
        return [
            letter
            for letter in self.letters
            if request.queue in ("", letter.queue)
            and letter.submission.startswith(request.parent)
            and request.reason in letter.reason
        ]

    async def RedriveDeadLetters(
        self, request: operations_pb.RedriveDeadLettersRequest, context: Context
    ) -> operations_pb.RedriveDeadLettersResponse:
        """Tasks that are redriven stay on the list, as if they were given up again at once."""
        self._enter("RedriveDeadLetters", context)
        if request.HasField("filter"):
            found = self._letters(request.filter)[: self.page]
            self.redriven += [(letter.submission, letter.item) for letter in found]
            more = len(self._letters(request.filter)) > self.page
            return operations_pb.RedriveDeadLettersResponse(redriven=len(found), more=more)
        response = operations_pb.RedriveDeadLettersResponse()
        dead = {(letter.submission, letter.item) for letter in self.letters}
        for task in request.tasks:
            if (task.submission, task.item) in dead:
                self.redriven.append((task.submission, task.item))
                response.redriven += 1
            else:
                error = ResourceNotFound(f"{task.submission}/items/{task.item}")
                response.refused.add(task=task, error=error.to_status())
        return response

    async def GetHealth(
        self, request: operations_pb.GetHealthRequest, context: Context
    ) -> operations_pb.HealthReport:
        self._enter("GetHealth", context)
        report = operations_pb.HealthReport(status="healthy" if self.healthy else "unhealthy")
        report.checks.add(name="storage", status=report.status)
        if not self.healthy:
            raise _Unhealthy(report)
        return report

    async def grade(self, name: str, *, items: int | None = None) -> None:
        """Grades the submission, or its first ``items`` items, with full points."""
        async with self.changed:
            self._grade(self.submissions[name], items)
            self.changed.notify_all()

    async def _unless_stuck(self, method: str) -> None:
        if self.stuck[method]:
            self.stuck[method] -= 1
            await asyncio.get_running_loop().create_future()

    def _assignment(self, name: str) -> Assignment:
        if name not in self.assignments:
            raise ResourceNotFound(name)
        return self.assignments[name]

    def _submission(self, name: str) -> Submission:
        if name not in self.submissions:
            raise ResourceNotFound(name)
        return self.submissions[name]

    def _page(self, token: str, total: int) -> tuple[int, str]:
        start = int(token or 0)
        end = start + self.page
        return start, str(end) if end < total else ""

    def _result(self, request: CreateSubmissionRequest) -> CreateSubmissionResult:
        try:
            if self.failures["item"]:
                raise self.failures["item"].popleft()
            return CreateSubmissionResult(submission=self._create(request))
        except SuiteError as error:
            return CreateSubmissionResult(error=error.to_status())

    def _create(self, request: CreateSubmissionRequest) -> Submission:
        assignment = self._assignment(request.parent)
        key = (request.submission.author, request.request_id)
        name = f"{request.parent}/submissions/{'-'.join(key)}"
        if key in self.requests:
            if self.requests[key] != request:
                raise RequestIdReused(request.request_id)
            return self.submissions[name]
        missing = {item.item for item in assignment.items} - {a.item for a in request.submission.answers}
        if missing:
            raise InvalidRequest(
                [FieldViolation("submission.answers", f"lacks {', '.join(sorted(missing))}")]
            )
        self.created += 1
        self.requests[key] = request
        made = Submission(name=name, state=Submission.QUEUED, revision_id=assignment.revision_id)
        made.MergeFrom(request.submission)
        made.create_time.GetCurrentTime()
        for item in assignment.items:
            made.max_score += item.points
            made.results.add(item=item.item, state=ItemResult.QUEUED)
        self.submissions[name] = made
        if not self.hold:
            self._grade(made, None)
        return made

    def _grade(self, submission: Submission, items: int | None) -> None:
        points = {
            item.item: item.points
            for item in self.assignments[submission.name.partition("/submissions/")[0]].items
        }
        for result in submission.results[:items]:
            result.state, result.generation = ItemResult.GRADED, 1
            result.grade.CopyFrom(full_marks(points[result.item]))
        graded = [result for result in submission.results if result.state == ItemResult.GRADED]
        submission.score = sum(result.grade.score for result in graded)
        done = len(graded) == len(submission.results)
        submission.state = Submission.GRADED if done else Submission.GRADING
        submission.update_time.GetCurrentTime()


class _Unhealthy(SuiteError):
    """the suite is not healthy"""

    code = grpc.StatusCode.UNAVAILABLE

    def __init__(self, report: operations_pb.HealthReport) -> None:
        super().__init__()
        self._report = report

    def _details(self) -> Sequence[Any]:
        return [self._report]


def full_marks(points: float) -> Grade:
    """A grade with all points by a grader called "memory"."""
    made_by = Provenance(grader="memory", version="1")
    return Grade(
        score=points,
        max_score=points,
        feedback="Well done.",
        criteria=[
            CriterionScore(
                criterion="answer", score=points, max_score=points, confidence=1, provenance=made_by
            )
        ],
    )


@asynccontextmanager
async def served(gateway: MemoryGateway) -> AsyncGenerator[str]:
    """The address at which ``gateway`` serves for the length of a block."""

    def register(server: grpc.aio.Server) -> None:
        assignments_grpc.add_AssignmentServiceServicer_to_server(gateway, server)
        submissions_grpc.add_SubmissionServiceServicer_to_server(gateway, server)
        operations_grpc.add_OperationsServiceServicer_to_server(gateway, server)

    async with serving(
        "127.0.0.1:0",
        register=register,
        services=(),
        health=HealthBoard(),
        grace_seconds=0.0,
    ) as port:
        yield f"127.0.0.1:{port}"
