"""Handing in: from requests to submissions that are checked and committed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b

from cinnabar.gateway.v1.submission_service_pb2 import CreateSubmissionRequest
from cinnabar.gateway.v1.submission_service_pb2 import Submission as SubmissionMessage
from cinnabar.grader.v1.grade_pb2 import AnswerSet
from cinnabar_common.clock import Clock
from cinnabar_common.errors import (
    FieldViolation,
    InvalidRequest,
    RateLimited,
    RoleForbidden,
    StateForbids,
    SuiteError,
)
from cinnabar_common.names import ID_RULE, AssignmentName, Bucket, UploadName, bucket_of, is_id, new_id
from cinnabar_gateway import grading_times
from cinnabar_gateway.admission import Admission, Call, Replay
from cinnabar_gateway.answer_rules import AnswerRules
from cinnabar_gateway.assignments import CurrentRevisions
from cinnabar_gateway.consistency import Positions, merged
from cinnabar_gateway.earlier_answers import EarlierAnswer
from cinnabar_gateway.identity import Identity, Role
from cinnabar_gateway.queue_states import QueueStates
from cinnabar_gateway.records import NewSubmission, Submission
from cinnabar_gateway.required import REQUIRED_RULE, missing
from cinnabar_gateway.submissions import Outcome, Submissions
from cinnabar_gateway.uploads import Uploads, files_of

PARENT_RULE = "must be courses/{course}/assignments/{assignment}"
IDEMPOTENCY_KEY = "idempotency-key"
_REQUEST_ID = re.compile(r"[ -~]{1,128}")
_REQUEST_ID_RULE = "must be 1 to 128 printable ASCII characters"
_FINGERPRINT_BYTES = 16
_NORMAL = SubmissionMessage.Priority.NORMAL
_HIGH = SubmissionMessage.Priority.HIGH
_PRIORITIES: Mapping[int, int] = {0: _NORMAL} | {
    value: value for value in SubmissionMessage.Priority.values() if value
}
_PRIORITY_RULE = "must be LOW, NORMAL or HIGH"
_AT = "submission"
_CLOSED = "CLOSED"

Parent = AnswerRules | SuiteError
"""What is known of an assignment: its rules, or why there are none."""


def request_id_of(field: str, header: str) -> str:
    """The request id of a single call. InvalidRequest when field and header differ."""
    if field and header and field != header:
        raise InvalidRequest(
            [FieldViolation("request_id", f"must be the same as the metadata {IDEMPOTENCY_KEY}")]
        )
    if header and not field and not _REQUEST_ID.fullmatch(header):
        raise InvalidRequest([FieldViolation(IDEMPOTENCY_KEY, _REQUEST_ID_RULE)])
    return field or header


class Intake:
    """Checks what is handed in against the current revision and the caller's rights, and commits it."""

    def __init__(
        self,
        revisions: CurrentRevisions[AnswerRules],
        submissions: Submissions,
        queues: QueueStates,
        admission: Admission,
        clock: Clock,
        uploads: Uploads,
        *,
        mint: Callable[[Bucket], str] = new_id,
    ) -> None:
        self._revisions = revisions
        self._submissions = submissions
        self._queues = queues
        self._admission = admission
        self._clock = clock
        self._uploads = uploads
        self._mint = mint

    async def create(
        self, identity: Identity, request: CreateSubmissionRequest, min_positions: Positions, *, call: Call
    ) -> tuple[NewSubmission | Submission, Positions]:
        """Creates one submission: it, or the earlier one of the same request id, and where to read it.

        Raises what ``create_many`` gives as an outcome.
        """
        outcomes, positions = await self.create_many(identity, (request,), min_positions, call=call)
        outcome = outcomes[0]
        if isinstance(outcome, SuiteError):
            raise outcome
        return outcome, positions

    async def create_many(
        self,
        identity: Identity,
        requests: Sequence[CreateSubmissionRequest],
        min_positions: Positions,
        *,
        call: Call,
        parent: str = "",
    ) -> tuple[list[Outcome], Positions]:
        """Creates submissions that stand each for itself; one outcome per request, in order.

        ``parent`` is that of a batch, whose requests may leave out their own; what refuses the whole
        batch (its assignment, a limit) is raised, all others are outcomes. Only what is good is charged.
        """
        names = {parent} if parent else {request.parent for request in requests} - {""}
        parents = await self._parents(identity, names, min_positions)
        if parent and isinstance(refusal := parents.get(parent), SuiteError):
            raise refusal
        now_us = int(self._clock.time() * 1e6)
        drafts = [self._draft(identity, request, parents, parent, now_us) for request in requests]
        if any(isinstance(draft, NewSubmission) and draft.files for draft in drafts):
            drafts = await self._uploads.hand_in(identity, drafts)
        good = [draft for draft in drafts if isinstance(draft, NewSubmission)]
        created, positions = await self._committed(identity, call, good)
        outcomes = created
        if len(good) < len(drafts):
            following = iter(created)
            outcomes = [next(following) if isinstance(draft, NewSubmission) else draft for draft in drafts]
        if parent and (refusal := _of_all(outcomes)) is not None:
            raise refusal
        return outcomes, positions

    async def _committed(
        self, identity: Identity, call: Call, good: Sequence[NewSubmission]
    ) -> tuple[list[Outcome], Positions]:
        """Admits, then commits what may go on; one outcome each, in order."""
        decisions: list[Outcome | Replay | None] = [*await self._admission.admit(identity, call, good)]
        known: Positions = ()
        if replays := [index for index, one in enumerate(decisions) if isinstance(one, Replay)]:
            earlier = [EarlierAnswer.decode(one.answer) for one in decisions if isinstance(one, Replay)]
            known = merged(*(one.positions for one in earlier))
            answers: Sequence[Outcome | None]
            try:
                answers = await self._submissions.answers(identity, earlier)
            except SuiteError as error:
                answers = [error for _ in earlier]
            for index, answer in zip(replays, answers, strict=True):
                decisions[index] = answer  # what is not there any more is handed in anew
        going = [index for index, one in enumerate(decisions) if one is None]
        created: list[Outcome]
        positions: Positions = ()
        try:
            created, positions = await self._submissions.create([good[index] for index in going])
        except SuiteError as error:
            created = [error for _ in going]
        if len(going) == len(good):
            return created, positions
        for index, outcome in zip(going, created, strict=True):
            decisions[index] = outcome
        outcomes = [one for one in decisions if one is not None and not isinstance(one, Replay)]
        return outcomes, merged(known, positions)

    async def _parents(
        self, identity: Identity, names: Iterable[str], min_positions: Positions
    ) -> dict[str, Parent]:
        """What is known of each assignment named. Never raises for one of them."""
        found: dict[str, Parent] = {"": InvalidRequest([FieldViolation("parent", REQUIRED_RULE)])}
        for text in names:
            name = AssignmentName.parse(text)
            if name is None:
                found[text] = InvalidRequest([FieldViolation("parent", PARENT_RULE)])
                continue
            try:
                found[text] = await self._revisions.get(identity.tenant, name, min_positions)
            except SuiteError as error:
                found[text] = error
        return found

    def _draft(
        self,
        identity: Identity,
        request: CreateSubmissionRequest,
        parents: Mapping[str, Parent],
        parent: str,
        now_us: int,
    ) -> NewSubmission | SuiteError:
        submission = request.submission
        own_parent = request.parent
        rules = parents[parent or own_parent]
        request_id = request.request_id
        student = identity.role is Role.STUDENT
        author = submission.author or (identity.user if student else "")
        priority = _PRIORITIES.get(submission.priority)
        timed = submission.HasField("grade_after") or submission.HasField("grade_by")
        if (
            not isinstance(rules, AnswerRules)
            or not submission.answers
            or ((tasks := rules.accept(submission.answers)) is None and not (request_id and rules.revised))
            or priority is None
            or (request_id and not _REQUEST_ID.fullmatch(request_id))
            or not (author == identity.user or is_id(author))
            or (parent and own_parent and own_parent != parent)
            or (timed and any(grading_times.broken(submission, now_us, _AT)))
        ):
            return _refusal(request, rules, author, parent, now_us)
        if student and author != identity.user:
            return RoleForbidden(role=identity.role.value, action="submissions.create_for_another")
        if student and priority == _HIGH:
            return RoleForbidden(role=identity.role.value, action="submissions.create_with_high_priority")
        after_us, by_us = grading_times.times_of(submission) if timed else (None, None)
        refusal: SuiteError | None = None
        if tasks is None:  # an earlier revision may have taken it, under this request id
            refusal = _refusal(request, rules, author, parent, now_us)
        elif rules.close_time_us is not None and now_us >= rules.close_time_us:
            refusal = StateForbids(str(rules.name), _CLOSED)
        elif timed and (late := list(grading_times.overdue(after_us, by_us, now_us, _AT))):
            refusal = InvalidRequest(late)
        elif self._queues.draining:
            refusal = self._queues.refusal(plan.queue for plan, _ in tasks)
        if refusal is not None and not request_id:
            return refusal
        files: Sequence[tuple[int, UploadName]] = ()
        if tasks is None:
            files_of(submission.answers)
        elif rules.takes_files and not all(encoded for _, encoded in tasks):
            files = files_of(submission.answers)
        answers = AnswerSet(answers=submission.answers).SerializeToString(deterministic=True)
        tenant = identity.tenant
        return NewSubmission(
            submission_id=self._mint(bucket_of(tenant, author)),
            tenant=tenant,
            name=rules.name,
            revision_id=rules.revision_id,
            author=author,
            request_id=request_id,
            fingerprint=(
                _fingerprint(rules.name, author, priority, after_us, by_us, answers) if request_id else b""
            ),
            priority=priority,
            answers=answers,
            max_score=rules.max_score,
            tasks=tasks or [],
            create_time_us=now_us,
            grade_after_us=after_us,
            grade_by_us=by_us,
            refusal=refusal,
            files=files,
        )


def _of_all(outcomes: Sequence[Outcome]) -> SuiteError | None:
    """What refuses a batch as a whole: its assignment is closed, or nothing of it fits into a limit."""
    first = outcomes[0] if outcomes else None
    if isinstance(first, RateLimited) and all(isinstance(one, RateLimited) for one in outcomes):
        return first
    closed = (isinstance(one, StateForbids) and one.metadata["state"] == _CLOSED for one in outcomes)
    return first if isinstance(first, SuiteError) and all(closed) else None


def _refusal(
    request: CreateSubmissionRequest, rules: Parent, author: str, parent: str, now_us: int
) -> SuiteError:
    """Why a request is refused: everything that is wrong with it, else why its assignment takes none."""
    submission = request.submission
    violations = list(missing(request, skip=frozenset({"parent"} if parent else ())))
    if parent and request.parent and request.parent != parent:
        violations.append(FieldViolation("parent", "must be empty or that of the batch"))
    elif request.parent and isinstance(rules, InvalidRequest):
        violations += rules.violations
    if request.HasField("submission") and not author:
        violations.append(FieldViolation("submission.author", "must be set by an instructor"))
    elif author and not is_id(author):
        violations.append(FieldViolation("submission.author", ID_RULE))
    if submission.priority not in _PRIORITIES:
        violations.append(FieldViolation("submission.priority", _PRIORITY_RULE))
    if request.request_id and not _REQUEST_ID.fullmatch(request.request_id):
        violations.append(FieldViolation("request_id", _REQUEST_ID_RULE))
    violations += grading_times.broken(submission, now_us, _AT)
    if isinstance(rules, AnswerRules) and submission.answers:
        violations += rules.violations(submission.answers, f"{_AT}.answers")
    if violations:
        return InvalidRequest(violations)
    return rules if isinstance(rules, SuiteError) else SuiteError()


def _fingerprint(
    name: AssignmentName,
    author: str,
    priority: int,
    after_us: int | None,
    by_us: int | None,
    answers: bytes,
) -> bytes:
    head = f"{name}\n{author}\n{priority}\n"
    if after_us is not None or by_us is not None:
        head += f"after {after_us} by {by_us}\n"  # no serialized AnswerSet begins like this
    return blake2b(head.encode() + answers, digest_size=_FINGERPRINT_BYTES).digest()
