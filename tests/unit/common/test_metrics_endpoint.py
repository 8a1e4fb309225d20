"""The endpoint for metrics, when it goes away."""

import asyncio
from contextlib import suppress

import pytest

from cinnabar_common.metrics import serving_metrics
from tests.support.waiting import until


async def test_a_scrape_under_way_is_cut_off_when_the_service_leaves(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def text() -> bytes:
        return b""

    async with serving_metrics("127.0.0.1:0", text) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /metr")
        await writer.drain()
        await until(
            lambda: any(task.get_name() == "scrape" for task in asyncio.all_tasks()),
            description="the scrape is under way",
        )
    with suppress(ConnectionResetError):  # what it had not read yet makes it a reset
        assert await asyncio.wait_for(reader.read(), 2) == b""
    writer.close()
    assert [record.getMessage() for record in caplog.records] == []
