"""Model calls over gRPC, for graders that hold a lease here, and for operators."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager

from google.protobuf.duration_pb2 import Duration

from cinnabar.scheduler.v1 import model_call_service_pb2 as pb
from cinnabar.scheduler.v1.model_call_service_pb2_grpc import ModelCallServiceServicer
from cinnabar_common.errors import DependencyUnavailable, FieldViolation, InvalidRequest, ResourceNotFound
from cinnabar_common.names import ID_RULE, is_id
from cinnabar_scheduler.model_calls import (
    MAX_SHARED_BYTES,
    Answer,
    Denied,
    Ending,
    How,
    ModelCallsUnavailable,
    Permit,
    Place,
    Places,
    Shared,
)
from cinnabar_scheduler.model_permits import ModelCalls
from cinnabar_scheduler.policy import MAX_TOKENS
from cinnabar_scheduler.ports import StoreUnavailable
from cinnabar_scheduler.session import WorkerSession
from cinnabar_scheduler.tasks import Lease, LeaseToken

MAX_TIMEOUT_SECONDS = 600.0
MAX_THROTTLE_SECONDS = 3600.0
MAX_TOKEN_CHARACTERS = 128
SHARE_KEY_BYTES = 32


class ModelCallService(ModelCallServiceServicer):
    """Convert, one domain call, convert."""

    def __init__(
        self, calls: ModelCalls, places: Places, sessions: Callable[[], Sequence[WorkerSession]]
    ) -> None:
        """``sessions`` are the workers that are connected here, with the leases that they hold."""
        self._calls = calls
        self._places = places
        self._sessions = sessions

    async def BeginModelCall(
        self, request: pb.BeginModelCallRequest, context: object
    ) -> pb.BeginModelCallResponse:
        _check_begin(request)
        async with _translated():
            place = await self._place(request.lease_token)
            answer = await self._calls.begin(
                place,
                request.provider,
                tokens=request.tokens,
                cost_micros=request.cost_micros,
                share_key=request.share_key,
                timeout_seconds=_seconds(request.timeout),
            )
        return _answer(answer)

    async def EndModelCall(self, request: pb.EndModelCallRequest, context: object) -> pb.EndModelCallResponse:
        ending = _ending(request)
        async with _translated():
            state = await self._calls.end(request.token, ending)
        return pb.EndModelCallResponse(breaker=pb.BreakerState.ValueType(state))

    async def ListProviders(
        self, request: pb.ListProvidersRequest, context: object
    ) -> pb.ListProvidersResponse:
        async with _translated():
            states = await self._calls.providers()
        response = pb.ListProvidersResponse()
        for one in states:
            told = response.providers.add(
                provider=one.provider,
                breaker=pb.BreakerState.ValueType(one.breaker),
                failures=one.failures,
                calls=one.calls,
            )
            if one.retry_ms is not None:
                told.retry_time.FromMilliseconds(one.retry_ms)
        return response

    async def ListBudgets(self, request: pb.ListBudgetsRequest, context: object) -> pb.ListBudgetsResponse:
        if not is_id(request.tenant):
            raise InvalidRequest([FieldViolation("tenant", ID_RULE)])
        async with _translated():
            budgets = await self._calls.budgets(request.tenant)
        response = pb.ListBudgetsResponse()
        for purse, usage in budgets:
            told = response.budgets.add(
                scope=purse.scope,
                token_limit=purse.budget.tokens,
                tokens_spent=usage.spent.tokens,
                tokens_reserved=usage.tokens_reserved,
                cost_limit_micros=purse.budget.cost_micros,
                cost_spent_micros=usage.spent.cost_micros,
                cost_reserved_micros=usage.cost_reserved,
            )
            if purse.span.ends_ms is not None:
                told.reset_time.FromMilliseconds(purse.span.ends_ms)
        return response

    async def _place(self, token: str) -> Place:
        lease = self._held(token)
        place = await self._places.place(lease.tenant, lease.revision) if lease is not None else None
        if place is None:
            raise ResourceNotFound("the lease")
        return place

    def _held(self, token: str) -> Lease | None:
        for session in self._sessions():
            lease = session.held.get(LeaseToken(token))
            if lease is not None:
                return lease
        return None


def _check_begin(request: pb.BeginModelCallRequest) -> None:
    violations: list[FieldViolation] = []
    if not request.lease_token:
        violations.append(FieldViolation("lease_token", "is required"))
    if not is_id(request.provider):
        violations.append(FieldViolation("provider", ID_RULE))
    if not 1 <= request.tokens <= MAX_TOKENS:
        violations.append(FieldViolation("tokens", f"must be from 1 to {MAX_TOKENS}"))
    if not 0 <= request.cost_micros <= MAX_TOKENS:
        violations.append(FieldViolation("cost_micros", f"must be from 0 to {MAX_TOKENS}"))
    if len(request.share_key) not in (0, SHARE_KEY_BYTES):
        violations.append(FieldViolation("share_key", f"must have {SHARE_KEY_BYTES} bytes, or none"))
    if not 0 < _seconds(request.timeout) <= MAX_TIMEOUT_SECONDS:
        violations.append(
            FieldViolation("timeout", f"must be more than 0 and at most {MAX_TIMEOUT_SECONDS:.0f} s")
        )
    if violations:
        raise InvalidRequest(violations)


def _ending(request: pb.EndModelCallRequest) -> Ending:
    violations: list[FieldViolation] = []
    if not 1 <= len(request.token) <= MAX_TOKEN_CHARACTERS:
        violations.append(FieldViolation("token", f"must have 1 to {MAX_TOKEN_CHARACTERS} characters"))
    ending = Ending(How.NOT_MADE)
    match request.WhichOneof("outcome"):
        case "success":
            used = request.success
            ending = Ending(How.SUCCESS, used.tokens, used.cost_micros, used.result)
            if len(used.result) > MAX_SHARED_BYTES:
                violations.append(FieldViolation("success.result", f"at most {MAX_SHARED_BYTES} bytes"))
        case "useless":
            ending = Ending(How.USELESS, request.useless.tokens, request.useless.cost_micros)
        case "failure":
            ending = Ending(How.FAILURE)
        case "throttled":
            seconds = _seconds(request.throttled.retry_after)
            if seconds < 0:
                violations.append(FieldViolation("throttled.retry_after", "must not be negative"))
            # A provider that wants to be left alone for longer is asked again after so long.
            ending = Ending(How.THROTTLED, retry_us=round(min(seconds, MAX_THROTTLE_SECONDS) * 1e6))
        case None:
            pass
    outcome = request.WhichOneof("outcome") or ""
    for field, value in (("tokens", ending.tokens), ("cost_micros", ending.cost_micros)):
        if not 0 <= value <= MAX_TOKENS:
            violations.append(FieldViolation(f"{outcome}.{field}", f"must be from 0 to {MAX_TOKENS}"))
    if violations:
        raise InvalidRequest(violations)
    return ending


def _answer(answer: Answer) -> pb.BeginModelCallResponse:
    response = pb.BeginModelCallResponse()
    if isinstance(answer, Permit):
        response.permit.token, response.permit.probe = answer.token, answer.probe
        response.permit.expire_time.FromMilliseconds(answer.expires_ms)
    elif isinstance(answer, Shared):
        response.shared.result = answer.result
    elif isinstance(answer, Denied):
        response.denied.reason = pb.BeginModelCallResponse.Denied.Reason.ValueType(answer.reason)
        response.denied.level = answer.level
        if answer.retry_us is not None:
            response.denied.retry_after.FromMicroseconds(answer.retry_us)
    else:
        response.wait.reason = pb.BeginModelCallResponse.Wait.Reason.ValueType(answer.reason)
        response.wait.retry_after.FromMicroseconds(answer.retry_us)
    return response


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9


@asynccontextmanager
async def _translated() -> AsyncGenerator[None]:
    try:
        yield
    except ModelCallsUnavailable as error:
        raise DependencyUnavailable("redis") from error
    except StoreUnavailable as error:
        raise DependencyUnavailable("storage") from error
