"""What the scheduler believes about one connected worker: event in, effect out, no I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf

from cinnabar_scheduler.tasks import Lease, LeaseToken, QueueName

MAX_QUEUES = 64
HELLO_SECONDS = 10.0


class ProtocolViolation(Exception):
    """The worker broke the protocol."""

    def __init__(self, rule: str) -> None:
        super().__init__(rule)
        self.rule = rule


@dataclass(slots=True)
class WorkerSession:
    """One worker on one stream.

    A worker that has said nothing for ``quiet_seconds`` is `quiet`: its credits stay, but none is
    spent until it speaks again. After ``silence_limit_seconds`` it breaks the protocol.
    """

    # Constant
    max_credits: int
    quiet_seconds: float = inf
    silence_limit_seconds: float = inf
    hello_seconds: float = HELLO_SECONDS

    # Set by the hello
    worker: str = ""
    queues: frozenset[QueueName] = frozenset()

    # Since the worker last spoke
    silence_seconds: float = 0.0

    # While leases are out
    credits: dict[QueueName, int] = field(default_factory=dict[QueueName, int])
    held: dict[LeaseToken, Lease] = field(default_factory=dict[LeaseToken, Lease])
    leased_at: dict[LeaseToken, float] = field(default_factory=dict[LeaseToken, float])
    committing: dict[LeaseToken, Lease] = field(default_factory=dict[LeaseToken, Lease])

    @property
    def quiet(self) -> bool:
        """Whether the worker has said nothing for so long that it gets no new leases."""
        return self.silence_seconds >= self.quiet_seconds

    def heard(self) -> bool:
        """The worker said something; returns whether it was quiet before."""
        was_quiet = self.quiet
        self.silence_seconds = 0.0
        return was_quiet

    def elapse(self, seconds: float) -> None:
        """Time in which the worker could have said something. ProtocolViolation when it was too much."""
        self.silence_seconds += seconds
        if not self.worker and self.silence_seconds >= self.hello_seconds:
            raise ProtocolViolation(f"hello within {self.hello_seconds:g} s")
        if self.silence_seconds >= self.silence_limit_seconds:
            raise ProtocolViolation(f"say something every {self.silence_limit_seconds:g} seconds")

    def open_credits(self, queue: QueueName) -> int:
        """Credits of a queue that may be spent now; 0 while the worker is quiet."""
        return 0 if self.quiet else self.credits.get(queue, 0)

    def hello(self, worker: str, queues: Iterable[str]) -> None:
        """First message. ProtocolViolation when it is not, or names no queue or too many."""
        if self.worker:
            raise ProtocolViolation("hello only once")
        self.queues = frozenset(map(QueueName, queues))
        if not 1 <= len(self.queues) <= MAX_QUEUES:
            raise ProtocolViolation(f"hello names 1 to {MAX_QUEUES} queues")
        self.worker = worker
        self.credits = dict.fromkeys(self.queues, 0)

    def ready(self, queue: str, credits: int) -> QueueName:
        """More credits for one queue; returns it."""
        self._greeted()
        name = QueueName(queue)
        if name not in self.queues:
            raise ProtocolViolation("ready only for a queue of the hello")
        if credits < 1:
            raise ProtocolViolation("ready grants at least 1 credit")
        if self.credits[name] + credits > self.max_credits:
            raise ProtocolViolation(f"at most {self.max_credits} credits open on a queue")
        self.credits[name] += credits
        return name

    def grant(self, leases: Sequence[Lease], now: float = 0.0) -> None:
        """The scheduler leases tasks to the worker, at ``now`` in seconds of any clock: spends credits."""
        for lease in leases:
            self.credits[lease.queue] -= 1
            self.held[lease.token] = lease
            self.leased_at[lease.token] = now

    def heartbeat(self, tokens: Iterable[str]) -> tuple[list[Lease], list[LeaseToken]]:
        """(Leases to extend, tokens that this stream does not hold)."""
        self._greeted()
        known: list[Lease] = []
        unknown: list[LeaseToken] = []
        for token in map(LeaseToken, tokens):
            lease = self.held.get(token)
            if lease is not None:
                known.append(lease)
            elif token not in self.committing:
                unknown.append(token)
        return known, unknown

    def finish(self, token: str) -> Lease | None:
        """An outcome was reported: the lease, from now on the scheduler's care; None when it is stale."""
        self._greeted()
        name = LeaseToken(token)
        lease = self.held.pop(name, None)
        if lease is not None:
            self.committing[name] = lease
        return lease

    def progress(self, token: str) -> Lease | None:
        """How far a task is was told: its lease; None when it is not held here any more."""
        self._greeted()
        return self.held.get(LeaseToken(token))

    def taken_at(self, token: LeaseToken) -> float:
        """When a lease that is now `committing` was granted; to be asked once."""
        return self.leased_at.pop(token)

    def settle(self, token: LeaseToken) -> None:
        """The outcome of a lease is dealt with."""
        self.committing.pop(token, None)
        self.leased_at.pop(token, None)

    def drop(self, tokens: Iterable[LeaseToken]) -> list[LeaseToken]:
        """Leases lost or cancelled: those of the tokens that were held here."""
        dropped = [token for token in tokens if self.held.pop(token, None) is not None]
        for token in dropped:
            del self.leased_at[token]
        return dropped

    def _greeted(self) -> None:
        if not self.worker:
            raise ProtocolViolation("hello first")
