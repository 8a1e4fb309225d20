"""Rate limits: the generic cell rate algorithm (GCRA) with a cost, as pure functions of what was used.

GCRA has two equal forms (ITU-T I.371, annex A): virtual scheduling keeps the time when a limit is free
again, the continuous-state leaky bucket keeps how much of it is used. This is the second form, because
what was used stays true when a policy changes the limit. ``units`` per ``period``: all units may be used at
once, and come back one by one, ``period / units`` apart. So in any window of length ``t`` at most
``units * (1 + t / period)`` units pass, and after a period without calls exactly ``units`` are there again.

Times are whole µs. ``admit.lua`` does the same arithmetic in the same order, in doubles as here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cinnabar_scheduler.policy import Limit, Policy

# Rounding of doubles must not cost a caller a unit that is there.
EPSILON_UNITS = 1e-6


@dataclass(frozen=True, slots=True)
class Charge:
    """A limit that applies to a request. ``bucket`` names what is used up, within its tenant."""

    level: str
    bucket: str
    limit: Limit

    @property
    def period_us(self) -> int:
        """Period of the limit."""
        return round(self.limit.seconds * 1e6)


@dataclass(frozen=True, slots=True)
class LimitState:
    """Where a caller stands with a limit: units per period, units left, µs until all are there again."""

    level: str
    limit: int
    remaining: int
    reset_us: int
    period_us: int


@dataclass(frozen=True, slots=True)
class Usage:
    """``used`` units of a limit at ``at_us``."""

    used: float = 0.0
    at_us: int = 0


def usage_at(usage: Usage, now_us: int, units: int, period_us: int) -> Usage:
    """What is still used at a later time. A clock that went back takes nothing away."""
    used = min(usage.used, units) - max(0, now_us - usage.at_us) * units / period_us
    return Usage(max(0.0, used), max(usage.at_us, now_us))


def wait_us(used: float, cost: int, units: int, period_us: int) -> int:
    """µs until ``cost`` units fit, 0 for now; the whole period when they never do."""
    if cost <= 0:
        return 0
    if cost > units:
        return period_us
    over = used + cost - units
    return math.ceil(over * period_us / units) if over > EPSILON_UNITS else 0


def state_of(charge: Charge, used: float) -> LimitState:
    """How a caller sees it."""
    units, period_us = charge.limit.units, charge.period_us
    remaining = max(0, math.floor(units - used + EPSILON_UNITS))
    return LimitState(charge.level, units, remaining, math.ceil(used * period_us / units), period_us)


def nearest(waits: Sequence[int], remaining: Sequence[int]) -> int:
    """Index of the limit to tell the caller of: that which holds longest, else that with the least left.

    The last of equals, because limits come from the widest to the narrowest.
    """
    return max(range(len(waits)), key=lambda index: (waits[index], -remaining[index], index))


def charges_of(policy: Policy, tenant: str, user: str, method: str) -> tuple[Charge, ...]:
    """The limits that apply to a call, from the widest to the narrowest.

    Without a tenant there is no credential: ``user`` is then the caller's address.
    """
    if not tenant:
        limit = policy.anonymous_limit
        return (Charge("address", f"address:{user}", limit),) if limit else ()
    own = policy.tenant(tenant)
    found = (
        ("tenant", "tenant", own.tenant_limit),
        ("user", f"user:{user}", own.user_limit),
        ("user-method", f"method:{user}:{method}", own.method_limits.get(method)),
    )
    return tuple(Charge(level, bucket, limit) for level, bucket, limit in found if limit is not None)
