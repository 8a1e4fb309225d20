"""Model calls in Redis or Valkey: each decision is one Lua call."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

from redis.asyncio import Redis

from cinnabar_common.clock import Clock
from cinnabar_common.redis_connection import REDIS_ERRORS
from cinnabar_scheduler.adapters.redis_scripts import Script
from cinnabar_scheduler.model_calls import (
    ASK_AGAIN_SECONDS,
    GRACE_SECONDS,
    PROBE_AGAIN_SECONDS,
    RATE_SECONDS,
    SHARED_ROOM_BYTES,
    SHARED_SECONDS,
    Answer,
    BreakerState,
    BudgetsUnknown,
    Call,
    Change,
    DenialReason,
    Denied,
    Ending,
    ModelCallsUnavailable,
    Permit,
    ProviderState,
    Shared,
    Spent,
    Usage,
    Wait,
    WaitReason,
    exhausted_us,
    provider_of,
    token_for,
)
from cinnabar_scheduler.model_policy import ProviderPolicy

# One tag for all: a call touches the provider, which every tenant shares, and budgets of one tenant, and both
# must be decided at once. A call of a model takes seconds, its two scripts 70 µs each of one node.
PREFIX = "cinnabar:{model-calls}:"
_UNKNOWN, _PERMIT, _SHARED, _WAIT = 0, 1, 2, 3
_FIELDS = 6


class RedisModelCalls:
    """Implements ModelCallStore. ``clock`` decides over permits and breakers: schedulers must agree on it."""

    def __init__(self, redis: Redis, clock: Clock, *, room_bytes: int = SHARED_ROOM_BYTES) -> None:
        self._clock = clock
        self._room = room_bytes
        self._begin = Script(redis, "model_begin", shared="model_shared")
        self._end = Script(redis, "model_end", shared="model_shared")
        self._look = Script(redis, "model_look", shared="model_shared")
        self._restore = Script(redis, "model_restore", shared="model_shared")
        self._kept = Script(redis, "model_kept", shared="model_shared")

    async def begin(self, call: Call) -> Answer:
        """See ModelCallStore."""
        now, policy = self._now_us(), call.policy
        token = token_for(call.provider, secrets.token_hex(16))
        expires = now + _us(call.timeout_seconds) + _us(GRACE_SECONDS)
        args: list[str | int] = [now, token, call.provider]
        args += (policy.concurrency, policy.requests_per_minute, policy.tokens_per_minute)
        args += (call.tenant, call.tokens, call.cost_micros, call.share_key.hex(), expires, _us(RATE_SECONDS))
        for purse in call.purses:
            args += (purse.scope, purse.budget.tokens, purse.budget.cost_micros, purse.span.name)
        async with _translated():
            kind, *rest = cast("list[Any]", await self._begin(PREFIX, *args))
        if kind == _UNKNOWN:
            raise BudgetsUnknown(call.tenant)
        if kind == _PERMIT:
            return Permit(token, bool(rest[0]), expires // 1000)
        if kind == _SHARED:
            return Shared(rest[0])
        if kind == _WAIT:
            return Wait(WaitReason(rest[0]), rest[1] or _us(ASK_AGAIN_SECONDS))
        reason = DenialReason(rest[0])
        if reason is DenialReason.BREAKER_OPEN:
            return Denied(reason, rest[1] or _us(PROBE_AGAIN_SECONDS))
        purse = call.purses[int(rest[1])]
        spent = Spent(purse.scope, purse.span.name, rest[2], rest[3])
        return Denied(reason, exhausted_us(purse.budget, purse.span, spent, call, now), purse.level)

    async def end(self, token: str, ending: Ending, policy: ProviderPolicy) -> BreakerState:
        """See ModelCallStore."""
        async with _translated():
            state = await self._end(
                PREFIX,
                self._now_us(),
                token,
                provider_of(token),
                int(ending.how),
                ending.tokens,
                ending.cost_micros,
                ending.result,
                ending.retry_us,
                policy.failures,
                _us(policy.recovery_seconds),
                _us(SHARED_SECONDS),
                self._room,
            )
        return BreakerState(state)

    async def providers(self) -> list[ProviderState]:
        """See ModelCallStore."""
        answer = await self._looked("providers", "")
        found = [answer[at : at + 5] for at in range(0, len(answer), 5)]
        return sorted(
            (
                ProviderState(name.decode(), BreakerState(state), failures, retry_ms or None, calls)
                for name, state, failures, retry_ms, calls in found
            ),
            key=lambda one: one.provider,
        )

    async def usage(self, tenant: str) -> list[Usage]:
        """See ModelCallStore."""
        answer = await self._looked("budgets", tenant)
        if not answer:
            raise BudgetsUnknown(tenant)
        found = [answer[at : at + _FIELDS] for at in range(1, len(answer), _FIELDS)]
        return sorted(
            (
                Usage(Spent(scope.decode(), span.decode(), tokens, cost), tokens_reserved, cost_reserved)
                for scope, span, tokens, cost, tokens_reserved, cost_reserved in found
            ),
            key=lambda one: one.spent.scope,
        )

    async def restore(self, tenant: str, spent: Sequence[Spent]) -> None:
        """See ModelCallStore."""
        args: list[str | int] = [self._now_us(), tenant]
        for one in spent:
            args += (one.scope, one.span, one.tokens, one.cost_micros)
        async with _translated():
            await self._restore(PREFIX, *args)

    async def changes(self, limit: int) -> list[Change]:
        """See ModelCallStore."""
        answer = await self._looked("changes", limit)
        found = [answer[at : at + _FIELDS] for at in range(0, len(answer), _FIELDS)]
        return [
            Change(tenant.decode(), Spent(scope.decode(), span.decode(), tokens, cost), mark)
            for tenant, scope, mark, span, tokens, cost in found
        ]

    async def kept(self, changes: Sequence[Change]) -> None:
        """See ModelCallStore."""
        args: list[str | int] = [self._now_us()]
        for one in changes:
            args += (one.tenant, one.spent.scope, one.mark)
        async with _translated():
            await self._kept(PREFIX, *args)

    async def _looked(self, what: str, argument: str | int) -> list[Any]:
        async with _translated():
            return cast("list[Any]", await self._look(PREFIX, self._now_us(), what, argument))

    def _now_us(self) -> int:
        return round(self._clock.time() * 1e6)


def _us(seconds: float) -> int:
    return round(seconds * 1e6)


@asynccontextmanager
async def _translated() -> AsyncGenerator[None]:
    try:
        yield
    except REDIS_ERRORS as error:
        raise ModelCallsUnavailable from error
