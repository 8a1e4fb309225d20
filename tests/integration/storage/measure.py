"""How much storage takes: ``python -m tests.integration.storage.measure [submissions] [rounds]``.

Two shards with replicas, fsync on, the service in a process of its own, one client process. Prints for
creates, commits and reads (from the replicas), in batches of 500: medians over the rounds through gRPC,
the same statements sent by asyncpg alone (all that the service adds is the difference), and the CPU the
service used for each item.
"""

# ruff: noqa: T201 - prints for a person

from __future__ import annotations

import asyncio
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import psutil

from cinnabar.storage.v1 import storage_service_pb2 as pb
from cinnabar.storage.v1 import storage_service_pb2_grpc as rpc
from cinnabar_common.channels import channel
from cinnabar_local import binaries
from cinnabar_local.credentials import Credentials
from cinnabar_local.group import serving
from cinnabar_local.identity import unprivileged
from cinnabar_local.ports import Ports
from cinnabar_local.servers import postgres_shard
from cinnabar_storage import convert
from cinnabar_storage.adapters import sql_writes
from cinnabar_storage.adapters.sql_server import Server
from cinnabar_storage.app import migrate_all
from cinnabar_storage.bucket_map import ShardMap
from cinnabar_storage.config import StorageConfig
from cinnabar_storage.records import NewSubmission, Outcome
from tests.support.storage_records import graded, key, new_submission

BATCH = 500
LANES = 4
ANSWERS = b"x" * 120
GRADE = b"g" * 160


@asynccontextmanager
async def _servers(folder: Path) -> AsyncGenerator[tuple[str, ...]]:
    identity, ports, credentials = unprivileged(), Ports(), Credentials()
    programs = binaries.postgres_folder_for(identity, folder / "programs")
    shards = [
        postgres_shard(
            number,
            folder=folder,
            ports=ports,
            programs=programs,
            credentials=credentials,
            identity=identity,
        )
        for number in range(2)
    ]
    specs = [spec for shard in shards for spec in shard.processes()]
    async with serving(*specs, logs=folder / "logs"):
        yield tuple(shard.setting_of() for shard in shards)


@asynccontextmanager
async def _service(setting: Sequence[str]) -> AsyncGenerator[tuple[str, psutil.Process]]:
    port = Ports().of("storage")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "cinnabar_storage",
        env={"STORAGE_SHARDS": ",".join(setting), "STORAGE_LISTEN": f"127.0.0.1:{port}"},
    )
    try:
        yield f"127.0.0.1:{port}", psutil.Process(process.pid)
    finally:
        process.terminate()
        await process.wait()


async def _timed(batches: Sequence[Any], call: Callable[[Any], Awaitable[object]]) -> float:
    """Seconds for all batches, LANES at once."""
    waiting = list(reversed(batches))

    async def lane() -> None:
        while waiting:
            await call(waiting.pop())

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(LANES):
            group.create_task(lane())
    return time.perf_counter() - started


def _batches(items: Sequence[Any]) -> list[Sequence[Any]]:
    return [items[start : start + BATCH] for start in range(0, len(items), BATCH)]


def _requests(count: int) -> tuple[pb.CreateSubmissionsRequest, pb.CommitOutcomesRequest]:
    submissions = [new_submission(answers=ANSWERS) for _ in range(count)]
    outcomes = [graded(submission) for submission in submissions]
    for outcome in outcomes:
        outcome.grade.grade = GRADE
    return pb.CreateSubmissionsRequest(submissions=submissions), pb.CommitOutcomesRequest(outcomes=outcomes)


async def _through_grpc(
    writer: rpc.StorageWriterServiceAsyncStub,
    reader: rpc.StorageReaderServiceAsyncStub,
    process: psutil.Process,
    count: int,
) -> list[tuple[float, float]]:
    creates, commits = _requests(count)
    figures: list[tuple[float, float]] = []

    async def create(batch: Sequence[pb.NewSubmission]) -> None:
        response = await writer.CreateSubmissions(pb.CreateSubmissionsRequest(submissions=batch), timeout=60)
        assert all(result.status == 1 for result in response.results)

    async def commit(batch: Sequence[pb.FencedOutcome]) -> None:
        response = await writer.CommitOutcomes(pb.CommitOutcomesRequest(outcomes=batch), timeout=60)
        assert set(response.results) == {1}

    async def read(batch: Sequence[pb.NewSubmission]) -> None:
        response = await reader.GetSubmissions(
            pb.GetSubmissionsRequest(submissions=map(key, batch)), timeout=60
        )
        assert len(response.submissions) == len(batch)

    for batches, call in (
        (_batches(creates.submissions), create),
        (_batches(commits.outcomes), commit),
        (_batches(creates.submissions), read),
    ):
        before = process.cpu_times()
        seconds = await _timed(batches, call)
        after = process.cpu_times()
        used = after.user + after.system - before.user - before.system
        figures.append((count / seconds, used / count * 1e6))
    return figures


async def _alone(servers: Sequence[Server], count: int) -> list[float]:
    creates, commits = _requests(count)
    of = ShardMap.contiguous(2).shard_of_id
    rows: list[tuple[int, Sequence[NewSubmission]]] = []
    outcomes: list[tuple[int, Sequence[Outcome]]] = []
    for shard in range(2):
        mine = [row for row in convert.new_submissions(creates) if of(row.submission_id) == shard]
        rows += [(shard, batch) for batch in _batches(mine)]
        ends = [end for end in convert.outcomes(commits) if of(end.submission_id) == shard]
        outcomes += [(shard, batch) for batch in _batches(ends)]

    async def create(batch: tuple[int, Sequence[NewSubmission]]) -> None:
        await sql_writes.create_submissions(servers[batch[0]], batch[1])

    async def commit(batch: tuple[int, Sequence[Outcome]]) -> None:
        await sql_writes.commit_outcomes(servers[batch[0]], batch[1])

    return [count / await _timed(rows, create), count / await _timed(outcomes, commit)]


def _by_asyncpg(index: int, alone: list[list[float]]) -> str:
    if index >= len(alone[0]):
        return ""
    return f" {statistics.median(figures[index] for figures in alone):,.0f}/s by asyncpg alone,"


async def _run(count: int, rounds: int) -> None:
    async with AsyncExitStack() as exits:
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="cinnabar-measure-")))
        folder.chmod(0o711)  # noqa: ASYNC240 - nothing else runs yet
        setting = await exits.enter_async_context(_servers(folder))
        config = StorageConfig(shards=setting)
        await migrate_all(config)
        address, process = await exits.enter_async_context(_service(setting))
        opened = await exits.enter_async_context(channel(address))
        writer, reader = rpc.StorageWriterServiceStub(opened), rpc.StorageReaderServiceStub(opened)
        servers = [
            await exits.enter_async_context(
                Server(
                    urls[0],
                    name="measure",
                    pool_size=LANES,
                    pool_wait_seconds=60,
                    connect_seconds=5,
                    statement_seconds=60,
                )
            )
            for urls in config.urls()
        ]
        await writer.CreateSubmissions(pb.CreateSubmissionsRequest(), wait_for_ready=True, timeout=30)
        await _through_grpc(writer, reader, process, BATCH * 4)
        await _alone(servers, BATCH * 4)
        through: list[list[tuple[float, float]]] = []
        alone: list[list[float]] = []
        for _ in range(rounds):
            through.append(await _through_grpc(writer, reader, process, count))
            alone.append(await _alone(servers, count))
        for index, name in enumerate(("create", "commit", "read")):
            rates = [figures[index][0] for figures in through]
            print(
                f"{name}: {statistics.median(rates):,.0f}/s through gRPC"
                f" ({min(rates):,.0f} to {max(rates):,.0f}),"
                f"{_by_asyncpg(index, alone)}"
                f" {statistics.median(figures[index][1] for figures in through):.1f} µs of the service's CPU"
                " each"
            )


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(
        _run(
            int(sys.argv[1]) if len(sys.argv) > 1 else 20_000,
            int(sys.argv[2]) if len(sys.argv) > 2 else 5,
        )
    )
