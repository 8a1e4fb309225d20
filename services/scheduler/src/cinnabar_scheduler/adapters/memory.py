"""The queue in the memory of one process, for tests of what stands on it."""

from __future__ import annotations

import itertools
import random
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace

from cinnabar_common.clock import Clock
from cinnabar_scheduler.adapters.memory_state import Entry, State, Turns
from cinnabar_scheduler.policy import Policy, RetryRule, backoff_ms
from cinnabar_scheduler.ports import Leased, PolicySource, QueueUnavailable
from cinnabar_scheduler.tasks import (
    KNOWN_QUEUES,
    ExpiredLease,
    GivenBack,
    HeadStart,
    KnownTask,
    KnownTasks,
    Lease,
    LeaseToken,
    QueueCounts,
    QueueName,
    QueueState,
    Task,
    Verdict,
    Why,
)

MAX_LEASED_BYTES = 8 * 1024 * 1024
# Pass of a tenant of weight 1 for one task; see docs/scheduling.md.
STRIDE = 1_000_000


class MemoryPolicy:
    """Implements ports.PolicySource; ``change`` puts another policy in force."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.current = policy or Policy()
        self._told: list[Callable[[], None]] = []

    def on_change(self, told: Callable[[], None]) -> None:
        self._told.append(told)

    def change(self, policy: Policy) -> None:
        """From now on."""
        self.current = policy
        for told in self._told:
            told()


class MemoryQueue:
    """Implements ports.Queue. ``outage`` makes every call raise QueueUnavailable; ``flush`` loses everything.

    ``on_wake`` is told of queues with new work.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        lease_seconds: float = 15.0,
        policies: PolicySource | None = None,
        on_wake: Callable[[QueueName], None] = lambda queue: None,
    ) -> None:
        self.outage = False
        self._clock = clock
        self._lease_ms = int(lease_seconds * 1000)
        self._policies = policies or MemoryPolicy()
        self._on_wake = on_wake
        self._state = State()
        self._fences = itertools.count(1)
        self._policies.on_change(self._policy_changed)

    @property
    def state(self) -> State:
        """All that it keeps, for what stands beside it."""
        return self._state

    def flush(self) -> None:
        """Loses everything, as FLUSHALL does."""
        fresh = State()
        for name in State.__slots__:
            setattr(self._state, name, getattr(fresh, name))

    def other(self) -> MemoryQueue:
        """The same queues as another process sees them."""
        twin = MemoryQueue(clock=self._clock, lease_seconds=self._lease_ms / 1000, policies=self._policies)
        twin._state, twin._fences = self._state, self._fences
        return twin

    async def enqueue(self, tasks: Sequence[Task]) -> list[bool]:
        self._reach()
        added: list[bool] = []
        for task in tasks:
            entries = self._entries(task.queue)
            known = entries.get(task.task)
            added.append(known is None or known.task.generation < task.generation)
            if not added[-1]:
                continue
            if known is not None:
                del entries[task.task]
                self._settle(task.queue, known.task.tenant)
            ready_ms = task.ready_at(self._now_ms())
            entry = entries[task.task] = Entry(
                replace(task, ready_ms=ready_ms), int(task.head_start), overdue_ms=task.grade_by_ms
            )
            if ready_ms > self._now_ms():
                entry.due_ms = ready_ms
            self._settle(task.queue, task.tenant)
        for queue in {task.queue for task, new in zip(tasks, added, strict=True) if new}:
            self._on_wake(queue)
        return added

    async def missing(self, tasks: Sequence[tuple[QueueName, str]]) -> set[str]:
        self._reach()
        return {task for queue, task in tasks if task not in self._entries(queue)}

    async def lease(self, queue: QueueName, limit: int, *, free: int) -> Leased:
        self._reach()
        if self._state.control.get(queue) is QueueState.PAUSED:
            return Leased([], None)
        self._promote(queue)
        turns = self._turns(queue)
        chosen, more = self._choose(queue, min(limit, free), free)
        floor = turns.floor
        for entry in chosen:
            tenant = entry.task.tenant
            start = max(turns.waiting[tenant], turns.floor)
            turns.waiting[tenant] = start + self._stride(tenant)
            floor = max(floor, start)
            self._hold(entry)
            entry.deliveries += 1
        turns.floor = floor
        for tenant in {entry.task.tenant for entry in chosen}:
            self._settle(queue, tenant)
        turns.left = {tenant: passed for tenant, passed in turns.left.items() if passed > floor}
        if not turns.waiting and not turns.parked:
            turns.floor = 0
            turns.left.clear()
        due = [entry.due_ms for entry in self._entries(queue).values() if entry.due_ms is not None]
        return Leased([_lease(entry) for entry in chosen], 0 if more else min(due, default=None))

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
        policy = self._policies.current.queue(queue)
        faults = RetryRule(policy.max_faults, 0.0, 0.0)
        rules = {Why.FAILED: policy.failed, Why.UNAVAILABLE: policy.unavailable, Why.FAULT: faults}
        delay = 0
        if why is Why.RETURNED:
            entry.deliveries -= 1
        elif why is Why.PERMANENT:
            entry.attempts[Why.FAILED] = max(entry.attempts[Why.FAILED], policy.failed.attempts)
        else:
            entry.attempts[why] += 1
            delay = backoff_ms(rules[why], entry.attempts[why], random.random())
        if any(entry.attempts[one] >= rule.attempts for one, rule in rules.items()):
            return GivenBack(Verdict.GIVEN_UP, max(entry.deliveries, 1))
        entry.token = None
        if why is not Why.RETURNED:
            entry.head_start = max(entry.head_start, int(HeadStart.RECOVERY))
        if delay:
            entry.due_ms = self._now_ms() + delay
        self._settle(queue, entry.task.tenant)
        return GivenBack(Verdict.QUEUED)

    async def remove(
        self, queue: QueueName, tasks: Sequence[tuple[str, int]]
    ) -> tuple[int, list[LeaseToken]]:
        self._reach()
        removed, tokens, entries = 0, list[LeaseToken](), self._entries(queue)
        parked = set(self._turns(queue).parked)
        for task, generation in tasks:
            entry = entries.get(task)
            if entry is not None and entry.task.generation <= generation:
                del entries[task]
                removed += 1
                if entry.token is not None:
                    tokens.append(entry.token)
                self._settle(queue, entry.task.tenant)
        if parked - set(self._turns(queue).parked):
            self._on_wake(queue)
        return removed, tokens

    async def expired(self, queue: QueueName, limit: int) -> list[ExpiredLease]:
        self._reach()
        now = self._now_ms()
        over = [
            (entry, entry.token)
            for entry in self._entries(queue).values()
            if entry.token is not None and entry.expiry_ms <= now
        ]
        over.sort(key=lambda one: (one[0].expiry_ms, one[0].task.task))
        for entry, _ in over[:limit]:
            entry.expiry_ms = now + self._lease_ms
        return [
            ExpiredLease(entry.task.task, token, entry.task.generation, entry.task.tenant)
            for entry, token in over[:limit]
        ]

    async def overdue(self, queue: QueueName, limit: int) -> list[ExpiredLease]:
        self._reach()
        now = self._now_ms()
        over = [
            (entry.overdue_ms, entry.task.task, entry)
            for entry in self._entries(queue).values()
            if entry.overdue_ms is not None and entry.overdue_ms <= now
        ]
        over.sort(key=lambda one: one[:2])
        found: list[ExpiredLease] = []
        for _, _, entry in over[:limit]:
            revoked, entry.due_ms, entry.overdue_ms = entry.token, None, now + self._lease_ms
            token, task = self._hold(entry), entry.task
            found.append(ExpiredLease(task.task, token, task.generation, task.tenant, revoked))
            self._settle(queue, task.tenant)
        return found

    async def known(self, queue: QueueName, cursor: str | None, limit: int) -> KnownTasks:
        self._reach()
        names = sorted(name for name in self._entries(queue) if name > (cursor or ""))
        tasks = [self._entries(queue)[name].task for name in names[:limit]]
        return KnownTasks(
            [KnownTask(task.task, task.tenant, task.generation) for task in tasks],
            names[limit - 1] if len(names) > limit else None,
        )

    async def control(self, queue: QueueName, state: QueueState) -> None:
        self._reach()
        self._entries(queue)
        self._state.control[queue] = state
        if state is not QueueState.PAUSED:
            self._on_wake(queue)

    async def states(self) -> dict[QueueName, QueueState]:
        return {queue: self._state.control.get(queue, QueueState.RUNNING) for queue in await self.queues()}

    async def counts(self, queue: QueueName, tenant: str | None = None) -> QueueCounts:
        self._reach()
        entries = self._entries(queue).values()
        turns = self._turns(queue)
        ready = [entry for entry in entries if entry.is_ready]
        firsts: dict[tuple[str, bool], Entry] = {}
        for entry in sorted(ready, key=lambda one: one.order):
            firsts.setdefault((entry.task.tenant, entry.is_regrade), entry)
        return QueueCounts(
            ready=len(ready),
            delayed=sum(entry.due_ms is not None for entry in entries),
            leased=sum(entry.token is not None for entry in entries),
            oldest_ready_ms=min((entry.task.ready_ms for entry in firsts.values()), default=None),
            tenant_ready=sum(entry.task.tenant == tenant for entry in ready),
            tenants=len(turns.waiting) + len(turns.parked),
            capped=sum(entry.task.tenant in turns.parked for entry in ready),
            state=self._state.control.get(queue, QueueState.RUNNING),
        )

    async def queues(self) -> set[QueueName]:
        self._reach()
        return set(self._state.entries) | set(KNOWN_QUEUES)

    async def has_epoch(self) -> bool:
        self._reach()
        return self._state.complete

    async def begin_rebuild(self, fence: int) -> bool:
        self._reach()
        if self._state.rebuild is not None and self._state.rebuild > fence:
            return False
        self._state.rebuild, self._state.complete = fence, False
        return True

    async def finish_rebuild(self, fence: int) -> bool:
        self._reach()
        if self._state.rebuild != fence:
            return False
        self._state.complete = True
        return True

    def _reach(self) -> None:
        if self.outage:
            raise QueueUnavailable

    def _entries(self, queue: QueueName) -> dict[str, Entry]:
        return self._state.entries.setdefault(queue, {})

    def _turns(self, queue: QueueName) -> Turns:
        return self._state.turns.setdefault(queue, Turns())

    def _promote(self, queue: QueueName) -> None:
        now = self._now_ms()
        for entry in list(self._entries(queue).values()):
            if entry.due_ms is not None and entry.due_ms <= now:
                entry.due_ms = None
                self._settle(queue, entry.task.tenant)

    def _choose(self, queue: QueueName, limit: int, free: int) -> tuple[list[Entry], bool]:
        """The entries to be leased next, in order, and whether size alone kept more back."""
        turns = self._turns(queue)
        passes = dict(turns.waiting)
        room = {tenant: self._room(queue, tenant) for tenant in passes}
        lines: dict[tuple[str, bool], list[Entry]] = {}
        for entry in sorted(self._entries(queue).values(), key=lambda one: one.order, reverse=True):
            if entry.is_ready:
                lines.setdefault((entry.task.tenant, entry.is_regrade), []).append(entry)
        chosen: list[Entry] = []
        size = 0
        while len(chosen) < limit:
            classes = (False, True) if free - len(chosen) >= 2 else (False,)
            present = [
                tenant
                for tenant in passes
                if room[tenant] > 0 and any(lines.get((tenant, regrade)) for regrade in classes)
            ]
            if not present:
                break
            tenant = min(present, key=lambda one: (passes[one], one))
            fronts = [lines[tenant, regrade] for regrade in classes if lines.get((tenant, regrade))]
            line = min(fronts, key=lambda one: one[-1].order)
            size += len(line[-1].task.item_key) + 1 + len(line[-1].task.answer)
            if chosen and size > MAX_LEASED_BYTES:
                return chosen, True
            chosen.append(line.pop())
            room[tenant] -= 1
            passes[tenant] = max(passes[tenant], turns.floor) + self._stride(tenant)
        return chosen, False

    def _settle(self, queue: QueueName, tenant: str) -> None:
        """Puts a tenant among those that take turns, those at their cap, or those that left."""
        turns = self._turns(queue)
        passed = turns.waiting.pop(tenant, None)
        if passed is None:
            known = turns.parked.pop(tenant, turns.left.pop(tenant, turns.floor))
            passed = max(known, turns.floor)
        if not any(entry.is_ready and entry.task.tenant == tenant for entry in self._entries(queue).values()):
            if passed > turns.floor:
                turns.left[tenant] = passed
        elif self._room(queue, tenant) <= 0:
            turns.parked[tenant] = passed
        else:
            turns.waiting[tenant] = passed

    def _room(self, queue: QueueName, tenant: str) -> float:
        cap = self._policies.current.tenant(tenant).max_concurrency
        if cap is None:
            return float("inf")
        entries = self._entries(queue).values()
        return cap - sum(entry.token is not None and entry.task.tenant == tenant for entry in entries)

    def _stride(self, tenant: str) -> int:
        return STRIDE // self._policies.current.tenant(tenant).weight

    def _policy_changed(self) -> None:
        for queue, turns in self._state.turns.items():
            for tenant in [*turns.waiting, *turns.parked]:
                self._settle(queue, tenant)
            self._on_wake(queue)

    def _hold(self, entry: Entry) -> LeaseToken:
        fence = int(self._clock.time() * 1_000_000) + next(self._fences)
        entry.token = LeaseToken(f"{fence}-{secrets.token_hex(6)}")
        entry.expiry_ms = self._now_ms() + self._lease_ms
        return entry.token

    def _now_ms(self) -> int:
        return int(self._clock.time() * 1000)


def _lease(entry: Entry) -> Lease:
    task = entry.task
    assert entry.token is not None
    return Lease(
        task.task,
        entry.token,
        task.generation,
        entry.deliveries,
        task.tenant,
        task.queue,
        task.item_key,
        task.answer,
        task.grade_by_ms,
        task.upgrade,
    )
