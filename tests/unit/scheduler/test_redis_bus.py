"""What is said of a lost subscription."""

import asyncio
import logging

import pytest

from cinnabar_common.redis_connection import connect, connect_listener
from cinnabar_local.ports import HOST, Ports
from cinnabar_scheduler.adapters.redis_bus import RedisBus
from tests.support.waiting import until


async def test_an_outage_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    url = f"redis://{HOST}:{Ports().of('nobody')}"
    listener, publisher = connect_listener(url, timeout_seconds=1), connect(url, timeout_seconds=1)
    bus = RedisBus(
        listener,
        publisher=publisher,
        on_wake=lambda queue: None,
        on_reconnect=lambda: None,
        on_changed=lambda changed: None,
        on_cancelled=lambda tokens: None,
    )

    def told() -> list[int]:
        return [record.levelno for record in caplog.records if record.message == "subscription lost"]

    with caplog.at_level(logging.DEBUG, logger="cinnabar_scheduler.adapters.redis_bus"):
        listening = asyncio.create_task(bus.listen())
        await until(lambda: len(told()) >= 3, "three tries")
        listening.cancel()
        await asyncio.wait((listening,))
    assert told()[:3] == [logging.WARNING, logging.DEBUG, logging.DEBUG]
    await listener.aclose()
    await publisher.aclose()
