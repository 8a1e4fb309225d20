"""The cache that all storage processes share, and the channel between them, on Redis.

All keys have one hash tag, so that one Lua call can change many of them and
send the message about it: on a cluster the cache is on one of its nodes.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from importlib import resources
from typing import Any, cast

from redis.asyncio import Redis

from cinnabar_common.redis_connection import REDIS_ERRORS, connect, connect_listener, subscribed
from cinnabar_common.redis_scripts import Script
from cinnabar_storage.cached.invalidation import CacheKey
from cinnabar_storage.cached.shared import Hit, Message, Miss, SharedCacheUnavailable
from cinnabar_storage.records import Lsn, Position

log = logging.getLogger(__name__)

# The number is that of the format of entries and messages: releases with another one keep apart.
PREFIX = "cinnabar:{cache}:1:"
CHANNEL = f"{PREFIX}changed"
_EVERYTHING = "everything"


def _script(redis: Redis, name: str) -> Script:
    folder = resources.files("cinnabar_storage.adapters")
    return Script(redis, folder.joinpath(f"lua/{name}.lua").read_text("utf-8"))


class RedisCache:
    """Implements SharedCache; made by :func:`redis_cache`."""

    def __init__(
        self,
        redis: Redis,
        listener: Redis,
        *,
        max_age_seconds: float,
        lasting_seconds: float,
    ) -> None:
        self._redis = cast("Any", redis)
        self._listener = listener
        self._get, self._put = _script(redis, "cache_get"), _script(redis, "cache_put")
        self._changed = _script(redis, "cache_changed")
        self._max_age_ms = int(max_age_seconds * 1000)
        self._lasting_ms = int(lasting_seconds * 1000)

    async def get(self, key: CacheKey) -> Hit | Miss:
        with _meaning():
            entry, left_ms, now_ms = await self._get.on((PREFIX + key,), ())
        if not entry:
            return Miss(now_ms)
        head, _, value = cast("bytes", entry).partition(b"\n")
        shard, _, lsn = head.partition(b":")
        return Hit(value, Position(int(shard), Lsn(int(lsn))), left_ms / 1000)

    async def put(self, key: CacheKey, value: bytes, position: Position, lease_ms: int) -> bool:
        args = (position.shard, position.lsn, value, lease_ms, self._max_age_ms)
        with _meaning():
            return bool(await self._put.on((PREFIX + key,), args))

    async def get_lasting(self, keys: Sequence[CacheKey]) -> dict[CacheKey, bytes]:
        if not keys:
            return {}
        with _meaning():
            values: list[bytes | None] = await self._redis.mget([PREFIX + key for key in keys])
        return {key: value for key, value in zip(keys, values, strict=True) if value is not None}

    async def put_lasting(self, values: Mapping[CacheKey, bytes]) -> None:
        with _meaning():
            for key, value in values.items():
                await self._redis.set(PREFIX + key, value, px=self._lasting_ms)

    async def tell(self, message: Message) -> None:
        with _meaning():
            await self._changed.on([CHANNEL, *[PREFIX + key for key in message.keys]], (encoded(message),))

    async def messages(self) -> AsyncIterator[Message | None]:
        with _meaning():
            async for channel, payload in subscribed(self._listener, CHANNEL):
                yield decoded(payload) if channel else None


def encoded(message: Message) -> bytes:
    """A message for the channel. No text that Postgres keeps has U+0000 in it."""
    numbers = (str(message.number), str(message.position.shard), str(message.position.lsn))
    kind = _EVERYTHING if message.everything else ""
    return "\0".join((message.sender, *numbers, kind, *message.keys)).encode()


def decoded(payload: bytes) -> Message | None:
    """The message; None, which is "something was lost", for what is none."""
    try:
        sender, number, shard, lsn, kind, *keys = payload.decode().split("\0")
        position = Position(int(shard), Lsn(int(lsn)))
        return Message(sender, int(number), position, tuple(map(CacheKey, keys)), kind == _EVERYTHING)
    except ValueError as error:
        log.warning("not a message of a cache", extra={"cause": str(error)})
        return None


@contextmanager
def _meaning() -> Generator[None]:
    try:
        yield
    except REDIS_ERRORS as error:
        raise SharedCacheUnavailable(str(error)) from error


@asynccontextmanager
async def redis_cache(
    url: str,
    *,
    timeout_seconds: float,
    max_age_seconds: float,
    lasting_seconds: float,
) -> AsyncGenerator[RedisCache]:
    """The cache at ``url``, as redis_connection reads it. Redis need not be there."""
    async with AsyncExitStack() as exits:
        redis = connect(url, timeout_seconds=timeout_seconds)
        exits.push_async_callback(redis.aclose)
        listener = connect_listener(url, timeout_seconds=timeout_seconds)
        exits.push_async_callback(listener.aclose)
        yield RedisCache(
            redis,
            listener,
            max_age_seconds=max_age_seconds,
            lasting_seconds=lasting_seconds,
        )
