"""Language models as operators see them: from the scheduler's service to the command line."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from cinnabar_client import ApiError, Client
from cinnabar_common.channels import channel
from cinnabar_gateway.adapters.model_client import ModelClient
from cinnabar_scheduler.adapters.memory_model_calls import MemoryModelCalls
from cinnabar_scheduler.model_calls import Ending, How, Permit
from cinnabar_scheduler.model_policy import Budget, Budgets, Period
from cinnabar_scheduler.policy import Policy, TenantPolicy
from tests.support.client_cli import run
from tests.support.gateway_world import world
from tests.support.scheduler_models import PLACE, ModelDesk, desk
from tests.support.scheduler_queue import ManualClock

OPERATOR = "dev.uni.operator.olga"
POLICY = Policy(
    tenants={
        "uni": TenantPolicy(budgets=Budgets(Budget(9000, 2_500_000, Period.DAY), assignment=Budget(700)))
    }
)


@dataclass(frozen=True, slots=True)
class Served:
    """A gateway before a scheduler's service of model calls."""

    address: str
    desk: ModelDesk

    async def spend(self, how: How, tokens: int = 0, cost_micros: int = 0) -> None:
        answer = await self.desk.calls.begin(
            PLACE, "cloud", tokens=100, cost_micros=cost_micros, share_key=b"", timeout_seconds=30
        )
        assert isinstance(answer, Permit)
        await self.desk.calls.end(answer.token, Ending(how, tokens, cost_micros))


@pytest_asyncio.fixture
async def served() -> AsyncGenerator[Served]:
    clock = ManualClock()
    async with (
        desk(MemoryModelCalls(clock), clock, POLICY) as models,
        channel(models.address) as connection,
        world(models=ModelClient(connection)) as gateway,
    ):
        yield Served(f"127.0.0.1:{gateway.gateway.port}", models)


async def test_operators_see_breakers_and_the_budgets_of_their_tenant(served: Served) -> None:
    await served.spend(How.SUCCESS, 80, 1_500_000)
    for _ in range(5):
        await served.spend(How.FAILURE)
    async with Client(served.address, token=OPERATOR) as client:
        given = await client.model_providers()
    [provider] = given.providers
    assert (provider.provider, provider.breaker, provider.failures) == ("cloud", provider.OPEN, 5)
    assert provider.retry_time.ToMilliseconds() == 1_700_000_060_000
    assert [(one.scope, one.token_limit, one.tokens_used) for one in given.budgets] == [
        ("", 9000, 80),
        ("courses/net", 0, 80),
        ("courses/net/assignments/a1", 700, 80),
    ]
    assert given.budgets[0].reset_time.ToJsonString() == "2023-11-15T00:00:00Z"
    shown = await run(served.address, "ops", "models", token=OPERATOR)
    words = " ".join(shown.out.split())
    assert (shown.code, "cloud OPEN 5 2023-11-14 22:14:20Z 0" in words) == (0, True), words
    assert "tenant 80 9000 1.500000 2.50 2023-11-15 00:00:00Z" in words, words
    document = (await run(served.address, "ops", "models", "--json", token=OPERATOR)).document
    assert document["providers"][0]["breaker"] == "OPEN"
    assert document["budgets"][2]["tokenLimit"] == "700"


async def test_other_tenants_see_their_own_budgets(served: Served) -> None:
    await served.spend(How.SUCCESS, 80)
    async with Client(served.address, token="dev.city.operator.otto") as client:
        given = await client.model_providers()
    assert [(one.scope, one.tokens_used) for one in given.budgets] == [("", 0)]


@pytest.mark.parametrize("role", ["student", "instructor"])
async def test_only_operators_see_them(served: Served, role: str) -> None:
    async with Client(served.address, token=f"dev.uni.{role}.ann") as client:
        with pytest.raises(ApiError) as caught:
            await client.model_providers()
    assert caught.value.reason == "ROLE_FORBIDDEN"
