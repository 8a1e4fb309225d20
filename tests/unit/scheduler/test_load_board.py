"""Loads are counted once for all workers."""

from collections.abc import Sequence

from cinnabar_common.clock import SystemClock
from cinnabar_scheduler.adapters.memory import MemoryQueue
from cinnabar_scheduler.load import Loads
from cinnabar_scheduler.load_board import LoadBoard
from cinnabar_scheduler.ports import QueueUnavailable
from cinnabar_scheduler.service_times import ServiceTimes
from cinnabar_scheduler.session import WorkerSession
from cinnabar_scheduler.tasks import QueueCounts, QueueName
from tests.support.scheduler_queue import QUEUE, task


class Counted(MemoryQueue):
    """Remembers which queues were counted; while ``away`` none can be."""

    def __init__(self) -> None:
        super().__init__(clock=SystemClock())
        self.asked: list[QueueName] = []
        self.away = False

    async def counts(self, queue: QueueName, tenant: str | None = None) -> QueueCounts:
        if self.away:
            raise QueueUnavailable
        self.asked.append(queue)
        return await super().counts(queue, tenant)


def session(name: str, queues: Sequence[str]) -> WorkerSession:
    session = WorkerSession(10)
    session.hello(name, queues)
    return session


async def test_each_queue_is_counted_once_for_all_who_serve_it() -> None:
    queue = Counted()
    await queue.enqueue([task(ready_now=True) for _ in range(3)])
    sessions = [session(f"w{number}", [QUEUE, "numeric"]) for number in range(5)]
    loads = Loads(queue, lambda: sessions, ServiceTimes(), SystemClock())
    board = LoadBoard(loads, lambda: sessions, interval_seconds=1)
    assert (board.round, board.of([QUEUE])) == (0, [])
    await board.run_once()
    assert sorted(queue.asked) == sorted([QUEUE, QueueName("numeric")])
    (load,) = board.of([QUEUE, QueueName("elsewhere")])
    assert (load.queue, load.available, load.workers) == (QUEUE, 3, 5)
    queue.away = True
    await board.run_once()
    assert (board.round, board.of([QUEUE])) == (2, [])
