"""The scheduler that graders are tested with keeps its books, however a call ends."""

import asyncio
from typing import Any, cast

from cinnabar.scheduler.v1 import work_service_pb2 as pb
from tests.support.grader_items import homework
from tests.support.grader_scheduler import MemoryScheduler


class Worker:
    """A stream that takes one task and says no more; its last read ends when ``gone`` is set."""

    def __init__(self) -> None:
        self.says = [
            pb.WorkRequest(ready=pb.Ready(queue="text", credits=1)),
            pb.WorkRequest(hello=pb.Hello(worker="w", queues=["text"])),
        ]
        self.leased = asyncio.Event()
        self.gone = asyncio.Event()

    async def read(self) -> pb.WorkRequest:
        if self.says:
            return self.says.pop()
        try:
            return await asyncio.Future()
        finally:
            await self.gone.wait()

    async def write(self, message: pb.WorkResponse) -> None:
        if message.HasField("leases"):
            self.leased.set()


async def test_a_call_that_is_cancelled_while_it_cleans_up_gives_its_leases_back() -> None:
    scheduler, worker = MemoryScheduler(), Worker()
    await scheduler.put(homework("text", 1))
    call = asyncio.create_task(scheduler.Work(None, cast("Any", worker)))
    await asyncio.wait_for(worker.leased.wait(), 10)
    call.cancel()
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait([call], timeout=10)
    worker.gone.set()
    await scheduler.until(lambda: len(scheduler.ended) == 1, "the stream ended")
    assert scheduler.streams == []
    assert [task.task for task in scheduler.waiting["text"]] == ["s1/text"]
