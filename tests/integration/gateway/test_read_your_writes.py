"""Whoever wrote something sees it, whatever the replicas show: over gRPC, and with the client library."""

from __future__ import annotations

from itertools import count

import grpc
import pytest

from cinnabar.gateway.v1 import assignment_service_pb2 as assignments_pb
from cinnabar.gateway.v1 import operations_service_pb2 as operations_pb
from cinnabar.gateway.v1 import submission_service_pb2 as pb
from cinnabar.storage.v1 import storage_service_pb2 as storage_pb
from cinnabar.storage.v1.storage_service_pb2_grpc import StorageWriterServiceStub
from cinnabar_client import Client
from cinnabar_common.channels import channel
from cinnabar_common.names import SubmissionName
from tests.support.gateway_suite import PARENT, Real, create_request
from tests.support.gateway_world import (
    INSTRUCTOR,
    KEYS,
    OPERATOR,
    STUDENT,
    TENANT,
    Metadata,
    refusal_of,
    token_from,
)
from tests.support.servers import PostgresServers
from tests.support.storage_sql import replay_paused, replicated

TOKEN_KEY = "cinnabar-consistency-token"
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
State = pb.Submission.State


async def give_up(real: Real, submission: pb.Submission) -> None:
    """Makes a dead letter of every task."""
    name = SubmissionName.parse(submission.name)
    assert name is not None
    request = storage_pb.CommitOutcomesRequest()
    for result in submission.results:
        request.outcomes.add(
            tenant=TENANT,
            submission_id=name.submission,
            item_id=result.item,
            generation=1,
            fence=1,
            lease_token="1-x",
            worker="worker",
            dead_letter=storage_pb.FencedOutcome.DeadLetter(reason="it broke", attempts=3),
        )
    async with channel(real.storage_target) as opened:
        await StorageWriterServiceStub(opened).CommitOutcomes(request)


async def first_state(real: Real, name: str, metadata: Metadata) -> State.ValueType:
    """What a watch shows first."""
    call = real.submissions.WatchSubmission(
        pb.WatchSubmissionRequest(name=name), timeout=10, metadata=metadata
    )
    async for response in call:
        call.cancel()
        return response.submission.state
    raise AssertionError("the watch shows nothing")


async def test_who_has_the_token_sees_the_write_and_who_has_not_sees_the_replica(
    real: Real, postgres_servers: PostgresServers
) -> None:
    get = assignments_pb.GetAssignmentRequest(name=PARENT)
    submission = await real.submissions.CreateSubmission(create_request(), metadata=STUDENT)
    await give_up(real, submission)
    await replicated(postgres_servers)
    async with replay_paused(postgres_servers):
        # An assignment, over gRPC.
        update = real.assignments.UpdateAssignment(
            assignments_pb.UpdateAssignmentRequest(
                assignment=assignments_pb.Assignment(name=PARENT, display_name="New")
            ),
            metadata=INSTRUCTOR,
        )
        await update
        token = await token_from(update)
        with_token = (*INSTRUCTOR, (TOKEN_KEY, token))
        assert (await real.assignments.GetAssignment(get, metadata=with_token)).display_name == "New"
        assert (await real.assignments.GetAssignment(get, metadata=INSTRUCTOR)).display_name == ""

        # A redrive: its watcher is not told that the submission has failed, which is over.
        task = operations_pb.RedriveDeadLettersRequest.Task(submission=submission.name, item="pick")
        redrive = real.operations.RedriveDeadLetters(
            operations_pb.RedriveDeadLettersRequest(tasks=[task]), metadata=OPERATOR
        )
        assert (await redrive).redriven == 1
        redriven = (*OPERATOR, (TOKEN_KEY, await token_from(redrive)))
        assert await first_state(real, submission.name, redriven) == State.QUEUED
        assert await first_state(real, submission.name, OPERATOR) == State.FAILED

        # The client library, which carries the token by itself, and one that does not.
        async with (
            Client(real.address, token="dev.uni.operator.root") as operator,
            Client(real.address, token="dev.uni.operator.root", read_own_writes=False) as other,
            Client(real.address, token="dev.uni.student.ann") as student,
        ):
            letters = [(letter.submission, letter.item) async for letter in operator.dead_letters()]
            assert len(letters) == 2
            assert (await operator.redrive(letters)).redriven == 2
            seen = await operator.get_submission(submission.name)
            assert {result.state for result in seen.results} == {pb.ItemResult.QUEUED}
            assert (await other.get_submission(submission.name)).state == State.FAILED
            assert (await student.get_submission(submission.name)).state == State.FAILED
            student.observe(operator.consistency_token)
            assert (await student.get_submission(submission.name)).state == State.QUEUED
            cancelled = await student.cancel(submission.name)
            assert cancelled.state == State.CANCELLED
            assert (await student.get_submission(submission.name)).state == State.CANCELLED
    await replicated(postgres_servers)
    assert (await real.assignments.GetAssignment(get, metadata=INSTRUCTOR)).display_name == "New"


async def test_a_shard_that_is_down_takes_its_own_submissions_away_and_says_when_to_come_back(
    real: Real, postgres_servers: PostgresServers
) -> None:
    names: dict[int, str] = {}
    for number in count():
        call = real.submissions.CreateSubmission(create_request(f"s{number}"), metadata=INSTRUCTOR)
        created = await call
        [position] = KEYS.decode(TENANT, [await token_from(call)])
        names.setdefault(position.shard, created.name)
        if len(names) == 2:
            break
    listing = pb.ListSubmissionsRequest(parent=PARENT)
    lost = ("postgres-1", "postgres-1-replica")
    for name in lost:
        await postgres_servers.processes.kill(name)
    try:
        page = await real.submissions.ListSubmissions(listing, metadata=INSTRUCTOR)
        assert list(page.unreachable) == ["shards/1"]
        assert names[0] in {one.name for one in page.submissions}
        assert names[1] not in {one.name for one in page.submissions}
        assert (
            await real.submissions.GetSubmission(pb.GetSubmissionRequest(name=names[0]), metadata=INSTRUCTOR)
        ).name == names[0]
        letters = await real.operations.ListDeadLetters(
            operations_pb.ListDeadLettersRequest(), metadata=OPERATOR
        )
        assert list(letters.unreachable) == ["shards/1"]
        for refused in (
            real.submissions.GetSubmission(pb.GetSubmissionRequest(name=names[1]), metadata=INSTRUCTOR),
            real.submissions.CancelSubmission(pb.CancelSubmissionRequest(name=names[1]), metadata=INSTRUCTOR),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await refused
            refusal = refusal_of(raised.value)
            assert (refusal.code, refusal.reason) == (UNAVAILABLE, "DEPENDENCY_UNAVAILABLE")
            assert refusal.retry_after is not None
    finally:
        for name in lost:
            await postgres_servers.processes.start(name)
    page = await real.submissions.ListSubmissions(listing, metadata=INSTRUCTOR)
    assert not page.unreachable
    assert set(names.values()) <= {one.name for one in page.submissions}
