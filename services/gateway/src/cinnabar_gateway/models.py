"""Language models as operators see them: whether they answer, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol


class Breaker(Enum):
    """State of the circuit breaker of a provider; the names are those of the protos."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half open"


@dataclass(frozen=True, slots=True)
class ModelProvider:
    """A provider of models. ``retry_us`` (unix time): when the next call is tried, None while closed."""

    provider: str
    breaker: Breaker
    failures: int
    retry_us: int | None
    calls: int


@dataclass(frozen=True, slots=True)
class ModelBudget:
    """What may be spent (0: without a limit) and what is spent or reserved; ``scope`` empty: the tenant's.

    Costs are in millionths of the currency; ``reset_us`` is a unix time, None: never.
    """

    scope: str
    token_limit: int
    tokens_used: int
    cost_limit_micros: int
    cost_used_micros: int
    reset_us: int | None


class ModelStates(Protocol):
    """What is known of models. Every method raises DependencyUnavailable."""

    async def providers(self) -> Sequence[ModelProvider]:
        """All that graders ever asked for, by name."""
        ...

    async def budgets(self, tenant: str) -> Sequence[ModelBudget]:
        """Those of a tenant: the tenant's own, then those of courses and assignments by name."""
        ...
