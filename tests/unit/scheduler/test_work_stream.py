"""A worker that does not read."""

import asyncio
from typing import Any, cast

from cinnabar.scheduler.v1 import work_service_pb2 as pb
from cinnabar_common.clock import SystemClock
from cinnabar_scheduler.adapters.memory import MemoryQueue
from cinnabar_scheduler.adapters.memory_progress import MemoryProgress
from cinnabar_scheduler.dispatch import Dispatcher
from cinnabar_scheduler.items import ItemSource
from cinnabar_scheduler.load import Loads
from cinnabar_scheduler.load_board import LoadBoard
from cinnabar_scheduler.outcomes import Outcomes
from cinnabar_scheduler.progress import ProgressReports
from cinnabar_scheduler.service_times import ServiceTimes
from cinnabar_scheduler.work_files import WorkFiles
from cinnabar_scheduler.work_service import MAX_UNREAD, Terms, WorkService
from tests.support.scheduler_doubles import MemoryFiles, MemoryStore, RecordingBus


class Deaf:
    """A stream whose worker says hello and then heartbeats without end, and takes nothing in."""

    def __init__(self) -> None:
        self.reads = 0
        self.writing = asyncio.Event()

    async def read(self) -> pb.WorkRequest:
        await asyncio.sleep(0)
        self.reads += 1
        if self.reads == 1:
            return pb.WorkRequest(hello=pb.Hello(worker="deaf", queues=["text"]))
        return pb.WorkRequest(heartbeat=pb.Heartbeat(lease_tokens=["1-unknown"]))

    async def write(self, message: pb.WorkResponse) -> None:
        self.writing.set()
        await asyncio.Event().wait()


async def test_a_worker_that_does_not_read_is_not_read_from() -> None:
    queue, store, bus = MemoryQueue(clock=SystemClock()), MemoryStore(), RecordingBus()
    outcomes = Outcomes(queue, store, bus, bus.changed.append, bus.cancelled.extend)
    dispatcher = Dispatcher(queue, ItemSource(store), lambda leases: None)
    terms = Terms(lease_seconds=15, max_credits=10)
    files = WorkFiles(queue, MemoryFiles(), dispatcher.sessions)
    reports = ProgressReports(MemoryProgress(queue), bus, bus.changed.append)
    times = ServiceTimes()
    loads = Loads(queue, dispatcher.sessions, times, SystemClock())
    board = LoadBoard(loads, dispatcher.sessions, interval_seconds=5)
    service = WorkService(
        *(queue, dispatcher, outcomes, asyncio.Event(), terms, times, files, reports, board)
    )
    context = Deaf()
    handler = asyncio.ensure_future(service.Work(None, cast("Any", context)))
    await context.writing.wait()
    for _ in range(10 * MAX_UNREAD):
        await asyncio.sleep(0)
    assert MAX_UNREAD < context.reads <= MAX_UNREAD + 4
    assert len(dispatcher.sessions()) == 1
    handler.cancel()
    await asyncio.wait((handler,))
    assert handler.cancelled()
    assert dispatcher.sessions() == []
