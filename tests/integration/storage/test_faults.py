"""Many at once, and Postgres going away under them."""

from __future__ import annotations

import asyncio
from collections import Counter

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cinnabar.storage.v1 import storage_service_pb2 as pb
from cinnabar_common.errors import DependencyUnavailable, from_rpc_error
from cinnabar_local import sql
from cinnabar_storage.shards.bucket_map import ShardMap
from tests.support.servers import PostgresServers, ShardUrls
from tests.support.storage_records import given_up, graded, key, new_submission
from tests.support.storage_service import Storage, storage_on
from tests.support.storage_sql import total
from tests.support.waiting import until

Status = pb.CreateSubmissionsResponse.Result.Status
Result = pb.CommitOutcomesResponse.Result
Redriven = pb.RedriveTasksResponse.Result


def by_shard(count: int) -> dict[int, pb.NewSubmission]:
    """One new submission for each shard."""
    found: dict[int, pb.NewSubmission] = {}
    while len(found) < count:
        submission = new_submission()
        shard = ShardMap.contiguous(count).shard_of_id(submission.submission_id)
        assert shard is not None
        found[shard] = submission
    return found


async def create_one(storage: Storage, submission: pb.NewSubmission) -> pb.CreateSubmissionsResponse.Result:
    response = await storage.writer.CreateSubmissions(pb.CreateSubmissionsRequest(submissions=[submission]))
    [result] = response.results
    return result


async def test_fifty_creates_of_one_request_make_one_row(
    storage: Storage, storage_shards: list[ShardUrls]
) -> None:
    submissions = [
        new_submission(author="ann", request_id="only-once", fingerprint=b"f", items=("q1", "q2"))
        for _ in range(50)
    ]
    async with storage_on(storage_shards) as other:
        results = await asyncio.gather(
            *(
                create_one((storage, other)[number % 2], submission)
                for number, submission in enumerate(submissions)
            )
        )
    assert Counter(result.status for result in results) == {Status.CREATED: 1, Status.DUPLICATE: 49}
    assert len({result.submission_id for result in results}) == 1
    count = "SELECT count(*) FROM submissions WHERE request_id = 'only-once'"
    assert await total(storage_shards, count) == 1
    count = "SELECT count(*) FROM tasks JOIN submissions USING (submission_id) WHERE request_id = 'only-once'"
    assert await total(storage_shards, count) == 2


async def test_batches_that_meet_in_opposite_order_all_end(storage: Storage) -> None:
    async def batch(number: int) -> pb.CreateSubmissionsResponse:
        submissions = [
            new_submission(author=f"crossing-{index}", request_id="r", fingerprint=b"f")
            for index in range(100)
        ]
        submissions = submissions[:: -1 if number % 2 else 1]
        return await storage.writer.CreateSubmissions(pb.CreateSubmissionsRequest(submissions=submissions))

    responses = await asyncio.gather(*map(batch, range(10)))
    counts = Counter(result.status for response in responses for result in response.results)
    assert counts == {Status.CREATED: 100, Status.DUPLICATE: 900}


async def test_two_hundred_commits_of_one_task_write_one_grade(
    storage: Storage, storage_shards: list[ShardUrls]
) -> None:
    submission = new_submission()
    await create_one(storage, submission)

    async def commit(stub: Storage, fence: int) -> Result.ValueType:
        request = pb.CommitOutcomesRequest(outcomes=[graded(submission, fence=fence)])
        return (await stub.writer.CommitOutcomes(request)).results[0]

    async with storage_on(storage_shards) as other:
        results = await asyncio.gather(
            *(commit((storage, other)[number % 2], fence=number + 1) for number in range(200))
        )
    assert Counter(results) == {Result.COMMITTED: 1, Result.ALREADY_GRADED: 199}
    for table in ("grades", "audit"):
        count = f"SELECT count(*) FROM {table} WHERE submission_id = $1"
        assert await total(storage_shards, count, submission.submission_id) == 1


async def test_commits_of_many_tasks_in_opposite_order_write_one_grade_each(
    storage: Storage, storage_shards: list[ShardUrls]
) -> None:
    submissions = [new_submission(tenant="opposite", items=("q1", "q2")) for _ in range(100)]
    await storage.writer.CreateSubmissions(pb.CreateSubmissionsRequest(submissions=submissions))
    outcomes = [graded(submission, item=item) for submission in submissions for item in ("q1", "q2")]

    async def batch(number: int) -> pb.CommitOutcomesResponse:
        request = pb.CommitOutcomesRequest(outcomes=outcomes[:: -1 if number % 2 else 1])
        return await storage.writer.CommitOutcomes(request)

    responses = await asyncio.gather(*map(batch, range(10)))
    counts = Counter(result for response in responses for result in response.results)
    assert counts == {Result.COMMITTED: 200, Result.ALREADY_GRADED: 1800}
    assert await total(storage_shards, "SELECT count(*) FROM grades WHERE tenant = 'opposite'") == 200
    assert await total(storage_shards, "SELECT count(*) FROM tasks WHERE tenant = 'opposite'") == 0


async def test_everything_that_changes_a_task_is_in_the_audit(
    storage: Storage, storage_shards: list[ShardUrls]
) -> None:
    submission = new_submission(items=("q1", "q2"))
    await create_one(storage, submission)
    await storage.writer.CommitOutcomes(pb.CommitOutcomesRequest(outcomes=[given_up(submission, fence=3)]))
    task = pb.RedriveTasksRequest.Task(submission_id=submission.submission_id, item_id="q1")
    await storage.writer.RedriveTasks(
        pb.RedriveTasksRequest(tenant=submission.tenant, tasks=[task], actor="operator-1")
    )
    await storage.writer.CommitOutcomes(pb.CommitOutcomesRequest(outcomes=[graded(submission, fence=4)]))
    await storage.writer.CancelSubmissions(
        pb.CancelSubmissionsRequest(submissions=[key(submission)], actor="ann")
    )
    shard = ShardMap.contiguous(2).shard_of_id(submission.submission_id)
    assert shard is not None
    async with sql.connected(storage_shards[shard].primary_url) as connection:
        rows = await connection.fetchval(
            "SELECT array_agg(concat_ws(' ', action, actor, item_id, detail) ORDER BY at)"
            " FROM audit WHERE submission_id = $1 AND tenant = $2",
            submission.submission_id,
            submission.tenant,
        )
    assert rows == [
        "dead-letter worker-1 q1 it broke",
        "redrive operator-1 q1 ",
        "grade worker-1 q1 4-x",
        "cancel ann q2 ",
    ]


async def test_a_call_survives_the_death_of_all_connections(
    storage: Storage, storage_shards: list[ShardUrls]
) -> None:
    await asyncio.gather(*(create_one(storage, new_submission()) for _ in range(40)))
    for url in (url for shard in storage_shards for url in (shard.primary_url, *shard.replica_urls)):
        async with sql.connected(url) as connection:
            await connection.fetchval(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = 'cinnabar-storage'"
            )
    submissions = [new_submission() for _ in range(40)]
    results = await asyncio.gather(*(create_one(storage, submission) for submission in submissions))
    assert {result.status for result in results} == {Status.CREATED}
    read = await storage.reader.GetSubmissions(pb.GetSubmissionsRequest(submissions=map(key, submissions)))
    assert len(read.submissions) == 40


async def test_a_shard_that_is_down_fails_its_own_items_only_and_heals(
    postgres_servers: PostgresServers, storage: Storage
) -> None:
    new = by_shard(2)
    down, up = new[0], new[1]
    await postgres_servers.processes.kill("postgres-0")
    try:
        request = pb.CreateSubmissionsRequest(submissions=[down, up])
        created = await storage.writer.CreateSubmissions(request)
        assert [result.status for result in created.results] == [Status.UNAVAILABLE, Status.CREATED]
        assert [position.shard for position in created.positions] == [1]
        committed = await storage.writer.CommitOutcomes(
            pb.CommitOutcomesRequest(outcomes=[graded(down), graded(up)])
        )
        assert committed.results == [Result.UNAVAILABLE, Result.COMMITTED]
    finally:
        await postgres_servers.processes.start("postgres-0")
    created = await storage.writer.CreateSubmissions(request)
    assert [result.status for result in created.results] == [Status.CREATED, Status.DUPLICATE]


async def test_what_people_do_fails_only_where_a_shard_is_down(
    postgres_servers: PostgresServers, storage: Storage
) -> None:
    new, dead = by_shard(2), by_shard(2)
    both = [*new.values(), *dead.values()]
    await storage.writer.CreateSubmissions(pb.CreateSubmissionsRequest(submissions=both))
    await storage.writer.CommitOutcomes(pb.CommitOutcomesRequest(outcomes=map(given_up, dead.values())))
    redrive = pb.RedriveTasksRequest(tenant=new[0].tenant, actor="operator-1")
    redrive.tasks.add(submission_id=dead[0].submission_id, item_id="q1")
    redrive.tasks.add(submission_id=dead[1].submission_id, item_id="q1")
    redrive.tasks.add(submission_id=dead[0].submission_id, item_id="q1")
    states = pb.GetTaskStatesRequest()
    for submission in (new[0], new[1], dead[0]):
        states.keys.add(tenant=submission.tenant, submission_id=submission.submission_id, item_id="q1")
    cancel = pb.CancelSubmissionsRequest(submissions=[key(new[0]), key(new[1])], actor="ann")
    control = pb.SetQueueControlRequest(control=pb.QueueControl(queue="text", state=2, actor="ann"))
    await postgres_servers.processes.kill("postgres-0")
    try:
        found = await storage.reader.GetTaskStates(states)
        assert [(state.open_generation, state.unavailable) for state in found.states] == [
            (0, True),
            (1, False),
            (0, True),
        ]
        redriven = await storage.writer.RedriveTasks(redrive)
        assert redriven.results == [Redriven.UNAVAILABLE, Redriven.REDRIVEN, Redriven.UNAVAILABLE]
        assert [task.submission_id for task in redriven.tasks] == [dead[1].submission_id]
        cancelled = await storage.writer.CancelSubmissions(cancel)
        assert [task.submission_id for task in cancelled.cancelled] == [new[1].submission_id]
        assert cancelled.unavailable == [key(new[0])]
        assert [position.shard for position in cancelled.positions] == [1]
        # The replica counts while its primary is down.
        counted = await storage.reader.CountTasks(pb.CountTasksRequest(shard=0))
        assert counted.accepted > 0
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await storage.writer.SetQueueControl(control)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert str(from_rpc_error(refused.value, "storage")) == str(DependencyUnavailable("postgres"))
    finally:
        await postgres_servers.processes.start("postgres-0")
    redriven = await storage.writer.RedriveTasks(redrive)
    assert redriven.results == [Redriven.REDRIVEN, Redriven.NOT_DEAD_OPEN, Redriven.NOT_DEAD_OPEN]
    cancelled = await storage.writer.CancelSubmissions(cancel)
    assert [task.submission_id for task in cancelled.cancelled] == [new[0].submission_id]
    assert not cancelled.unavailable
    await storage.writer.SetQueueControl(control)


async def test_two_operators_redrive_each_task_once(
    storage: Storage, storage_shards: list[ShardUrls]
) -> None:
    submissions = [new_submission(tenant="operators") for _ in range(60)]
    await storage.writer.CreateSubmissions(pb.CreateSubmissionsRequest(submissions=submissions))
    await storage.writer.CommitOutcomes(pb.CommitOutcomesRequest(outcomes=map(given_up, submissions)))

    async def redrive(number: int) -> pb.RedriveTasksResponse:
        request = pb.RedriveTasksRequest(tenant="operators", actor=f"operator-{number}")
        for submission in submissions[:: -1 if number % 2 else 1]:
            request.tasks.add(submission_id=submission.submission_id, item_id="q1")
        return await storage.writer.RedriveTasks(request)

    responses = await asyncio.gather(*map(redrive, range(8)))
    counts = Counter(result for response in responses for result in response.results)
    assert counts == {Redriven.REDRIVEN: 60, Redriven.NOT_DEAD_OPEN: 420}
    opened = [task.submission_id for response in responses for task in response.tasks]
    assert sorted(opened) == sorted(submission.submission_id for submission in submissions)
    count = "SELECT count(*) FROM audit WHERE tenant = 'operators' AND action = 'redrive'"
    assert await total(storage_shards, count) == 60


async def test_health_tells_of_each_shard(postgres_servers: PostgresServers, storage: Storage) -> None:
    async with grpc.aio.insecure_channel(storage.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        async def serving(name: str) -> bool:
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
            return answer.status == health_pb2.HealthCheckResponse.SERVING

        async def down() -> bool:
            return not await serving("shard-0")

        async def up() -> bool:
            return await serving("shard-0") and await serving("database")

        await until(up, description="all is well")
        await postgres_servers.processes.kill("postgres-0")
        try:
            await until(down, description="the shard that is down is reported")
            assert not await serving("database")
            assert await serving("shard-1")
            assert await serving("")
        finally:
            await postgres_servers.processes.start("postgres-0")
        await until(up, description="all is well again")


async def test_a_call_that_finds_no_connection_in_time_is_refused_as_overload(
    storage_shards: list[ShardUrls],
) -> None:
    submissions = by_shard(2)
    async with storage_on(storage_shards, pool_size=1, pool_wait_seconds=0.2) as narrow:
        url = storage_shards[0].primary_url
        async with sql.connected(url) as blocker:
            await blocker.execute("BEGIN; LOCK TABLE submissions")
            blocked = asyncio.ensure_future(create_one(narrow, submissions[0]))

            async def waiting() -> bool:
                query = "SELECT count(*) FROM pg_locks WHERE NOT granted"
                return bool(await blocker.fetchval(query))

            await until(waiting, description="the first call holds the only connection")
            second = new_submission(author=submissions[0].author)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await create_one(narrow, second)
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            both = await narrow.writer.CreateSubmissions(
                pb.CreateSubmissionsRequest(submissions=[second, submissions[1]])
            )
            assert [result.status for result in both.results] == [Status.UNAVAILABLE, Status.CREATED]
            await blocker.execute("ROLLBACK")
            assert (await blocked).status == Status.CREATED


async def test_no_word_of_postgres_reaches_the_caller(storage: Storage) -> None:
    submission = new_submission()
    submission.course = "net\0work"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await create_one(storage, submission)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "U+0000" in (refused.value.details() or "")
    assert "encoding" not in (refused.value.details() or "")
