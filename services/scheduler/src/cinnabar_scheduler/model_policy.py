"""What may be asked of language models: how much at once, and for how much money."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum

MICROS = 1_000_000
"""Millionths of the currency in one unit of it."""


class Period(Enum):
    """After what a budget is whole again. Days and months are those of UTC."""

    DAY = "day"
    MONTH = "month"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be spent in a period; 0 is without a limit, cost is in millionths of the currency."""

    tokens: int = 0
    cost_micros: int = 0
    period: Period = Period.MONTH


@dataclass(frozen=True, slots=True)
class Budgets:
    """Those of one tenant. ``course`` is that of each course, ``assignment`` that of each assignment.

    ``named`` are those of single courses and assignments, by their names
    ("courses/net", "courses/net/assignments/a1"); each replaces the one of its level.
    """

    tenant: Budget = Budget()
    course: Budget = Budget()
    assignment: Budget = Budget()
    named: Mapping[str, Budget] = field(default_factory=dict[str, Budget])


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderPolicy:
    """What one provider of models is trusted with; 0 is without a limit."""

    concurrency: int = 0
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    # The breaker: so many failures in a row open it, for so long.
    failures: int = 5
    recovery_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Span:
    """One period: its name, which changes with it, and its end as unix time in ms (None: never)."""

    name: str
    ends_ms: int | None


def span_at(period: Period, seconds: float) -> Span:
    """The period that a moment (unix time) is in."""
    day = datetime.fromtimestamp(seconds, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    match period:
        case Period.DAY:
            return Span(f"{day:%Y-%m-%d}", _ms(day + timedelta(days=1)))
        case Period.MONTH:
            first = day.replace(day=1)
            return Span(f"{day:%Y-%m}", _ms((first + timedelta(days=32)).replace(day=1)))
        case Period.NONE:
            return Span("always", None)


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
