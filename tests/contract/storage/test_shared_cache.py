"""What every shared cache does, in memory and on Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
import pytest_asyncio

from cinnabar_common.clock import SystemClock
from cinnabar_storage.adapters.memory.cache import MemoryCache
from cinnabar_storage.adapters.redis_cache import redis_cache
from cinnabar_storage.cached.invalidation import CacheKey
from cinnabar_storage.cached.shared import Hit, Message, Miss, SharedCache
from tests.support.servers import ValkeyServer
from tests.support.storage_cache import at, cache_key
from tests.support.waiting import until

AGE = 60.0
BRIEF = 0.3


@asynccontextmanager
async def made(kind: str, server: ValkeyServer, seconds: float) -> AsyncGenerator[SharedCache]:
    """A cache that keeps everything for so long."""
    ages = {"max_age_seconds": seconds, "lasting_seconds": seconds}
    if kind == "memory":
        yield MemoryCache(clock=SystemClock(), **ages)
    else:
        async with redis_cache(server.url_of(0), timeout_seconds=5.0, **ages) as cache:
            yield cache


@pytest_asyncio.fixture(params=["memory", "redis"], scope="module")
async def shared(request: pytest.FixtureRequest, valkey_server: ValkeyServer) -> AsyncGenerator[SharedCache]:
    async with made(request.param, valkey_server, AGE) as cache:
        yield cache


@pytest_asyncio.fixture(params=["memory", "redis"], scope="module")
async def brief(request: pytest.FixtureRequest, valkey_server: ValkeyServer) -> AsyncGenerator[SharedCache]:
    """One in which everything ends soon."""
    async with made(request.param, valkey_server, BRIEF) as cache:
        yield cache


@pytest.fixture
def key() -> CacheKey:
    """A key of the test's own, with what a name may contain."""
    return cache_key(f"s:4:a/b\n {uuid4().hex}é")


async def lease(shared: SharedCache, key: CacheKey) -> int:
    answer = await shared.get(key)
    assert isinstance(answer, Miss)
    return answer.lease_ms


def change(key: CacheKey, lsn: int, *, shard: int = 0, number: int = 1) -> Message:
    return Message("sender", number, at(lsn, shard), (key,))


async def test_what_is_put_is_there(shared: SharedCache, key: CacheKey) -> None:
    value = bytes(range(256)) * 100
    assert await shared.put(key, value, at(7, shard=3), await lease(shared, key))
    found = await shared.get(key)
    assert isinstance(found, Hit)
    assert (found.value, found.position) == (value, at(7, shard=3))
    assert 0 < found.seconds <= AGE


async def test_until_it_is_too_old(brief: SharedCache, key: CacheKey) -> None:
    async def kept() -> bool:
        return await brief.put(key, b"x", at(7), await lease(brief, key))

    async def gone() -> bool:
        return isinstance(await brief.get(key), Miss)

    await until(kept, "a lease that is used in time")
    await until(gone, "the entry is too old")


async def test_what_was_asked_for_too_long_ago_is_not_kept(shared: SharedCache, key: CacheKey) -> None:
    old = await lease(shared, key) - int(AGE * 1000)
    assert not await shared.put(key, b"x", at(7), old)
    assert isinstance(await shared.get(key), Miss)
    assert await shared.put(key, b"x", at(7), old + 20_000)
    found = await shared.get(key)
    assert isinstance(found, Hit)
    assert found.seconds <= 20, "the age counts from the lease"


async def test_what_changed_is_gone(shared: SharedCache, key: CacheKey) -> None:
    many = [cache_key(f"{key}{number}") for number in range(2500)]
    asked = await lease(shared, key)
    for one in (key, many[-1]):
        assert await shared.put(one, b"old", at(7), asked)
    await shared.tell(Message("sender", 1, at(10), (key, *many)))
    for one in (key, many[-1]):
        assert isinstance(await shared.get(one), Miss)
    assert await shared.put(key, b"new", at(10), asked)
    found = await shared.get(key)
    assert isinstance(found, Hit)
    assert found.value == b"new"


async def test_the_newer_of_two_reads_stays(shared: SharedCache, key: CacheKey) -> None:
    asked = await lease(shared, key)
    assert await shared.put(key, b"newer", at(8), asked)
    assert not await shared.put(key, b"older", at(7), asked)
    found = await shared.get(key)
    assert isinstance(found, Hit)
    assert found.value == b"newer"
    assert await shared.put(key, b"elsewhere", at(1, shard=1), asked), "the key has moved"


async def test_what_never_changes(shared: SharedCache, key: CacheKey) -> None:
    other = cache_key(f"{key}2")
    assert await shared.get_lasting([]) == {}
    assert await shared.get_lasting([key, other]) == {}
    await shared.put_lasting({key: b"one\ntwo"})
    assert await shared.get_lasting([other, key]) == {key: b"one\ntwo"}
    await shared.put_lasting({other: b"2"})
    await shared.tell(change(key, 10))
    assert await shared.get_lasting([key, other]) == {other: b"2"}


@asynccontextmanager
async def listening(shared: SharedCache) -> AsyncGenerator[AsyncIterator[Message | None]]:
    messages = shared.messages()
    assert await anext(messages) is None
    try:
        yield messages
    finally:
        closing = getattr(messages, "aclose", None)
        assert closing is not None
        await closing()


async def test_messages_reach_all_who_listen(shared: SharedCache, key: CacheKey) -> None:
    sent = [
        change(key, 10, number=5),
        Message("sender", 6, at(0)),
        Message("sender", 7, at(3, shard=2), (key, cache_key("b")), everything=True),
    ]
    async with asyncio.timeout(10), listening(shared) as one, listening(shared) as two:
        for message in sent:
            await shared.tell(message)
        for messages in (one, two):
            assert [await anext(messages) for _ in sent] == sent
