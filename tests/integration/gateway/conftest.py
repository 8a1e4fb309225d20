"""The gateway on real services; each test has its own database in Valkey and in Postgres."""

from collections.abc import AsyncGenerator

import pytest_asyncio

from tests.support.gateway_suite import Real, real_gateway
from tests.support.servers import ShardUrls
from tests.support.storage_service import storage_on


@pytest_asyncio.fixture
async def real(migrated_shards: list[ShardUrls], valkey_url: str) -> AsyncGenerator[Real]:
    """A gateway on real storage with one assignment; the scheduler is up to the test."""
    async with storage_on(migrated_shards) as storage, real_gateway(storage.address, valkey_url) as made:
        await made.assignment()
        yield made
