"""Who may call a language model, and what came of it: breaker, budgets, rates, shared answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol, TypeAlias

from cinnabar_scheduler.model_policy import Budget, ProviderPolicy, Span

SHARED_SECONDS = 86_400.0
"""How long an answer is shared."""
MAX_SHARED_BYTES = 64 * 1024
"""Of one answer; a larger one is not shared."""
SHARED_ROOM_BYTES = 128 * 1024 * 1024
"""Of all answers together; the oldest make room."""
GRACE_SECONDS = 5.0
"""A permit outlives its call by so much, so that a time-out can be told."""
ASK_AGAIN_SECONDS = 0.25
"""For those who wait for a place, or for what another asks just now."""
PROBE_AGAIN_SECONDS = 1.0
"""For those who are denied while a probe is under way."""
RATE_SECONDS = 60.0
CHANGES = 1000
"""Budgets written to storage in one call."""


class BreakerState(IntEnum):
    """State of a circuit breaker; the numbers are those of the proto."""

    CLOSED = 1
    OPEN = 2
    HALF_OPEN = 3


class WaitReason(IntEnum):
    """Why not now; the numbers are those of the proto."""

    IN_FLIGHT = 1
    CONCURRENCY = 2
    RATE = 3


class DenialReason(IntEnum):
    """Why not at all; the numbers are those of the proto."""

    BREAKER_OPEN = 1
    BUDGET_EXHAUSTED = 2


@dataclass(frozen=True, slots=True)
class Place:
    """Where a task belongs."""

    tenant: str
    course: str
    assignment: str

    @property
    def course_scope(self) -> str:
        """Name of the budget of the course."""
        return f"courses/{self.course}"

    @property
    def assignment_scope(self) -> str:
        """Name of the budget of the assignment."""
        return f"{self.course_scope}/assignments/{self.assignment}"


@dataclass(frozen=True, slots=True)
class Purse:
    """A budget that a call is charged to. ``scope`` is empty for the tenant's."""

    level: str
    scope: str
    budget: Budget
    span: Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call that somebody wants to make.

    ``tokens`` and ``cost_micros`` are the most that it may use; ``share_key`` is empty when its answer is
    for nobody else; ``purses`` go from the widest to the narrowest.
    """

    tenant: str
    provider: str
    policy: ProviderPolicy
    purses: tuple[Purse, ...]
    tokens: int
    cost_micros: int = 0
    share_key: bytes = b""
    timeout_seconds: float


@dataclass(frozen=True, slots=True)
class Permit:
    """Go ahead. ``expires_ms`` is a unix time; ``probe``: it decides whether the breaker closes."""

    token: str
    probe: bool
    expires_ms: int


@dataclass(frozen=True, slots=True)
class Shared:
    """The same was asked before."""

    result: bytes


@dataclass(frozen=True, slots=True)
class Wait:
    """Ask again after so many µs."""

    reason: WaitReason
    retry_us: int


@dataclass(frozen=True, slots=True)
class Denied:
    """Fall back. After ``retry_us`` it may be otherwise; None when nobody knows."""

    reason: DenialReason
    retry_us: int | None = None
    level: str = ""


Answer: TypeAlias = Permit | Shared | Wait | Denied


class How(IntEnum):
    """How a call ended; the numbers are those of ``model_end.lua``."""

    SUCCESS = 1
    FAILURE = 2
    USELESS = 3
    THROTTLED = 4
    NOT_MADE = 5


@dataclass(frozen=True, slots=True)
class Ending:
    """What came of a call. ``retry_us`` is how long a provider that is THROTTLED wants to be left alone."""

    how: How
    tokens: int = 0
    cost_micros: int = 0
    result: bytes = b""
    retry_us: int = 0


@dataclass(frozen=True, slots=True)
class ProviderState:
    """A provider as all know it. ``retry_ms``: unix time from which on a probe may go, None when closed."""

    provider: str
    breaker: BreakerState
    failures: int
    retry_ms: int | None
    calls: int


@dataclass(frozen=True, slots=True)
class Spent:
    """What was settled on a budget in a period."""

    scope: str
    span: str
    tokens: int
    cost_micros: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What is settled on a budget, and what calls under way have reserved."""

    spent: Spent
    tokens_reserved: int
    cost_reserved: int


@dataclass(frozen=True, slots=True)
class Change:
    """A budget of which more is spent than was written down; ``mark`` tells this change from later ones."""

    tenant: str
    spent: Spent
    mark: int


class ModelCallsUnavailable(Exception):
    """the store of model calls does not answer"""


class ProviderAway(Exception):
    """the breakers of these providers are not closed"""


class BudgetsUnknown(Exception):
    """the store does not know what the tenant has spent: it is to be restored first"""


class ModelCallStore(Protocol):
    """What all graders share about the providers of models. Each call is atomic.

    Every method raises ModelCallsUnavailable: what it did is then not known.
    """

    async def begin(self, call: Call) -> Answer:
        """Decides, by the first of these that applies:

        1. an answer is shared under the key: Shared
        2. the breaker is open and its time has not come, or a probe is under way: Denied
        3. spent, reserved and wanted exceed a budget: Denied, with the widest such level
        4. the same is under way: Wait
        5. the provider asked for patience, or its requests or tokens of a minute are used up: Wait
        6. its places are all taken: Wait
        7. Permit; the first one after the breaker's time is the probe.

        A permit reserves on all purses, takes a place, and ends by itself ``GRACE_SECONDS`` after the
        time-out: it then counts as neither success nor failure. Raises BudgetsUnknown, instead of 3 and
        later, when it has nothing of the tenant.
        """
        ...

    async def end(self, token: str, ending: Ending, policy: ProviderPolicy) -> BreakerState:
        """Ends a call; returns the state of the breaker afterwards. An unknown token changes nothing.

        SUCCESS and USELESS are charged with what they used; what was reserved is released in any case.
        While closed, a failure counts, and the last one allowed opens; SUCCESS and USELESS start the count
        again, all else leaves it. A probe that was answered, if only with THROTTLED, closes the breaker,
        its failure opens it for the time again, NOT_MADE leaves the next call to be the probe. How other
        calls end changes nothing while the breaker is not closed.
        """
        ...

    async def providers(self) -> list[ProviderState]:
        """Every provider that was asked for, by name."""
        ...

    async def usage(self, tenant: str) -> list[Usage]:
        """Of the budgets that the tenant ever spent on, by scope. Raises BudgetsUnknown."""
        ...

    async def restore(self, tenant: str, spent: Sequence[Spent]) -> None:
        """Makes known what a tenant has spent, as far as it is not known."""
        ...

    async def changes(self, limit: int) -> list[Change]:
        """Budgets on which was spent since they were last ``kept``."""
        ...

    async def kept(self, changes: Sequence[Change]) -> None:
        """These are written down; those that changed again meanwhile stay changed."""
        ...


class Ledger(Protocol):
    """Where what was spent is safe. Every method raises StoreUnavailable."""

    async def spent(self, tenant: str) -> list[Spent]:
        """What is written down of a tenant."""
        ...

    async def save(self, changes: Sequence[Change]) -> None:
        """Writes down; within a period an amount never falls."""
        ...


class Places(Protocol):
    """Where revisions of assignments belong."""

    async def place(self, tenant: str, revision: str) -> Place | None:
        """None when the tenant has no such revision. Raises StoreUnavailable."""
        ...


def provider_of(token: str) -> str:
    """Name of the provider that a permit is for."""
    return token.partition(".")[0]


def token_for(provider: str, secret: str) -> str:
    """A permit's token."""
    return f"{provider}.{secret}"


def exhausted_us(budget: Budget, span: Span, spent: Spent, call: Call, now_us: int) -> int | None:
    """When a call that does not fit now may fit, in µs; None when nobody knows.

    What calls under way have reserved comes free soon; what is spent, with the next period.
    """
    alone = (budget.tokens == 0 or spent.tokens + call.tokens <= budget.tokens) and (
        budget.cost_micros == 0 or spent.cost_micros + call.cost_micros <= budget.cost_micros
    )
    if alone:
        return round(PROBE_AGAIN_SECONDS * 1e6)
    never = 0 < budget.tokens < call.tokens or 0 < budget.cost_micros < call.cost_micros
    if never or span.ends_ms is None:
        return None
    return max(0, span.ends_ms * 1000 - now_us)
