"""The whole suite for tests, started when the first test asks for it.

``stack``    everything through Envoy, one for the session, supervised: what dies comes back by itself
``tenant``   an id that no other test uses
"""

from collections.abc import AsyncGenerator
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio

from cinnabar_local.stack import Stack, StackConfig, running


@pytest_asyncio.fixture(scope="session")
async def stack(server_folder: Path) -> AsyncGenerator[Stack]:
    """One suite for the session; tests keep apart by their tenants."""
    async with running(StackConfig(data_dir=server_folder / "suite", supervise=True)) as started:
        yield started


@pytest.fixture
def tenant() -> str:
    """A tenant of the test's own."""
    return f"t-{uuid4().hex[:12]}"
