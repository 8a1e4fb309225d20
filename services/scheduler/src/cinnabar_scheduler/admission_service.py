"""Admission over gRPC, for gateways; and the coalescer that it shares with the edge's protocol."""

from __future__ import annotations

from cinnabar.scheduler.v1 import admission_service_pb2 as pb
from cinnabar.scheduler.v1.admission_service_pb2_grpc import AdmissionServiceServicer
from cinnabar_common.coalescer import Coalescer
from cinnabar_common.errors import FieldViolation, InvalidRequest
from cinnabar_common.names import ID_RULE, is_id
from cinnabar_scheduler.admission import (
    MAX_ANSWER_BYTES,
    Admissions,
    Request,
    Result,
    Settlement,
    Verdict,
)
from cinnabar_scheduler.limits import LimitState
from cinnabar_scheduler.policy import MAX_UNITS

MAX_ADMISSIONS = 10_000
MAX_KEY_BYTES = 256
MAX_FINGERPRINT_BYTES = 64
MAX_METHOD_LENGTH = 100

_RESULTS = {
    Result.ADMITTED: pb.Verdict.ADMITTED,
    Result.REPLAY: pb.Verdict.REPLAY,
    Result.KEY_REUSED: pb.Verdict.KEY_REUSED,
    Result.IN_PROGRESS: pb.Verdict.IN_PROGRESS,
    Result.LIMITED: pb.Verdict.LIMITED,
}


def admission_coalescer(admissions: Admissions) -> Coalescer[Request, Verdict]:
    """Gathers what single calls ask, so that they share a call of the store."""
    return Coalescer(admissions.admit, name="scheduler.admit", max_batch=1000, lanes=2)


class AdmissionService(AdmissionServiceServicer):
    """Convert, one domain call, convert."""

    def __init__(self, admissions: Admissions, asked: Coalescer[Request, Verdict]) -> None:
        self._admissions = admissions
        self._asked = asked

    async def Admit(self, request: pb.AdmitRequest, context: object) -> pb.AdmitResponse:
        verdicts = await self._asked.submit_many(_requests(request))
        return pb.AdmitResponse(verdicts=map(_verdict, verdicts))

    async def Settle(self, request: pb.SettleRequest, context: object) -> pb.SettleResponse:
        settled = await self._admissions.settle(_settlements(request))
        return pb.SettleResponse(settled=sum(settled))


def _requests(message: pb.AdmitRequest) -> list[Request]:
    _bounded("admissions", len(message.admissions))
    violations: list[FieldViolation] = []
    requests: list[Request] = []
    for index, one in enumerate(message.admissions):
        problems = _caller_problems(one.tenant, one.user)
        if not one.method or len(one.method) > MAX_METHOD_LENGTH:
            problems.append(FieldViolation("method", f"must have 1 to {MAX_METHOD_LENGTH} characters"))
        if not 0 <= one.cost <= MAX_UNITS:
            problems.append(FieldViolation("cost", f"must be from 0 to {MAX_UNITS}"))
        if len(one.key.encode()) > MAX_KEY_BYTES:
            problems.append(FieldViolation("key", f"must have at most {MAX_KEY_BYTES} bytes"))
        if one.key and not one.fingerprint:
            problems.append(FieldViolation("fingerprint", "is required with a key"))
        if len(one.fingerprint) > MAX_FINGERPRINT_BYTES:
            problems.append(FieldViolation("fingerprint", f"must have at most {MAX_FINGERPRINT_BYTES} bytes"))
        violations += [problem.under(f"admissions[{index}]") for problem in problems]
        requests.append(
            Request(
                tenant=one.tenant,
                user=one.user,
                method=one.method,
                cost=one.cost,
                key=one.key,
                fingerprint=one.fingerprint,
            )
        )
    if violations:
        raise InvalidRequest(violations)
    return requests


def _settlements(message: pb.SettleRequest) -> list[Settlement]:
    _bounded("settlements", len(message.settlements))
    violations: list[FieldViolation] = []
    settlements: list[Settlement] = []
    for index, one in enumerate(message.settlements):
        problems = _caller_problems(one.tenant, one.user)
        problems += [
            FieldViolation(field, "is required")
            for field, value in (("key", one.key), ("reservation", one.reservation))
            if not value
        ]
        end = one.WhichOneof("end")
        if end is None or (end == "released" and not one.released):
            problems.append(FieldViolation("end", "must be an answer or released"))
        if len(one.answer) > MAX_ANSWER_BYTES:
            problems.append(FieldViolation("answer", f"must have at most {MAX_ANSWER_BYTES} bytes"))
        violations += [problem.under(f"settlements[{index}]") for problem in problems]
        settlements.append(
            Settlement(
                tenant=one.tenant,
                user=one.user,
                key=one.key,
                reservation=one.reservation,
                answer=one.answer if end == "answer" else None,
            )
        )
    if violations:
        raise InvalidRequest(violations)
    return settlements


def _bounded(field: str, count: int) -> None:
    if not 1 <= count <= MAX_ADMISSIONS:
        raise InvalidRequest([FieldViolation(field, f"must be 1 to {MAX_ADMISSIONS}")])


def _caller_problems(tenant: str, user: str) -> list[FieldViolation]:
    return [
        FieldViolation(field, ID_RULE)
        for field, text in (("tenant", tenant), ("user", user))
        if not is_id(text)
    ]


def _verdict(verdict: Verdict) -> pb.Verdict:
    message = pb.Verdict(
        result=_RESULTS[verdict.result],
        reservation=verdict.reservation,
        answer=verdict.answer,
        degraded=verdict.degraded,
    )
    if verdict.retry_after_us:
        message.retry_after.FromMicroseconds(verdict.retry_after_us)
    if verdict.limit is not None:
        message.limit.CopyFrom(_limit(verdict.limit))
    return message


def _limit(state: LimitState) -> pb.LimitState:
    message = pb.LimitState(level=state.level, limit=state.limit, remaining=state.remaining)
    message.reset.FromMicroseconds(state.reset_us)
    message.period.FromMicroseconds(state.period_us)
    return message
