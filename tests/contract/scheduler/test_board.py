"""What every place for the findings of sweeps promises."""

from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio

from cinnabar_common.redis_connection import connect
from cinnabar_scheduler.adapters.memory_board import MemoryBoard
from cinnabar_scheduler.adapters.redis_board import RedisBoard
from cinnabar_scheduler.ports import SweepBoard
from cinnabar_scheduler.tasks import Findings
from tests.support.scheduler_adapters import leaked_keys


@pytest_asyncio.fixture(params=["memory", "redis", "cluster"])
async def board(
    request: pytest.FixtureRequest, valkey_url: str, valkey_cluster_url: str
) -> AsyncGenerator[SweepBoard]:
    """A board of each kind."""
    if request.param == "memory":
        yield MemoryBoard()
        return
    url = valkey_url if request.param == "redis" else valkey_cluster_url
    redis = connect(url, timeout_seconds=5)
    yield RedisBoard(redis)
    assert await leaked_keys(url) == []
    await redis.aclose()


async def test_the_last_findings_are_kept(board: SweepBoard) -> None:
    assert await board.last() is None
    await board.publish(Findings(1, 2, 1_700_000_000_000))
    await board.publish(Findings(3, 0, 1_700_000_010_000))
    assert await board.last() == Findings(missing=3, orphaned=0, ended_ms=1_700_000_010_000)
