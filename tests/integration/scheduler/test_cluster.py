"""Schedulers as processes, and the cache of storage, on a Valkey Cluster."""

from pathlib import Path

from cinnabar_storage.adapters.redis_cache import redis_cache
from cinnabar_storage.cached.shared import Hit, Message, Miss
from tests.support.scheduler_process import suite
from tests.support.scheduler_worker import worker
from tests.support.storage_cache import at, cache_key
from tests.support.waiting import until


async def test_work_goes_through_two_schedulers_on_a_cluster(valkey_cluster_url: str, tmp_path: Path) -> None:
    policy = "[queues.default]\npartitions = 3"
    async with suite(valkey_cluster_url, tmp_path) as parts:
        here, there = await parts.scheduler(policy=policy), await parts.scheduler(policy=policy)
        async with worker(there.target) as one:
            await one.hello()
            await one.ready(40)
            tasks = parts.storage.add_tasks(30, revision=parts.storage.add_revision())
            assert await here.enqueue(tasks) == 30
            await one.until(lambda: len(one.leased) == 30, "all tasks, woken over the cluster's bus")
            await one.grade(one.leased)
            await until(lambda: parts.storage.open_count == 0, description="all graded")
        stats = await here.stats()
        assert (stats.ready, stats.delayed, stats.leased) == (0, 0, 0)


async def test_the_cache_and_its_channel_work_on_a_cluster(valkey_cluster_url: str) -> None:
    ages = {"max_age_seconds": 60.0, "lasting_seconds": 60.0}
    a, b = cache_key("a"), cache_key("b")
    async with redis_cache(valkey_cluster_url, timeout_seconds=5.0, **ages) as cache:
        messages = cache.messages()
        assert await anext(messages) is None
        asked = await cache.get(a)
        assert isinstance(asked, Miss)
        assert await cache.put(a, b"1", at(5), asked.lease_ms)
        assert isinstance(await cache.get(a), Hit)
        await cache.put_lasting({b: b"2"})
        assert await cache.get_lasting([b, cache_key("c")]) == {b: b"2"}
        sent = [Message("s", 1, at(7), (a, b)), Message("s", 2, at(0))]
        for message in sent:
            await cache.tell(message)
        assert [await anext(messages) for _ in sent] == sent
        assert isinstance(await cache.get(a), Miss)
        assert await cache.get_lasting([b]) == {}
