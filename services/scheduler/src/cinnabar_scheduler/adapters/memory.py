"""The queue in the memory of one process, for tests of what stands on it."""

from __future__ import annotations

import itertools
import random
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cinnabar_common.clock import Clock
from cinnabar_scheduler.ports import Leased, QueueUnavailable
from cinnabar_scheduler.tasks import (
    KNOWN_QUEUES,
    ExpiredLease,
    GivenBack,
    HeadStart,
    Lease,
    LeaseToken,
    QueueCounts,
    QueueName,
    RetryPolicy,
    Task,
    Verdict,
    Why,
)

MAX_LEASED_BYTES = 8 * 1024 * 1024


@dataclass(slots=True)
class _Entry:
    task: Task
    head_start: int
    failures: int = 0
    faults: int = 0
    deliveries: int = 0
    token: LeaseToken | None = None
    expiry_ms: int = 0
    due_ms: int | None = None

    @property
    def is_ready(self) -> bool:
        return self.token is None and self.due_ms is None

    @property
    def score(self) -> int:
        return self.task.ready_ms - self.head_start


@dataclass(slots=True)
class _State:
    """What the store keeps; lost when it is flushed."""

    entries: dict[QueueName, dict[str, _Entry]] = field(default_factory=dict[QueueName, dict[str, _Entry]])
    tenants: dict[QueueName, dict[str, int]] = field(default_factory=dict[QueueName, dict[str, int]])
    passes: dict[QueueName, int] = field(default_factory=dict[QueueName, int])
    locks: dict[str, tuple[str, int]] = field(default_factory=dict[str, tuple[str, int]])
    has_epoch: bool = False


class MemoryQueue:
    """Implements ports.Queue. ``outage`` makes every call raise QueueUnavailable; ``flush`` loses everything.

    ``on_wake`` is told of queues with new work.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        lease_seconds: float = 15.0,
        policy: RetryPolicy | None = None,
        owner: str | None = None,
        on_wake: Callable[[QueueName], None] = lambda queue: None,
    ) -> None:
        self.outage = False
        self._clock = clock
        self._lease_ms = int(lease_seconds * 1000)
        self._policy = policy or RetryPolicy()
        self._owner = owner or secrets.token_hex(8)
        self._on_wake = on_wake
        self._state = _State()
        self._fences = itertools.count(1)

    def flush(self) -> None:
        """Loses everything, as FLUSHALL does."""
        self._state = _State()

    def other(self, owner: str) -> MemoryQueue:
        """The same queues as another process sees them."""
        twin = MemoryQueue(
            clock=self._clock, lease_seconds=self._lease_ms / 1000, policy=self._policy, owner=owner
        )
        twin._state, twin._fences = self._state, self._fences
        return twin

    async def enqueue(self, tasks: Sequence[Task]) -> list[bool]:
        self._reach()
        added: list[bool] = []
        for task in tasks:
            entries = self._entries(task.queue)
            known = entries.get(task.task)
            added.append(known is None or known.task.generation < task.generation)
            if added[-1]:
                entry = entries[task.task] = _Entry(task, int(task.head_start))
                if task.ready_ms > self._now_ms():
                    entry.due_ms = task.ready_ms
                else:
                    self._arrive(task.queue, task.tenant)
        for queue in {task.queue for task, new in zip(tasks, added, strict=True) if new}:
            self._on_wake(queue)
        return added

    async def missing(self, tasks: Sequence[tuple[QueueName, str]]) -> set[str]:
        self._reach()
        return {task for queue, task in tasks if task not in self._entries(queue)}

    async def lease(self, queue: QueueName, limit: int) -> Leased:
        self._reach()
        now, entries = self._now_ms(), self._entries(queue)
        for entry in entries.values():
            if entry.due_ms is not None and entry.due_ms <= now:
                entry.due_ms = None
                self._arrive(queue, entry.task.tenant)
        leases: list[Lease] = []
        size = 0
        while len(leases) < limit and (entry := self._next(queue)) is not None:
            size += len(entry.task.item_key) + 1 + len(entry.task.answer)
            if leases and size > MAX_LEASED_BYTES:
                return Leased(leases, 0)
            tenants = self._state.tenants[queue]
            tenants[entry.task.tenant] += 1
            entry.token = LeaseToken(f"{self._fence()}-{secrets.token_hex(6)}")
            entry.expiry_ms = now + self._lease_ms
            entry.deliveries += 1
            self._state.passes[queue] = tenants[entry.task.tenant]
            leases.append(_lease(entry, entry.token))
        self._next(queue)
        if self._state.tenants.get(queue):
            self._state.passes[queue] = min(self._state.tenants[queue].values())
        due = [entry.due_ms for entry in entries.values() if entry.due_ms is not None]
        return Leased(leases, min(due, default=None))

    async def extend(self, queue: QueueName, held: Sequence[tuple[str, LeaseToken]]) -> list[LeaseToken]:
        self._reach()
        lost: list[LeaseToken] = []
        for task, token in held:
            entry = self._entries(queue).get(task)
            if entry is None or entry.token != token:
                lost.append(token)
            else:
                entry.expiry_ms = self._now_ms() + self._lease_ms
        return lost

    async def give_back(
        self, queue: QueueName, held: Sequence[tuple[str, LeaseToken]], why: Why
    ) -> list[GivenBack]:
        self._reach()
        answers = [self._give_back_one(queue, task, token, why) for task, token in held]
        if any(answer.verdict is Verdict.QUEUED for answer in answers):
            self._on_wake(queue)
        return answers

    def _give_back_one(self, queue: QueueName, task: str, token: LeaseToken, why: Why) -> GivenBack:
        entry = self._entries(queue).get(task)
        if entry is None or entry.token != token:
            return GivenBack(Verdict.LOST)
        policy, delay = self._policy, 0
        match why:
            case Why.RETURNED:
                entry.deliveries -= 1
            case Why.FAILED:
                entry.failures += 1
                bound = min(policy.backoff_cap_ms, policy.backoff_base_ms * 2 ** (entry.failures - 1))
                delay = int(random.random() * bound)
            case Why.FAULT:
                entry.faults += 1
        if entry.failures >= policy.max_failures or entry.faults >= policy.max_faults:
            return GivenBack(Verdict.GIVEN_UP, max(entry.deliveries, 1))
        entry.token = None
        if why is not Why.RETURNED:
            entry.head_start = max(entry.head_start, int(HeadStart.RECOVERY))
        if delay:
            entry.due_ms = self._now_ms() + delay
        else:
            self._arrive(queue, entry.task.tenant)
        return GivenBack(Verdict.QUEUED)

    async def remove(
        self, queue: QueueName, tasks: Sequence[tuple[str, int]]
    ) -> tuple[int, list[LeaseToken]]:
        self._reach()
        removed, tokens, entries = 0, list[LeaseToken](), self._entries(queue)
        for task, generation in tasks:
            entry = entries.get(task)
            if entry is not None and entry.task.generation <= generation:
                del entries[task]
                removed += 1
                if entry.token is not None:
                    tokens.append(entry.token)
        return removed, tokens

    async def expired(self, queue: QueueName, limit: int) -> list[ExpiredLease]:
        self._reach()
        now = self._now_ms()
        over = [
            (entry, entry.token)
            for entry in self._entries(queue).values()
            if entry.token is not None and entry.expiry_ms <= now
        ]
        over.sort(key=lambda one: one[0].expiry_ms)
        for entry, _ in over[:limit]:
            entry.expiry_ms = now + self._lease_ms
        return [
            ExpiredLease(entry.task.task, token, entry.task.generation, entry.task.tenant)
            for entry, token in over[:limit]
        ]

    async def counts(self, queue: QueueName) -> QueueCounts:
        self._reach()
        entries = self._entries(queue).values()
        firsts: dict[str, _Entry] = {}
        for entry in sorted((one for one in entries if one.is_ready), key=_order):
            firsts.setdefault(entry.task.tenant, entry)
        return QueueCounts(
            ready=sum(entry.is_ready for entry in entries),
            delayed=sum(entry.due_ms is not None for entry in entries),
            leased=sum(entry.token is not None for entry in entries),
            oldest_ready_ms=min((entry.task.ready_ms for entry in firsts.values()), default=None),
        )

    async def queues(self) -> set[QueueName]:
        self._reach()
        return set(self._state.entries) | set(KNOWN_QUEUES)

    async def has_epoch(self) -> bool:
        self._reach()
        return self._state.has_epoch

    async def begin_epoch(self) -> None:
        self._reach()
        self._state.has_epoch = True

    async def acquire(self, lock: str, *, seconds: float) -> bool:
        self._reach()
        holder, until_ms = self._state.locks.get(lock, ("", 0))
        if holder != self._owner and until_ms > self._now_ms():
            return False
        self._state.locks[lock] = (self._owner, self._now_ms() + int(seconds * 1000))
        return True

    async def release(self, lock: str) -> None:
        self._reach()
        if self._state.locks.get(lock, ("", 0))[0] == self._owner:
            del self._state.locks[lock]

    def _reach(self) -> None:
        if self.outage:
            raise QueueUnavailable

    def _entries(self, queue: QueueName) -> dict[str, _Entry]:
        return self._state.entries.setdefault(queue, {})

    def _arrive(self, queue: QueueName, tenant: str) -> None:
        tenants = self._state.tenants.setdefault(queue, {})
        tenants.setdefault(tenant, self._state.passes.get(queue, 0))

    def _next(self, queue: QueueName) -> _Entry | None:
        """The entry to be leased next; tenants with nothing ready are forgotten."""
        tenants = self._state.tenants.setdefault(queue, {})
        ready = [entry for entry in self._entries(queue).values() if entry.is_ready]
        for tenant in set(tenants) - {entry.task.tenant for entry in ready}:
            del tenants[tenant]
        if not ready:
            return None
        turn = min(tenants, key=lambda tenant: (tenants[tenant], tenant))
        return min((entry for entry in ready if entry.task.tenant == turn), key=_order)

    def _fence(self) -> int:
        return int(self._clock.time() * 1_000_000) + next(self._fences)

    def _now_ms(self) -> int:
        return int(self._clock.time() * 1000)


def _order(entry: _Entry) -> tuple[int, str]:
    return entry.score, entry.task.task


def _lease(entry: _Entry, token: LeaseToken) -> Lease:
    task = entry.task
    return Lease(
        task.task,
        token,
        task.generation,
        entry.deliveries,
        task.tenant,
        task.queue,
        task.item_key,
        task.answer,
    )
