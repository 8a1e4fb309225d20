"""`ModelCalls` of the scheduler, with breakers of this process for when it cannot be asked."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import grpc

from cinnabar.scheduler.v1 import model_call_service_pb2 as pb
from cinnabar.scheduler.v1.model_call_service_pb2_grpc import ModelCallServiceStub
from cinnabar_common.clock import Clock, SystemClock
from cinnabar_grader.adapters.memory_model_calls import MemoryModelCalls
from cinnabar_grader.graders import LeaseToken
from cinnabar_grader.llm.ports import (
    Answer,
    BreakerState,
    Call,
    DenialReason,
    Denied,
    Ending,
    Failure,
    LeaseNotHeld,
    Permit,
    Shared,
    Success,
    Throttled,
    Useless,
    Wait,
    WaitReason,
)

if TYPE_CHECKING:
    from cinnabar.scheduler.v1.model_call_service_pb2_grpc import ModelCallServiceAsyncStub

log = logging.getLogger(__name__)
CALL_SECONDS = 2.0
"""How long a scheduler may take to answer."""
_LOCAL = "here/"
"""Begins the permits of this process."""


class SchedulerModelCalls:
    """Implements `ModelCalls`.

    A lease is known to the scheduler that granted it: they are asked in turn, the one that knew the last
    one first. When none can be asked (no answer in time, Redis away) this process decides by breakers of
    its own, which have heard of all of its calls, with the same rules; nothing is shared or charged then.
    """

    def __init__(
        self,
        channels: Sequence[grpc.aio.Channel],
        *,
        clock: Clock | None = None,
        timeout: float = CALL_SECONDS,
    ) -> None:
        """``channels``: one to each scheduler."""
        self._stubs: list[ModelCallServiceAsyncStub] = [ModelCallServiceStub(one) for one in channels]
        self._timeout = timeout
        self._local = MemoryModelCalls(clock=clock or SystemClock())
        self._permits: dict[str, tuple[str, ModelCallServiceAsyncStub]] = {}

    async def begin(self, lease: LeaseToken, call: Call) -> Answer:
        """See ModelCalls."""
        request = pb.BeginModelCallRequest(
            lease_token=lease,
            provider=call.provider,
            tokens=call.tokens,
            cost_micros=call.cost_micros,
            share_key=call.share_key,
        )
        request.timeout.FromNanoseconds(int(call.timeout * 1e9))
        unknown = True
        for stub in tuple(self._stubs):
            try:
                response = await stub.BeginModelCall(request, timeout=self._timeout)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND:
                    unknown = False
                    log.warning("scheduler not asked about a model call", extra={"code": error.code().name})
                continue
            if stub is not self._stubs[0]:
                self._stubs.remove(stub)
                self._stubs.insert(0, stub)
            answer = _answer_of(response)
            if isinstance(answer, Permit):
                self._permits[answer.token] = (call.provider, stub)
            return answer
        if unknown:
            raise LeaseNotHeld
        return await self._begin_here(lease, call)

    async def end(self, permit: Permit, ending: Ending) -> BreakerState:
        """See ModelCalls. What cannot be said is not said: the permit expires by itself."""
        if permit.token.startswith(_LOCAL):
            return await self._local.end(Permit(permit.token.removeprefix(_LOCAL), permit.probe), ending)
        known = self._permits.pop(permit.token, None)
        if known is None:
            return BreakerState.CLOSED
        provider, stub = known
        self._local.observe(provider, ending)
        try:
            response = await stub.EndModelCall(_request_of(permit, ending), timeout=self._timeout)
        except grpc.aio.AioRpcError as error:
            log.warning("end of a model call not told", extra={"code": error.code().name})
            return self._local.state(provider)
        return BreakerState(response.breaker or BreakerState.CLOSED)

    async def _begin_here(self, lease: LeaseToken, call: Call) -> Answer:
        answer = await self._local.begin(lease, call)
        return Permit(_LOCAL + answer.token, answer.probe) if isinstance(answer, Permit) else answer


def _answer_of(response: pb.BeginModelCallResponse) -> Answer:
    match response.WhichOneof("answer"):
        case "permit":
            return Permit(response.permit.token, response.permit.probe)
        case "shared":
            return Shared(response.shared.result)
        case "wait":
            wait = response.wait
            return Wait(WaitReason(wait.reason), _seconds(wait.retry_after.ToNanoseconds()))
        case "denied":
            denied = response.denied
            known = denied.HasField("retry_after")
            return Denied(
                DenialReason(denied.reason),
                _seconds(denied.retry_after.ToNanoseconds()) if known else None,
                denied.level,
            )
        case None:
            raise ConnectionError("the scheduler answered nothing")


def _request_of(permit: Permit, ending: Ending) -> pb.EndModelCallRequest:
    request = pb.EndModelCallRequest(token=permit.token)
    match ending:
        case Success(tokens, cost_micros, result):
            request.success.CopyFrom(request.Success(tokens=tokens, cost_micros=cost_micros, result=result))
        case Useless(tokens, cost_micros):
            request.useless.CopyFrom(request.Useless(tokens=tokens, cost_micros=cost_micros))
        case Failure():
            request.failure.SetInParent()
        case Throttled(retry_after):
            request.throttled.SetInParent()
            request.throttled.retry_after.FromNanoseconds(int(retry_after * 1e9))
        case _:
            pass
    return request


def _seconds(nanoseconds: int) -> float:
    return nanoseconds / 1e9
