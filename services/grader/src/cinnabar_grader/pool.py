"""How many workers a kind of graders should have. No I/O, no clock.

The load of a pool is how many workers it would need: those that are busy, and those that would work off
within `PoolTerms.backlog_seconds` what waits. Its pressure is the load for each worker that there is, as a
mean over the time between two checks: what comes and goes in between is no reason to change anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolTerms:
    """Bounds and thresholds of a pool. ValueError when they make no sense."""

    min_workers: int = 3
    max_workers: int = 20
    up: float = 0.8
    """Above this pressure there is one worker more."""
    down: float = 0.3
    """Below this pressure, several checks in a row, there is one worker less."""
    check_seconds: float = 30.0
    patience: int = 3
    """Checks in a row that must call for fewer workers: bursts that come again meanwhile find them there."""
    backlog_seconds: float = 5.0
    """What waits is to be worked off in so long, and nothing is to wait longer."""

    def __post_init__(self) -> None:
        problems: list[str] = []
        if not 1 <= self.min_workers <= self.max_workers:
            problems.append("workers: 1 <= min <= max")
        if not 0 <= 2 * self.down <= self.up:
            # One worker more halves the pressure at most: it must not fall below the lower threshold by that.
            problems.append("thresholds: 0 <= down <= up / 2")
        if self.check_seconds <= 0 or self.backlog_seconds <= 0 or self.patience < 1:
            problems.append("times must be positive")
        if problems:
            raise ValueError("; ".join(problems))


def fitting(terms: PoolTerms, *, cores: int, memory_bytes: int, worker_bytes: int) -> PoolTerms:
    """The terms of a pool whose workers use a core and ``worker_bytes`` each.

    There are never more of them than cores, nor than half of ``memory_bytes`` holds, and half of the cores
    are left to others until there is work for more. Always at least one.
    """
    most = max(1, min(terms.max_workers, cores, memory_bytes // 2 // worker_bytes))
    return replace(terms, min_workers=max(1, min(terms.min_workers, most, cores // 2)), max_workers=most)


def at_most(terms: PoolTerms, workers: int) -> PoolTerms:
    """The terms of a pool that has a bound of its own."""
    most = max(1, min(terms.max_workers, workers))
    return replace(terms, min_workers=min(terms.min_workers, most), max_workers=most)


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What waits for graders, as schedulers say."""

    ready: int = 0
    """Tasks that could be graded now."""
    work_seconds: float | None = None
    """Predicted time that they will be under lease; None while it has never been measured."""
    oldest_age_seconds: float = 0.0
    graders: int = 1
    """Grader processes that share it, this one included."""


def together(backlogs: Iterable[Backlog]) -> Backlog:
    """Of several queues that the same workers serve."""
    each = list(backlogs)
    times = [one.work_seconds for one in each if one.ready]
    known = [seconds for seconds in times if seconds is not None]
    return Backlog(
        ready=sum(one.ready for one in each),
        work_seconds=sum(known) if len(known) == len(times) else None,
        oldest_age_seconds=max((one.oldest_age_seconds for one in each), default=0.0),
        graders=max((one.graders for one in each), default=1),
    )


class Pool:
    """Decides on the size of one pool: one worker more or less at a check, or none.

    Pressure that stays the same never makes it change its mind: it shrinks only to a size at which the
    pressure is not too high, and grows only to one at which it is not too low.
    """

    def __init__(self, terms: PoolTerms, now: float) -> None:
        """``now`` in seconds of any clock that does not go back."""
        self._terms = terms
        self.size = terms.min_workers
        self._since = self._seen = now
        self._total = 0.0
        self._quiet = 0

    def observe(self, now: float, *, busy: int, held: int, backlog: Backlog) -> None:
        """How it was since the last time.

        ``busy`` workers were at work on some of ``held`` tasks, which are all that are under lease here.
        """
        self._total += (now - self._seen) * self._load(busy, held, backlog)
        self._seen = now

    def decide(self, now: float) -> int:
        """The size from now on; changes at a check only, which is when it is time for one."""
        terms = self._terms
        if now - self._since < terms.check_seconds:
            return self.size
        load = self._total / max(self._seen - self._since, 1e-9)
        self._since = self._seen = now
        self._total = 0.0
        low = load < terms.down * self.size and load < terms.up * (self.size - 1)
        self._quiet = self._quiet + 1 if low else 0
        if load > terms.up * self.size and self.size < terms.max_workers:
            self.size += 1
        elif self._quiet >= terms.patience and self.size > terms.min_workers:
            self.size -= 1
        return self.size

    def _load(self, busy: int, held: int, backlog: Backlog) -> float:
        tasks = backlog.ready / max(1, backlog.graders)
        if backlog.work_seconds is None:
            wanted = tasks  # as a plain count has it: every task is one worker's
        else:
            # Times under lease include that of waiting here: a worker is at one of so many tasks.
            share = min(1.0, busy / held) if held and busy else 1.0
            work = backlog.work_seconds * share / max(1, backlog.graders)
            wanted = work / self._terms.backlog_seconds
        late = backlog.ready > 0 and backlog.oldest_age_seconds > self._terms.backlog_seconds
        if late and busy >= self.size:
            return max(busy + wanted, self.size)  # whatever was predicted, there are too few
        return busy + wanted
