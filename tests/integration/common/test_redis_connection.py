"""Connections to Redis that break, in the event loop that services run in."""

import asyncio
from typing import Any, cast

import pytest
import uvloop
from redis.exceptions import ConnectionError as RedisConnectionError

from cinnabar_common import redis_connection

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


async def test_a_cancellation_always_ends_a_task_that_sends_commands(valkey_url: str) -> None:
    """Whatever the command is at when it comes."""

    async def scenario() -> int:
        client = cast("Any", redis_connection.connect(valkey_url, timeout_seconds=2.0))
        lost = 0

        async def commands() -> None:
            while True:
                await client.ping()

        try:
            for rounds in range(400):
                task = asyncio.create_task(commands())
                for _ in range(20 + rounds % 20):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait((task,), timeout=0.2)
                while not task.done():
                    lost += 1
                    task.cancel()
                    await asyncio.wait((task,), timeout=0.2)
        finally:
            await client.aclose()
        return lost

    assert await asyncio.to_thread(uvloop.run, scenario()) == 0
