"""Waiting for a condition, with a bound."""

import asyncio
from collections.abc import Awaitable, Callable


async def until(condition: Callable[[], Awaitable[bool]], *, description: str, seconds: float = 20.0) -> None:
    """Wait until ``condition`` holds; fails with ``description`` after ``seconds``."""
    try:
        async with asyncio.timeout(seconds):
            while not await condition():  # noqa: ASYNC110 - only asking tells
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not within {seconds:g} s: {description}") from None
