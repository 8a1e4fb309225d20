"""Every adapter of the grader's ports behind one fixture."""

from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio

from tests.support.model_calls import ModelCallsHarness, Opener, memory_harness, wire_harness
from tests.support.scheduler_models import scheduler_harness

MODEL_CALLS: dict[str, Opener] = {"memory": memory_harness, "wire": wire_harness}


@pytest_asyncio.fixture(params=[*MODEL_CALLS, "scheduler"])
async def harness(request: pytest.FixtureRequest, valkey_url: str) -> AsyncGenerator[ModelCallsHarness]:
    """Model calls of each kind, with nothing asked yet; the last is the scheduler's own service on Valkey."""
    opened = scheduler_harness(valkey_url) if request.param == "scheduler" else MODEL_CALLS[request.param]()
    async for harness in opened:
        yield harness
