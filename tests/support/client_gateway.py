"""The public API in memory, for tests of the client: it grades at once, and fails when a test says so.

It speaks through the real server plumbing (errors, deadlines, health), so that what a client sees of a
refusal is what a real gateway sends.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from statistics import fmean, pstdev

import grpc
from google.api.httpbody_pb2 import HttpBody

from cinnabar.gateway.v1 import assignment_service_pb2 as assignments_pb
from cinnabar.gateway.v1 import assignment_service_pb2_grpc as assignments_grpc
from cinnabar.gateway.v1 import operations_service_pb2 as operations_pb
from cinnabar.gateway.v1 import operations_service_pb2_grpc as operations_grpc
from cinnabar.gateway.v1 import submission_service_pb2 as submissions_pb
from cinnabar.gateway.v1 import submission_service_pb2_grpc as submissions_grpc
from cinnabar.gateway.v1.assignment_service_pb2 import Assignment
from cinnabar.gateway.v1.submission_service_pb2 import (
    CreateSubmissionRequest,
    CreateSubmissionResult,
    Grading,
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
from tests.support.client_gateway_calls import TOKEN, Context
from tests.support.client_gateway_operations import MemoryOperations


@dataclass
class MemoryGateway(
    MemoryOperations,
    assignments_grpc.AssignmentServiceServicer,
    submissions_grpc.SubmissionServiceServicer,
):
    """``unreachable`` is missing from all pages of submissions but the first.

    ``objects`` is where forms and links lead; nobody is there by default.
    With ``hold`` submissions stay QUEUED until ``grade``. A person and a regrade grade at once.
    """

    assignments: dict[str, Assignment] = field(default_factory=dict[str, Assignment])
    submissions: dict[str, Submission] = field(default_factory=dict[str, Submission])
    requests: dict[tuple[str, str], CreateSubmissionRequest] = field(
        default_factory=dict[tuple[str, str], CreateSubmissionRequest]
    )
    created: int = 0
    streams: list[list[int]] = field(default_factory=list[list[int]])
    uploads: dict[str, submissions_pb.Upload] = field(default_factory=dict[str, submissions_pb.Upload])
    objects: str = "http://127.0.0.1:1"
    hold: bool = False
    unreachable: list[str] = field(default_factory=list[str])
    gradings: dict[str, list[Grading]] = field(default_factory=lambda: defaultdict(list[Grading]))
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

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

    async def OverrideGrade(
        self, request: submissions_pb.OverrideGradeRequest, context: Context
    ) -> Submission:
        self._enter("OverrideGrade", context)
        async with self.changed:
            submission = self._submission(request.name)
            result = self._item(submission, request.item)
            if request.score > self._points(submission)[request.item]:
                raise InvalidRequest([FieldViolation("score", "must be at most the points of the item")])
            made = Grade(
                score=request.score,
                max_score=self._points(submission)[request.item],
                feedback=request.feedback,
            )
            self._commit(submission, result, made, Grading.OVERRIDDEN, request.reason)
            self._sum(submission)
            self.changed.notify_all()
        return submission

    async def RegradeSubmission(
        self, request: submissions_pb.RegradeSubmissionRequest, context: Context
    ) -> Submission:
        self._enter("RegradeSubmission", context)
        async with self.changed:
            submission = self._submission(request.name)
            for item in request.items or [result.item for result in submission.results]:
                made = full_marks(self._points(submission)[item])
                self._commit(submission, self._item(submission, item), made, Grading.GRADED, request.reason)
            self._sum(submission)
            self.changed.notify_all()
        return submission

    async def ListGradings(
        self, request: submissions_pb.ListGradingsRequest, context: Context
    ) -> submissions_pb.ListGradingsResponse:
        self._enter("ListGradings", context)
        self._submission(request.parent)
        found = sorted(self.gradings[request.parent], key=lambda one: (one.item, one.generation))
        start, following = self._page(request.page_token, len(found))
        return submissions_pb.ListGradingsResponse(
            gradings=found[start : start + self.page], next_page_token=following
        )

    async def ListAuditEvents(
        self, request: submissions_pb.ListAuditEventsRequest, context: Context
    ) -> submissions_pb.ListAuditEventsResponse:
        """Grades are all that is done here."""
        self._enter("ListAuditEvents", context)
        self._submission(request.parent)
        found = self.gradings[request.parent]
        start, following = self._page(request.page_token, len(found))
        events = [
            submissions_pb.AuditEvent(
                time=one.create_time,
                actor=one.actor,
                action="override" if one.kind == Grading.OVERRIDDEN else "grade",
                item=one.item,
                generation=one.generation,
                detail=one.reason,
            )
            for one in found[start : start + self.page]
        ]
        return submissions_pb.ListAuditEventsResponse(events=events, next_page_token=following)

    async def GetAssignmentStatistics(
        self, request: assignments_pb.GetAssignmentStatisticsRequest, context: Context
    ) -> assignments_pb.AssignmentStatistics:
        """Of whole submissions."""
        self._enter("GetAssignmentStatistics", context)
        self._assignment(request.name)
        scores = [one.score for one in self._of(request.name) if one.state == Submission.GRADED]
        numbers = assignments_pb.ScoreStatistics(count=len(scores))
        if scores:
            numbers.mean, numbers.standard_deviation = fmean(scores), pstdev(scores)
        return assignments_pb.AssignmentStatistics(name=request.name, submissions=numbers)

    async def ExportGrades(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, request: assignments_pb.ExportGradesRequest, context: Context
    ) -> None:
        """A line of CSV for each submission, in a message of its own."""
        self._enter("ExportGrades", context)
        self._assignment(request.name)
        for one in self._of(request.name):
            line = f"{one.author},{one.name},{one.score:g}\r\n"
            await context.write(HttpBody(content_type="text/csv", data=line.encode()))

    async def EraseStudent(
        self, request: operations_pb.EraseStudentRequest, context: Context
    ) -> operations_pb.Erasure:
        self._enter("EraseStudent", context)
        names = [name for name, one in self.submissions.items() if one.author == request.student]
        erased = [self.submissions.pop(name) for name in names]
        return self._erased(
            request.reason, len(erased), sum(len(self.gradings.pop(name, [])) for name in names)
        )

    async def grade(self, name: str, *, items: int | None = None) -> None:
        """Grades the submission, or its first ``items`` items, with full points."""
        async with self.changed:
            self._grade(self.submissions[name], items)
            self.changed.notify_all()

    def _assignment(self, name: str) -> Assignment:
        if name not in self.assignments:
            raise ResourceNotFound(name)
        return self.assignments[name]

    def _submission(self, name: str) -> Submission:
        if name not in self.submissions:
            raise ResourceNotFound(name)
        return self.submissions[name]

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
        points = self._points(submission)
        for result in submission.results[:items]:
            self._commit(submission, result, full_marks(points[result.item]), Grading.GRADED)
        self._sum(submission)

    def _points(self, submission: Submission) -> dict[str, float]:
        assignment = self.assignments[submission.name.partition("/submissions/")[0]]
        return {item.item: item.points for item in assignment.items}

    def _item(self, submission: Submission, item: str) -> ItemResult:
        found = next((result for result in submission.results if result.item == item), None)
        if found is None:
            raise InvalidRequest([FieldViolation("item", "is not in the assignment")])
        return found

    def _of(self, assignment: str) -> list[Submission]:
        return [one for name, one in self.submissions.items() if name.startswith(f"{assignment}/")]

    def _commit(
        self,
        submission: Submission,
        result: ItemResult,
        grade: Grade,
        kind: Grading.Kind.ValueType,
        reason: str = "",
    ) -> None:
        history = self.gradings[submission.name]
        for one in history:
            one.current = one.current and one.item != result.item
        generation = sum(one.item == result.item for one in history) + 1
        actor = "a person" if kind == Grading.OVERRIDDEN else "memory"
        made = Grading(
            item=result.item, generation=generation, kind=kind, grade=grade, actor=actor, reason=reason
        )
        made.current = True
        made.create_time.GetCurrentTime()
        history.append(made)
        result.state, result.generation = ItemResult.GRADED, generation
        result.grade.CopyFrom(grade)

    def _sum(self, submission: Submission) -> None:
        graded = [result for result in submission.results if result.state == ItemResult.GRADED]
        submission.score = sum(result.grade.score for result in graded)
        done = len(graded) == len(submission.results)
        submission.state = Submission.GRADED if done else Submission.GRADING
        submission.update_time.GetCurrentTime()


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
