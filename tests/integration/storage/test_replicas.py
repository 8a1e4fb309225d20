"""Reads on replicas that are behind, stand still, or are gone."""

from __future__ import annotations

from collections.abc import Iterable

from cinnabar.storage.v1 import records_pb2
from cinnabar.storage.v1 import storage_service_pb2 as pb
from cinnabar.type.v1 import position_pb2
from tests.support.servers import PostgresServers
from tests.support.storage_records import graded, key, new_submission
from tests.support.storage_service import Storage, storage_on
from tests.support.storage_sql import replay_paused, replicated
from tests.support.waiting import until


async def create(storage: Storage, count: int = 1) -> list[pb.NewSubmission]:
    submissions = [new_submission(tenant=f"replicas-{count}") for _ in range(count)]
    response = await storage.writer.CreateSubmissions(pb.CreateSubmissionsRequest(submissions=submissions))
    assert {result.status for result in response.results} == {1}
    return submissions


async def read(
    storage: Storage, submission: pb.NewSubmission, positions: Iterable[position_pb2.Position] = ()
) -> records_pb2.SubmissionRecord:
    response = await storage.reader.GetSubmissions(
        pb.GetSubmissionsRequest(submissions=[key(submission)], min_positions=positions)
    )
    [record] = response.submissions
    return record


async def test_a_token_shows_what_was_written_and_no_token_what_the_replica_has(
    postgres_servers: PostgresServers, storage: Storage
) -> None:
    [submission] = await create(storage)
    await replicated(postgres_servers)
    async with replay_paused(postgres_servers):
        committed = await storage.writer.CommitOutcomes(
            pb.CommitOutcomesRequest(outcomes=[graded(submission)])
        )
        assert len((await read(storage, submission, committed.positions)).grades) == 1
        stale = await read(storage, submission)
        assert (len(stale.grades), len(stale.tasks)) == (0, 1)
    await replicated(postgres_servers)
    assert len((await read(storage, submission)).grades) == 1


async def test_what_the_replica_does_not_have_yet_is_found_on_the_primary(
    postgres_servers: PostgresServers, storage: Storage
) -> None:
    async with replay_paused(postgres_servers):
        for submission in await create(storage, 4):
            assert (await read(storage, submission)).submission_id == submission.submission_id


async def test_a_list_with_a_token_shows_what_was_written(
    postgres_servers: PostgresServers, storage: Storage
) -> None:
    submission = new_submission(tenant="list-token")
    query = pb.ListSubmissionsRequest(
        tenant="list-token", course=submission.course, assignment=submission.assignment, limit=10
    )
    await replicated(postgres_servers)
    async with replay_paused(postgres_servers):
        created = await storage.writer.CreateSubmissions(
            pb.CreateSubmissionsRequest(submissions=[submission])
        )
        assert not (await storage.reader.ListSubmissions(query)).submissions
        query.min_positions.extend(created.positions)
        assert len((await storage.reader.ListSubmissions(query)).submissions) == 1


async def test_a_replica_that_lags_leaves_the_rotation_and_comes_back(
    postgres_servers: PostgresServers, storage: Storage
) -> None:
    async with storage_on(storage.shards, replica_max_lag_seconds=0.3) as impatient:
        [submission] = await create(impatient)
        await replicated(postgres_servers)
        async with replay_paused(postgres_servers):
            await impatient.writer.CommitOutcomes(pb.CommitOutcomesRequest(outcomes=[graded(submission)]))

            async def seen() -> bool:
                return len((await read(impatient, submission)).grades) == 1

            await until(seen, description="a read without a token goes to the primary")
        await replicated(postgres_servers)
        assert await seen()


async def test_reads_go_on_without_the_replicas(postgres_servers: PostgresServers, storage: Storage) -> None:
    submissions = await create(storage, 10)
    await replicated(postgres_servers)
    names = [f"postgres-{shard}-replica" for shard in range(2)]
    for name in names:
        await postgres_servers.processes.kill(name)
    try:
        for submission in submissions:
            assert (await read(storage, submission)).submission_id == submission.submission_id
    finally:
        for name in names:
            await postgres_servers.processes.start(name)


async def test_reads_go_on_without_a_primary(postgres_servers: PostgresServers, storage: Storage) -> None:
    submissions = await create(storage, 10)
    await replicated(postgres_servers)
    await postgres_servers.processes.kill("postgres-0")
    try:
        for submission in submissions:
            assert (await read(storage, submission)).submission_id == submission.submission_id
    finally:
        await postgres_servers.processes.start("postgres-0")


async def test_it_starts_although_a_primary_is_down(
    postgres_servers: PostgresServers, storage: Storage
) -> None:
    submissions = await create(storage, 10)
    await replicated(postgres_servers)
    await postgres_servers.processes.kill("postgres-0")
    try:
        async with storage_on(storage.shards) as started:
            for submission in submissions:
                assert (await read(started, submission)).submission_id == submission.submission_id
    finally:
        await postgres_servers.processes.start("postgres-0")
