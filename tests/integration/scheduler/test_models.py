"""Model calls and upgrades on the real storage service: Postgres, Valkey, a scheduler process, a worker."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cinnabar.gateway.v1.assignment_service_pb2 import Assignment
from cinnabar.grader.v1.grade_pb2 import Answer, AnswerSet, Grade
from cinnabar.grader.v1.item_pb2 import FreeTextSpec, Item, LlmSpec
from cinnabar.scheduler.v1 import model_call_service_pb2 as pb
from cinnabar.scheduler.v1 import work_service_pb2 as work_pb
from cinnabar.scheduler.v1.model_call_service_pb2_grpc import ModelCallServiceStub
from cinnabar.storage.v1 import model_budget_service_pb2 as budget_pb
from cinnabar.storage.v1 import records_pb2
from cinnabar.storage.v1 import storage_service_pb2 as storage_pb
from cinnabar.storage.v1.model_budget_service_pb2_grpc import ModelBudgetServiceStub
from cinnabar_common.channels import channel
from cinnabar_common.redis_connection import connect
from tests.support.scheduler_process import SchedulerProcess, Suite
from tests.support.scheduler_storage import FakeStorage
from tests.support.scheduler_worker import GRADE, ScriptedWorker
from tests.support.scheduler_worker import worker as connected
from tests.support.servers import ShardUrls
from tests.support.storage_records import ASSIGNMENT, COURSE, TENANT, key, new_submission, revision_id
from tests.support.storage_service import Storage, storage_on
from tests.support.waiting import until

if TYPE_CHECKING:
    from cinnabar.scheduler.v1.model_call_service_pb2_grpc import ModelCallServiceAsyncStub

POLICY = """
[providers.named.cloud]
failures = 2
recovery_seconds = 0.5
[tenants.default]
budgets.tenant = { tokens = 1000, period = "none" }
"""
ITEM = Item(
    item="q1", points=5, free_text=FreeTextSpec(references=["So."], llm=LlmSpec(upgrade_fallbacks=True))
)


@dataclass
class World:
    """A scheduler on real storage, and a worker of its queue "llm"."""

    storage: Storage
    scheduler: SchedulerProcess
    worker: ScriptedWorker
    redis_url: str
    revision: str = field(default_factory=revision_id)
    taken: int = 0

    @property
    def models(self) -> "ModelCallServiceAsyncStub":
        return ModelCallServiceStub(self.scheduler.channel)

    async def accept(self) -> storage_pb.NewSubmission:
        """A submission whose item a language model is to grade; the sweep queues it."""
        answers = AnswerSet(answers=[Answer(item="q1", text="thus")]).SerializeToString()
        submission = new_submission(answers=answers)
        submission.revision_id = self.revision
        submission.tasks[0].queue = "llm"
        await self.storage.writer.CreateSubmissions(
            storage_pb.CreateSubmissionsRequest(submissions=[submission]), timeout=10
        )
        return submission

    async def lease(self) -> work_pb.LeasedTask:
        """The next task; a credit more than is used, which is for a regrade."""
        await self.worker.ready(2, "llm")
        await self.worker.until(lambda: len(self.worker.leased) > self.taken, "a lease", seconds=20)
        self.taken += 1
        return self.worker.leased[self.taken - 1]

    async def begin(self, lease: work_pb.LeasedTask) -> pb.BeginModelCallResponse:
        return await self.models.BeginModelCall(
            pb.BeginModelCallRequest(
                lease_token=lease.lease_token, provider="cloud", tokens=100, timeout=Duration(seconds=5)
            ),
            timeout=5,
        )

    async def called(self, lease: work_pb.LeasedTask, **outcome: Any) -> pb.BreakerState.ValueType:
        permit = (await self.begin(lease)).permit
        ended = await self.models.EndModelCall(
            pb.EndModelCallRequest(token=permit.token, **outcome), timeout=5
        )
        return ended.breaker

    async def grade(self, lease: work_pb.LeasedTask, *, upgradable: bool = False) -> None:
        grade = Grade()
        grade.CopyFrom(GRADE)
        grade.upgradable = upgradable
        outcome = work_pb.Outcome(lease_token=lease.lease_token, grade=grade)
        assert await self.worker.report(outcome) == [work_pb.Receipt.COMMITTED]

    async def ai_service(self, status: int) -> None:
        stub = health_pb2_grpc.HealthStub(self.scheduler.channel)

        async def reached() -> bool:
            answer = await stub.Check(health_pb2.HealthCheckRequest(service="ai_service"), timeout=5)
            return answer.status == status

        await until(reached, "the health of the AI service", seconds=20)

    async def written_down(self, tokens: int) -> None:
        async with channel(self.storage.address) as opened:
            stub = ModelBudgetServiceStub(opened)

            async def reached() -> bool:
                request = budget_pb.GetModelBudgetsRequest(tenant=TENANT)
                budgets = (await stub.GetModelBudgets(request, timeout=5)).budgets
                return bool(budgets) and budgets[0].tokens == tokens

            await until(reached, "what was spent is in Postgres", seconds=20)


@pytest_asyncio.fixture
async def world(migrated_shards: list[ShardUrls], valkey_url: str, tmp_path: Path) -> AsyncGenerator[World]:
    """Nothing handed in yet."""
    async with storage_on(migrated_shards) as storage:
        suite = Suite(valkey_url, FakeStorage(), storage.address, tmp_path)
        try:
            scheduler = await suite.scheduler(policy=POLICY, sweep_seconds="0.2")
            async with connected(scheduler.target) as worker:
                await worker.hello("llm")
                opened = World(storage, scheduler, worker, valkey_url)
                record = records_pb2.AssignmentRecord(
                    tenant=TENANT,
                    course=COURSE,
                    assignment=ASSIGNMENT,
                    revision_id=opened.revision,
                    spec=Assignment(items=[ITEM]).SerializeToString(),
                )
                await storage.writer.CreateAssignment(
                    storage_pb.CreateAssignmentRequest(assignment=record), timeout=10
                )
                yield opened
        finally:
            await suite.close()


async def test_what_stood_in_for_a_dead_provider_is_replaced_when_it_is_back(world: World) -> None:
    first = await world.accept()
    lease = await world.lease()
    assert not lease.upgrade
    failure = pb.EndModelCallRequest.Failure()
    assert await world.called(lease, failure=failure) == pb.CLOSED
    assert await world.called(lease, failure=failure) == pb.OPEN
    assert (await world.begin(lease)).denied.reason == pb.BeginModelCallResponse.Denied.BREAKER_OPEN
    await world.grade(lease, upgradable=True)
    await world.ai_service(health_pb2.HealthCheckResponse.NOT_SERVING)

    await world.accept()
    lease = await world.lease()
    used = pb.EndModelCallRequest.Success(tokens=990)

    async def closed() -> bool:
        answer = await world.begin(lease)
        if not answer.HasField("permit"):
            return False
        assert answer.permit.probe
        ended = await world.models.EndModelCall(
            pb.EndModelCallRequest(token=answer.permit.token, success=used), timeout=5
        )
        return ended.breaker == pb.CLOSED

    await until(closed, "the breaker closes", seconds=10)
    await world.grade(lease)
    await world.ai_service(health_pb2.HealthCheckResponse.SERVING)

    lease = await world.lease()
    assert (lease.task, lease.generation, lease.upgrade) == (f"{first.submission_id}/q1", 2, True)

    # A loss of Redis forgives nothing that is written down, and an upgrade stays one.
    await world.written_down(990)
    redis = cast("Any", connect(world.redis_url, timeout_seconds=5))
    await redis.flushdb()
    await redis.aclose()
    lease = await world.lease()
    assert (lease.generation, lease.upgrade) == (2, True)
    denied = (await world.begin(lease)).denied
    assert (denied.reason, denied.level) == (denied.BUDGET_EXHAUSTED, "tenant")
    await world.grade(lease)
    found = await world.storage.reader.GetSubmissions(
        storage_pb.GetSubmissionsRequest(submissions=[key(first)]), timeout=10
    )
    assert [grade.generation for grade in found.submissions[0].grades] == [2]
    assert not found.submissions[0].tasks
