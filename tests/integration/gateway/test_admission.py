"""One request id, a thousand calls at once, two gateways: one submission and one answer, come what may."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace

import grpc
import pytest
import pytest_asyncio

from cinnabar.gateway.v1.assignment_service_pb2 import Assignment, CreateAssignmentRequest
from cinnabar.gateway.v1.assignment_service_pb2_grpc import AssignmentServiceStub
from cinnabar.gateway.v1.submission_service_pb2 import BatchCreateSubmissionsRequest, CreateSubmissionRequest
from cinnabar.gateway.v1.submission_service_pb2_grpc import SubmissionServiceStub
from cinnabar_common.channels import channel
from cinnabar_gateway.adapters.admission_client import AdmissionClient
from cinnabar_gateway.admission import Settlement
from cinnabar_gateway.app import outside_of, running_with
from cinnabar_gateway.config import GatewayConfig
from cinnabar_local import sql
from cinnabar_scheduler.app import running as scheduler_running
from cinnabar_scheduler.config import SchedulerConfig
from tests.support.gateway_suite import PARENT, create_request
from tests.support.gateway_world import COURSE, INSTRUCTOR, SECRET, STUDENT, items, refusal_in, refusal_of
from tests.support.servers import ShardUrls, ValkeyServer
from tests.support.storage_service import storage_on

CALLS = 1_000
SECONDS = 60.0
RESERVATION_SECONDS = 1.0


class Mute(AdmissionClient):
    """Admissions of a gateway that dies before it settles anything."""

    async def settle(self, ends: Sequence[Settlement]) -> None:
        """Never ends."""
        await asyncio.Event().wait()


@dataclass(slots=True, kw_only=True)
class Two:
    """Two gateways on one storage and one scheduler."""

    channels: list[grpc.aio.Channel]
    shards: list[ShardUrls]
    exits: AsyncExitStack
    storage_target: str
    scheduler_target: str
    refused: Counter[str] = field(default_factory=Counter[str])

    async def create(self, gateway: int, request: CreateSubmissionRequest) -> str:
        """Creates; repeats while the request is in progress. The name."""
        stub = SubmissionServiceStub(self.channels[gateway % len(self.channels)])
        async with asyncio.timeout(SECONDS):
            while True:
                try:
                    return (await stub.CreateSubmission(request, metadata=STUDENT, timeout=SECONDS)).name
                except grpc.aio.AioRpcError as error:
                    refusal = refusal_of(error)
                    self.refused[refusal.reason] += 1
                    if refusal.reason != "REQUEST_IN_PROGRESS":
                        raise
                    assert refusal.retry_after is not None
                    await asyncio.sleep(refusal.retry_after)

    async def thousand(self) -> str:
        """All calls at once; the one name that all of them got, which is the one row there is."""
        request = create_request(request_id="one")
        names = await asyncio.gather(*(self.create(number, request) for number in range(CALLS)))
        assert len(set(names)) == 1
        assert await self.rows() == 1
        return names[0]

    async def rows(self) -> int:
        """Submissions in Postgres."""
        counted = 0
        for shard in self.shards:
            async with sql.connected(shard.primary_url) as connection:
                counted += int(str(await connection.fetchval("SELECT count(*) FROM submissions")))
        return counted

    async def gateway(self, admissions: type[AdmissionClient] = AdmissionClient) -> grpc.aio.Channel:
        """Starts one more."""
        enter = self.exits.enter_async_context
        storage, scheduler = (
            await enter(channel(self.storage_target)),
            await enter(channel(self.scheduler_target)),
        )
        # A busy machine must look neither like a storage nor like a scheduler that is away.
        config = GatewayConfig(
            storage_target=self.storage_target,
            scheduler_target=self.scheduler_target,
            auth="development",
            token_key=(SECRET,),
            listen="127.0.0.1:0",
            grace_seconds=0.5,
            call_timeout_seconds=SECONDS,
        )
        outside = replace(
            outside_of(config, storage, scheduler, [scheduler]),
            admissions=admissions(scheduler, timeout_seconds=5),
        )
        gateway = await enter(running_with(config, outside))
        return await enter(channel(f"127.0.0.1:{gateway.port}"))


@pytest_asyncio.fixture
async def two(migrated_shards: list[ShardUrls], valkey_url: str) -> AsyncGenerator[Two]:
    """Two gateways, a scheduler whose reservations run out soon, an assignment."""
    async with AsyncExitStack() as exits:
        storage = await exits.enter_async_context(storage_on(migrated_shards, pool_wait_seconds=SECONDS))
        config = SchedulerConfig(
            redis_url=valkey_url,
            storage_target=storage.address,
            listen="127.0.0.1:0",
            admission_timeout_seconds=5,
            reservation_seconds=RESERVATION_SECONDS,
        )
        port = await exits.enter_async_context(scheduler_running(config))
        made = Two(
            channels=[],
            shards=migrated_shards,
            exits=exits,
            storage_target=storage.address,
            scheduler_target=f"127.0.0.1:{port}",
        )
        made.channels = [await made.gateway(), await made.gateway()]
        await AssignmentServiceStub(made.channels[0]).CreateAssignment(
            CreateAssignmentRequest(
                parent=COURSE, assignment=Assignment(items=items()[:3]), assignment_id="rules"
            ),
            metadata=INSTRUCTOR,
        )
        yield made


async def test_a_thousand_calls_at_once_are_one_submission(two: Two) -> None:
    name = await two.thousand()
    assert await two.create(1, create_request(request_id="one")) == name
    other = create_request(request_id="one")
    other.submission.answers[2].text = "something else"
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await two.create(1, other)
    assert refusal_of(raised.value).reason == "REQUEST_ID_REUSED"
    assert set(two.refused) <= {"REQUEST_IN_PROGRESS", "REQUEST_ID_REUSED"}


async def test_the_same_without_valkey(two: Two, valkey_server: ValkeyServer) -> None:
    await valkey_server.processes.stop("valkey")
    name = await two.thousand()
    other = create_request(request_id="one")
    other.submission.answers[2].text = "something else"
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await two.create(1, other)
    assert refusal_of(raised.value).reason == "REQUEST_ID_REUSED"
    await valkey_server.processes.start("valkey")
    assert await two.create(0, create_request(request_id="one")) == name


async def test_the_same_when_a_gateway_dies_between_commit_and_settlement(two: Two) -> None:
    dying = await two.gateway(Mute)
    request = create_request(request_id="one")
    stub = SubmissionServiceStub(dying)
    first = await stub.CreateSubmission(request, metadata=STUDENT)
    assert await two.rows() == 1
    await dying.close()
    assert await two.thousand() == first.name


async def test_in_a_batch_each_key_counts_over_both_gateways(two: Two) -> None:
    requests = [create_request(author=f"s{number}", request_id="r") for number in range(50)]
    batch = BatchCreateSubmissionsRequest(parent=PARENT, requests=requests)

    async def create(number: int) -> list[str]:
        stub = SubmissionServiceStub(two.channels[number % 2])
        for _ in range(100):
            response = await stub.BatchCreateSubmissions(batch, metadata=INSTRUCTOR, timeout=SECONDS)
            errors = [one.error for one in response.results if one.HasField("error")]
            if not errors:
                return [one.submission.name for one in response.results]
            assert {refusal_in(error).reason for error in errors} == {"REQUEST_IN_PROGRESS"}
        raise AssertionError("still in progress")

    names = await asyncio.gather(*(create(number) for number in range(20)))
    assert all(one == names[0] for one in names)
    assert (len(set(names[0])), await two.rows()) == (50, 50)


async def test_an_answer_is_kept_when_valkey_is_away_for_a_while(
    two: Two, valkey_server: ValkeyServer
) -> None:
    name = await two.create(0, create_request(request_id="one"))
    await valkey_server.processes.stop("valkey")
    assert await two.create(1, create_request(request_id="one")) == name
    await valkey_server.processes.start("valkey")
    assert await two.create(0, create_request(request_id="one")) == name
    assert await two.rows() == 1
