"""The real scheduler as a process, on a real Valkey and storage in memory."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from cinnabar.grader.v1.grade_pb2 import Answer, AnswerSet
from cinnabar.scheduler.v1 import queue_service_pb2 as pb
from cinnabar.scheduler.v1.queue_service_pb2_grpc import QueueServiceStub
from cinnabar.storage.v1.storage_service_pb2 import OpenTask
from cinnabar_common.clock import SystemClock
from cinnabar_common.redis_connection import connect
from cinnabar_local.ports import Ports
from cinnabar_local.probes import grpc_serving
from cinnabar_local.process import Process, ProcessSpec
from cinnabar_scheduler.adapters.policy_file import PolicyFile
from cinnabar_scheduler.adapters.redis_queue import RedisQueue
from tests.support.scheduler_storage import FakeStorage, storage_serving

if TYPE_CHECKING:
    from cinnabar.scheduler.v1.queue_service_pb2_grpc import QueueServiceAsyncStub


@dataclass(slots=True)
class SchedulerProcess:
    """One scheduler; ``process`` kills, pauses and restarts it on the same port."""

    process: Process
    target: str
    channel: grpc.aio.Channel

    @property
    def queue(self) -> "QueueServiceAsyncStub":
        """Its QueueService."""
        return QueueServiceStub(self.channel)

    def log(self) -> str:
        """All that it logged."""
        return self.process.log_path.read_text("utf-8")

    async def enqueue(self, tasks: Iterable[OpenTask]) -> int:
        """Enqueues accepted tasks as a gateway does; returns how many were new."""
        request = pb.EnqueueRequest(tasks=[queued(task) for task in tasks])
        response = await self.queue.Enqueue(request, timeout=5, wait_for_ready=True)
        return response.enqueued

    async def stats(self, queue: str = "free-text") -> pb.QueueStats:
        """Counts of one queue."""
        response = await self.queue.GetQueueStats(pb.GetQueueStatsRequest(queues=[queue]), timeout=5)
        return response.queues[0]


def queued(task: OpenTask) -> pb.QueuedTask:
    """An accepted task as a gateway enqueues it."""
    answers = AnswerSet.FromString(task.answers).answers
    answer = next((one for one in answers if one.item == task.item_id), Answer())
    return pb.QueuedTask(
        task=f"{task.submission_id}/{task.item_id}",
        tenant=task.tenant,
        queue=task.queue,
        generation=task.generation,
        priority=pb.Priority.ValueType(task.priority),
        item_key=f"{task.revision_id}/{task.item_id}",
        answer=answer.SerializeToString(),
        not_before=task.grade_after if task.HasField("grade_after") else None,
        grade_by=task.grade_by if task.HasField("grade_by") else None,
    )


@dataclass(frozen=True, slots=True)
class Shared:
    """Two schedulers that many tests use in turn, and what they stand on."""

    scheduler: SchedulerProcess
    other: SchedulerProcess
    redis_url: str
    storage: FakeStorage

    async def clear(self) -> None:
        """Leaves nothing for the next test."""
        tasks = [queued(task.open) for task in self.storage.tasks.values()]
        self.storage.tasks.clear()
        request = pb.CancelRequest(
            tasks=[pb.CancelRequest.Task(task=task.task, queue=task.queue) for task in tasks]
        )
        await self.scheduler.queue.Cancel(request, timeout=5)
        stats = await self.scheduler.stats()
        assert (stats.ready, stats.delayed, stats.leased) == (0, 0, 0)


class Suite:
    """Any number of schedulers on one Valkey and one storage."""

    def __init__(self, redis_url: str, storage: FakeStorage, storage_target: str, folder: Path) -> None:
        self.redis_url = redis_url
        self.storage = storage
        self._storage_target = storage_target
        self._folder = folder
        self._ports = Ports()
        self._exits = AsyncExitStack()
        self._started = 0

    async def scheduler(self, *, policy: str = "", **settings: str) -> SchedulerProcess:
        """Starts one more; settings by their name without prefix, in lower case; the policy's text."""
        number, self._started = self._started, self._started + 1
        name = f"scheduler-{number}"
        policy_file = self._folder / f"{name}.toml"
        policy_file.write_text(policy, "utf-8")
        target = f"127.0.0.1:{self._ports.of(name)}"
        env: Mapping[str, str] = {
            "SCHEDULER_LISTEN": target,
            "SCHEDULER_REDIS_URL": self.redis_url,
            "SCHEDULER_STORAGE_TARGET": self._storage_target,
            "SCHEDULER_POLICY_FILE": str(policy_file),
            **{f"SCHEDULER_{setting.upper()}": value for setting, value in settings.items()},
        }
        spec = ProcessSpec(
            name=name,
            command=(sys.executable, "-m", "cinnabar_scheduler"),
            env=env,
            ready=partial(grpc_serving, target),
            ready_seconds=20,
            stop_seconds=10,
        )
        process = Process(spec, log_path=self._folder / f"{name}.log")
        await process.start()
        self._exits.push_async_callback(process.stop)
        await self._until_complete(PolicyFile(policy_file))
        channel = grpc.aio.insecure_channel(target, options=[("grpc.max_reconnect_backoff_ms", 200)])
        self._exits.push_async_callback(channel.close)
        return SchedulerProcess(process, target, channel)

    async def _until_complete(self, policies: PolicyFile) -> None:
        """Waits for the first rebuild, which would enqueue what a test is about to enqueue."""
        redis = connect(self.redis_url, timeout_seconds=5)
        queue = RedisQueue(redis, clock=SystemClock(), lease_seconds=15, policies=policies)
        try:
            async with asyncio.timeout(10):
                while not await queue.has_epoch():  # noqa: ASYNC110 - only asking tells
                    await asyncio.sleep(0.01)
        finally:
            await redis.aclose()

    async def close(self) -> None:
        """Stops them all."""
        await self._exits.aclose()


@asynccontextmanager
async def suite(redis_url: str, folder: Path) -> AsyncGenerator[Suite]:
    """Storage in memory and no scheduler yet."""
    storage = FakeStorage()
    async with storage_serving(storage) as target:
        running = Suite(redis_url, storage, target, folder)
        try:
            yield running
        finally:
            await running.close()
