"""Parts for tests of the scheduler as a process."""

from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.scheduler_adapters import leaked_keys
from tests.support.scheduler_process import Shared, Suite, suite
from tests.support.servers import ValkeyServer

FAST = """
[queues.default]
retry.failed = { attempts = 3, base_seconds = 0.05, cap_seconds = 0.1 }
retry.unavailable = { attempts = 5, base_seconds = 0.05, cap_seconds = 0.1 }
"""


@pytest_asyncio.fixture
async def parts(valkey_url: str, tmp_path: Path) -> AsyncGenerator[Suite]:
    """Valkey, storage in memory and no scheduler yet; no key may be left that lives for ever."""
    async with suite(valkey_url, tmp_path) as running:
        yield running
    assert await leaked_keys(valkey_url) == []


@pytest_asyncio.fixture(scope="session")
async def running_schedulers(
    valkey_server: ValkeyServer, valkey_databases: Iterator[int], tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Shared]:
    """Two schedulers for the session, quick to try failures again."""
    url = valkey_server.url_of(next(valkey_databases))
    async with suite(url, tmp_path_factory.mktemp("schedulers")) as parts:
        yield Shared(
            await parts.scheduler(policy=FAST), await parts.scheduler(policy=FAST), url, parts.storage
        )
    assert await leaked_keys(url) == []


@pytest_asyncio.fixture
async def shared(running_schedulers: Shared) -> AsyncGenerator[Shared]:
    """The session's schedulers with nothing in them."""
    yield running_schedulers
    await running_schedulers.clear()
