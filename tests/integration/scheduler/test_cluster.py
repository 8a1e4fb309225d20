"""Schedulers as processes on a Valkey Cluster."""

from pathlib import Path

from tests.support.scheduler_process import suite
from tests.support.scheduler_worker import worker
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
