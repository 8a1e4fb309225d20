"""The adapters that the suite runs over."""

from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio

from tests.support.scheduler_adapters import Harness, memory_harness, redis_harness
from tests.support.valkey_cluster import ValkeyCluster


@pytest_asyncio.fixture(params=["memory", "redis", "cluster"])
async def harness(
    request: pytest.FixtureRequest, valkey_url: str, valkey_cluster_url: str, valkey_cluster: ValkeyCluster
) -> AsyncGenerator[Harness]:
    """A queue of each kind."""
    if request.param == "memory":
        yield memory_harness()
    elif request.param == "redis":
        async with redis_harness(valkey_url) as harness:
            yield harness
    else:
        async with redis_harness(valkey_cluster_url, empty=valkey_cluster.flush) as harness:
            yield harness
