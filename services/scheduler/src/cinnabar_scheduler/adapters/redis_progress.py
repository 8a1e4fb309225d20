"""Progress of tasks under lease in Redis: one hash per partition of a queue, beside its tasks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import cast

from redis.asyncio import Redis

from cinnabar_common.redis_connection import REDIS_ERRORS
from cinnabar_scheduler.adapters.redis_epoch import Layout
from cinnabar_scheduler.adapters.redis_scripts import Script
from cinnabar_scheduler.policy import Policy
from cinnabar_scheduler.ports import QueueUnavailable
from cinnabar_scheduler.tasks import LeaseToken, QueueName

TTL_SECONDS = 900.0
"""Of the hash, from the last write into it: longer than any lease without a heartbeat."""


class RedisProgress:
    """Implements ports.ProgressBoard; ``policy`` says how queues are partitioned."""

    def __init__(self, redis: Redis, policy: Policy, *, ttl_seconds: float = TTL_SECONDS) -> None:
        self._layout = Layout(policy)
        self._ttl_ms = int(ttl_seconds * 1000)
        self._keep = Script(redis, "progress_keep")
        self._look = Script(redis, "progress_look")

    async def keep(self, queue: QueueName, told: Sequence[tuple[str, LeaseToken, bytes]]) -> list[LeaseToken]:
        lost: list[LeaseToken] = []
        for prefix, members in self._parts(queue, [task for task, _, _ in told]):
            args = [part for index in members for part in told[index]]
            try:
                tokens = cast("list[bytes]", await self._keep(prefix, self._ttl_ms, *args))
            except REDIS_ERRORS as error:
                raise QueueUnavailable from error
            lost += [LeaseToken(token.decode()) for token in tokens]
        return lost

    async def of(self, queue: QueueName, tasks: Sequence[tuple[str, int]]) -> list[bytes]:
        found = [b""] * len(tasks)
        for prefix, members in self._parts(queue, [task for task, _ in tasks]):
            args = [part for index in members for part in tasks[index]]
            try:
                payloads = cast("list[bytes]", await self._look(prefix, *args))
            except REDIS_ERRORS as error:
                raise QueueUnavailable from error
            for index, payload in zip(members, payloads, strict=True):
                found[index] = payload
        return found

    def _parts(self, queue: QueueName, tasks: Sequence[str]) -> list[tuple[str, list[int]]]:
        groups: dict[int, list[int]] = defaultdict(list)
        for index, task in enumerate(tasks):
            groups[self._layout.index_of(queue, task)].append(index)
        return [(self._layout.prefix(queue, partition), members) for partition, members in groups.items()]
