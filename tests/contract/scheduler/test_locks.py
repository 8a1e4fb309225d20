"""What every store of locks promises."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

import pytest
import pytest_asyncio

from cinnabar_common.clock import SystemClock
from cinnabar_common.redis_connection import connect
from cinnabar_scheduler.adapters.memory_locks import MemoryLocks
from cinnabar_scheduler.adapters.redis_locks import RedisLocks
from cinnabar_scheduler.ports import LockStore
from tests.support.scheduler_adapters import leaked_keys
from tests.support.valkey_cluster import ValkeyCluster
from tests.support.waiting import until

SHORT = 0.08
LONG = 30.0


@dataclass(frozen=True, slots=True)
class Kind:
    """A store, and the loss of all its data."""

    store: LockStore
    flush: Callable[[], Awaitable[None]]


@pytest_asyncio.fixture(params=["memory", "redis", "cluster"])
async def kind(
    request: pytest.FixtureRequest, valkey_url: str, valkey_cluster_url: str, valkey_cluster: ValkeyCluster
) -> AsyncGenerator[Kind]:
    """A store of each kind; time is real, because it is the server's."""
    if request.param == "memory":
        memory = MemoryLocks(SystemClock())

        async def lose() -> None:
            memory.flush()

        yield Kind(memory, lose)
        return
    url = valkey_url if request.param == "redis" else valkey_cluster_url
    redis = connect(url, timeout_seconds=5)

    async def flush() -> None:
        await cast("Any", redis).flushdb()

    yield Kind(RedisLocks(redis), flush if request.param == "redis" else valkey_cluster.flush)
    assert await leaked_keys(url) == []
    await redis.aclose()


async def test_one_holder_at_a_time(kind: Kind) -> None:
    assert await kind.store.take("a", "one", LONG) is not None
    assert await kind.store.take("a", "two", LONG) is None
    assert await kind.store.take("b", "two", LONG) is not None  # another lock


async def test_a_lock_given_back_is_free_at_once(kind: Kind) -> None:
    await kind.store.take("a", "one", LONG)
    assert await kind.store.release("a", "one")
    assert not await kind.store.release("a", "one")
    assert await kind.store.take("a", "two", LONG) is not None


async def test_a_lock_runs_out(kind: Kind) -> None:
    await kind.store.take("a", "one", SHORT)

    async def taken() -> bool:
        return await kind.store.take("a", "two", LONG) is not None

    await until(taken, "the lock to run out", seconds=5)
    assert not await kind.store.renew("a", "one", LONG)
    assert not await kind.store.release("a", "one")  # it is not the old holder's to give
    assert await kind.store.take("a", "three", LONG) is None


async def test_renewal_counts_from_now(kind: Kind) -> None:
    await kind.store.take("a", "one", SHORT)
    assert await kind.store.renew("a", "one", LONG)
    await kind.store.take("b", "one", SHORT)  # runs out no sooner than the first lock would have

    async def second_is_free() -> bool:
        return await kind.store.take("b", "two", LONG) is not None

    await until(second_is_free, "the other lock to run out", seconds=5)
    assert await kind.store.take("a", "two", LONG) is None
    assert await kind.store.renew("a", "one", SHORT)  # shorter is possible too

    async def first_is_free() -> bool:
        return await kind.store.take("a", "two", LONG) is not None

    await until(first_is_free, "the lock to run out", seconds=5)


async def test_a_holder_may_take_its_lock_again(kind: Kind) -> None:
    """The answer to the first call may have been lost."""
    first = await kind.store.take("a", "one", SHORT)
    second = await kind.store.take("a", "one", LONG)
    assert first is not None
    assert second is not None
    assert second > first


async def test_fences_rise_with_every_acquisition_and_across_a_loss_of_all_data(kind: Kind) -> None:
    fences: list[int] = []
    for number in range(20):
        token = f"holder-{number}"
        fence = await kind.store.take("a", token, LONG)
        assert fence is not None
        fences.append(fence)
        if number % 5 == 4:
            await kind.flush()
            assert not await kind.store.renew("a", token, LONG)  # the loss takes the lock as well
        else:
            await kind.store.release("a", token)
    assert fences == sorted(set(fences))


async def test_a_loss_of_all_data_frees_the_lock(kind: Kind) -> None:
    await kind.store.take("a", "one", LONG)
    await kind.flush()
    assert await kind.store.take("a", "two", LONG) is not None
    assert not await kind.store.release("a", "one")
