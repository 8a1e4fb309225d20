"""Connections to Redis; the one place that meets the untyped parts of its client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

from redis.asyncio import Redis

_redis = cast("Any", Redis)


def connect(url: str, *, timeout_seconds: float) -> Redis:
    """A pool of connections for commands."""
    return _redis.from_url(url, socket_timeout=timeout_seconds, socket_connect_timeout=timeout_seconds)


def connect_listener(url: str, *, timeout_seconds: float) -> Redis:
    """For a subscription: silent as long as nothing happens, so reads have no timeout but a ping."""
    return _redis.from_url(
        url, socket_timeout=None, socket_connect_timeout=timeout_seconds, health_check_interval=5
    )


async def publish(redis: Redis, channel: str, payload: bytes) -> None:
    """PUBLISH."""
    await cast("Any", redis).publish(channel, payload)


async def subscribed(redis: Redis, *channels: str) -> AsyncIterator[tuple[str, bytes]]:
    """(channel, payload) of each message; the first item, ("", b""), says that listening works."""
    async with cast("Any", redis).pubsub(ignore_subscribe_messages=True) as subscription:
        await subscription.subscribe(*channels)
        yield "", b""
        async for message in subscription.listen():
            yield message["channel"].decode(), message["data"]
