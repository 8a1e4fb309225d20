"""The Lua scripts: one file each; those of the queue stand on a ground that they share."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import NoScriptError


def _read(name: str) -> str:
    return resources.files("cinnabar_scheduler.adapters").joinpath(f"lua/{name}.lua").read_text("utf-8")


class Script:
    """One script. Servers that forgot it, or never had it, are given it with the next call."""

    def __init__(self, redis: Redis, name: str, *, shared: str | None = "shared") -> None:
        self._redis = cast("Any", redis)
        source = _read(name) if shared is None else f"{_read(shared)}\n{_read(name)}"
        self._source = source
        self._digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, prefix: str, *args: str | int | float | bytes) -> Any:
        """Calls it on the keys of a prefix; raises what redis-py does."""
        return await self.on((prefix,), args)

    async def on(self, keys: Sequence[str], args: Sequence[str | int | float | bytes]) -> Any:
        """Calls it on keys of one hash tag; raises what redis-py does."""
        try:
            return await self._redis.evalsha(self._digest, len(keys), *keys, *args)
        except NoScriptError:
            return await self._redis.eval(self._source, len(keys), *keys, *args)
