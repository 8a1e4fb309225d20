"""What schedulers tell each other through Redis: work arrived, submissions changed, leases cancelled."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence

from redis.asyncio import Redis

from cinnabar.scheduler.v1 import queue_service_pb2 as pb
from cinnabar_common.redis_connection import REDIS_ERRORS, publish, subscribed
from cinnabar_scheduler import convert
from cinnabar_scheduler.adapters.redis_queue import WAKE_CHANNEL
from cinnabar_scheduler.ports import Changed
from cinnabar_scheduler.tasks import LeaseToken, QueueName

log = logging.getLogger(__name__)

CHANGED_CHANNEL = "cinnabar:changed"
CANCELLED_CHANNEL = "cinnabar:cancelled"
RECONNECT_SECONDS = 0.2


class RedisBus:
    """Implements ports.Bus, and listens for the others."""

    def __init__(
        self,
        redis: Redis,
        *,
        publisher: Redis,
        on_wake: Callable[[QueueName], None],
        on_reconnect: Callable[[], None],
        on_changed: Callable[[Changed], None],
        on_cancelled: Callable[[Sequence[LeaseToken]], None],
    ) -> None:
        self._redis = redis
        self._publisher = publisher
        self._on_wake = on_wake
        self._on_reconnect = on_reconnect
        self._on_changed = on_changed
        self._on_cancelled = on_cancelled
        self._self = secrets.token_bytes(8)
        self._listening = True

    async def publish_changed(self, changed: Changed) -> None:
        await self._publish(CHANGED_CHANNEL, convert.follow_response(changed).SerializeToString())

    async def publish_cancelled(self, tokens: Sequence[LeaseToken]) -> None:
        if tokens:
            await self._publish(CANCELLED_CHANNEL, "\n".join(tokens).encode())

    async def _publish(self, channel: str, payload: bytes) -> None:
        try:
            await publish(self._publisher, channel, self._self + payload)
        except REDIS_ERRORS as error:
            log.debug("not published", extra={"channel": channel, "cause": str(error)})

    async def listen(self) -> None:
        """Listens for ever, through every loss of the connection."""
        while True:
            try:
                await self._listen_once()
            except REDIS_ERRORS as error:
                # Once per loss: an outage has five tries a second.
                log.log(
                    logging.WARNING if self._listening else logging.DEBUG,
                    "subscription lost",
                    extra={"cause": str(error)},
                )
                self._listening = False
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _listen_once(self) -> None:
        async for channel, data in subscribed(self._redis, WAKE_CHANNEL, CHANGED_CHANNEL, CANCELLED_CHANNEL):
            if channel:
                self._handle(channel, data)
            else:
                self._listening = True
                self._on_reconnect()  # whatever was said meanwhile was missed

    def _handle(self, channel: str, data: bytes) -> None:
        if channel == WAKE_CHANNEL:
            self._on_wake(QueueName(data.decode()))
            return
        sender, payload = data[:8], data[8:]
        if sender == self._self:
            return
        if channel == CHANGED_CHANNEL:
            self._on_changed(convert.changed(pb.FollowResponse.FromString(payload)))
        else:
            self._on_cancelled([LeaseToken(token) for token in payload.decode().split("\n")])
