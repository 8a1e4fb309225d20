"""How long until work goes on after something was lost. The suite runs without graders here."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from typing import Any, cast

import grpc
from redis.asyncio import Redis

from bench.load import METADATA, batches, channel, create_assignment, submission
from cinnabar.gateway.v1.submission_service_pb2_grpc import SubmissionServiceStub
from cinnabar.grader.v1.grade_pb2 import CriterionScore, Grade, Provenance
from cinnabar.scheduler.v1 import queue_service_pb2 as queue_pb
from cinnabar.scheduler.v1 import work_service_pb2 as pb
from cinnabar.scheduler.v1.queue_service_pb2_grpc import QueueServiceStub
from cinnabar.scheduler.v1.work_service_pb2_grpc import WorkServiceStub
from cinnabar_local.stack import Stack

QUEUE = "text"
BATCH = 1000
TIMEOUT_SECONDS = 120.0

Work = grpc.aio.StreamStreamCall[pb.WorkRequest, pb.WorkResponse]
_open: list[tuple[grpc.aio.Channel, Work]] = []  # a call ends with the last reference to it


async def ready_worker(address: str, queue: str, name: str) -> Work:
    """A work stream that has granted one credit."""
    opened = grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
    call = WorkServiceStub(opened).Work()
    _open.append((opened, call))
    await call.write(pb.WorkRequest(hello=pb.Hello(worker=name, queues=[queue])))
    await call.write(pb.WorkRequest(ready=pb.Ready(queue=queue, credits=1)))
    return call


async def next_lease(call: Work) -> pb.LeasedTask:
    """The next lease on a stream; says meanwhile that it lives."""
    while (answer := await call.read()) is not grpc.aio.EOF:
        message = cast("pb.WorkResponse", answer)
        if message.leases.tasks:
            return message.leases.tasks[0]
        if message.HasField("pulse"):
            await call.write(pb.WorkRequest(heartbeat=pb.Heartbeat()))
    raise RuntimeError("the scheduler ended the stream")


async def hold(call: Work, token: str) -> None:
    """Keeps a lease alive until the stream ends."""
    while (answer := await call.read()) is not grpc.aio.EOF:
        if cast("pb.WorkResponse", answer).HasField("pulse"):
            await call.write(pb.WorkRequest(heartbeat=pb.Heartbeat(lease_tokens=[token])))


async def redelivery_after_kill(stack: Stack, rounds: int) -> list[float]:
    """Milliseconds from kill -9 of a worker to its task being leased to another one."""
    scheduler = stack.addresses.schedulers[0]
    latencies: list[float] = []
    async with channel(stack.addresses.envoy) as through:
        parent = await create_assignment(through, "killed")
        for number in range(rounds):
            await SubmissionServiceStub(through).CreateSubmission(
                submission(parent, number), metadata=METADATA, timeout=10
            )
            victim = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "bench.worker", scheduler, QUEUE, stdout=asyncio.subprocess.PIPE
            )
            assert victim.stdout is not None
            async with asyncio.timeout(TIMEOUT_SECONDS):
                await victim.stdout.readline()
                heir = await ready_worker(scheduler, QUEUE, f"bench-heir-{number}")
                started = time.perf_counter()
                victim.send_signal(signal.SIGKILL)
                lease = await next_lease(heir)
            latencies.append((time.perf_counter() - started) * 1000)
            await victim.wait()
            await grade(heir, lease.lease_token)
            heir.cancel()
    return latencies


async def redelivery_after_silence(stack: Stack, rounds: int) -> list[float]:
    """Seconds from SIGSTOP of a worker that holds a lease to the grade of its task by another one."""
    scheduler = stack.addresses.schedulers[0]
    latencies: list[float] = []
    async with channel(stack.addresses.envoy) as through:
        parent = await create_assignment(through, "silent")
        for number in range(rounds):
            await SubmissionServiceStub(through).CreateSubmission(
                submission(parent, number), metadata=METADATA, timeout=10
            )
            victim = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "bench.worker", scheduler, QUEUE, stdout=asyncio.subprocess.PIPE
            )
            assert victim.stdout is not None
            try:
                async with asyncio.timeout(TIMEOUT_SECONDS):
                    await victim.stdout.readline()
                    heir = await ready_worker(scheduler, QUEUE, f"bench-heir-{number}")
                    started = time.perf_counter()
                    victim.send_signal(signal.SIGSTOP)
                    lease = await next_lease(heir)
                    await grade(heir, lease.lease_token)
                latencies.append(time.perf_counter() - started)
                heir.cancel()
            finally:
                victim.kill()
                await victim.wait()
    return latencies


async def grade(call: Work, token: str) -> None:
    """Reports a grade and waits for its receipt, so that the queue is empty again."""
    part = CriterionScore(
        criterion="answer", score=1, max_score=1, provenance=Provenance(grader="bench", version="1")
    )
    outcome = pb.Outcome(lease_token=token, grade=Grade(score=1, max_score=1, criteria=[part]))
    await call.write(pb.WorkRequest(report=pb.Report(outcomes=[outcome])))
    while (answer := await call.read()) is not grpc.aio.EOF:
        if cast("pb.WorkResponse", answer).receipts.receipts:
            return
    raise RuntimeError("the scheduler ended the stream")


async def rebuild_after_flush(stack: Stack, count: int) -> float:
    """Seconds from FLUSHALL with ``count`` tasks waiting to all of them being queued again."""
    async with channel(stack.addresses.envoy) as through:
        parent = await create_assignment(through, "flushed")
        call = SubmissionServiceStub(through).StreamCreateSubmissions(metadata=METADATA)
        unacknowledged = 0
        for message in batches(parent, count, BATCH):
            await call.write(message)
            unacknowledged += 1
            if unacknowledged > 4:
                await call.read()
                unacknowledged -= 1
        await call.done_writing()
        while await call.read() is not grpc.aio.EOF:
            pass
    async with channel(stack.addresses.schedulers[0]) as through:
        waiting = await _until_waiting(through, count)
        redis = cast("Any", Redis).from_url(stack.addresses.redis_url)
        started = time.perf_counter()
        await redis.flushall()
        await _until_waiting(through, waiting)
        seconds = time.perf_counter() - started
        await redis.aclose()
    return seconds


async def _until_waiting(through: grpc.aio.Channel, count: int) -> int:
    """Returns when at least ``count`` tasks wait."""
    request = queue_pb.GetQueueStatsRequest(queues=[QUEUE])
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while True:
            stats = await QueueServiceStub(through).GetQueueStats(request, timeout=10)
            waiting = stats.queues[0].ready + stats.queues[0].delayed
            if waiting >= count:
                return waiting
            await asyncio.sleep(0.02)
