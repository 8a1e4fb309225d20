"""Locks in Redis or Valkey: each step is one Lua call."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib import resources
from typing import cast

from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.exceptions import RedisError

from cinnabar_scheduler.ports import LocksUnavailable


def holder_key(name: str) -> str:
    """Key of a lock; its TTL is that of the lock. The hash tag keeps it with its counter."""
    return f"cinnabar:{{lock:{name}}}:holder"


def fence_key(name: str) -> str:
    """Key of the number of a lock's last acquisition; has a TTL."""
    return f"cinnabar:{{lock:{name}}}:fence"


class RedisLocks:
    """Implements ports.LockStore. TTLs and fencing numbers go by the server's clock."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._take = self._load("take")
        self._renew = self._load("renew")
        self._release = self._load("release")

    def _load(self, name: str) -> AsyncScript:
        folder = resources.files("cinnabar_scheduler.adapters") / "lua"
        return self._redis.register_script(folder.joinpath(f"lock_{name}.lua").read_text("utf-8"))

    async def take(self, name: str, token: str, ttl_seconds: float) -> int | None:
        async with _translated():
            return cast(
                "int | None",
                await self._take(keys=[holder_key(name), fence_key(name)], args=[token, _ms(ttl_seconds)]),
            )

    async def renew(self, name: str, token: str, ttl_seconds: float) -> bool:
        async with _translated():
            return bool(await self._renew(keys=[holder_key(name)], args=[token, _ms(ttl_seconds)]))

    async def release(self, name: str, token: str) -> bool:
        async with _translated():
            return bool(await self._release(keys=[holder_key(name)], args=[token]))


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


@asynccontextmanager
async def _translated() -> AsyncGenerator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise LocksUnavailable from error
