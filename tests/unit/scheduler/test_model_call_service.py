"""The service of model calls: who may ask, what is refused, what comes back."""

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration

from cinnabar.scheduler.v1 import model_call_service_pb2 as pb
from cinnabar.scheduler.v1.model_call_service_pb2_grpc import ModelCallServiceStub
from cinnabar_common.channels import channel
from cinnabar_common.errors import InvalidRequest, SuiteError, from_rpc_error
from cinnabar_scheduler.adapters.memory_model_calls import MemoryModelCalls
from cinnabar_scheduler.metrics import model_samples
from cinnabar_scheduler.model_calls import ModelCallsUnavailable, ProviderAway, Spent
from cinnabar_scheduler.model_policy import Budget, Budgets, Period
from cinnabar_scheduler.policy import Policy, TenantPolicy
from cinnabar_scheduler.tasks import LeaseToken
from tests.support.scheduler_models import PLACE, MemoryLedger, ModelDesk, desk
from tests.support.scheduler_queue import ManualClock

if TYPE_CHECKING:
    from cinnabar.scheduler.v1.model_call_service_pb2_grpc import ModelCallServiceAsyncStub

SOON = Duration(seconds=30)
POLICY = Policy(
    default_tenant=TenantPolicy(
        budgets=Budgets(
            Budget(1000, 0, Period.DAY),
            Budget(0, 5_000_000, Period.MONTH),
            Budget(0, 0, Period.NONE),
            {"courses/other": Budget(7)},
        )
    )
)


class Asked:
    """A desk, and a grader that asks it."""

    def __init__(self, served: ModelDesk, store: MemoryModelCalls, stub: "ModelCallServiceAsyncStub") -> None:
        self.desk = served
        self.store = store
        self.stub = stub
        self.lease = served.lease()

    async def begin(self, **changes: Any) -> pb.BeginModelCallResponse:
        wanted: dict[str, Any] = {
            "lease_token": self.lease,
            "provider": "cloud",
            "tokens": 100,
            "timeout": SOON,
            **changes,
        }
        try:
            return await self.stub.BeginModelCall(pb.BeginModelCallRequest(**wanted))
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "scheduler") from error

    async def end(self, token: str, **outcome: Any) -> pb.BreakerState.ValueType:
        try:
            response = await self.stub.EndModelCall(pb.EndModelCallRequest(token=token, **outcome))
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "scheduler") from error
        return response.breaker

    async def fail(self, times: int = 5) -> None:
        for _ in range(times):
            permit = (await self.begin()).permit
            await self.end(permit.token, failure=pb.EndModelCallRequest.Failure())


@pytest_asyncio.fixture
async def asked() -> AsyncGenerator[Asked]:
    clock = ManualClock()
    store = MemoryModelCalls(clock)
    ledger = MemoryLedger({("uni", ""): Spent("", "2023-11-14", 400, 0)})
    async with desk(store, clock, POLICY, ledger) as served, channel(served.address) as connection:
        yield Asked(served, store, ModelCallServiceStub(connection))


async def test_a_permit_says_how_long_it_holds(asked: Asked) -> None:
    permit = (await asked.begin()).permit
    assert permit.token.startswith("cloud.")
    assert not permit.probe
    assert permit.expire_time.ToMilliseconds() == 1_700_000_035_000
    assert await asked.end(permit.token, success=pb.EndModelCallRequest.Success(tokens=5)) == pb.CLOSED
    assert await asked.end(permit.token) == pb.CLOSED


async def test_every_answer_travels(asked: Asked) -> None:
    key = bytes(32)
    first = (await asked.begin(share_key=key)).permit
    wait = (await asked.begin(share_key=key)).wait
    assert (wait.reason, wait.retry_after.ToMilliseconds()) == (wait.IN_FLIGHT, 250)
    await asked.end(first.token, success=pb.EndModelCallRequest.Success(tokens=1, result=b"r"))
    assert (await asked.begin(share_key=key)).shared.result == b"r"
    denied = (await asked.begin(tokens=900)).denied
    assert (denied.reason, denied.level) == (denied.BUDGET_EXHAUSTED, "tenant")
    assert 0 < denied.retry_after.seconds <= 86_400
    throttled = pb.EndModelCallRequest.Throttled(retry_after=Duration(seconds=9))
    await asked.end((await asked.begin()).permit.token, throttled=throttled)
    wait = (await asked.begin()).wait
    assert (wait.reason, wait.retry_after.seconds) == (wait.RATE, 9)
    asked.desk.policy = Policy()
    denied = (await asked.begin(provider="other", tokens=900)).permit
    assert denied.token


async def test_the_breaker_shows_in_every_answer_and_in_health(asked: Asked) -> None:
    await asked.desk.calls.healthy()
    await asked.fail()
    denied = (await asked.begin()).denied
    assert (denied.reason, denied.retry_after.seconds) == (denied.BREAKER_OPEN, 60)
    [provider] = (await asked.stub.ListProviders(pb.ListProvidersRequest())).providers
    assert (provider.provider, provider.breaker, provider.failures) == ("cloud", pb.OPEN, 5)
    assert provider.retry_time.ToMilliseconds() == 1_700_000_060_000
    with pytest.raises(ProviderAway, match="cloud"):
        await asked.desk.calls.healthy()
    told = [(one.name, one.value, one.labels) for one in model_samples(asked.desk.calls)]
    assert ("cinnabar_model_calls_total", 5, {"provider": "cloud", "answer": "permit"}) in told
    assert ("cinnabar_model_calls_total", 1, {"provider": "cloud", "answer": "breaker_open"}) in told
    assert ("cinnabar_model_breaker_open", 1.0, {"provider": "cloud"}) in told


async def test_who_holds_no_lease_is_told_nothing(asked: Asked) -> None:
    asked.desk.session.drop([LeaseToken(asked.lease)])
    with pytest.raises(SuiteError) as caught:
        await asked.begin()
    assert caught.value.status_code is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"lease_token": ""}, ["lease_token"]),
        ({"provider": "A b"}, ["provider"]),
        ({"tokens": 0}, ["tokens"]),
        ({"tokens": -1, "cost_micros": -1}, ["tokens", "cost_micros"]),
        ({"share_key": b"short"}, ["share_key"]),
        ({"timeout": Duration()}, ["timeout"]),
        ({"timeout": Duration(seconds=601)}, ["timeout"]),
    ],
)
async def test_a_bad_question_is_refused_with_its_fields(
    asked: Asked, changes: dict[str, Any], fields: list[str]
) -> None:
    with pytest.raises(SuiteError) as caught:
        await asked.begin(**changes)
    assert caught.value.status_code is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.message.startswith(f"{fields[0]}: ")
    assert ("1 more" in caught.value.message) == (len(fields) > 1)


@pytest.mark.parametrize(
    "outcome",
    [
        {"token": ""},
        {"token": "x" * 129},
        {"success": pb.EndModelCallRequest.Success(result=bytes(64 * 1024 + 1))},
        {"success": pb.EndModelCallRequest.Success(tokens=-1)},
        {"useless": pb.EndModelCallRequest.Useless(cost_micros=-1)},
        {"throttled": pb.EndModelCallRequest.Throttled(retry_after=Duration(seconds=-1))},
    ],
)
async def test_a_bad_ending_is_refused(asked: Asked, outcome: dict[str, Any]) -> None:
    with pytest.raises(SuiteError) as caught:
        await asked.end(**{"token": "cloud.x", **outcome})
    assert caught.value.status_code is grpc.StatusCode.INVALID_ARGUMENT


async def test_budgets_are_listed_with_what_was_written_down_before(asked: Asked) -> None:
    await asked.begin(tokens=10, cost_micros=3)
    settled = (await asked.begin(tokens=50, cost_micros=9)).permit
    await asked.end(settled.token, success=pb.EndModelCallRequest.Success(tokens=20, cost_micros=4))
    response = await asked.stub.ListBudgets(pb.ListBudgetsRequest(tenant=PLACE.tenant))
    tenant, course, assignment, other = response.budgets
    assert [one.scope for one in response.budgets] == [
        "",
        "courses/net",
        "courses/net/assignments/a1",
        "courses/other",
    ]
    assert (tenant.token_limit, tenant.tokens_spent, tenant.tokens_reserved) == (1000, 420, 10)
    assert tenant.reset_time.ToJsonString() == "2023-11-15T00:00:00Z"
    assert (course.cost_limit_micros, course.cost_spent_micros, course.cost_reserved_micros) == (
        5_000_000,
        4,
        3,
    )
    assert not assignment.HasField("reset_time")
    assert (other.token_limit, other.tokens_spent) == (7, 0)
    with pytest.raises(grpc.aio.AioRpcError):
        await asked.stub.ListBudgets(pb.ListBudgetsRequest(tenant="A b"))


async def test_spending_is_written_down_and_survives_a_loss_of_redis(asked: Asked) -> None:
    ledger, calls = asked.desk.ledger, asked.desk.calls
    settled = (await asked.begin(tokens=600)).permit
    await asked.end(settled.token, success=pb.EndModelCallRequest.Success(tokens=590))
    assert await calls.checkpoint() == 3
    assert ledger.kept["uni", ""] == Spent("", "2023-11-14", 990, 0)
    assert ledger.kept["uni", "courses/net"].tokens == 590
    assert await calls.checkpoint() == 0
    asked.store.flush()
    denied = (await asked.begin()).denied
    assert (denied.reason, denied.level) == (denied.BUDGET_EXHAUSTED, "tenant")
    budgets = (await asked.stub.ListBudgets(pb.ListBudgetsRequest(tenant="uni"))).budgets
    assert budgets[0].tokens_spent == 990
    assert ledger.asked == 2


async def test_without_its_store_the_service_is_unavailable(asked: Asked) -> None:
    async def away(*_: object) -> None:
        raise ModelCallsUnavailable

    asked.store.begin = away  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(SuiteError) as caught:
        await asked.begin()
    assert not isinstance(caught.value, InvalidRequest)
    assert caught.value.status_code is grpc.StatusCode.UNAVAILABLE
