"""The Lua scripts: one file each; those of the queue stand on a ground that they share."""

from __future__ import annotations

from importlib import resources
from typing import Any

from redis.asyncio import Redis

from cinnabar_common import redis_scripts


def _read(name: str) -> str:
    return resources.files("cinnabar_scheduler.adapters").joinpath(f"lua/{name}.lua").read_text("utf-8")


class Script(redis_scripts.Script):
    """A script of the scheduler, by the name of its file."""

    def __init__(self, redis: Redis, name: str, *, shared: str | None = "shared") -> None:
        super().__init__(redis, _read(name) if shared is None else f"{_read(shared)}\n{_read(name)}")

    async def __call__(self, prefix: str, *args: str | int | float | bytes) -> Any:
        """Calls it on the keys of a prefix; raises what redis-py does."""
        return await self.on((prefix,), args)
