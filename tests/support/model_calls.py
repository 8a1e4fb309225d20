"""`ModelCalls` behind one face, for the suite that runs over all adapters."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias

import grpc
from grpc.aio import ServicerContext

from cinnabar.scheduler.v1 import model_call_service_pb2 as pb
from cinnabar.scheduler.v1.model_call_service_pb2_grpc import (
    ModelCallServiceServicer,
    add_ModelCallServiceServicer_to_server,
)
from cinnabar_common.channels import channel
from cinnabar_grader.adapters.memory_model_calls import BudgetLimit, MemoryModelCalls, Owner, ProviderLimits
from cinnabar_grader.adapters.model_calls import SchedulerModelCalls
from cinnabar_grader.graders import LeaseToken
from cinnabar_grader.llm.ports import (
    Call,
    Denied,
    Ending,
    Failure,
    LeaseNotHeld,
    ModelCalls,
    NotMade,
    Permit,
    Shared,
    Success,
    Throttled,
    Useless,
    Wait,
)
from tests.support.scheduler_queue import ManualClock

PLAIN, FEW, SLOW = "plain", "few", "slow"
LIMITS: Mapping[str, ProviderLimits] = {
    FEW: ProviderLimits(calls=2),
    SLOW: ProviderLimits(requests_per_minute=3, tokens_per_minute=1000),
}
"""By provider; `PLAIN` has the defaults."""
RICH = Owner("rich", "c1", "a1")
POOR = Owner("poor", "c1", "a1")
"""Whose tenant may spend 1,000 tokens and 500 millionths."""
STRICT = Owner("strict", "c1", "a1")
"""Whose course may spend 1,000 tokens, whose assignment 100."""
BUDGETS: Mapping[str, BudgetLimit] = {
    POOR.scopes[0]: BudgetLimit(tokens=1000, cost_micros=500),
    STRICT.scopes[1]: BudgetLimit(tokens=1000),
    STRICT.scopes[2]: BudgetLimit(tokens=100),
}
"""By `Owner.scopes`."""
LOST = LeaseToken("1-lost")
"""A lease that nobody holds."""


@dataclass(frozen=True, slots=True)
class ModelCallsHarness:
    """The port under `LIMITS` and `BUDGETS`, time that passes when told to, leases of tasks."""

    calls: ModelCalls
    advance: Callable[[float], Awaitable[None]]
    lease: Callable[[Owner], Awaitable[LeaseToken]]


Opener: TypeAlias = "Callable[[], AsyncGenerator[ModelCallsHarness]]"


async def memory_harness() -> AsyncGenerator[ModelCallsHarness]:
    """In memory."""
    clock, leases = ManualClock(), dict[LeaseToken, Owner]()
    calls = MemoryModelCalls(clock=clock, limits=LIMITS, budgets=BUDGETS, owner_of=leases.get)

    async def advance(seconds: float) -> None:
        clock.advance(seconds)

    async def lease(owner: Owner) -> LeaseToken:
        token = LeaseToken(f"{len(leases)}-held")
        leases[token] = owner
        return token

    yield ModelCallsHarness(calls, advance, lease)


async def wire_harness() -> AsyncGenerator[ModelCallsHarness]:
    """The client of the scheduler, over gRPC, to what is in memory."""
    async for inner in memory_harness():
        async with served(inner.calls) as address, channel(address) as connection:
            yield ModelCallsHarness(SchedulerModelCalls([connection]), inner.advance, inner.lease)


@asynccontextmanager
async def served(calls: ModelCalls) -> AsyncGenerator[str]:
    """A scheduler's service of model calls over ``calls``; yields its address."""
    server = grpc.aio.server()
    add_ModelCallServiceServicer_to_server(ModelCallsOverWire(calls), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


BeginContext: TypeAlias = "ServicerContext[pb.BeginModelCallRequest, pb.BeginModelCallResponse]"


class ModelCallsOverWire(ModelCallServiceServicer):
    """Translates calls to a `ModelCalls`. ``away`` makes every call fail."""

    def __init__(self, calls: ModelCalls) -> None:
        self._calls = calls
        self.away = False

    async def BeginModelCall(
        self, request: pb.BeginModelCallRequest, context: BeginContext
    ) -> pb.BeginModelCallResponse:
        if self.away:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "redis")
        call = Call(
            provider=request.provider,
            tokens=request.tokens,
            cost_micros=request.cost_micros,
            share_key=request.share_key,
            timeout=request.timeout.ToNanoseconds() / 1e9,
        )
        try:
            answer = await self._calls.begin(LeaseToken(request.lease_token), call)
        except LeaseNotHeld:
            await context.abort(grpc.StatusCode.NOT_FOUND, "lease")
        response = pb.BeginModelCallResponse()
        match answer:
            case Permit(token, probe):
                response.permit.token = token
                response.permit.probe = probe
            case Shared(result):
                response.shared.result = result
            case Wait(reason, seconds):
                response.wait.reason = response.Wait.Reason.ValueType(reason)
                response.wait.retry_after.FromNanoseconds(int(seconds * 1e9))
            case Denied(reason, seconds, level):
                response.denied.reason = response.Denied.Reason.ValueType(reason.value)
                response.denied.level = level
                if seconds is not None:
                    response.denied.retry_after.FromNanoseconds(int(seconds * 1e9))
        return response

    async def EndModelCall(
        self,
        request: pb.EndModelCallRequest,
        context: ServicerContext[pb.EndModelCallRequest, pb.EndModelCallResponse],
    ) -> pb.EndModelCallResponse:
        if self.away:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "redis")
        breaker = await self._calls.end(Permit(request.token), _ending_of(request))
        return pb.EndModelCallResponse(breaker=pb.BreakerState.ValueType(breaker))

    async def ListProviders(
        self,
        request: pb.ListProvidersRequest,
        context: ServicerContext[pb.ListProvidersRequest, pb.ListProvidersResponse],
    ) -> pb.ListProvidersResponse:
        return pb.ListProvidersResponse()

    async def ListBudgets(
        self,
        request: pb.ListBudgetsRequest,
        context: ServicerContext[pb.ListBudgetsRequest, pb.ListBudgetsResponse],
    ) -> pb.ListBudgetsResponse:
        return pb.ListBudgetsResponse()


def _ending_of(request: pb.EndModelCallRequest) -> Ending:
    match request.WhichOneof("outcome"):
        case "success":
            success = request.success
            return Success(success.tokens, success.cost_micros, success.result)
        case "failure":
            return Failure()
        case "useless":
            return Useless(request.useless.tokens, request.useless.cost_micros)
        case "throttled":
            return Throttled(request.throttled.retry_after.ToNanoseconds() / 1e9)
        case None:
            return NotMade()
