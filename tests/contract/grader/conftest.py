"""Every adapter of the grader's ports behind one fixture."""

from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio

from tests.support.model_calls import ModelCallsHarness, Opener, memory_harness, wire_harness

MODEL_CALLS: dict[str, Opener] = {"memory": memory_harness, "wire": wire_harness}


@pytest_asyncio.fixture(params=MODEL_CALLS)
async def harness(request: pytest.FixtureRequest) -> AsyncGenerator[ModelCallsHarness]:
    """Model calls of each kind, with nothing asked yet."""
    async for harness in MODEL_CALLS[request.param]():
        yield harness
