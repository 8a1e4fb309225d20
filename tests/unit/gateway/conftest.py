"""A fresh gateway for each test."""

from collections.abc import AsyncGenerator

import pytest_asyncio

from tests.support.gateway_world import World, world


@pytest_asyncio.fixture
async def gateway() -> AsyncGenerator[World]:
    """A gateway with one assignment of four items."""
    async with world() as made:
        await made.assignment()
        yield made
