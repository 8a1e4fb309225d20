"""The public SubmissionService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

from cinnabar.gateway.v1 import submission_service_pb2 as pb
from cinnabar.gateway.v1.submission_service_pb2_grpc import SubmissionServiceServicer
from cinnabar_common import pagination
from cinnabar_common.errors import FieldViolation, InvalidRequest, ResourceNotFound
from cinnabar_common.names import ID_RULE, id_bucket, is_id
from cinnabar_gateway import convert, identity, regrade_convert
from cinnabar_gateway.admission import Call
from cinnabar_gateway.assignments import Assignments
from cinnabar_gateway.calls import Context, metadata_value, min_positions, send_positions, well_formed
from cinnabar_gateway.consistency import TOKEN_KEY, Positions, current, merged
from cinnabar_gateway.identity import Identity, Role
from cinnabar_gateway.intake import IDEMPOTENCY_KEY, Intake, request_id_of
from cinnabar_gateway.progress import Progress
from cinnabar_gateway.records import SubmissionKey
from cinnabar_gateway.regrades import Regrades
from cinnabar_gateway.required import missing
from cinnabar_gateway.review_service import ReviewCalls
from cinnabar_gateway.submissions import Submissions, visible
from cinnabar_gateway.uploads import Uploads
from cinnabar_gateway.watches import WatchHub

MAX_BATCH = 1000
CREATORS = (Role.STUDENT, Role.INSTRUCTOR)
# The edge charges a call 1 unit: all of a single one, the first item of a batch, the opening of a stream.
_SINGLE = Call(method="CreateSubmission", charged=1)
_BATCH = Call(method="BatchCreateSubmissions", charged=1)
_STREAM = Call(method="StreamCreateSubmissions")


class SubmissionService(SubmissionServiceServicer):
    """Speaks gRPC; knows nothing of storage and queues."""

    def __init__(
        self,
        intake: Intake,
        submissions: Submissions,
        assignments: Assignments,
        hub: WatchHub,
        uploads: Uploads,
        reviews: ReviewCalls,
        regrades: Regrades,
        progress: Progress,
        *,
        stream_window: int = 8,
    ) -> None:
        """``stream_window`` messages of one stream may be unacknowledged; more are not read."""
        self._intake = intake
        self._submissions = submissions
        self._assignments = assignments
        self._hub = hub
        self._uploads = uploads
        self._reviews = reviews
        self._regrades = regrades
        self._progress = progress
        self._stream_window = stream_window

    async def CreateSubmission(self, request: pb.CreateSubmissionRequest, context: Context) -> pb.Submission:
        caller = identity.current()
        caller.require("submissions.create", *CREATORS)
        request.request_id = request_id_of(request.request_id, metadata_value(context, IDEMPOTENCY_KEY))
        outcome, positions = await self._intake.create(caller, request, min_positions(context), call=_SINGLE)
        await send_positions(context, positions)
        return convert.created(outcome, caller.role)

    async def BatchCreateSubmissions(
        self, request: pb.BatchCreateSubmissionsRequest, context: Context
    ) -> pb.BatchCreateSubmissionsResponse:
        caller = identity.current()
        caller.require("submissions.create", *CREATORS)
        violations = _size_violations(len(request.requests))
        if metadata_value(context, IDEMPOTENCY_KEY):
            rule = "is for single calls: set the request_id of each submission"
            violations.append(FieldViolation(IDEMPOTENCY_KEY, rule))
        if not request.parent:
            violations.append(FieldViolation("parent", "is required"))
        if violations:
            raise InvalidRequest(violations)
        outcomes, positions = await self._intake.create_many(
            caller, request.requests, min_positions(context), call=_BATCH, parent=request.parent
        )
        await send_positions(context, positions)
        return pb.BatchCreateSubmissionsResponse(results=map(convert.create_result, outcomes))

    async def StreamCreateSubmissions(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, request_iterator: AsyncIterator[pb.StreamCreateSubmissionsRequest], context: Context
    ) -> None:
        caller = identity.current()
        caller.require("submissions.create", *CREATORS)
        asked = min_positions(context)
        carried = current()
        window = asyncio.Semaphore(self._stream_window)
        writing = asyncio.Lock()
        reached: Positions = ()
        refusal: InvalidRequest | None = None

        async def answer(request: pb.StreamCreateSubmissionsRequest) -> None:
            nonlocal reached
            try:
                outcomes, positions = await self._intake.create_many(
                    caller, request.requests, asked, call=_STREAM
                )
                reached = merged(reached, positions)
                response = pb.StreamCreateSubmissionsResponse(
                    batch_id=request.batch_id,
                    results=map(convert.create_result, outcomes),
                    consistency_token=carried.token(reached),
                )
                async with writing:
                    await context.write(response)
            finally:
                window.release()

        async with asyncio.TaskGroup() as group:
            await window.acquire()
            async for request in request_iterator:
                try:
                    well_formed(request)
                    if violations := _size_violations(len(request.requests)):
                        raise InvalidRequest(violations)
                except InvalidRequest as error:
                    refusal = error  # what was read before is answered first
                    break
                group.create_task(answer(request), name="stream-create")
                await window.acquire()
        token = carried.token(reached)
        context.set_trailing_metadata(((TOKEN_KEY, token),) if token else ())
        if refusal is not None:
            raise refusal

    async def GetSubmission(self, request: pb.GetSubmissionRequest, context: Context) -> pb.Submission:
        caller = identity.current()
        name = convert.submission_name(request.name, "name")
        stored = await self._submissions.get(caller, name, min_positions(context))
        (shown,) = await self._progress.filled((stored,))
        return convert.submission(shown, caller.role)

    async def ListSubmissions(
        self, request: pb.ListSubmissionsRequest, context: Context
    ) -> pb.ListSubmissionsResponse:
        caller = identity.current()
        violations = list(missing(request))
        if request.author and not is_id(request.author):
            violations.append(FieldViolation("author", ID_RULE))
        if violations:
            raise InvalidRequest(violations)
        parent = convert.assignment_name(request.parent, "parent")
        limit = pagination.page_size(request.page_size)
        parameters = ("submissions", caller.tenant, request.parent, request.author)
        asked = min_positions(context)
        page = await self._submissions.list(
            caller,
            parent,
            author=request.author,
            before=pagination.decode_token(request.page_token, *parameters),
            limit=limit,
            min_positions=asked,
        )
        if not page.submissions and not page.unreachable and not request.page_token:
            await self._assignments.get(caller, parent, asked)  # an empty list, or no such assignment?
        last = page.submissions[-1].submission_id if page.more else ""
        return pb.ListSubmissionsResponse(
            submissions=[convert.submission(one, caller.role) for one in page.submissions],
            next_page_token=pagination.encode_token(last, *parameters) if last else "",
            unreachable=map(convert.shard_name, page.unreachable),
        )

    async def WatchSubmission(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, request: pb.WatchSubmissionRequest, context: Context
    ) -> None:
        caller: Identity = identity.current()
        name = convert.submission_name(request.name, "name")
        asked = min_positions(context)
        if id_bucket(name.submission) is None:
            raise ResourceNotFound(request.name)
        key = SubmissionKey(caller.tenant, name.submission)
        async with aclosing(self._hub.watch(key, asked)) as states:
            async for state in states:
                shown = convert.submission(visible(state, caller, name), caller.role)
                await context.write(pb.WatchSubmissionResponse(submission=shown))

    async def CancelSubmission(self, request: pb.CancelSubmissionRequest, context: Context) -> pb.Submission:
        caller = identity.current()
        caller.require("submissions.cancel", *CREATORS)
        name = convert.submission_name(request.name, "name")
        cancelled, positions = await self._submissions.cancel(caller, name, min_positions(context))
        await send_positions(context, positions)
        return convert.submission(cancelled, caller.role)

    async def RegradeSubmission(
        self, request: pb.RegradeSubmissionRequest, context: Context
    ) -> pb.Submission:
        caller = identity.current()
        caller.require("submissions.regrade", Role.INSTRUCTOR)
        regrade_convert.check_reopen(request)
        regraded, positions = await self._regrades.reopen(
            caller,
            convert.submission_name(request.name, "name"),
            items=tuple(request.items),
            revision_id=request.revision_id,
            reason=request.reason,
            etag=request.etag,
            min_positions=min_positions(context),
        )
        await send_positions(context, positions)
        return convert.submission(regraded, caller.role)

    async def CreateUpload(self, request: pb.CreateUploadRequest, context: Context) -> pb.Upload:
        caller = identity.current()
        caller.require("uploads.create", *CREATORS)
        upload, position = await self._uploads.create(caller, request, min_positions(context))
        await send_positions(context, (position,))
        return upload

    async def CreateDownload(self, request: pb.CreateDownloadRequest, context: Context) -> pb.Download:
        caller = identity.current()
        caller.require("uploads.read", *CREATORS)
        return await self._uploads.download(caller, request.name)

    async def OverrideGrade(self, request: pb.OverrideGradeRequest, context: Context) -> pb.Submission:
        overridden, positions = await self._reviews.override(
            identity.current(), request, min_positions(context)
        )
        await send_positions(context, positions)
        return overridden

    async def ListGradings(
        self, request: pb.ListGradingsRequest, context: Context
    ) -> pb.ListGradingsResponse:
        return await self._reviews.gradings(identity.current(), request, min_positions(context))

    async def ListAuditEvents(
        self, request: pb.ListAuditEventsRequest, context: Context
    ) -> pb.ListAuditEventsResponse:
        return await self._reviews.audit(identity.current(), request, min_positions(context))


def _size_violations(count: int) -> list[FieldViolation]:
    if 1 <= count <= MAX_BATCH:
        return []
    return [FieldViolation("requests", f"must be 1 to {MAX_BATCH}" if count else "is required")]
