"""The shards that the contract is run over: in memory, and on Postgres."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
import pytest_asyncio

from cinnabar_storage.adapters.memory.stores import MemoryShard
from cinnabar_storage.adapters.sql.shard import sql_shard
from cinnabar_storage.assignments import Assignments
from cinnabar_storage.controls import QueueControls
from cinnabar_storage.shards.sharding import Shards
from cinnabar_storage.submissions import Submissions
from cinnabar_storage.tasks import Tasks
from tests.support.servers import ShardUrls
from tests.support.storage_service import config_for, storage_shards

__all__ = ["storage_shards"]


@dataclass(frozen=True, slots=True)
class Stored:
    """The domain over one kind of shard."""

    shards: Shards
    submissions: Submissions
    tasks: Tasks
    assignments: Assignments
    controls: QueueControls


@pytest_asyncio.fixture(params=["memory", "sql"], scope="module")
async def stored(request: pytest.FixtureRequest, storage_shards: list[ShardUrls]) -> AsyncGenerator[Stored]:
    """Two shards; each test uses tenants or authors of its own."""
    async with AsyncExitStack() as exits:
        if request.param == "memory":
            shards = Shards([MemoryShard(), MemoryShard()])
        else:
            config = config_for(storage_shards)
            shards = Shards(
                [
                    await exits.enter_async_context(sql_shard(index, urls, config))
                    for index, urls in enumerate(config.urls())
                ]
            )
        yield Stored(shards, Submissions(shards), Tasks(shards), Assignments(shards), QueueControls(shards))
