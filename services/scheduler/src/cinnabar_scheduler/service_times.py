"""How long tasks take under lease, as lately measured, and what that says of a task that comes now."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

HALF_LIFE_SECONDS = 60.0
"""A measurement counts half as much after so long."""
RATIO = 1.1
"""Width of a bucket: a quantile is wrong by 5 % at most (the bucket's geometric middle is given)."""
SHORTEST_SECONDS, LONGEST_SECONDS = 1e-5, 1e5
# Quantile of the normal distribution at nine tenths.
Z90 = 1.2816

_PER_BUCKET = 1 / math.log(RATIO)
_OFFSET = math.log(SHORTEST_SECONDS) * _PER_BUCKET
_BUCKETS = math.ceil(math.log(LONGEST_SECONDS) * _PER_BUCKET - _OFFSET) + 1
# Weights grow with time instead of all others shrinking; at so many half-lives they are scaled down.
_RESCALE_HALF_LIVES = 200.0
# A rate is not told from a shorter time than this.
_SHORTEST_SPAN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ServiceTime:
    """Seconds from lease to outcome, and outcomes per second; ``variation`` is deviation over mean."""

    mean: float
    p50: float
    p90: float
    variation: float
    throughput: float


@dataclass(slots=True)
class _Histogram:
    """Exponentially decaying: the weight of a value measured at t is 2^((t - origin) / half-life)."""

    began: float
    origin: float
    last: float
    weights: list[float] = field(default_factory=lambda: [0.0] * _BUCKETS)
    count: float = 0.0
    total: float = 0.0
    squares: float = 0.0

    def add(self, values: Sequence[float], now: float) -> None:
        self.last = now
        if now - self.origin > _RESCALE_HALF_LIVES * HALF_LIFE_SECONDS:
            self._rescale(now)
        weight = math.exp2((now - self.origin) / HALF_LIFE_SECONDS)
        weights, log = self.weights, math.log
        total = squares = 0.0
        for seconds in values:
            if not SHORTEST_SECONDS < seconds < LONGEST_SECONDS:
                seconds = min(LONGEST_SECONDS, max(SHORTEST_SECONDS, seconds))
            weights[int(log(seconds) * _PER_BUCKET - _OFFSET)] += weight
            total += seconds
            squares += seconds * seconds
        self.count += weight * len(values)
        self.total += weight * total
        self.squares += weight * squares

    def _rescale(self, now: float) -> None:
        factor = math.exp2((self.origin - now) / HALF_LIFE_SECONDS)
        self.weights = [weight * factor for weight in self.weights]
        self.count *= factor
        self.total *= factor
        self.squares *= factor
        self.origin = now

    def quantile(self, share: float) -> float:
        left = share * self.count
        for bucket, weight in enumerate(self.weights):
            left -= weight
            if weight and left <= 0:
                return math.exp((bucket + 0.5 + _OFFSET) / _PER_BUCKET)
        return LONGEST_SECONDS

    def summary(self, now: float) -> ServiceTime:
        mean = self.total / self.count
        spread = math.sqrt(max(0.0, self.squares / self.count - mean * mean))
        # The decayed count of a steady rate r seen for T seconds is r * H / ln 2 * (1 - 2^(-T / H)).
        span = max(_SHORTEST_SPAN_SECONDS, now - self.began)
        seen = HALF_LIFE_SECONDS / math.log(2) * -math.expm1(-math.log(2) * span / HALF_LIFE_SECONDS)
        decayed = self.count * math.exp2(-min(1000.0, (now - self.origin) / HALF_LIFE_SECONDS))
        return ServiceTime(
            mean, self.quantile(0.5), self.quantile(0.9), spread / mean if mean else 0.0, decayed / seen
        )


class ServiceTimes:
    """Measured per queue, from the outcomes that come through this scheduler."""

    def __init__(self) -> None:
        self._queues: dict[str, _Histogram] = {}

    def observe(self, queue: str, seconds: Sequence[float], now: float) -> None:
        """Times of tasks of one queue that have their outcome ``now`` (monotonic seconds)."""
        if not seconds:
            return
        histogram = self._queues.get(queue)
        if histogram is None:
            histogram = self._queues[queue] = _Histogram(now, now, now)
        histogram.add(seconds, now)

    def of(self, queue: str, now: float) -> ServiceTime | None:
        """What was lately measured; None when nothing was.

        An idle queue keeps its times, while its throughput goes to 0.
        """
        histogram = self._queues.get(queue)
        return histogram.summary(now) if histogram is not None and histogram.count > 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What stands before a new task of one tenant.

    ``weight`` is that of the tenant, in multiples of the weight of an average other tenant.
    """

    ready: int
    tenant_ready: int
    tenants: int
    """Tenants with ready tasks, this one included when it has some."""
    leased: int
    open_credits: int
    capped: int = 0
    """Ready tasks of other tenants that are at their cap: they are not leased before it."""
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """``position`` tasks are leased before it; it has its grade after p50, or p90, seconds."""

    position: int
    p50: float
    p90: float


def position(backlog: Backlog) -> int:
    """Ready tasks that are leased before a new one.

    A tenant's own tasks go in the order in which they came, so all ``tenant_ready`` of them are
    before it. It needs ``tenant_ready + 1`` turns; by the stride of the queue each other tenant gets
    ``1 / weight`` turns for each of these, but all others together no more than they have::

        position = own + min(others, ceil((own + 1) * other tenants / weight))

    Assumed: a task of the same class as the tenant's waiting ones; tenants that wait now have enough
    tasks to use their turns, and no new tenants come.
    """
    own = backlog.tenant_ready
    others = max(0, backlog.ready - own - backlog.capped)
    if not others:
        return own
    other_tenants = max(1, backlog.tenants - (1 if own else 0))
    return own + min(others, math.ceil((own + 1) * other_tenants / backlog.weight))


def estimate(backlog: Backlog, time: ServiceTime | None) -> Estimate | None:
    """How long a new task would wait for its grade; None when that cannot be known.

    With ``c = leased + open credits`` tasks under way at a time and ``f`` open credits, a task at
    ``position`` P is leased at once when P < f, and after ``k = P - f + 1`` outcomes otherwise. c
    independent workers of mean S and variation v (deviation over mean) give k outcomes in a time of
    mean ``w = k * S / c`` and deviation ``d = v * sqrt(k) * S / c`` (a superposition of renewal
    processes), but not less than ``S * sqrt((1 - 1 / c) / 12)``: workers that began together finish
    together, at a moment that is uniform in S. Its own time under lease comes on top. Its median s50
    counts when the wait is certain, its mean S when the wait varies so much more that the sum is
    symmetric; in between, by the share
    ``r = d^2 / (d^2 + (v * S)^2)`` of the wait in the variance::

        m = s50 + r * (S - s50)
        p50 = w + m        p90 = w + m + sqrt((1.28 * d)^2 + (s90 - m)^2)

    Assumed: service times of the tasks that wait are like those lately measured, the graders stay as
    many, no higher class comes in between. Nothing is known without a measured time (``time`` None)
    or without graders (c = 0).
    """
    slots = backlog.leased + backlog.open_credits
    if time is None or slots == 0:
        return None
    ahead = position(backlog)
    outcomes = max(0, ahead - backlog.open_credits + 1)
    wait = outcomes * time.mean / slots
    deviation = time.variation * math.sqrt(outcomes) * time.mean / slots
    if outcomes:
        deviation = max(deviation, time.mean * math.sqrt((1 - 1 / slots) / 12))
    variance = deviation**2 + (time.variation * time.mean) ** 2
    own = time.p50 + (deviation**2 / variance * (time.mean - time.p50) if variance else 0.0)
    return Estimate(ahead, wait + own, wait + own + math.hypot(Z90 * deviation, time.p90 - own))
