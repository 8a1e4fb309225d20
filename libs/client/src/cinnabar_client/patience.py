"""Trying again: how long, how often, and after what pause."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from cinnabar_client.errors import ApiError

T = TypeVar("T")
DEFAULT_PATIENCE_SECONDS = 60.0
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0


def pause_seconds(attempt: int, retry_after: float | None) -> float:
    """Seconds before try ``attempt`` + 1 (``attempt`` ≥ 1).

    What the service asked for, or exponential up to 2 s; half of it at random on top, so that clients
    that failed together do not come back together.
    """
    base = retry_after
    if base is None:
        base = min(_FIRST_PAUSE_SECONDS * 2 ** min(attempt - 1, 10), _LONGEST_PAUSE_SECONDS)
    return base * random.uniform(1.0, 1.5)


class Trouble:
    """How long the same thing has been going wrong. Over when something goes right (``forget``)."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._since: float | None = None
        self._attempt = 0

    def pause(self, error: ApiError) -> float | None:
        """Seconds to wait before the next try; None when there should be no other."""
        now = time.monotonic()
        since = self._since if self._since is not None else now
        self._since = since
        self._attempt += 1
        pause = pause_seconds(self._attempt, error.retry_after)
        return pause if error.retryable and now + pause - since <= self._patience else None

    def forget(self) -> None:
        """Something went right."""
        self._since = None
        self._attempt = 0


async def persist(call: Callable[[], Awaitable[T]], *, patience: float = DEFAULT_PATIENCE_SECONDS) -> T:
    """Awaits ``call()`` until it is not refused with a retryable ApiError, at most ``patience`` seconds.

    ``call`` must be safe to repeat. Raises the last ApiError.
    """
    trouble = Trouble(patience)
    while True:
        try:
            return await call()
        except ApiError as error:
            pause = trouble.pause(error)
            if pause is None:
                raise
        await asyncio.sleep(pause)
