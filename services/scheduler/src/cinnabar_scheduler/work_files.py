"""Files of tasks under lease: links to answers, forms for artifacts, and whether the artifacts came."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from google.protobuf.message import DecodeError

from cinnabar.grader.v1.grade_pb2 import Answer
from cinnabar.grader.v1.grade_pb2 import Grade as GradeMessage
from cinnabar.scheduler.v1 import work_service_pb2 as pb
from cinnabar_common.errors import FieldViolation, InvalidRequest, ResourceNotFound, SuiteError
from cinnabar_common.names import UploadName
from cinnabar_scheduler.outcomes import Failure
from cinnabar_scheduler.ports import ArtifactState, FileFacts, FileStore, Queue, QueueUnavailable
from cinnabar_scheduler.session import WorkerSession
from cinnabar_scheduler.tasks import Grade, Lease, LeaseToken, Why

MAX_UPLOADS = 20
_NO_LEASE = "the lease"

Graded = tuple[Lease, Grade]
Failed = tuple[Lease, Failure]


class WorkFiles:
    """Serves whoever holds a lease of one of ``sessions``, for as long as it is held."""

    def __init__(
        self, queue: Queue, store: FileStore, sessions: Callable[[], Sequence[WorkerSession]]
    ) -> None:
        self._queue = queue
        self._store = store
        self._sessions = sessions

    async def links(self, request: pb.GetFilesRequest) -> pb.GetFilesResponse:
        """Links to the files of the answer. Raises InvalidRequest, ResourceNotFound."""
        if not 1 <= len(request.uploads) <= MAX_UPLOADS:
            raise InvalidRequest([FieldViolation("uploads", f"must be 1 to {MAX_UPLOADS}")])
        lease = await self._held(request.lease_token)
        mine = _upload_of(lease)
        for upload in request.uploads:
            if upload != mine:
                raise ResourceNotFound(upload)
        name = UploadName.parse(mine)
        found = await self._store.file_link(lease.tenant, lease.submission, name.upload) if name else None
        if found is None:
            raise ResourceNotFound(mine)
        response = pb.GetFilesResponse(
            files=[pb.GetFilesResponse.File(upload=upload, url=found.url) for upload in request.uploads]
        )
        response.expire_time.FromMilliseconds(found.expire_ms)
        return response

    async def prepare(self, request: pb.CreateArtifactRequest) -> pb.CreateArtifactResponse:
        """A form for an artifact. Raises InvalidRequest, ResourceNotFound."""
        lease = await self._held(request.lease_token)
        facts = FileFacts(request.content_type, request.size_bytes, request.sha256)
        form = await self._store.prepare_artifact(lease.tenant, lease.submission, lease.item, facts)
        response = pb.CreateArtifactResponse(
            upload=str(form.name),
            url=form.url,
            fields=[pb.CreateArtifactResponse.Field(name=name, value=value) for name, value in form.fields],
        )
        response.expire_time.FromMilliseconds(form.expire_ms)
        return response

    async def _held(self, token: str) -> Lease:
        """The lease, if it is held right now; it is extended by the way."""
        for session in self._sessions():
            lease = session.held.get(LeaseToken(token))
            if lease is None:
                continue
            try:
                lost = await self._queue.extend(lease.queue, [(lease.task, lease.token)])
            except QueueUnavailable:
                # The work goes on, as after a heartbeat that is not recorded.
                lost = []
            if not lost:
                return lease
        raise ResourceNotFound(_NO_LEASE)

    async def checked(self, graded: Sequence[Graded]) -> tuple[list[Graded], list[Failed]]:
        """The grades whose artifacts are there, which then say what they are; and the others, with why."""
        good: list[Graded] = []
        bad: list[Failed] = []
        for lease, grade in graded:
            if not grade.artifacts:
                good.append((lease, grade))
                continue
            result = await self._check(lease, grade)
            if isinstance(result, Grade):
                good.append((lease, result))
            else:
                bad.append((lease, result))
        return good, bad

    async def _check(self, lease: Lease, grade: Grade) -> Grade | Failure:
        names = [UploadName.parse(upload) for upload in grade.artifacts]
        ids = [name.upload if name is not None else "" for name in names]
        try:
            found = await self._store.check_artifacts(lease.tenant, lease.submission, lease.item, ids)
        except SuiteError as error:
            return Failure(f"artifacts cannot be looked at: {error.message}", Why.UNAVAILABLE)
        if any(one.state is ArtifactState.UNAVAILABLE for one in found):
            return Failure("the store of artifacts cannot be reached", Why.UNAVAILABLE)
        message = GradeMessage.FromString(grade.blob)
        for artifact, one in zip(message.artifacts, found, strict=True):
            if one.facts is None:
                return Failure("an artifact of the grade is not there, or not as announced")
            artifact.content_type = one.facts.content_type
            artifact.size_bytes = one.facts.size_bytes
            artifact.sha256 = one.facts.sha256
        return replace(grade, blob=message.SerializeToString())


def _upload_of(lease: Lease) -> str:
    try:
        return Answer.FromString(lease.answer).file.upload
    except DecodeError:
        return ""
