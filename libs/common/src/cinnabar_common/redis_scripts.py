"""Lua scripts on Redis."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import NoScriptError


class Script:
    """One script. Servers that forgot it, or never had it, are given it with the next call."""

    def __init__(self, redis: Redis, source: str) -> None:
        self._redis = cast("Any", redis)
        self._source = source
        self._digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    async def on(self, keys: Sequence[str], args: Sequence[str | int | float | bytes]) -> Any:
        """Calls it on keys of one hash tag; raises what redis-py does."""
        try:
            return await self._redis.evalsha(self._digest, len(keys), *keys, *args)
        except NoScriptError:
            return await self._redis.eval(self._source, len(keys), *keys, *args)
