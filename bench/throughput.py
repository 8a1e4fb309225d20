"""How many submissions a second: batched to the grade, and one by one to the acceptance."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import grpc

from bench.load import (
    ANSWER,
    AUTHORS,
    METADATA,
    TOKEN,
    Ledger,
    batches,
    channel,
    create_assignment,
    submission,
)
from cinnabar.gateway.v1 import submission_service_pb2 as pb
from cinnabar.gateway.v1.submission_service_pb2_grpc import SubmissionServiceStub
from cinnabar_local.stack import Stack

BATCH = 500
STREAMS = 2
IN_FLIGHT = 4
CONCURRENCY = 64
REST_CONCURRENCY = 32  # that of the peer's script
TIMEOUT_SECONDS = 180.0


async def graded_batched(stack: Stack, ledger: Ledger, count: int) -> float:
    """Submissions a second from the first message to the last committed grade, through Envoy."""
    async with channel(stack.addresses.envoy) as through:
        parent = await create_assignment(through, "batched")
    messages = list(batches(parent, count, BATCH))
    before = await ledger.grades()
    started = time.perf_counter()
    await asyncio.gather(*(_stream(stack.addresses.envoy, messages[own::STREAMS]) for own in range(STREAMS)))
    await ledger.until_graded(seconds=TIMEOUT_SECONDS)
    seconds = time.perf_counter() - started
    graded = await ledger.grades() - before
    if graded != count:
        raise RuntimeError(f"{count} submitted but {graded} graded")
    return count / seconds


async def _stream(address: str, messages: list[pb.StreamCreateSubmissionsRequest]) -> None:
    slots = asyncio.Semaphore(IN_FLIGHT)
    async with channel(address) as through:
        call = SubmissionServiceStub(through).StreamCreateSubmissions(metadata=METADATA)

        async def write() -> None:
            for message in messages:
                await slots.acquire()
                await call.write(message)
            await call.done_writing()

        writer = asyncio.create_task(write())
        async for answer in call:
            slots.release()
            refused = [result.error for result in answer.results if result.HasField("error")]
            if refused:
                raise RuntimeError(f"refused: {refused[0].message}")
        await writer


async def grpc_submits(stack: Stack, ledger: Ledger, count: int) -> float:
    """Single CreateSubmission calls a second through Envoy, each accepted durably."""
    async with channel(stack.addresses.envoy) as through:
        parent = await create_assignment(through, "single")
        create = SubmissionServiceStub(through).CreateSubmission
        numbers = iter(range(count))

        async def one_after_the_other() -> None:
            for number in numbers:
                await create(submission(parent, number), metadata=METADATA, timeout=30)

        started = time.perf_counter()
        await asyncio.gather(*(one_after_the_other() for _ in range(CONCURRENCY)))
        seconds = time.perf_counter() - started
    await ledger.until_graded(seconds=TIMEOUT_SECONDS)
    return count / seconds


async def rest_submits(stack: Stack, ledger: Ledger, count: int) -> float:
    """Single POSTs a second through Envoy's transcoder, each accepted durably."""
    async with channel(stack.addresses.envoy) as through:
        parent = await create_assignment(through, "single")
    url = f"{stack.addresses.http}/v1/{parent}/submissions"
    numbers = iter(range(count))
    connector = aiohttp.TCPConnector(limit=REST_CONCURRENCY)
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def one_after_the_other() -> None:
            for number in numbers:
                body = {"author": f"student-{number % AUTHORS}", "answers": [{"item": "q1", "text": ANSWER}]}
                async with session.post(url, json=body) as response:
                    if response.status != 200:
                        raise RuntimeError(await response.text())
                    await response.read()

        started = time.perf_counter()
        await asyncio.gather(*(one_after_the_other() for _ in range(REST_CONCURRENCY)))
        seconds = time.perf_counter() - started
    await ledger.until_graded(seconds=TIMEOUT_SECONDS)
    return count / seconds


async def submit_to_watch(stack: Stack, count: int) -> list[float]:
    """Milliseconds from a submit call to its watcher seeing the grade, one at a time, on an idle suite."""
    latencies: list[float] = []
    async with channel(stack.addresses.envoy) as through:
        parent = await create_assignment(through, "watched")
        stub = SubmissionServiceStub(through)
        for number in range(-20, count):  # the first ones warm up
            started = time.perf_counter()
            created = await stub.CreateSubmission(submission(parent, number), metadata=METADATA, timeout=10)
            await _graded(stub.WatchSubmission(_watch(created.name), metadata=METADATA, timeout=10))
            if number >= 0:
                latencies.append((time.perf_counter() - started) * 1000)
    return latencies


def _watch(name: str) -> pb.WatchSubmissionRequest:
    return pb.WatchSubmissionRequest(name=name)


async def _graded(
    call: grpc.aio.UnaryStreamCall[pb.WatchSubmissionRequest, pb.WatchSubmissionResponse],
) -> None:
    async for answer in call:
        if answer.submission.state == pb.Submission.GRADED:
            return
    raise RuntimeError("the watch ended before the grade")
