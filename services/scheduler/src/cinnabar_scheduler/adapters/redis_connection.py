"""Connections to Redis; the one place that meets the untyped parts of its client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any, cast

import hiredis
from redis.asyncio import Redis
from redis.asyncio.connection import Connection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

_redis = cast("Any", Redis)
_hiredis = cast("Any", hiredis)


class _Connection(Connection):
    """Packs commands in C: a batch has thousands of arguments, and packing was half the cost of a call."""

    def pack_command(self, *args: Any) -> list[bytes]:
        name, *rest = args
        # "SCRIPT LOAD" and the like are two words to the server.
        words = name.split() if isinstance(name, (str, bytes)) else [name]
        return [_hiredis.pack_command((*words, *rest))]

    async def send_packed_command(
        self, command: bytes | str | Iterable[bytes], check_health: bool = True
    ) -> None:
        """As RedisConnectionError whatever the event loop says of a transport that was closed meanwhile."""
        try:
            await super().send_packed_command(command, check_health)
        except RuntimeError as error:  # uvloop's, where asyncio has an OSError
            raise RedisConnectionError(str(error)) from error


def connect(url: str, *, timeout_seconds: float) -> Redis:
    """A pool of connections for commands.

    A connection that turns out to be dead is replaced at once, one time; other waiting is the caller's.
    """
    return _redis.from_url(
        url,
        connection_class=_Connection,  # overruled by a URL that calls for another, as rediss:// does
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
        retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
    )


def connect_listener(url: str, *, timeout_seconds: float) -> Redis:
    """For a subscription: silent as long as nothing happens, so reads have no timeout but a ping.

    Nothing is retried, so that no loss of a connection goes unnoticed.
    """
    return _redis.from_url(
        url,
        connection_class=_Connection,
        socket_timeout=None,
        socket_connect_timeout=timeout_seconds,
        health_check_interval=5,
        retry=Retry(NoBackoff(), 0),
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
