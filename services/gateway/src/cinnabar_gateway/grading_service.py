"""The public GradingService: the flat path to CreateSubmission."""

from __future__ import annotations

from uuid import uuid4

from cinnabar.gateway.v1 import grading_service_pb2 as pb
from cinnabar.gateway.v1.grading_service_pb2_grpc import GradingServiceServicer
from cinnabar.gateway.v1.submission_service_pb2 import CreateSubmissionRequest, Submission
from cinnabar_common.errors import FieldViolation, InvalidRequest
from cinnabar_common.names import ID_RULE, AssignmentName, is_id
from cinnabar_gateway import convert, identity
from cinnabar_gateway.admission import Call
from cinnabar_gateway.calls import Context, metadata_value, min_positions, send_positions
from cinnabar_gateway.intake import IDEMPOTENCY_KEY, Intake, request_id_of
from cinnabar_gateway.records import NewSubmission
from cinnabar_gateway.required import missing
from cinnabar_gateway.submission_service import CREATORS
from cinnabar_gateway.submissions import fresh

_KEYED = Call(method="SubmitGrading", charged=1)
_UNKEYED = Call(method="SubmitGrading", charged=1, guarded=False)


class GradingService(GradingServiceServicer):
    """Speaks gRPC; knows nothing of storage and queues."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    async def SubmitGrading(
        self, request: pb.SubmitGradingRequest, context: Context
    ) -> pb.SubmitGradingResponse:
        caller = identity.current()
        caller.require("submissions.create", *CREATORS)
        key = request_id_of("", metadata_value(context, IDEMPOTENCY_KEY))
        request_id = key or str(uuid4())
        violations = [
            FieldViolation(field, ID_RULE)
            for field, text in (("course", request.course), ("assignment", request.assignment))
            if text and not is_id(text)
        ]
        if violations or not request.course or not request.assignment:
            raise InvalidRequest([*missing(request), *violations])
        create = CreateSubmissionRequest(
            parent=str(AssignmentName(request.course, request.assignment)),
            submission=Submission(author=request.author, answers=request.answers, priority=request.priority),
            request_id=request_id,
        )
        try:
            outcome, positions = await self._intake.create(
                caller, create, min_positions(context), call=_KEYED if key else _UNKEYED
            )
        except InvalidRequest as error:
            raise InvalidRequest([_flat(violation) for violation in error.violations]) from error
        await send_positions(context, positions)
        stored = fresh(outcome) if isinstance(outcome, NewSubmission) else outcome
        shown = convert.submission(stored, caller.role)
        return pb.SubmitGradingResponse(submission=shown.name, state=shown.state, idempotency_key=request_id)


def _flat(violation: FieldViolation) -> FieldViolation:
    """The same violation with the path of this request."""
    return FieldViolation(violation.field.removeprefix("submission."), violation.rule)
