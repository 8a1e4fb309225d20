"""The queue in Redis or Valkey: every operation on a batch is one Lua call per partition."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

from redis.asyncio import Redis

from cinnabar_common.clock import Clock
from cinnabar_common.redis_connection import REDIS_ERRORS
from cinnabar_scheduler.adapters.redis_epoch import EPOCH_KEY, Epoch, Layout
from cinnabar_scheduler.adapters.redis_scripts import Script
from cinnabar_scheduler.policy import RetryRule
from cinnabar_scheduler.ports import Leased, PolicySource, QueueUnavailable
from cinnabar_scheduler.tasks import (
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

BATCH = 1000
MAX_LEASED_BYTES = 8 * 1024 * 1024
WAKE_CHANNEL = "cinnabar:wake"
POLICY_RETRY_SECONDS = 0.5
# Answer of a partition that does not know the policies of tenants.
_NO_POLICIES = -2
# After the item key in the body of a task whose grade replaces that of a fallback.
_UPGRADE = b" upgrade"


class RedisQueue:
    """Implements ports.Queue.

    ``clock`` decides over leases, deadlines and delays: schedulers must agree on it.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        clock: Clock,
        lease_seconds: float,
        policies: PolicySource,
    ) -> None:
        self._redis = cast("Any", redis)
        self._clock = clock
        self._lease_ms = int(lease_seconds * 1000)
        self._policies = policies
        self._layout = Layout(policies.current)
        self._epoch = Epoch(redis, self._layout)
        self._turn: dict[QueueName, int] = defaultdict(int)
        self._enqueue = Script(redis, "enqueue")
        self._lease = Script(redis, "lease")
        self._extend = Script(redis, "extend")
        self._remove = Script(redis, "remove")
        self._give_back = Script(redis, "give_back")
        self._expired = Script(redis, "expired")
        self._overdue = Script(redis, "overdue")
        self._known = Script(redis, "known")
        self._counts = Script(redis, "counts")
        self._write_policies = Script(redis, "policies")
        self._policy_changed = asyncio.Event()
        self._policy_changed.set()
        policies.on_change(self._policy_changed.set)

    async def enqueue(self, tasks: Sequence[Task]) -> list[bool]:
        groups: dict[tuple[QueueName, int], list[int]] = defaultdict(list)
        for index, task in enumerate(tasks):
            groups[task.queue, self._layout.index_of(task.queue, task.task)].append(index)
        added = [True] * len(tasks)
        async with _translated():
            for (queue, partition), members in groups.items():
                for start in range(0, len(members), BATCH):
                    batch = members[start : start + BATCH]
                    args: list[str | int | bytes] = []
                    now_ms = self._now_ms()
                    for task in [tasks[index] for index in batch]:
                        args += (
                            task.task,
                            task.tenant,
                            task.generation,
                            int(task.head_start),
                            task.ready_at(now_ms),
                            task.grade_by_ms or 0,
                            task.item_key.encode()
                            + (_UPGRADE if task.upgrade else b"")
                            + b"\n"
                            + task.answer,
                        )
                    prefix = self._layout.prefix(queue, partition)
                    marked, *there = cast(
                        "list[int]",
                        await self._enqueue(prefix, now_ms, WAKE_CHANNEL, queue, *args),
                    )
                    for position in there:
                        added[batch[position]] = False
                    if not marked:
                        await self._epoch.register(queue)
        return added

    async def missing(self, tasks: Sequence[tuple[QueueName, str]]) -> set[str]:
        by_queue: dict[QueueName, list[str]] = defaultdict(list)
        for queue, task in tasks:
            by_queue[queue].append(task)
        absent: set[str] = set()
        async with _translated():
            for queue, members in by_queue.items():
                for prefix, positions in self._batches(queue, members):
                    names = [members[position] for position in positions]
                    states = cast("list[bytes | None]", await self._redis.hmget(prefix + "state", names))
                    absent.update(task for task, state in zip(names, states, strict=True) if state is None)
        return absent

    async def lease(self, queue: QueueName, limit: int, *, free: int) -> Leased:
        prefixes = self._layout.prefixes(queue)
        first = self._turn[queue]
        self._turn[queue] = (first + 1) % len(prefixes)
        leases: list[Lease] = []
        dues: list[int] = []
        for prefix in prefixes[first:] + prefixes[:first]:
            if len(leases) >= limit:
                dues.append(0)  # nobody looked
                break
            async with _translated():
                due = await self._lease_from(prefix, queue, limit, free, leases)
            if due >= 0:
                dues.append(due)
        return Leased(leases, min(dues, default=None))

    async def _lease_from(
        self, prefix: str, queue: QueueName, limit: int, free: int, leases: list[Lease]
    ) -> int:
        args = (
            int(self._clock.time() * 1_000_000),
            self._lease_ms,
            limit - len(leases),
            free - len(leases),
            secrets.token_hex(6),
            MAX_LEASED_BYTES,
        )
        answer = cast("list[Any]", await self._lease(prefix, *args))
        if answer[0] == _NO_POLICIES:
            await self._write_policies(prefix, WAKE_CHANNEL, queue, *self._policy_args(queue))
            answer = cast("list[Any]", await self._lease(prefix, *args))
        for at in range(1, len(answer), 7):
            task, token, generation, delivery, tenant, grade_by, body = answer[at : at + 7]
            item_key, _, payload = body.partition(b"\n")
            upgrade = item_key.endswith(_UPGRADE)
            leases.append(
                Lease(
                    task.decode(),
                    LeaseToken(token.decode()),
                    generation,
                    delivery,
                    tenant.decode(),
                    queue,
                    item_key.removesuffix(_UPGRADE).decode(),
                    payload,
                    grade_by or None,
                    upgrade,
                )
            )
        return answer[0]

    async def extend(self, queue: QueueName, held: Sequence[tuple[str, LeaseToken]]) -> list[LeaseToken]:
        lost: set[str] = set()
        async with _translated():
            for prefix, positions in self._batches(queue, [task for task, _ in held]):
                pairs = [part for position in positions for part in held[position]]
                tokens = cast(
                    "list[bytes]", await self._extend(prefix, self._now_ms(), self._lease_ms, *pairs)
                )
                lost.update(token.decode() for token in tokens)
        return [token for _, token in held if token in lost]

    async def give_back(
        self, queue: QueueName, held: Sequence[tuple[str, LeaseToken]], why: Why
    ) -> list[GivenBack]:
        policy = self._policies.current.queue(queue)
        rules = (*_rule_args(policy.failed), *_rule_args(policy.unavailable))
        answers = [GivenBack(Verdict.LOST)] * len(held)
        async with _translated():
            for prefix, positions in self._batches(queue, [task for task, _ in held]):
                args: list[str | int | float] = [self._now_ms(), WAKE_CHANNEL, queue, int(HeadStart.RECOVERY)]
                args += (policy.max_faults, *rules)
                for position in positions:
                    args += (*held[position], why.value, random.random())
                verdicts = cast("list[int]", await self._give_back(prefix, *args))
                for position, verdict in zip(positions, verdicts, strict=True):
                    answers[position] = _given_back(verdict)
        return answers

    async def remove(
        self, queue: QueueName, tasks: Sequence[tuple[str, int]]
    ) -> tuple[int, list[LeaseToken]]:
        removed, tokens = 0, list[LeaseToken]()
        async with _translated():
            for prefix, positions in self._batches(queue, [task for task, _ in tasks]):
                pairs = [part for position in positions for part in tasks[position]]
                answer = cast("list[Any]", await self._remove(prefix, WAKE_CHANNEL, queue, *pairs))
                removed += int(answer[0])
                tokens += [LeaseToken(token.decode()) for token in answer[1:]]
        return removed, tokens

    async def expired(self, queue: QueueName, limit: int) -> list[ExpiredLease]:
        found: list[ExpiredLease] = []
        async with _translated():
            for prefix in self._layout.prefixes(queue):
                if len(found) < limit:
                    answer = await self._expired(prefix, self._now_ms(), self._lease_ms, limit - len(found))
                    found += [_expired(answer[at : at + 4]) for at in range(0, len(answer), 4)]
        return found

    async def overdue(self, queue: QueueName, limit: int) -> list[ExpiredLease]:
        found: list[ExpiredLease] = []
        async with _translated():
            for prefix in self._layout.prefixes(queue):
                if len(found) < limit:
                    now_us, nonce = int(self._clock.time() * 1_000_000), secrets.token_hex(6)
                    answer = await self._overdue(prefix, now_us, self._lease_ms, limit - len(found), nonce)
                    found += [_expired(answer[at : at + 5]) for at in range(0, len(answer), 5)]
        return found

    async def known(self, queue: QueueName, cursor: str | None, limit: int) -> KnownTasks:
        partition, _, inner = (cursor or "0:0").partition(":")
        async with _translated():
            answer = cast(
                "list[Any]",
                await self._known(self._layout.prefix(queue, int(partition)), inner, limit),
            )
        tasks = [
            KnownTask(answer[at].decode(), answer[at + 1].decode(), answer[at + 2])
            for at in range(1, len(answer), 3)
        ]
        if answer[0] != b"0":
            return KnownTasks(tasks, f"{partition}:{answer[0].decode()}")
        last = int(partition) + 1 == self._layout.count(queue)
        return KnownTasks(tasks, None if last else f"{int(partition) + 1}:0")

    async def control(self, queue: QueueName, state: QueueState) -> None:
        async with _translated():
            await self._epoch.register(queue)
            for prefix in self._layout.prefixes(queue):
                if state is QueueState.RUNNING:
                    await self._redis.delete(prefix + "control")
                else:
                    await self._redis.set(prefix + "control", state.value)
            if state is not QueueState.PAUSED:
                await self._redis.publish(WAKE_CHANNEL, queue)

    async def states(self) -> dict[QueueName, QueueState]:
        async with _translated():
            return {
                queue: _state(await self._redis.get(self._layout.prefix(queue, 0) + "control"))
                for queue in await self._epoch.queues()
            }

    async def counts(self, queue: QueueName, tenant: str | None = None) -> QueueCounts:
        async with _translated():
            parts = [
                cast("list[Any]", await self._counts(prefix, tenant or ""))
                for prefix in self._layout.prefixes(queue)
            ]
        ready, delayed, leased, _, tenant_ready, _, capped = (
            sum(part[at] for part in parts) for at in range(7)
        )
        return QueueCounts(
            ready=ready,
            delayed=delayed,
            leased=leased,
            oldest_ready_ms=min((part[3] for part in parts if part[3] >= 0), default=None),
            tenant_ready=tenant_ready,
            tenants=max(part[5] for part in parts),
            capped=capped,
            state=_state(parts[0][7]),
        )

    async def queues(self) -> set[QueueName]:
        async with _translated():
            return await self._epoch.queues()

    async def has_epoch(self) -> bool:
        async with _translated():
            return await self._epoch.holds()

    async def begin_rebuild(self, fence: int) -> bool:
        async with _translated():
            if not await self._epoch.begin(fence):
                return False
            await self.apply_policies()
            return True

    async def finish_rebuild(self, fence: int) -> bool:
        async with _translated():
            return await self._epoch.finish(fence)

    async def apply_policies(self) -> None:
        """Writes weights and caps now in force into every partition. Raises QueueUnavailable."""
        async with _translated():
            for queue in await self._epoch.queues():
                args = self._policy_args(queue)
                for prefix in self._layout.prefixes(queue):
                    await self._write_policies(prefix, WAKE_CHANNEL, queue, *args)

    async def follow_policies(self) -> None:
        """Writes them at once and after every change, for ever."""
        while True:
            await self._policy_changed.wait()
            self._policy_changed.clear()
            try:
                await self.apply_policies()
            except QueueUnavailable:
                self._policy_changed.set()
                await asyncio.sleep(POLICY_RETRY_SECONDS)

    async def ping(self) -> None:
        """Raises QueueUnavailable when Redis does not answer."""
        async with _translated():
            await self._redis.exists(EPOCH_KEY)

    def _batches(self, queue: QueueName, tasks: Sequence[str]) -> Iterator[tuple[str, list[int]]]:
        """(prefix, positions of tasks) of each call that is needed."""
        groups: dict[int, list[int]] = {}
        if self._layout.count(queue) == 1:
            groups[0] = list(range(len(tasks)))
        else:
            for position, task in enumerate(tasks):
                groups.setdefault(self._layout.index_of(queue, task), []).append(position)
        for partition, members in groups.items():
            prefix = self._layout.prefix(queue, partition)
            for start in range(0, len(members), BATCH):
                yield prefix, members[start : start + BATCH]

    def _policy_args(self, queue: QueueName) -> list[str]:
        policy, count = self._policies.current, self._layout.count(queue)
        args: list[str] = []
        for name, tenant in (("", policy.default_tenant), *policy.tenants.items()):
            # Each partition keeps to its part of the cap, rounded up.
            args += (name, f"{tenant.weight} {-(-(tenant.max_concurrency or 0) // count)}")
        return args

    def _now_ms(self) -> int:
        return int(self._clock.time() * 1000)


def _rule_args(rule: RetryRule) -> tuple[int, int, int]:
    return rule.attempts, int(rule.base_seconds * 1000), int(rule.cap_seconds * 1000)


def _state(control: bytes | None) -> QueueState:
    return QueueState(control.decode()) if control else QueueState.RUNNING


def _expired(part: list[Any]) -> ExpiredLease:
    task, token, generation, tenant, *revoked = part
    return ExpiredLease(
        task.decode(),
        LeaseToken(token.decode()),
        generation,
        tenant.decode(),
        LeaseToken(revoked[0].decode()) if revoked and revoked[0] else None,
    )


def _given_back(verdict: int) -> GivenBack:
    if verdict < 0:
        return GivenBack(Verdict.LOST)
    if verdict == 0:
        return GivenBack(Verdict.QUEUED)
    return GivenBack(Verdict.GIVEN_UP, verdict)


@asynccontextmanager
async def _translated() -> AsyncGenerator[None]:
    try:
        yield
    except REDIS_ERRORS as error:
        raise QueueUnavailable from error
