"""Both stores behind one fixture."""

from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio

from cinnabar_common.channels import channel
from tests.support.gateway_stores import Backend, MemoryBackend, StorageBackend
from tests.support.servers import ShardUrls
from tests.support.storage_service import storage_on, storage_shards

__all__ = ["storage_shards"]


@pytest_asyncio.fixture(params=["memory", "storage"], scope="module")
async def backend(request: pytest.FixtureRequest, storage_shards: list[ShardUrls]) -> AsyncGenerator[Backend]:
    """A store; each test uses a tenant of its own."""
    if request.param == "memory":
        yield MemoryBackend()
        return
    async with storage_on(storage_shards) as service, channel(service.address) as connection:
        yield StorageBackend(service, connection)
