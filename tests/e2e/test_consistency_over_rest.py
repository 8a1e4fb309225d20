"""A REST client that sends its consistency token back sees what it wrote, whatever the replicas show."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aiohttp

from cinnabar_local import sql
from cinnabar_local.credentials import credentials_in
from cinnabar_local.stack import Stack

TOKEN = "cinnabar-consistency-token"


@asynccontextmanager
async def replay_paused(stack: Stack) -> AsyncGenerator[None]:
    """All replicas of the suite stand still inside of the block."""
    password = credentials_in(stack.folder.path).postgres_superuser
    urls = [
        urlsplit(url)
        ._replace(netloc=f"postgres:{password}@{urlsplit(url).netloc.rpartition('@')[2]}")
        .geturl()
        for shard in stack.addresses.shards
        for url in shard.replica_urls
    ]
    assert urls
    for url in urls:
        async with sql.connected(url) as connection:
            await connection.execute("SELECT pg_wal_replay_pause()")
    try:
        yield
    finally:
        for url in urls:
            async with sql.connected(url) as connection:
                await connection.execute("SELECT pg_wal_replay_resume()")


async def test_a_header_takes_the_token_there_and_back(stack: Stack, tenant: str) -> None:
    headers = {"authorization": f"Bearer dev.{tenant}.instructor.ann"}
    course = f"{stack.addresses.http}/v1/courses/net/assignments"
    item = {"item": "q", "points": 1, "prompt": "?", "text": {"accepted": ["x"]}}
    async with aiohttp.ClientSession(headers=headers) as http, replay_paused(stack):
        tokens: list[str] = []
        async with http.post(course, params={"assignment_id": "a"}, json={"items": [item]}) as answer:
            assert answer.status == 200, await answer.text()
            tokens.append(answer.headers[TOKEN])
        for number in range(5):
            async with http.patch(
                f"{course}/a", json={"display_name": f"version {number}"}, headers={TOKEN: tokens[-1]}
            ) as answer:
                assert answer.status == 200, await answer.text()
                tokens.append(answer.headers[TOKEN])
            async with http.get(f"{course}/a", headers={TOKEN: tokens[-1]}) as answer:
                assert (await answer.json())["displayName"] == f"version {number}"
        # Several in one header make one.
        async with http.get(f"{course}/a", headers={TOKEN: f"{tokens[-1]}, {tokens[-2]}"}) as answer:
            assert answer.headers[TOKEN] == tokens[-1]
        other = {"authorization": f"Bearer dev.{tenant}-2.instructor.ann", TOKEN: tokens[-1]}
        async with http.get(f"{course}/a", headers=other) as answer:
            assert answer.status == 400
            assert (await answer.json())["details"][0]["reason"] == "CONSISTENCY_TOKEN_INVALID"
        # A browser may send it and read it.
        page = {"origin": "http://localhost:3000"}
        asked = page | {"access-control-request-method": "GET", "access-control-request-headers": TOKEN}
        async with http.options(f"{course}/a", headers=asked) as answer:
            assert TOKEN in answer.headers["access-control-allow-headers"]
        async with http.get(f"{course}/a", headers=page) as answer:
            assert TOKEN in answer.headers["access-control-expose-headers"]
