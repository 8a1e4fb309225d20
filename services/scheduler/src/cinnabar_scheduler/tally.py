"""What a scheduler has done since it started: plain numbers that only grow."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Tally:
    """Counts by queue; those of ``outcomes`` by (queue, what became of them)."""

    leased: Counter[str] = field(default_factory=Counter[str])
    expired: Counter[str] = field(default_factory=Counter[str])
    """Leases that ran out without a heartbeat."""
    lost: Counter[str] = field(default_factory=Counter[str])
    """Leases of workers whose stream was lost."""
    given_up: Counter[str] = field(default_factory=Counter[str])
    """Tasks that became dead letters, for whatever reason."""
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
