"""The path of one task through a real scheduler process."""

from pathlib import Path

from cinnabar.scheduler.v1 import work_service_pb2 as pb

from tests.support.scheduler_process import suite
from tests.support.scheduler_worker import worker


async def test_a_task_is_leased_graded_and_committed(valkey_url: str, tmp_path: Path) -> None:
    async with suite(valkey_url, tmp_path) as parts:
        revision = parts.storage.add_revision()
        scheduler = await parts.scheduler()
        async with worker(scheduler.target) as one:
            await one.hello()
            tasks = parts.storage.add_tasks(3, revision=revision)
            assert await scheduler.enqueue(tasks) == 3
            leases = await one.take(3)
            assert {lease.task for lease in leases} == set(parts.storage.tasks)
            assert leases[0].answer.text == "an answer"
            assert one.items[leases[0].item_key].points == 5
            assert await one.grade(leases) == [pb.Receipt.COMMITTED] * 3
            assert parts.storage.open_count == 0
            stats = await scheduler.stats()
            assert (stats.ready, stats.delayed, stats.leased) == (0, 0, 0)
            await one.leave()
        assert '"level": "error"' not in scheduler.log()
