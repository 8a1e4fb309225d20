"""Calls of models under the policy in force, on purses that are known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from cinnabar_common.clock import Clock
from cinnabar_scheduler.model_calls import (
    CHANGES,
    Answer,
    BreakerState,
    BudgetsUnknown,
    Call,
    Denied,
    Ending,
    Ledger,
    ModelCallStore,
    Permit,
    Place,
    ProviderAway,
    ProviderState,
    Purse,
    Shared,
    Spent,
    Usage,
    Wait,
    provider_of,
)
from cinnabar_scheduler.model_policy import Budgets, span_at
from cinnabar_scheduler.policy import Policy


class ModelCalls:
    """The store under the policy in force. Raises what the store does, and StoreUnavailable."""

    def __init__(
        self, store: ModelCallStore, ledger: Ledger, policy: Callable[[], Policy], clock: Clock
    ) -> None:
        """``clock`` is that of the store."""
        self._store = store
        self._ledger = ledger
        self._policy = policy
        self._clock = clock
        # Answers since the start by (provider, what it was), and the providers as last looked at.
        self.answered = Counter[tuple[str, str]]()
        self.seen: list[ProviderState] = []

    async def begin(
        self,
        place: Place,
        provider: str,
        *,
        tokens: int,
        cost_micros: int,
        share_key: bytes,
        timeout_seconds: float,
    ) -> Answer:
        """See ModelCallStore."""
        policy = self._policy()
        call = Call(
            tenant=place.tenant,
            provider=provider,
            policy=policy.provider(provider),
            purses=purses_of(policy.tenant(place.tenant).budgets, place, self._clock.time()),
            tokens=tokens,
            cost_micros=cost_micros,
            share_key=share_key,
            timeout_seconds=timeout_seconds,
        )
        try:
            answer = await self._store.begin(call)
        except BudgetsUnknown:
            await self._restore(place.tenant)
            answer = await self._store.begin(call)
        self.answered[provider, _name_of(answer)] += 1
        return answer

    async def end(self, token: str, ending: Ending) -> BreakerState:
        """See ModelCallStore."""
        return await self._store.end(token, ending, self._policy().provider(provider_of(token)))

    async def providers(self) -> list[ProviderState]:
        """See ModelCallStore."""
        self.seen = await self._store.providers()
        return self.seen

    async def healthy(self) -> None:
        """Raises ProviderAway unless every breaker is closed."""
        away = [one.provider for one in await self.providers() if one.breaker is not BreakerState.CLOSED]
        if away:
            raise ProviderAway(", ".join(away))

    async def budgets(self, tenant: str) -> list[tuple[Purse, Usage]]:
        """The tenant's first, then those of courses and assignments that something was spent on, by scope."""
        try:
            found = await self._store.usage(tenant)
        except BudgetsUnknown:
            await self._restore(tenant)
            found = await self._store.usage(tenant)
        known = {usage.spent.scope: usage for usage in found}
        budgets, now = self._policy().tenant(tenant).budgets, self._clock.time()
        result: list[tuple[Purse, Usage]] = []
        for scope in sorted({"", *known, *budgets.named}):
            purse = purse_of(budgets, scope, now)
            fresh = Spent(scope, purse.span.name, 0, 0)
            usage = known.get(scope, Usage(fresh, 0, 0))
            if usage.spent.span != purse.span.name:
                usage = Usage(fresh, usage.tokens_reserved, usage.cost_reserved)
            result.append((purse, usage))
        return result

    async def checkpoint(self) -> int:
        """Writes down what was spent since the last time; returns on how many budgets."""
        written = 0
        while changes := await self._store.changes(CHANGES):
            await self._ledger.save(changes)
            await self._store.kept(changes)
            written += len(changes)
            if len(changes) < CHANGES:
                break
        return written

    async def _restore(self, tenant: str) -> None:
        await self._store.restore(tenant, await self._ledger.spent(tenant))


def _name_of(answer: Answer) -> str:
    match answer:
        case Permit():
            return "permit"
        case Shared():
            return "shared"
        case Wait() | Denied():
            return answer.reason.name.lower()


def purses_of(budgets: Budgets, place: Place, now: float) -> tuple[Purse, ...]:
    """What a call for a task of ``place`` is charged to, at a unix time."""
    return tuple(purse_of(budgets, scope, now) for scope in ("", place.course_scope, place.assignment_scope))


def purse_of(budgets: Budgets, scope: str, now: float) -> Purse:
    """The budget of a scope, at a unix time."""
    if not scope:
        level, budget = "tenant", budgets.tenant
    elif "/assignments/" in scope:
        level, budget = "assignment", budgets.assignment
    else:
        level, budget = "course", budgets.course
    budget = budgets.named.get(scope, budget)
    return Purse(level, scope, budget, span_at(budget.period, now))
