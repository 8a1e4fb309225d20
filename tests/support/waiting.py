"""Waiting on a condition with a bound: the only way a test waits."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable

_TICK_SECONDS = 0.01


async def until(
    condition: Callable[[], bool] | Callable[[], Awaitable[bool]], description: str, *, seconds: float = 20.0
) -> None:
    """Returns as soon as ``condition`` holds. AssertionError after ``seconds``."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                answer = condition()
                if await answer if inspect.isawaitable(answer) else answer:
                    return
                await asyncio.sleep(_TICK_SECONDS)
    except TimeoutError:
        raise AssertionError(f"not within {seconds:g} s: {description}") from None
