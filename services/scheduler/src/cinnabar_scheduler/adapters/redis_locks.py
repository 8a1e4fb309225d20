"""Locks in Redis or Valkey: each step is one Lua call."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import cast

from redis.asyncio import Redis

from cinnabar_common.redis_connection import REDIS_ERRORS
from cinnabar_scheduler.adapters.redis_scripts import Script
from cinnabar_scheduler.ports import LocksUnavailable


def lock_prefix(name: str) -> str:
    """Of the keys of a lock, all of which have a TTL; the hash tag keeps them on one node of a cluster."""
    return f"cinnabar:{{lock:{name}}}:"


class RedisLocks:
    """Implements ports.LockStore. TTLs and fencing numbers go by the server's clock."""

    def __init__(self, redis: Redis) -> None:
        self._take = Script(redis, "lock_take", shared=None)
        self._renew = Script(redis, "lock_renew", shared=None)
        self._release = Script(redis, "lock_release", shared=None)

    async def take(self, name: str, token: str, ttl_seconds: float) -> int | None:
        async with _translated():
            return cast("int | None", await self._take(lock_prefix(name), token, _ms(ttl_seconds)))

    async def renew(self, name: str, token: str, ttl_seconds: float) -> bool:
        async with _translated():
            return bool(await self._renew(lock_prefix(name), token, _ms(ttl_seconds)))

    async def release(self, name: str, token: str) -> bool:
        async with _translated():
            return bool(await self._release(lock_prefix(name), token))


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


@asynccontextmanager
async def _translated() -> AsyncGenerator[None]:
    try:
        yield
    except REDIS_ERRORS as error:
        raise LocksUnavailable from error
