"""The adapters that the suite runs over."""

from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio

from tests.support.scheduler_adapters import Harness, memory_harness, redis_harness


@pytest_asyncio.fixture(params=["memory", "redis"])
async def harness(request: pytest.FixtureRequest, valkey_url: str) -> AsyncGenerator[Harness]:
    """A queue of each kind."""
    if request.param == "memory":
        yield memory_harness()
        return
    async with redis_harness(valkey_url) as harness:
        yield harness
