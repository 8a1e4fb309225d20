"""`ModelCalls` of one process: for tests, and for a grader whose scheduler is away."""

from __future__ import annotations

import itertools
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cinnabar_common.clock import Clock
from cinnabar_grader.graders import LeaseToken
from cinnabar_grader.llm.breaker import Breaker
from cinnabar_grader.llm.ports import (
    BREAKER_FAILURES,
    MAX_SHARED_BYTES,
    RECOVERY_SECONDS,
    Answer,
    BreakerState,
    Call,
    DenialReason,
    Denied,
    Ending,
    Failure,
    LeaseNotHeld,
    NotMade,
    Permit,
    Shared,
    Success,
    Throttled,
    Useless,
    Wait,
    WaitReason,
)

GRACE_SECONDS = 5.0
"""A call that nobody ends is forgotten so long after its timeout."""
MINUTE = 60.0
IN_FLIGHT_SECONDS = 0.25
"""When to ask again what is being asked."""
BUSY_SECONDS = 0.1
"""When to ask again while all calls at once are taken."""
SHARED_SECONDS = 86_400.0
SHARED_LIMIT = 10_000
"""Results that are kept, for how long and how many."""
LEVELS = ("tenant", "course", "assignment")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderLimits:
    """What may be asked of a provider; 0 is without a limit."""

    failures: int = BREAKER_FAILURES
    recovery_seconds: float = RECOVERY_SECONDS
    calls: int = 0
    requests_per_minute: int = 0
    tokens_per_minute: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetLimit:
    """What a scope may spend; 0 is without a limit."""

    tokens: int = 0
    cost_micros: int = 0


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose task it is."""

    tenant: str = ""
    course: str = ""
    assignment: str = ""

    @property
    def scopes(self) -> tuple[str, str, str]:
        """Keys of the budgets that it counts against, by `LEVELS`."""
        course = f"{self.tenant}/courses/{self.course}"
        return self.tenant, course, f"{course}/assignments/{self.assignment}"


@dataclass(slots=True)
class _Open:
    call: Call
    owner: Owner
    expires: float


@dataclass(slots=True)
class _Provider:
    breaker: Breaker
    paused_until: float = 0.0
    recent: deque[tuple[float, int]] = field(default_factory=deque[tuple[float, int]])
    """When calls of the last minute began, and the tokens that they may use."""


@dataclass(slots=True)
class _Spent:
    tokens: int = 0
    cost_micros: int = 0


class MemoryModelCalls:
    """Implements `ModelCalls`. ``owner_of`` says whose lease it is, None when it is not held."""

    def __init__(
        self,
        *,
        clock: Clock,
        limits: Mapping[str, ProviderLimits] | None = None,
        budgets: Mapping[str, BudgetLimit] | None = None,
        owner_of: Callable[[LeaseToken], Owner | None] = lambda lease: Owner(),
    ) -> None:
        """``limits`` by provider; ``budgets`` by `Owner.scopes`."""
        self._clock = clock
        self._limits = limits or {}
        self._budgets = budgets or {}
        self._owner_of = owner_of
        self._providers: dict[str, _Provider] = {}
        self._open: dict[str, _Open] = {}
        self._spent: dict[str, _Spent] = {}
        self._shared: OrderedDict[tuple[str, bytes], tuple[float, bytes]] = OrderedDict()
        self._names = itertools.count(1)

    async def begin(self, lease: LeaseToken, call: Call) -> Answer:
        """See ModelCalls."""
        owner = self._owner_of(lease)
        if owner is None:
            raise LeaseNotHeld
        now = self._clock.monotonic()
        self._forget(now)
        until, result = self._shared.get((owner.tenant, call.share_key), (0.0, b""))
        if now < until:
            return Shared(result)
        provider = self._provider(call.provider)
        closed_in = provider.breaker.closed_in(now)
        if closed_in > 0:
            return Denied(DenialReason.BREAKER_OPEN, closed_in)
        level = self._exhausted(owner, call)
        if level:
            return Denied(DenialReason.BUDGET_EXHAUSTED, None, level)
        if self._asked(owner, call):
            return Wait(WaitReason.IN_FLIGHT, IN_FLIGHT_SECONDS)
        wait = self._wait(provider, call, now)
        if wait is not None:
            return wait
        token, expires = str(next(self._names)), now + call.timeout + GRACE_SECONDS
        self._open[token] = _Open(call, owner, expires)
        provider.recent.append((now, call.tokens))
        return Permit(token, provider.breaker.enter(token, now, expires))

    async def end(self, permit: Permit, ending: Ending) -> BreakerState:
        """See ModelCalls."""
        now = self._clock.monotonic()
        self._forget(now)
        ended = self._open.pop(permit.token, None)
        if ended is None:
            return BreakerState.CLOSED
        self.observe(ended.call.provider, ending, permit.token)
        match ending:
            case Success() | Useless():
                for scope in ended.owner.scopes:
                    spent = self._spent.setdefault(scope, _Spent())
                    spent.tokens += ending.tokens
                    spent.cost_micros += ending.cost_micros
            case _:
                pass
        if (
            isinstance(ending, Success)
            and ended.call.share_key
            and 0 < len(ending.result) <= MAX_SHARED_BYTES
        ):
            self._shared[(ended.owner.tenant, ended.call.share_key)] = (now + SHARED_SECONDS, ending.result)
            if len(self._shared) > SHARED_LIMIT:
                self._shared.popitem(last=False)
        return self.state(ended.call.provider)

    def observe(self, provider: str, ending: Ending, token: str = "") -> None:
        """Takes note of how a call ended, also one that was permitted elsewhere."""
        found, now = self._provider(provider), self._clock.monotonic()
        match ending:
            case Success() | Useless():
                found.breaker.answered(token)
            case Throttled(retry_after):
                found.breaker.throttled(token)
                found.paused_until = max(found.paused_until, now + retry_after)
            case Failure():
                found.breaker.failed(token, now)
            case NotMade():
                found.breaker.left(token)

    def state(self, provider: str) -> BreakerState:
        """Of the provider's breaker."""
        return self._provider(provider).breaker.state(self._clock.monotonic())

    def _provider(self, name: str) -> _Provider:
        found = self._providers.get(name)
        if found is None:
            limits = self._limits.get(name, ProviderLimits())
            found = self._providers[name] = _Provider(Breaker(limits.failures, limits.recovery_seconds))
        return found

    def _forget(self, now: float) -> None:
        for token in [token for token, entry in self._open.items() if entry.expires <= now]:
            entry = self._open.pop(token)
            self._provider(entry.call.provider).breaker.left(token)

    def _asked(self, owner: Owner, call: Call) -> bool:
        return bool(call.share_key) and any(
            entry.call.share_key == call.share_key and entry.owner.tenant == owner.tenant
            for entry in self._open.values()
        )

    def _exhausted(self, owner: Owner, call: Call) -> str:
        """The first level whose budget does not cover the call."""
        for level, scope, index in zip(LEVELS, owner.scopes, range(len(LEVELS)), strict=True):
            limit = self._budgets.get(scope)
            if limit is None:
                continue
            spent = self._spent.get(scope, _Spent())
            under_way = [entry.call for entry in self._open.values() if entry.owner.scopes[index] == scope]
            tokens = spent.tokens + sum(one.tokens for one in under_way) + call.tokens
            cost = spent.cost_micros + sum(one.cost_micros for one in under_way) + call.cost_micros
            if 0 < limit.tokens < tokens or 0 < limit.cost_micros < cost:
                return level
        return ""

    def _wait(self, provider: _Provider, call: Call, now: float) -> Wait | None:
        if now < provider.paused_until:
            return Wait(WaitReason.RATE, provider.paused_until - now)
        limits = self._limits.get(call.provider, ProviderLimits())
        recent = provider.recent
        while recent and recent[0][0] <= now - MINUTE:
            recent.popleft()
        if 0 < limits.requests_per_minute <= len(recent):
            return Wait(WaitReason.RATE, recent[0][0] + MINUTE - now)
        # A call that is larger than a minute's tokens passes alone.
        if recent and 0 < limits.tokens_per_minute < sum(tokens for _, tokens in recent) + call.tokens:
            return Wait(WaitReason.RATE, recent[0][0] + MINUTE - now)
        calls = sum(entry.call.provider == call.provider for entry in self._open.values())
        if 0 < limits.calls <= calls:
            return Wait(WaitReason.CONCURRENCY, BUSY_SECONDS)
        return None
