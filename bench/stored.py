"""Storage by itself for the measurements: Postgres with replicas, the service as a process, rows."""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.load import channel
from cinnabar.storage.v1 import shard_service_pb2_grpc as shards_rpc
from cinnabar.storage.v1 import storage_service_pb2 as pb
from cinnabar.storage.v1 import storage_service_pb2_grpc as rpc
from cinnabar_common.names import bucket_of, new_id
from cinnabar_local import binaries, probes, sql
from cinnabar_local.credentials import Credentials
from cinnabar_local.group import serving
from cinnabar_local.identity import unprivileged
from cinnabar_local.ports import Ports
from cinnabar_local.process import ProcessSpec
from cinnabar_local.servers import PostgresShard, Valkey, postgres_shard

if TYPE_CHECKING:
    from cinnabar.storage.v1.shard_service_pb2_grpc import (
        ShardReaderServiceAsyncStub,
        ShardWriterServiceAsyncStub,
    )
    from cinnabar.storage.v1.storage_service_pb2_grpc import (
        StorageReaderServiceAsyncStub,
        StorageWriterServiceAsyncStub,
    )

TENANT, COURSE, ASSIGNMENT = "bench", "bench", "stored"
ANSWERS = b"x" * 120
GRADE = b"g" * 160
AUTHORS = 20_000
SERVERS = 2
_TIMEOUT_SECONDS = 60.0
_FILL = 50_000
_REPLAY_SECONDS = 120.0
_numbers = itertools.count(1)

# Rows as the service writes them. Ids are older than any that is made today, in the order of their numbers.
_STORED = """
WITH given AS MATERIALIZED (
    SELECT n, '01a' || lpad(n::text, 23, '0') || '-' || lpad(to_hex($3::int + n % $4::int), 3, '0') AS id,
           'author-' || n % $5::int AS author
    FROM generate_series($1::int, $2::int) AS n
), submitted AS (
    INSERT INTO submissions (submission_id, tenant, course, assignment, revision_id, author, request_id,
                             fingerprint, priority, answers, max_score, create_time, task_count)
    SELECT id, $6, $7, $8, 'some-revision', author, 'stored-' || n, decode(md5(id), 'hex'), 1, $9::bytea, 1,
           now(), 1
    FROM given
), graded AS (
    INSERT INTO grades (submission_id, item_id, generation, tenant, score, grade, lease_token, worker, fence)
    SELECT id, 'q1', 1, $6, 1, $10::bytea, '1-x', 'worker-1', 1 FROM given
)
INSERT INTO audit (tenant, actor, action, submission_id, item_id, generation, detail)
SELECT $6, 'worker-1', 'grade', id, 'q1', 1, '1-x' FROM given
"""


def new_submissions(count: int, authors: Sequence[str] = ()) -> list[pb.NewSubmission]:
    """Of ``authors`` in turn, or many others; each with one task and a request id of its own."""
    made: list[pb.NewSubmission] = []
    for number in itertools.islice(_numbers, count):
        author = authors[len(made) % len(authors)] if authors else f"author-{number % AUTHORS}"
        now = time.time_ns()
        submission = pb.NewSubmission(
            submission_id=new_id(bucket_of(TENANT, author)),
            tenant=TENANT,
            course=COURSE,
            assignment=ASSIGNMENT,
            revision_id="some-revision",
            author=author,
            request_id=f"request-{number}",
            fingerprint=number.to_bytes(16),
            priority=1,
            answers=ANSWERS,
            max_score=1,
            tasks=[pb.NewSubmission.Task(item_id="q1", queue="text")],
        )
        submission.create_time.FromMicroseconds(now // 1000)
        made.append(submission)
    return made


def graded(submission: pb.NewSubmission) -> pb.FencedOutcome:
    """The grade of its task."""
    return pb.FencedOutcome(
        tenant=submission.tenant,
        submission_id=submission.submission_id,
        item_id="q1",
        generation=1,
        fence=1,
        lease_token="1-x",
        worker="worker-1",
        grade=pb.FencedOutcome.Grade(score=1, grade=GRADE),
    )


def key(submission: pb.NewSubmission) -> pb.SubmissionKey:
    """What it is read by."""
    return pb.SubmissionKey(tenant=submission.tenant, submission_id=submission.submission_id)


@dataclass(frozen=True, slots=True)
class Service:
    """A running storage service; each call raises RuntimeError when it did not do all that it was asked."""

    writer: StorageWriterServiceAsyncStub
    reader: StorageReaderServiceAsyncStub
    shard_writer: ShardWriterServiceAsyncStub
    shard_reader: ShardReaderServiceAsyncStub

    async def create(self, submissions: Sequence[pb.NewSubmission]) -> None:
        """Stores them."""
        request = pb.CreateSubmissionsRequest(submissions=submissions)
        response = await self.writer.CreateSubmissions(request, timeout=_TIMEOUT_SECONDS)
        _require(
            all(result.status == pb.CreateSubmissionsResponse.Result.CREATED for result in response.results)
        )

    async def commit(self, outcomes: Sequence[pb.FencedOutcome]) -> None:
        """Stores grades."""
        request = pb.CommitOutcomesRequest(outcomes=outcomes)
        response = await self.writer.CommitOutcomes(request, timeout=_TIMEOUT_SECONDS)
        _require(set(response.results) == {pb.CommitOutcomesResponse.COMMITTED})

    async def get(self, keys: Sequence[pb.SubmissionKey]) -> None:
        """Reads them with their grades."""
        request = pb.GetSubmissionsRequest(submissions=keys)
        response = await self.reader.GetSubmissions(request, timeout=_TIMEOUT_SECONDS)
        _require(len(response.submissions) == len(keys))

    async def page(self, before: str, limit: int) -> str:
        """One page of the assignment's submissions; returns where the next one begins."""
        request = pb.ListSubmissionsRequest(
            tenant=TENANT, course=COURSE, assignment=ASSIGNMENT, before=before, limit=limit
        )
        response = await self.reader.ListSubmissions(request, timeout=_TIMEOUT_SECONDS)
        _require(len(response.submissions) == limit)
        return response.submissions[-1].submission_id


def _require(met: bool) -> None:
    if not met:
        raise RuntimeError("storage did not do all that it was asked")


@dataclass(frozen=True, slots=True)
class Database:
    """One database of a server and of its replica."""

    server: PostgresShard
    name: str

    @property
    def setting(self) -> str:
        """Its part of STORAGE_SHARDS."""
        return self.server.setting_of(self.name)

    async def fill(self, first: int, last: int, buckets: range) -> None:
        """Adds graded submissions ``first`` to ``last`` in ``buckets``; the replica follows."""
        values = (AUTHORS, TENANT, COURSE, ASSIGNMENT, ANSWERS, GRADE)
        for start in range(first, last + 1, _FILL):
            end = min(last, start + _FILL - 1)
            async with sql.connected(self.server.primary.url_of(self.name)) as connection:
                await connection.execute(_STORED, start, end, buckets.start, len(buckets), *values)
            await self.replayed()

    async def settle(self) -> None:
        """What Postgres and the followers of the audit would do later, at a time of their own, is done."""
        async with sql.connected(self.server.primary.url_of(self.name)) as connection:
            await connection.execute("VACUUM (FREEZE, ANALYZE)")
            await connection.execute("UPDATE audit_followers SET rest_until = 'infinity'")
        async with sql.connected(self.server.primary.superuser_url) as connection:
            await connection.execute("CHECKPOINT")
        await self.replayed()

    async def log_bytes(self) -> int:
        """How much its server has written into its log, ever."""
        async with sql.connected(self.server.primary.superuser_url) as connection:
            written = await connection.fetchval(
                "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint"
            )
        assert isinstance(written, int)
        return written

    async def replayed(self) -> None:
        """Waits until the replica has all."""
        async with sql.connected(self.server.primary.superuser_url) as connection:
            written = await connection.fetchval("SELECT pg_current_wal_flush_lsn()::text")
        query = "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn"
        for replica in self.server.replicas:
            async with asyncio.timeout(_REPLAY_SECONDS), sql.connected(replica.superuser_url) as connection:
                while not await connection.fetchval(query, written):  # noqa: ASYNC110 - only asking tells
                    await asyncio.sleep(0.01)


@dataclass(frozen=True, slots=True)
class Servers:
    """Two Postgres servers with a replica each, and a Valkey for the cache."""

    servers: tuple[PostgresShard, ...]
    valkey: Valkey
    folder: Path

    async def databases(self, name: str, count: int = SERVERS) -> list[Database]:
        """New databases, in turn on the servers."""
        made = [Database(self.servers[n % len(self.servers)], f"{name}_{n}") for n in range(count)]
        for database in made:
            async with sql.connected(database.server.primary.superuser_url) as connection:
                await connection.execute(f"CREATE DATABASE {database.name} OWNER cinnabar")
        return made

    @asynccontextmanager
    async def service(
        self, databases: Sequence[Database], settings: Mapping[str, str] | None = None
    ) -> AsyncGenerator[Service]:
        """The service on these shards, migrated."""
        ports = Ports()
        address = f"127.0.0.1:{ports.of('storage')}"
        environment = {
            "STORAGE_SHARDS": ",".join(database.setting for database in databases),
            "STORAGE_LISTEN": address,
            **(settings or {}),
        }

        async def ready() -> None:
            await probes.grpc_serving(address)

        command = (sys.executable, "-m", "cinnabar_storage")
        migrate = ProcessSpec(
            name="migrate", command=(*command, "migrate"), env=environment, one_shot=True, ready_seconds=120
        )
        storage = ProcessSpec(
            name="storage", command=command, env=environment, needs=("migrate",), ready=ready
        )
        logs = self.folder / f"logs-{databases[0].name}"
        async with serving(migrate, storage, logs=logs), channel(address) as opened:
            for database in databases:
                await database.replayed()
            yield Service(
                rpc.StorageWriterServiceStub(opened),
                rpc.StorageReaderServiceStub(opened),
                shards_rpc.ShardWriterServiceStub(opened),
                shards_rpc.ShardReaderServiceStub(opened),
            )


@asynccontextmanager
async def servers(folder: Path) -> AsyncGenerator[Servers]:
    """Running, with fsync on, for the length of a block."""
    identity, ports, credentials = unprivileged(), Ports(), Credentials()
    programs = binaries.postgres_folder_for(identity, folder / "programs")
    shards = tuple(
        postgres_shard(
            number,
            folder=folder,
            ports=ports,
            programs=programs,
            credentials=credentials,
            identity=identity,
        )
        for number in range(SERVERS)
    )
    valkey = Valkey(
        name="valkey", folder=folder / "valkey", port=ports.of("valkey"), password=credentials.redis
    )
    async with AsyncExitStack() as exits:
        specs = [spec for shard in shards for spec in shard.processes()]
        await exits.enter_async_context(serving(*specs, valkey.process(), logs=folder / "logs"))
        yield Servers(shards, valkey, folder)
