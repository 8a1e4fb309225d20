"""What the scheduler believes about one connected worker: event in, effect out, no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cinnabar_scheduler.tasks import Lease, LeaseToken, QueueName

MAX_QUEUES = 64


class ProtocolViolation(Exception):
    """The worker broke the protocol."""

    def __init__(self, rule: str) -> None:
        super().__init__(rule)
        self.rule = rule


@dataclass(slots=True)
class WorkerSession:
    """One worker on one stream."""

    # Constant
    max_credits: int

    # Set by the hello
    worker: str = ""
    queues: frozenset[QueueName] = frozenset()

    # While leases are out
    credits: dict[QueueName, int] = field(default_factory=dict[QueueName, int])
    held: dict[LeaseToken, Lease] = field(default_factory=dict[LeaseToken, Lease])
    committing: dict[LeaseToken, Lease] = field(default_factory=dict[LeaseToken, Lease])

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

    def grant(self, leases: Sequence[Lease]) -> None:
        """The scheduler leases tasks to the worker: spends credits."""
        for lease in leases:
            self.credits[lease.queue] -= 1
            self.held[lease.token] = lease

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

    def settle(self, token: LeaseToken) -> None:
        """The outcome of a lease is dealt with."""
        self.committing.pop(token, None)

    def drop(self, tokens: Iterable[LeaseToken]) -> list[LeaseToken]:
        """Leases lost or cancelled: those of the tokens that were held here."""
        return [token for token in tokens if self.held.pop(token, None) is not None]

    def _greeted(self) -> None:
        if not self.worker:
            raise ProtocolViolation("hello first")
