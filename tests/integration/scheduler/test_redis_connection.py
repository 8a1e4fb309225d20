"""Connections to Redis that break, in the event loop that services run in."""

import asyncio
from typing import Any, cast

import pytest
import uvloop
from redis.exceptions import ConnectionError as RedisConnectionError

from cinnabar_scheduler.adapters import redis_connection

CONNECT = {"commands": redis_connection.connect, "listener": redis_connection.connect_listener}


@pytest.mark.parametrize("kind", CONNECT)
async def test_a_transport_closed_under_a_command_is_an_error_of_redis(valkey_url: str, kind: str) -> None:
    async def scenario() -> None:
        client = CONNECT[kind](valkey_url, timeout_seconds=2.0)
        pool = cast("Any", client).connection_pool
        try:
            connection = await pool.get_connection()
            connection._writer.transport.abort()
            # The loop closes it in its next round.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            with pytest.raises(RedisConnectionError):
                await connection.send_command("PING", check_health=False)
            await pool.release(connection)
            assert await cast("Any", client).ping()
        finally:
            await client.aclose()

    await asyncio.to_thread(uvloop.run, scenario())
