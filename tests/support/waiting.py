"""Waiting on a condition with a bound: the only way a test waits."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable

_TICK_SECONDS = 0.02


async def wait_until(
    condition: Callable[[], bool | Awaitable[bool]], *, description: str, timeout: float = 20.0
) -> None:
    """Returns as soon as ``condition`` holds. AssertionError after ``timeout`` seconds."""
    try:
        async with asyncio.timeout(timeout):
            while True:
                answer = condition()
                if inspect.isawaitable(answer):
                    answer = await answer
                if answer:
                    return
                await asyncio.sleep(_TICK_SECONDS)
    except TimeoutError:
        raise AssertionError(f"not within {timeout:g} s: {description}") from None
