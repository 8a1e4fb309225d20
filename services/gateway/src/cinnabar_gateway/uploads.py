"""Files that bypass the suite: announcing them, handing them in as answers, reading them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from cinnabar.gateway.v1.submission_service_pb2 import (
    CreateUploadRequest,
    Download,
    FormField,
    Upload,
)
from cinnabar.grader.v1.grade_pb2 import Answer, AnswerSet
from cinnabar_common.clock import Clock
from cinnabar_common.errors import (
    DependencyUnavailable,
    FieldViolation,
    InvalidRequest,
    ResourceNotFound,
    RoleForbidden,
    StateForbids,
    SuiteError,
    UploadNotReady,
)
from cinnabar_common.names import ID_RULE, UploadName, id_bucket, is_id
from cinnabar_gateway import convert
from cinnabar_gateway.answer_rules import AnswerRules
from cinnabar_gateway.assignments import CurrentRevisions
from cinnabar_gateway.consistency import Position, Positions
from cinnabar_gateway.identity import Identity, Role
from cinnabar_gateway.records import NewSubmission
from cinnabar_gateway.required import missing
from cinnabar_gateway.upload_ports import (
    FileFacts,
    NewUpload,
    UploadStore,
    UploadUse,
    UploadVerdict,
    VerifiedUpload,
)

MAX_FILE_BYTES = 16 * 1024 * 1024
SHA256_BYTES = 32
UPLOAD_RULE = "must be courses/{course}/assignments/{assignment}/uploads/{upload}"
# A type and a subtype as RFC 6838 has them, without parameters.
_CONTENT_TYPE = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,62}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,62}", re.ASCII
)
_UNKNOWN_RULE = "must be an upload of the author to this assignment"
_CLOSED = "CLOSED"
_RULES = {
    UploadVerdict.WRONG_ITEM: "item",
    UploadVerdict.ATTACHED: "submission",
    UploadVerdict.EXPIRED: "expire_time",
    UploadVerdict.MISSING: "object",
    UploadVerdict.WRONG_SIZE: "size",
    UploadVerdict.WRONG_CONTENT_TYPE: "content_type",
    UploadVerdict.WRONG_SHA256: "sha256",
}


class Uploads:
    """The files of all tenants."""

    def __init__(self, store: UploadStore, revisions: CurrentRevisions[AnswerRules], clock: Clock) -> None:
        self._store = store
        self._revisions = revisions
        self._clock = clock

    async def create(
        self, identity: Identity, request: CreateUploadRequest, min_positions: Positions
    ) -> tuple[Upload, Position]:
        """Announces the answer to an item: how to upload it, and where it can be read.

        Raises InvalidRequest, RoleForbidden, ResourceNotFound for the assignment,
        StateForbids when that is closed, DependencyUnavailable.
        """
        upload = request.upload
        student = identity.role is Role.STUDENT
        author = upload.author or (identity.user if student else "")
        violations = [*missing(request), *_broken(request, author)]
        if violations:
            raise InvalidRequest(violations)
        if student and author != identity.user:
            raise RoleForbidden(role=identity.role.value, action="uploads.create_for_another")
        parent = convert.assignment_name(request.parent, "parent")
        rules = await self._revisions.get(identity.tenant, parent, min_positions)
        if upload.item not in rules.takes_files:
            rule = "must be an item of the assignment that a file can answer"
            raise InvalidRequest([FieldViolation("upload.item", rule)])
        if rules.close_time_us is not None and int(self._clock.time() * 1e6) >= rules.close_time_us:
            raise StateForbids(str(parent), _CLOSED)
        facts = FileFacts(upload.content_type, upload.size_bytes, upload.sha256)
        prepared = await self._store.create_upload(
            NewUpload(tenant=identity.tenant, parent=parent, item=upload.item, author=author, facts=facts)
        )
        return Upload(
            name=str(prepared.name),
            item=upload.item,
            author=author,
            content_type=facts.content_type,
            size_bytes=facts.size_bytes,
            sha256=facts.sha256,
            url=prepared.url,
            fields=[FormField(name=name, value=value) for name, value in prepared.fields],
            expire_time=convert.timestamp(prepared.expire_time_us),
        ), prepared.position

    async def download(self, identity: Identity, text: str) -> Download:
        """A link to a file that the caller may see. Raises InvalidRequest, ResourceNotFound."""
        name = UploadName.parse(text)
        if name is None:
            raise InvalidRequest([FieldViolation("name", UPLOAD_RULE if text else "is required")])
        if id_bucket(name.upload) is None:
            raise ResourceNotFound(text)
        author = identity.user if identity.role is Role.STUDENT else ""
        found = await self._store.upload_link(identity.tenant, name, author=author)
        if found is None or found.name != name:
            raise ResourceNotFound(text)
        return Download(
            url=found.url,
            expire_time=convert.timestamp(found.expire_time_us),
            content_type=found.facts.content_type,
            size_bytes=found.facts.size_bytes,
            sha256=found.facts.sha256,
        )

    async def hand_in(
        self, identity: Identity, drafts: Sequence[NewSubmission | SuiteError]
    ) -> list[NewSubmission | SuiteError]:
        """The drafts, with the files of their answers verified and told of in the answers.

        A draft whose files cannot be used becomes the error that says why; one with a
        request id keeps it as its ``refusal``, for it may have been committed before.
        """
        waiting = [draft for draft in drafts if isinstance(draft, NewSubmission) and draft.files]
        uses = [
            UploadUse(name, draft.tasks[index][0].item, draft.author)
            for draft in waiting
            for index, name in draft.files
        ]
        if not uses:
            return list(drafts)
        verified: Sequence[VerifiedUpload | SuiteError]
        try:
            verified = await self._store.verify_uploads(identity.tenant, uses)
        except SuiteError as error:
            verified = [error] * len(uses)
        following = iter(verified)
        refusals: dict[int, SuiteError] = {}
        for draft in waiting:
            own = [next(following) for _ in draft.files]
            refusal = _refusal(draft, own)
            if refusal is None:
                _fill(draft, own)
            elif draft.request_id:
                draft.refusal = draft.refusal or refusal
            else:
                refusals[id(draft)] = refusal
        return [refusals.get(id(draft), draft) for draft in drafts]


def _broken(request: CreateUploadRequest, author: str) -> Iterator[FieldViolation]:
    upload = request.upload
    if not request.HasField("upload"):
        return
    if not author:
        yield FieldViolation("upload.author", "must be set by an instructor")
    elif not is_id(author):
        yield FieldViolation("upload.author", ID_RULE)
    if upload.content_type and not _CONTENT_TYPE.fullmatch(upload.content_type):
        yield FieldViolation("upload.content_type", "must be type/subtype, without parameters")
    if not 1 <= upload.size_bytes <= MAX_FILE_BYTES:
        yield FieldViolation("upload.size_bytes", f"must be 1 to {MAX_FILE_BYTES}")
    if upload.sha256 and len(upload.sha256) != SHA256_BYTES:
        yield FieldViolation("upload.sha256", f"must have {SHA256_BYTES} bytes")


def _refusal(draft: NewSubmission, verified: Sequence[VerifiedUpload | SuiteError]) -> SuiteError | None:
    """Why the files of a draft cannot be used: first the fields that are wrong, all of them."""
    violations: list[FieldViolation] = []
    errors: list[SuiteError] = []
    for (index, name), one in zip(draft.files, verified, strict=True):
        if isinstance(one, SuiteError):
            errors.append(one)
            continue
        match one.verdict:
            case UploadVerdict.READY:
                pass
            case UploadVerdict.UNKNOWN:
                violations.append(FieldViolation(f"submission.answers[{index}].file.upload", _UNKNOWN_RULE))
            case UploadVerdict.UNAVAILABLE:
                errors.append(DependencyUnavailable("objects"))
            case UploadVerdict.SHARD_UNAVAILABLE:
                errors.append(DependencyUnavailable("storage"))
            case other:
                errors.append(UploadNotReady(str(name), _RULES[other]))
    if violations:
        return InvalidRequest(violations)
    return errors[0] if errors else None


def _fill(draft: NewSubmission, verified: Sequence[VerifiedUpload | SuiteError]) -> None:
    answers = AnswerSet.FromString(draft.answers).answers
    for (index, _), one in zip(draft.files, verified, strict=True):
        assert isinstance(one, VerifiedUpload)
        assert one.facts is not None
        file = answers[index].file
        file.content_type = one.facts.content_type
        file.size_bytes = one.facts.size_bytes
        file.sha256 = one.facts.sha256
        draft.tasks[index] = (draft.tasks[index][0], answers[index].SerializeToString())
    draft.answers = AnswerSet(answers=answers).SerializeToString(deterministic=True)


def files_of(answers: Sequence[Answer]) -> list[tuple[int, UploadName]]:
    """Which answers are files, by index; whatever else the caller said of these files is forgotten.

    All names are well-formed.
    """
    found: list[tuple[int, UploadName]] = []
    for index, answer in enumerate(answers):
        if answer.WhichOneof("value") == "file" and (name := UploadName.parse(answer.file.upload)):
            answer.file.CopyFrom(Answer.File(upload=answer.file.upload))
            found.append((index, name))
    return found
