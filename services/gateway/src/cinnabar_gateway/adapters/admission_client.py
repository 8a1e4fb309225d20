"""The scheduler's AdmissionService, as the domain's admissions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import grpc

from cinnabar.scheduler.v1 import admission_service_pb2 as pb
from cinnabar.scheduler.v1.admission_service_pb2_grpc import AdmissionServiceStub
from cinnabar_common.errors import DependencyUnavailable, from_rpc_error
from cinnabar_gateway import deadlines
from cinnabar_gateway.admission import AdmissionRequest, LimitState, Result, Settlement, Verdict

DEPENDENCY = "scheduler"
_MAX_ADMISSIONS = 10_000
_RESULTS = {pb.Verdict.Result.Value(result.name): result for result in Result}
Q = TypeVar("Q")
A = TypeVar("A")


class AdmissionClient:
    """Implements the port Admissions. The channel stays the caller's."""

    def __init__(self, channel: grpc.aio.Channel, *, timeout_seconds: float = 0.25) -> None:
        self._stub = AdmissionServiceStub(channel)
        self._timeout = timeout_seconds

    async def admit(self, requests: Sequence[AdmissionRequest]) -> list[Verdict]:
        """See Admissions."""
        verdicts: list[Verdict] = []
        for start in range(0, len(requests), _MAX_ADMISSIONS):
            part = requests[start : start + _MAX_ADMISSIONS]
            response = await self._call(self._stub.Admit, pb.AdmitRequest(admissions=map(_admission, part)))
            if len(response.verdicts) != len(part):
                raise DependencyUnavailable(DEPENDENCY)
            verdicts += map(_verdict, response.verdicts)
        return verdicts

    async def settle(self, ends: Sequence[Settlement]) -> None:
        """See Admissions."""
        for start in range(0, len(ends), _MAX_ADMISSIONS):
            part = ends[start : start + _MAX_ADMISSIONS]
            await self._call(self._stub.Settle, pb.SettleRequest(settlements=map(_settlement, part)))

    async def _call(self, method: grpc.aio.UnaryUnaryMultiCallable[Q, A], request: Q) -> A:
        try:
            return await method(request, timeout=deadlines.within(self._timeout))
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, DEPENDENCY) from error


def _admission(request: AdmissionRequest) -> pb.Admission:
    return pb.Admission(
        tenant=request.tenant,
        user=request.user,
        method=request.method,
        cost=request.cost,
        key=request.key,
        fingerprint=request.fingerprint,
    )


def _verdict(message: pb.Verdict) -> Verdict:
    limit = None
    if message.HasField("limit"):
        seen = message.limit
        limit = LimitState(seen.level, seen.limit, seen.remaining, seen.period.ToMicroseconds() / 1e6)
    result = _RESULTS.get(message.result)
    if result is None:  # of a newer scheduler: it takes no effect here, and is guarded by storage
        result = Result.ADMITTED
    return Verdict(
        result=result,
        reservation=message.reservation,
        answer=message.answer,
        retry_seconds=message.retry_after.ToMicroseconds() / 1e6,
        limit=limit,
    )


def _settlement(end: Settlement) -> pb.Settlement:
    reservation = end.reservation
    message = pb.Settlement(
        tenant=reservation.tenant,
        user=reservation.user,
        key=reservation.key,
        reservation=reservation.token,
    )
    if end.answer is None:
        message.released = True
    else:
        message.answer = end.answer
    return message
