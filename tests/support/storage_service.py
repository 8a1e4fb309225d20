"""The storage service as tests use it: in this process, behind a real gRPC server.

``storage_shards``   two migrated shards for the tests of one module
``storage``          the service on them, with stubs
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest_asyncio

from cinnabar.storage.v1 import storage_service_pb2_grpc as rpc
from cinnabar_common.channels import channel
from cinnabar_storage.app import running
from cinnabar_storage.config import StorageConfig
from tests.support.servers import ShardUrls


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """Stubs of a running service, and what it runs on."""

    writer: rpc.StorageWriterServiceAsyncStub
    reader: rpc.StorageReaderServiceAsyncStub
    address: str
    shards: list[ShardUrls] = field(default_factory=list[ShardUrls])


def config_for(shards: list[ShardUrls], **settings: Any) -> StorageConfig:
    """A config on a free port; ``settings`` are fields of StorageConfig.

    A busy machine must not look like an overloaded storage: waiting for a connection may last.
    """
    settings.setdefault("pool_wait_seconds", 20.0)
    return StorageConfig(shards=tuple(shard.setting for shard in shards), listen="127.0.0.1:0", **settings)


@asynccontextmanager
async def storage_on(shards: list[ShardUrls], **settings: Any) -> AsyncGenerator[Storage]:
    """One storage service in this process, for the length of the block."""
    async with running(config_for(shards, **settings)) as port:
        address = f"127.0.0.1:{port}"
        async with channel(address) as opened:
            yield Storage(
                writer=rpc.StorageWriterServiceStub(opened),
                reader=rpc.StorageReaderServiceStub(opened),
                address=address,
                shards=shards,
            )


@pytest_asyncio.fixture(scope="module")
async def storage_shards(
    new_migrated_shards: Callable[[], AbstractAsyncContextManager[list[ShardUrls]]],
) -> AsyncGenerator[list[ShardUrls]]:
    """Two shards with the schema and nothing in it."""
    async with new_migrated_shards() as shards:
        yield shards


@pytest_asyncio.fixture(scope="module")
async def storage(storage_shards: list[ShardUrls]) -> AsyncGenerator[Storage]:
    """The service, for the tests of one module: each uses ids of its own."""
    async with storage_on(storage_shards) as service:
        yield service
