"""Primaries that cannot write: each call says so, nothing is half written, and all goes on afterwards."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from cinnabar.storage.v1 import storage_service_pb2 as pb
from cinnabar_local import sql
from cinnabar_storage.shards.bucket_map import ShardMap
from tests.support.servers import PostgresServers, ShardUrls
from tests.support.storage_disk import small_disk
from tests.support.storage_records import graded, key, new_submission, revision_id
from tests.support.storage_service import Storage
from tests.support.storage_sql import total
from tests.support.waiting import until

Status = pb.CreateSubmissionsResponse.Result.Status
Result = pb.CommitOutcomesResponse.Result


def on_shard(index: int, tenant: str) -> pb.NewSubmission:
    """A new submission of that shard."""
    while ShardMap.contiguous(2).shard_of_id((made := new_submission(tenant=tenant)).submission_id) != index:
        pass
    return made


def course_on(index: int, tenant: str) -> str:
    """A course of that shard."""
    number = 0
    while ShardMap.contiguous(2).shard_of_id(revision_id(f"course-{number}", tenant)) != index:
        number += 1
    return f"course-{number}"


def refused(error: grpc.aio.AioRpcError) -> bool:
    """Whether it is UNAVAILABLE, says when to come back, and nothing of Postgres."""
    status = rpc_status.from_call(error)
    assert status is not None
    retry = error_details_pb2.RetryInfo()
    return (
        error.code() is grpc.StatusCode.UNAVAILABLE
        and any(detail.Unpack(retry) for detail in status.details)
        and status.message == "postgres cannot be reached now: try again later"
    )


@asynccontextmanager
async def read_only(servers: PostgresServers, shard: int) -> AsyncGenerator[None]:
    """The primary refuses writes inside of the block, on all connections there are."""
    async with sql.connected(servers.shards[shard].primary.superuser_url) as connection:

        async def become(setting: str) -> None:
            await connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {setting}")
            await connection.execute("SELECT pg_reload_conf()")

            async def is_so() -> bool:
                return await connection.fetchval("SHOW default_transaction_read_only") == setting

            await until(is_so, description=f"read only is {setting}")

        await become("on")
        try:
            yield
        finally:
            await connection.execute("SET default_transaction_read_only = off")
            await connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
            await connection.execute("SELECT pg_reload_conf()")


async def test_a_primary_that_is_read_only_refuses_writes_and_health_says_so(
    postgres_servers: PostgresServers, storage: Storage, storage_shards: list[ShardUrls]
) -> None:
    tenant = "read-only"
    before, new, other = on_shard(0, tenant), on_shard(0, tenant), on_shard(1, tenant)
    await storage.writer.CreateSubmissions(pb.CreateSubmissionsRequest(submissions=[before]))
    course = course_on(0, tenant)
    assignment = pb.CreateAssignmentRequest()
    assignment.assignment.tenant, assignment.assignment.course = tenant, course
    assignment.assignment.assignment, assignment.assignment.spec = "a1", b"spec"
    assignment.assignment.revision_id = revision_id(course, tenant)
    async with grpc.aio.insecure_channel(storage.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        async def serving(name: str) -> bool:
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
            return answer.status == health_pb2.HealthCheckResponse.SERVING

        async def down() -> bool:
            return not await serving("shard-0") and not await serving("database")

        async def up() -> bool:
            return await serving("shard-0") and await serving("database")

        create = pb.CreateSubmissionsRequest(submissions=[new, other])
        async with read_only(postgres_servers, 0):
            created = await storage.writer.CreateSubmissions(create)
            assert [result.status for result in created.results] == [Status.UNAVAILABLE, Status.CREATED]
            committed = await storage.writer.CommitOutcomes(
                pb.CommitOutcomesRequest(outcomes=[graded(before), graded(other)])
            )
            assert committed.results == [Result.UNAVAILABLE, Result.COMMITTED]
            cancelled = await storage.writer.CancelSubmissions(
                pb.CancelSubmissionsRequest(submissions=[key(before)], actor="ann")
            )
            assert list(cancelled.unavailable) == [key(before)]
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await storage.writer.CreateAssignment(assignment)
            assert refused(raised.value)
            read = await storage.reader.GetSubmissions(pb.GetSubmissionsRequest(submissions=[key(before)]))
            assert len(read.submissions) == 1
            await until(down, description="health tells of the primary that takes no writes")
            assert await serving("shard-1")
        await until(up, description="all is well again")
    created = await storage.writer.CreateSubmissions(create)
    assert [result.status for result in created.results] == [Status.CREATED, Status.DUPLICATE]
    committed = await storage.writer.CommitOutcomes(
        pb.CommitOutcomesRequest(outcomes=[graded(before), graded(new)])
    )
    assert committed.results == [Result.COMMITTED] * 2
    await storage.writer.CreateAssignment(assignment)
    assert await total(storage_shards, f"SELECT count(*) FROM submissions WHERE tenant = '{tenant}'") == 3
    assert await total(storage_shards, f"SELECT count(*) FROM grades WHERE tenant = '{tenant}'") == 3


async def test_a_full_disk_refuses_what_does_not_fit_and_writes_no_half_of_it(
    postgres_servers: PostgresServers, storage: Storage, storage_shards: list[ShardUrls]
) -> None:
    tenant = "disk-full"
    submissions = [on_shard(0, tenant) for _ in range(8)]
    await storage.writer.CreateSubmissions(pb.CreateSubmissionsRequest(submissions=submissions))
    outcomes = [graded(submission) for submission in submissions]
    for outcome in outcomes:
        outcome.grade.grade = os.urandom(128 * 1024)  # which cannot be compressed
    commit = pb.CommitOutcomesRequest(outcomes=outcomes)
    tables = ("grades", "tasks", "audit")

    async def rows() -> list[int]:
        return [
            await total(storage_shards, f"SELECT count(*) FROM {table} WHERE tenant = '{tenant}'")
            for table in tables
        ]

    before = await rows()
    assert before == [0, 8, 0]
    async with small_disk(postgres_servers.shards[0], storage_shards[0], "grades"):
        committed = await storage.writer.CommitOutcomes(commit)
        assert committed.results == [Result.UNAVAILABLE] * 8
        assert await rows() == before
        read = await storage.reader.GetSubmissions(
            pb.GetSubmissionsRequest(submissions=map(key, submissions))
        )
        assert len(read.submissions) == 8
    committed = await storage.writer.CommitOutcomes(commit)
    assert committed.results == [Result.COMMITTED] * 8
    assert await rows() == [8, 0, 8]
