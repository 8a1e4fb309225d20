"""Model calls in memory: the store of one process, and the model that the one in Redis is compared with."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from cinnabar_common.clock import Clock
from cinnabar_scheduler.limits import Usage as Rate
from cinnabar_scheduler.limits import usage_at, wait_us
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
    How,
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

_RATE_US = round(RATE_SECONDS * 1e6)
_Share = tuple[str, bytes]


@dataclass(slots=True)
class _Provider:
    failures: int = 0
    until_us: int = 0  # 0: closed
    probe: str = ""
    pause_us: int = 0
    requests: Rate = field(default_factory=Rate)
    tokens: Rate = field(default_factory=Rate)
    calls: int = 0

    @property
    def state(self) -> BreakerState:
        if not self.until_us:
            return BreakerState.CLOSED
        return BreakerState.HALF_OPEN if self.probe else BreakerState.OPEN


@dataclass(slots=True)
class _Purse:
    span: str
    tokens: int = 0
    cost: int = 0
    tokens_reserved: int = 0
    cost_reserved: int = 0


@dataclass(frozen=True, slots=True)
class _Open:
    call: Call
    share: _Share | None
    expires_us: int
    charged: int


class MemoryModelCalls:
    """Implements ModelCallStore."""

    def __init__(self, clock: Clock, *, room_bytes: int = SHARED_ROOM_BYTES) -> None:
        self._clock = clock
        self._room = room_bytes
        self._providers: dict[str, _Provider] = {}
        self._open: dict[str, _Open] = {}
        self._flights: dict[_Share, str] = {}
        self._shared: OrderedDict[_Share, tuple[int, bytes]] = OrderedDict()
        self._budgets: dict[str, dict[str, _Purse]] = {}
        self._changed: dict[tuple[str, str], int] = {}

    async def begin(self, call: Call) -> Answer:
        """See ModelCallStore."""
        now = self._reap()
        share = (call.tenant, call.share_key) if call.share_key else None
        if share is not None and (result := self._recall(share, now)) is not None:
            return Shared(result)
        provider = self._providers.setdefault(call.provider, _Provider())
        if provider.probe:
            return Denied(DenialReason.BREAKER_OPEN, _us(PROBE_AGAIN_SECONDS))
        if now < provider.until_us:
            return Denied(DenialReason.BREAKER_OPEN, provider.until_us - now)
        purses = self._purses(call)
        for purse, own in zip(call.purses, purses, strict=True):
            budget = purse.budget
            if 0 < budget.tokens < own.tokens + own.tokens_reserved + call.tokens or (
                0 < budget.cost_micros < own.cost + own.cost_reserved + call.cost_micros
            ):
                spent = Spent(purse.scope, own.span, own.tokens, own.cost)
                retry_us = exhausted_us(budget, purse.span, spent, call, now)
                return Denied(DenialReason.BUDGET_EXHAUSTED, retry_us, purse.level)
        if share in self._flights:
            return Wait(WaitReason.IN_FLIGHT, _us(ASK_AGAIN_SECONDS))
        return self._throttle(provider, call, now) or self._permit(provider, call, share, purses, now)

    async def end(self, token: str, ending: Ending, policy: ProviderPolicy) -> BreakerState:
        """See ModelCallStore."""
        now = self._reap()
        provider = self._providers.get(provider_of(token), _Provider())
        if token not in self._open:
            return provider.state
        probe = provider.probe == token
        answered = ending.how in (How.SUCCESS, How.USELESS)
        call = self._release(token, ending, charge=answered)
        if ending.how is How.THROTTLED:
            provider.pause_us = max(provider.pause_us, now + ending.retry_us)
        counts = probe or not provider.until_us
        if counts and ending.how is How.FAILURE:
            provider.failures += 1
            if probe or provider.failures >= policy.failures:
                provider.until_us = now + _us(policy.recovery_seconds)
        elif (counts and answered) or (probe and ending.how is How.THROTTLED):
            provider.until_us = provider.failures = 0
        if ending.how is How.SUCCESS and ending.result and call.share is not None:
            self._remember(call.share, ending.result, now)
        return provider.state

    async def providers(self) -> list[ProviderState]:
        """See ModelCallStore."""
        self._reap()
        return [
            ProviderState(name, one.state, one.failures, one.until_us // 1000 or None, one.calls)
            for name, one in sorted(self._providers.items())
        ]

    async def usage(self, tenant: str) -> list[Usage]:
        """See ModelCallStore."""
        self._reap()
        if tenant not in self._budgets:
            raise BudgetsUnknown(tenant)
        return [
            Usage(Spent(scope, own.span, own.tokens, own.cost), own.tokens_reserved, own.cost_reserved)
            for scope, own in sorted(self._budgets[tenant].items())
        ]

    async def restore(self, tenant: str, spent: Sequence[Spent]) -> None:
        """See ModelCallStore."""
        known = self._budgets.setdefault(tenant, {})
        for one in spent:
            known.setdefault(one.scope, _Purse(one.span, one.tokens, one.cost_micros))

    async def changes(self, limit: int) -> list[Change]:
        """See ModelCallStore."""
        self._reap()
        return [
            Change(tenant, Spent(scope, own.span, own.tokens, own.cost), mark)
            for (tenant, scope), mark in list(self._changed.items())[:limit]
            for own in (self._budgets[tenant][scope],)
        ]

    async def kept(self, changes: Sequence[Change]) -> None:
        """See ModelCallStore."""
        for one in changes:
            if self._changed.get((one.tenant, one.spent.scope)) == one.mark:
                del self._changed[one.tenant, one.spent.scope]

    def flush(self) -> None:
        """Forgets everything."""
        for kept in (
            *(self._providers, self._open, self._flights),
            *(self._shared, self._budgets, self._changed),
        ):
            kept.clear()

    def _throttle(self, provider: _Provider, call: Call, now: int) -> Wait | None:
        policy = call.policy
        wait = max(0, provider.pause_us - now)
        for rate, cost, units in self._rates(provider, call):
            used = usage_at(rate, now, units, _RATE_US).used
            wait = max(wait, wait_us(used, cost, units, _RATE_US))
        if wait:
            return Wait(WaitReason.RATE, wait)
        if 0 < policy.concurrency <= provider.calls:
            return Wait(WaitReason.CONCURRENCY, _us(ASK_AGAIN_SECONDS))
        return None

    def _rates(self, provider: _Provider, call: Call) -> Iterator[tuple[Rate, int, int]]:
        policy = call.policy
        if policy.requests_per_minute:
            yield provider.requests, 1, policy.requests_per_minute
        if policy.tokens_per_minute:
            yield provider.tokens, min(call.tokens, policy.tokens_per_minute), policy.tokens_per_minute

    def _permit(
        self, provider: _Provider, call: Call, share: _Share | None, purses: list[_Purse], now: int
    ) -> Permit:
        token = token_for(call.provider, secrets.token_hex(16))
        policy = call.policy
        charged = 0
        if policy.requests_per_minute:
            rate = usage_at(provider.requests, now, policy.requests_per_minute, _RATE_US)
            provider.requests = Rate(rate.used + 1, rate.at_us)
        if policy.tokens_per_minute:
            charged = min(call.tokens, policy.tokens_per_minute)
            rate = usage_at(provider.tokens, now, policy.tokens_per_minute, _RATE_US)
            provider.tokens = Rate(rate.used + charged, rate.at_us)
        for purse, own in zip(call.purses, purses, strict=True):
            own.tokens_reserved += call.tokens
            own.cost_reserved += call.cost_micros
            self._budgets[call.tenant][purse.scope] = own
        provider.calls += 1
        if provider.until_us:
            provider.probe = token
        if share is not None:
            self._flights[share] = token
        expires = now + _us(call.timeout_seconds) + _us(GRACE_SECONDS)
        self._open[token] = _Open(call, share, expires, charged)
        return Permit(token, provider.probe == token, expires // 1000)

    def _release(self, token: str, ending: Ending, *, charge: bool) -> _Open:
        """Takes a call off the books, with what it used when it is to be charged."""
        ended = self._open.pop(token)
        call, provider = ended.call, self._providers[provider_of(token)]
        provider.calls -= 1
        if provider.probe == token:
            provider.probe = ""
        if ended.share is not None and self._flights.get(ended.share) == token:
            del self._flights[ended.share]
        if ended.charged and (charge or ending.how is How.NOT_MADE):
            unused = ended.charged - (ending.tokens if charge else 0)
            provider.tokens = Rate(max(0.0, provider.tokens.used - unused), provider.tokens.at_us)
        for purse in call.purses:
            own = self._budgets[call.tenant][purse.scope]
            own.tokens_reserved = max(0, own.tokens_reserved - call.tokens)
            own.cost_reserved = max(0, own.cost_reserved - call.cost_micros)
            if charge and (ending.tokens or ending.cost_micros):
                own.tokens += ending.tokens
                own.cost += ending.cost_micros
                key = (call.tenant, purse.scope)
                self._changed[key] = self._changed.get(key, 0) + 1
        return ended

    def _purses(self, call: Call) -> list[_Purse]:
        """Copies, in their periods of now."""
        if call.tenant not in self._budgets:
            raise BudgetsUnknown(call.tenant)
        found: list[_Purse] = []
        for purse in call.purses:
            own = self._budgets[call.tenant].get(purse.scope, _Purse(purse.span.name))
            renewed = own.span != purse.span.name
            found.append(replace(own, span=purse.span.name, tokens=0, cost=0) if renewed else replace(own))
        return found

    def _recall(self, share: _Share, now: int) -> bytes | None:
        until, result = self._shared.get(share, (0, b""))
        return result if until > now else None

    def _remember(self, share: _Share, result: bytes, now: int) -> None:
        self._shared.pop(share, None)
        self._shared[share] = (now + _us(SHARED_SECONDS), result)
        while next(iter(self._shared.values()))[0] <= now or self._size() > self._room:
            self._shared.popitem(last=False)

    def _size(self) -> int:
        return sum(len(result) for _, result in self._shared.values())

    def _reap(self) -> int:
        """Ends what nobody ended in time; returns the time now, in µs."""
        now = _us(self._clock.time())
        for token in [token for token, one in self._open.items() if one.expires_us <= now]:
            self._release(token, Ending(How.FAILURE), charge=False)
        return now


def _us(seconds: float) -> int:
    return round(seconds * 1e6)
