"""What the leader's sweeps found, in Redis, so that any scheduler can tell it."""

from __future__ import annotations

import json
from typing import Any, cast

from redis.asyncio import Redis

from cinnabar_common.redis_connection import REDIS_ERRORS
from cinnabar_scheduler.ports import QueueUnavailable
from cinnabar_scheduler.tasks import Findings

FINDINGS_KEY = "cinnabar:sweep"
# Findings say when they were made; after a day without a sweep nobody should take comfort from them.
FINDINGS_SECONDS = 86_400


class RedisBoard:
    """Implements ports.SweepBoard."""

    def __init__(self, redis: Redis) -> None:
        self._redis = cast("Any", redis)

    async def publish(self, findings: Findings) -> None:
        text = json.dumps([findings.missing, findings.orphaned, findings.ended_ms])
        try:
            await self._redis.set(FINDINGS_KEY, text, ex=FINDINGS_SECONDS)
        except REDIS_ERRORS as error:
            raise QueueUnavailable from error

    async def last(self) -> Findings | None:
        try:
            text = cast("bytes | None", await self._redis.get(FINDINGS_KEY))
        except REDIS_ERRORS as error:
            raise QueueUnavailable from error
        if text is None:
            return None
        missing, orphaned, ended_ms = json.loads(text)
        return Findings(missing, orphaned, ended_ms)
