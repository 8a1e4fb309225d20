"""The queue in Redis or Valkey: every operation on a batch is one Lua call."""

from __future__ import annotations

import random
import secrets
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any, cast

from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.exceptions import RedisError

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

ENQUEUE_BATCH = 1000
MAX_LEASED_BYTES = 8 * 1024 * 1024
WAKE_CHANNEL = "cinnabar:wake"
QUEUES_KEY = "cinnabar:queues"
EPOCH_KEY = "cinnabar:epoch"

# Keys that live as long as the data in them; every other key has a TTL.
PERMANENT_KEY_PATTERN = (
    r"cinnabar:(queues|epoch|\{[a-z0-9-]+\}:(tenants|ready:.*|delayed|leases|body|state|pass|fence))"
)


class Keys:
    """Every key of a queue; the hash tag keeps them on one node of a cluster."""

    __slots__ = ("body", "delayed", "fence", "leases", "pass_", "ready", "state", "tenants")

    def __init__(self, queue: QueueName) -> None:
        prefix = f"cinnabar:{{{queue}}}:"
        self.tenants = prefix + "tenants"
        self.ready = prefix + "ready"
        self.delayed = prefix + "delayed"
        self.leases = prefix + "leases"
        self.body = prefix + "body"
        self.state = prefix + "state"
        self.pass_ = prefix + "pass"
        self.fence = prefix + "fence"


def lock_key(lock: str) -> str:
    """Key of an advisory lock; has a TTL."""
    return f"cinnabar:lock:{lock}"


class RedisQueue:
    """Implements ports.Queue. ``owner`` names this process in locks."""

    def __init__(
        self,
        redis: Redis,
        *,
        clock: Clock,
        lease_seconds: float,
        policy: RetryPolicy,
        owner: str | None = None,
    ) -> None:
        self._redis = redis
        self._clock = clock
        self._lease_ms = int(lease_seconds * 1000)
        self._policy = policy
        self._owner = owner or secrets.token_hex(8)
        self._names: set[QueueName] = set()
        self._epoch: bytes | None = None
        self._enqueue = self._load("enqueue")
        self._lease = self._load("lease")
        self._extend = self._load("extend")
        self._remove = self._load("remove")
        self._give_back = self._load("give_back")
        self._expired = self._load("expired")
        self._stats = self._load("stats")
        self._unlock = self._load("unlock")

    def _load(self, name: str) -> AsyncScript:
        source = resources.files("cinnabar_scheduler.adapters").joinpath(f"lua/{name}.lua").read_text("utf-8")
        return self._redis.register_script(source)

    async def enqueue(self, tasks: Sequence[Task]) -> list[bool]:
        by_queue: dict[QueueName, list[int]] = defaultdict(list)
        for index, task in enumerate(tasks):
            by_queue[task.queue].append(index)
        added = [True] * len(tasks)
        async with _translated():
            for queue, members in by_queue.items():
                if queue not in self._names:
                    await self._redis.sadd(QUEUES_KEY, queue)
                    self._names.add(queue)
                for start in range(0, len(members), ENQUEUE_BATCH):
                    batch = members[start : start + ENQUEUE_BATCH]
                    for there in await self._enqueue_batch(queue, [tasks[index] for index in batch]):
                        added[batch[there]] = False
        return added

    async def _enqueue_batch(self, queue: QueueName, tasks: Sequence[Task]) -> list[int]:
        """Positions of the tasks that were there already."""
        keys = Keys(queue)
        args: list[str | int | bytes] = [self._now_ms(), WAKE_CHANNEL, queue]
        for task in tasks:
            args += (
                task.task,
                task.tenant,
                task.generation,
                int(task.head_start),
                task.ready_ms,
                task.item_key.encode() + b"\n" + task.answer,
            )
        return cast(
            "list[int]",
            await self._enqueue(
                keys=[
                    keys.tenants,
                    keys.ready,
                    keys.delayed,
                    keys.leases,
                    keys.body,
                    keys.state,
                    keys.pass_,
                ],
                args=args,
            ),
        )

    async def missing(self, tasks: Sequence[tuple[QueueName, str]]) -> set[str]:
        by_queue: dict[QueueName, list[str]] = defaultdict(list)
        for queue, task in tasks:
            by_queue[queue].append(task)
        absent: set[str] = set()
        async with _translated():
            for queue, members in by_queue.items():
                states = cast("list[bytes | None]", await self._redis.hmget(Keys(queue).state, members))
                absent.update(task for task, state in zip(members, states, strict=True) if state is None)
        return absent

    async def lease(self, queue: QueueName, limit: int) -> Leased:
        keys = Keys(queue)
        async with _translated():
            answer = cast(
                "list[Any]",
                await self._lease(
                    keys=[
                        keys.tenants,
                        keys.ready,
                        keys.delayed,
                        keys.leases,
                        keys.body,
                        keys.state,
                        keys.pass_,
                        keys.fence,
                    ],
                    args=[
                        self._now_ms(),
                        self._lease_ms,
                        limit,
                        int(self._clock.time() * 1_000_000),
                        secrets.token_hex(6),
                        MAX_LEASED_BYTES,
                    ],
                ),
            )
        leases: list[Lease] = []
        for at in range(1, len(answer), 6):
            task, token, generation, delivery, tenant, body = answer[at : at + 6]
            item_key, _, payload = body.partition(b"\n")
            leases.append(
                Lease(
                    task.decode(),
                    LeaseToken(token.decode()),
                    generation,
                    delivery,
                    tenant.decode(),
                    queue,
                    item_key.decode(),
                    payload,
                )
            )
        return Leased(leases, None if answer[0] < 0 else answer[0])

    async def extend(self, queue: QueueName, held: Sequence[tuple[str, LeaseToken]]) -> list[LeaseToken]:
        if not held:
            return []
        keys = Keys(queue)
        async with _translated():
            lost = cast(
                "list[bytes]",
                await self._extend(
                    keys=[keys.leases, keys.state],
                    args=[self._now_ms(), self._lease_ms, *(part for pair in held for part in pair)],
                ),
            )
        return [LeaseToken(token.decode()) for token in lost]

    async def give_back(
        self, queue: QueueName, held: Sequence[tuple[str, LeaseToken]], why: Why
    ) -> list[GivenBack]:
        if not held:
            return []
        keys = Keys(queue)
        policy = self._policy
        args: list[str | int | float] = [
            self._now_ms(),
            WAKE_CHANNEL,
            queue,
            policy.backoff_base_ms,
            policy.backoff_cap_ms,
            policy.max_failures,
            policy.max_faults,
            int(HeadStart.RECOVERY),
        ]
        for task, token in held:
            args += (task, token, why.value, random.random())
        async with _translated():
            verdicts = cast(
                "list[int]",
                await self._give_back(
                    keys=[keys.tenants, keys.ready, keys.delayed, keys.leases, keys.state, keys.pass_],
                    args=args,
                ),
            )
        return [_given_back(verdict) for verdict in verdicts]

    async def remove(
        self, queue: QueueName, tasks: Sequence[tuple[str, int]]
    ) -> tuple[int, list[LeaseToken]]:
        if not tasks:
            return 0, []
        keys = Keys(queue)
        async with _translated():
            answer = cast(
                "list[Any]",
                await self._remove(
                    keys=[keys.ready, keys.delayed, keys.leases, keys.body, keys.state],
                    args=[part for pair in tasks for part in pair],
                ),
            )
        return int(answer[0]), [LeaseToken(token.decode()) for token in answer[1:]]

    async def expired(self, queue: QueueName, limit: int) -> list[ExpiredLease]:
        keys = Keys(queue)
        async with _translated():
            answer = cast(
                "list[Any]",
                await self._expired(
                    keys=[keys.leases, keys.state], args=[self._now_ms(), self._lease_ms, limit]
                ),
            )
        return [
            ExpiredLease(
                answer[at].decode(),
                LeaseToken(answer[at + 1].decode()),
                answer[at + 2],
                answer[at + 3].decode(),
            )
            for at in range(0, len(answer), 4)
        ]

    async def counts(self, queue: QueueName) -> QueueCounts:
        keys = Keys(queue)
        async with _translated():
            ready, delayed, leased, oldest = cast(
                "list[int]",
                await self._stats(
                    keys=[keys.tenants, keys.ready, keys.delayed, keys.leases, keys.state], args=[]
                ),
            )
        return QueueCounts(ready, delayed, leased, oldest if oldest >= 0 else None)

    async def queues(self) -> set[QueueName]:
        async with _translated():
            names = cast("set[bytes]", await self._redis.smembers(QUEUES_KEY))
        return {QueueName(name.decode()) for name in names} | set(KNOWN_QUEUES)

    async def has_epoch(self) -> bool:
        async with _translated():
            epoch = cast("bytes | None", await self._redis.get(EPOCH_KEY))
        if epoch != self._epoch:  # data was lost, perhaps while somebody else looked
            self._names.clear()
            self._epoch = epoch
        return epoch is not None

    async def begin_epoch(self) -> None:
        async with _translated():
            await self._redis.set(EPOCH_KEY, f"{self._now_ms()}-{self._owner}")

    async def acquire(self, lock: str, *, seconds: float) -> bool:
        key, expiry = lock_key(lock), int(seconds * 1000)
        async with _translated():
            if await self._redis.set(key, self._owner, nx=True, px=expiry):
                return True
            if await self._redis.get(key) != self._owner.encode():
                return False
            await self._redis.pexpire(key, expiry)
            return True

    async def release(self, lock: str) -> None:
        async with _translated():
            await self._unlock(keys=[lock_key(lock)], args=[self._owner])

    async def ping(self) -> None:
        """Raises QueueUnavailable when Redis does not answer."""
        async with _translated():
            await self._redis.exists(EPOCH_KEY)

    def _now_ms(self) -> int:
        return int(self._clock.time() * 1000)


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
    except (RedisError, OSError) as error:
        raise QueueUnavailable from error
