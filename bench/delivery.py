"""How long a task takes from an Enqueue to a worker, through an idle scheduler. There are no graders here."""

from __future__ import annotations

import asyncio
import time

import grpc

from bench.faults import QUEUE, grade, next_lease, ready_worker
from bench.load import METADATA, channel, create_assignment, submission
from cinnabar.gateway.v1.submission_service_pb2_grpc import SubmissionServiceStub
from cinnabar.scheduler.v1 import queue_service_pb2 as queue_pb
from cinnabar.scheduler.v1 import work_service_pb2 as pb
from cinnabar.scheduler.v1.queue_service_pb2_grpc import QueueServiceStub
from cinnabar_common.names import Bucket, new_id
from cinnabar_local.stack import Stack

TIMEOUT_SECONDS = 10.0


async def enqueue_to_delivery(stack: Stack, count: int) -> list[float]:
    """Milliseconds from sending an Enqueue of one task to its lease being read on another connection."""
    scheduler = stack.addresses.schedulers[0]
    async with channel(stack.addresses.envoy) as through:
        parent = await create_assignment(through, "delivery")
        await SubmissionServiceStub(through).CreateSubmission(
            submission(parent, 0), metadata=METADATA, timeout=TIMEOUT_SECONDS
        )
    worker = await ready_worker(scheduler, QUEUE, "bench-idle")
    model = await next_lease(worker)
    await grade(worker, model.lease_token)
    latencies: list[float] = []
    async with channel(scheduler) as through:
        queue = QueueServiceStub(through)
        for _ in range(count):
            await worker.write(pb.WorkRequest(ready=pb.Ready(queue=QUEUE, credits=1)))
            await _idle(through)
            # Not in Postgres: its grade changes nothing, and the queue forgets it.
            task = queue_pb.QueuedTask(
                task=f"{new_id(Bucket(0))}/{model.task.partition('/')[2]}",
                tenant="bench",
                queue=QUEUE,
                generation=1,
                item_key=model.item_key,
                answer=model.answer.SerializeToString(),
            )
            request = queue_pb.EnqueueRequest(tasks=[task])
            lease = asyncio.create_task(next_lease(worker), name="bench-lease")
            started = time.perf_counter()
            enqueued = asyncio.ensure_future(queue.Enqueue(request, timeout=TIMEOUT_SECONDS))
            async with asyncio.timeout(TIMEOUT_SECONDS):
                token = (await lease).lease_token
            latencies.append((time.perf_counter() - started) * 1000)
            await enqueued
            await grade(worker, token)
    worker.cancel()
    return latencies


async def _idle(through: grpc.aio.Channel) -> None:
    """Returns when the worker's credit is known and nothing waits."""
    request = queue_pb.GetQueueStatsRequest(queues=[QUEUE])
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while True:
            answer = await QueueServiceStub(through).GetQueueStats(request, timeout=TIMEOUT_SECONDS)
            stats = answer.queues[0]
            if stats.credits == 1 and not stats.ready and not stats.leased:
                return
            await asyncio.sleep(0.001)
