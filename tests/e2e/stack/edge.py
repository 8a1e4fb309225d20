"""A real gRPC server behind Envoy that answers what the tests of the edge need."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import grpc
import grpc.aio
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from cinnabar.gateway.v1 import submission_service_pb2 as pb
from cinnabar.gateway.v1 import submission_service_pb2_grpc as rpc


class Submissions(rpc.SubmissionServiceServicer):
    """Echoes names; the last part of one may ask for more: "missing", "plain", "flaky", "slow"."""

    def __init__(self) -> None:
        self.metadata: dict[str, str | bytes] = {}
        self.received: list[pb.Submission] = []
        self.refusals = 0

    async def GetSubmission(self, request: pb.GetSubmissionRequest, context: Any) -> pb.Submission:
        """Answer, or fail with a status with or without details, or once with UNAVAILABLE."""
        self.metadata = dict(context.invocation_metadata())
        match request.name.rpartition("/")[2]:
            case "missing":
                status = status_pb2.Status(code=code_pb2.NOT_FOUND, message="no such submission: é中")
                info = error_details_pb2.ErrorInfo(reason="RESOURCE_NOT_FOUND", domain="cinnabar.dev")
                status.details.add().Pack(info)
                await context.abort_with_status(rpc_status.to_status(status))
            case "plain":
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "closed")
            case "flaky" if self.refusals == 0:
                self.refusals += 1
                await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
            case "slow":
                await asyncio.Event().wait()
            case _:
                pass
        return pb.Submission(name=request.name)

    async def CreateSubmission(self, request: pb.CreateSubmissionRequest, context: Any) -> pb.Submission:
        """Remember what arrived; refuse once for the author "flaky"."""
        self.received.append(request.submission)
        if request.submission.author == "flaky":
            self.refusals += 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        return pb.Submission(name=f"{request.parent}/submissions/1", author=request.submission.author)

    async def BatchCreateSubmissions(
        self, request: pb.BatchCreateSubmissionsRequest, context: Any
    ) -> pb.BatchCreateSubmissionsResponse:
        """Remember what arrived."""
        self.received += [each.submission for each in request.requests]
        return pb.BatchCreateSubmissionsResponse()

    async def ListSubmissions(
        self, request: pb.ListSubmissionsRequest, context: Any
    ) -> pb.ListSubmissionsResponse:
        """There are none."""
        return pb.ListSubmissionsResponse()

    async def CancelSubmission(self, request: pb.CancelSubmissionRequest, context: Any) -> pb.Submission:
        """The name is the answer."""
        return pb.Submission(name=request.name)

    async def OverrideGrade(self, request: pb.OverrideGradeRequest, context: Any) -> pb.Submission:
        """The name and the score are the answer."""
        return pb.Submission(name=request.name, score=request.score)

    async def RegradeSubmission(self, request: pb.RegradeSubmissionRequest, context: Any) -> pb.Submission:
        """The name is the answer."""
        return pb.Submission(name=request.name)

    async def ListGradings(self, request: pb.ListGradingsRequest, context: Any) -> pb.ListGradingsResponse:
        """There are none."""
        return pb.ListGradingsResponse()

    async def ListAuditEvents(
        self, request: pb.ListAuditEventsRequest, context: Any
    ) -> pb.ListAuditEventsResponse:
        """There are none."""
        return pb.ListAuditEventsResponse()

    async def CreateUpload(self, request: pb.CreateUploadRequest, context: Any) -> pb.Upload:
        """The announcement is the answer."""
        return request.upload

    async def CreateDownload(self, request: pb.CreateDownloadRequest, context: Any) -> pb.Download:
        """The name is the link."""
        return pb.Download(url=request.name)

    async def WatchSubmission(
        self, request: pb.WatchSubmissionRequest, context: Any
    ) -> AsyncIterator[pb.WatchSubmissionResponse]:
        """Two states."""
        for state in (pb.Submission.State.QUEUED, pb.Submission.State.GRADED):
            yield pb.WatchSubmissionResponse(submission=pb.Submission(name=request.name, state=state))

    async def StreamCreateSubmissions(
        self, request_iterator: AsyncIterator[pb.StreamCreateSubmissionsRequest], context: Any
    ) -> AsyncIterator[pb.StreamCreateSubmissionsResponse]:
        """One answer for each message."""
        async for request in request_iterator:
            yield pb.StreamCreateSubmissionsResponse(batch_id=request.batch_id)


class Gateway:
    """One gateway that can say it does not serve."""

    def __init__(self, submissions: Submissions, health_servicer: Any, port: int) -> None:
        self.submissions = submissions
        self.port = port
        self._health = health_servicer

    async def set_serving(self, serving: bool) -> None:
        """What its health check answers."""
        states = health_pb2.HealthCheckResponse
        await self._health.set("", states.SERVING if serving else states.NOT_SERVING)


@asynccontextmanager
async def gateway() -> AsyncGenerator[Gateway]:
    """A gateway that serves for the length of a block."""
    server = grpc.aio.server()
    submissions, health_servicer = Submissions(), cast("Any", health).aio.HealthServicer()
    rpc.add_SubmissionServiceServicer_to_server(submissions, server)
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)  # pyright: ignore[reportUnknownMemberType]
    one = Gateway(submissions, health_servicer, server.add_insecure_port("127.0.0.1:0"))
    await one.set_serving(True)
    await server.start()
    try:
        yield one
    finally:
        await server.stop(0)
