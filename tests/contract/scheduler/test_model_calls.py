"""What every store of model calls promises: one breaker, one purse, one call for all who ask the same."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

import pytest
import pytest_asyncio

from cinnabar_scheduler.model_calls import (
    Answer,
    BreakerState,
    BudgetsUnknown,
    DenialReason,
    Denied,
    Ending,
    How,
    Permit,
    Place,
    Shared,
    Spent,
    Wait,
    WaitReason,
)
from cinnabar_scheduler.model_policy import Budget, Budgets, Period, ProviderPolicy
from tests.support.scheduler_models import FAILURE, PLACE, SUCCESS, ModelHarness, memory_models, redis_models
from tests.support.valkey_cluster import ValkeyCluster

MINUTE_US = 60_000_000
CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


@pytest_asyncio.fixture(params=["memory", "redis", "cluster"])
async def models(
    request: pytest.FixtureRequest, valkey_url: str, valkey_cluster_url: str, valkey_cluster: ValkeyCluster
) -> AsyncGenerator[ModelHarness]:
    """A store of each kind."""
    if request.param == "memory":
        yield await memory_models()
    elif request.param == "redis":
        async with redis_models(valkey_url) as harness:
            yield harness
    else:
        async with redis_models(valkey_cluster_url, valkey_cluster.flush) as harness:
            yield harness


def permits(answers: Sequence[Answer]) -> list[Permit]:
    return [answer for answer in answers if isinstance(answer, Permit)]


def used(tokens: int, cost_micros: int = 0) -> Ending:
    return Ending(How.SUCCESS, tokens, cost_micros)


def tenant_budget(tokens: int = 0, cost_micros: int = 0, period: Period = Period.NONE) -> Budgets:
    return Budgets(tenant=Budget(tokens, cost_micros, period))


async def test_five_failures_in_a_row_of_anybody_deny_all_others(models: ModelHarness) -> None:
    begun = [await models.permit() for _ in range(5)]
    states = [await models.end(permit, FAILURE) for permit in begun]
    assert states == [CLOSED] * 4 + [OPEN]
    assert await models.other.begin(models.call()) == Denied(DenialReason.BREAKER_OPEN, MINUTE_US)
    models.clock.advance(59.0)
    assert await models.begin(place=Place("other", "c", "a")) == Denied(DenialReason.BREAKER_OPEN, 1_000_000)
    assert isinstance(await models.begin(provider="local"), Permit)


@pytest.mark.parametrize("answered", [SUCCESS, Ending(How.USELESS)])
async def test_an_answer_starts_the_count_again(models: ModelHarness, answered: Ending) -> None:
    await models.fail(4)
    await models.end(await models.permit(), answered)
    assert await models.fail(4) is CLOSED
    assert await models.fail(1) is OPEN


async def test_what_is_neither_answer_nor_failure_leaves_the_count(models: ModelHarness) -> None:
    await models.fail(4)
    await models.end(await models.permit(), Ending(How.THROTTLED))
    await models.end(await models.permit(), Ending(How.NOT_MADE))
    assert await models.fail(1) is OPEN


async def test_of_many_at_once_one_is_the_probe_and_its_success_closes(models: ModelHarness) -> None:
    await models.fail()
    models.clock.advance(60.0)
    calls = [models.call(place=replace(PLACE, assignment=f"a{n}")) for n in range(50)]
    stores = (models.store, models.other)
    answers = await asyncio.gather(*(stores[n % 2].begin(call) for n, call in enumerate(calls)))
    (probe,) = permits(answers)
    assert probe.probe
    assert answers.count(Denied(DenialReason.BREAKER_OPEN, 1_000_000)) == 49
    assert (await models.store.providers())[0].breaker is HALF_OPEN
    assert await models.end(probe) is CLOSED
    assert not (await models.permit()).probe
    assert await models.fail(4) is CLOSED


async def test_a_probe_that_fails_opens_for_the_whole_time_again(models: ModelHarness) -> None:
    await models.fail()
    models.clock.advance(70.0)
    assert await models.end(await models.permit(), FAILURE) is OPEN
    assert await models.begin() == Denied(DenialReason.BREAKER_OPEN, MINUTE_US)


@pytest.mark.parametrize("how", [How.USELESS, How.THROTTLED])
async def test_a_probe_that_was_answered_closes(models: ModelHarness, how: How) -> None:
    await models.fail()
    models.clock.advance(60.0)
    assert await models.end(await models.permit(), Ending(how)) is CLOSED


async def test_a_probe_that_nobody_ends_makes_room_for_the_next(models: ModelHarness) -> None:
    await models.fail()
    models.clock.advance(60.0)
    lost = await models.permit(timeout=10.0)
    models.clock.advance(14.9)
    assert isinstance(await models.begin(), Denied)
    models.clock.advance(0.2)
    probe = await models.permit()
    assert probe.probe
    assert await models.end(lost) is HALF_OPEN  # too late to decide
    assert await models.end(probe, Ending(How.NOT_MADE)) is OPEN
    assert (await models.permit()).probe


async def test_calls_from_before_the_breaker_opened_change_nothing(models: ModelHarness) -> None:
    before = [await models.permit() for _ in range(3)]
    await models.fail()
    models.clock.advance(10.0)
    assert await models.end(before[0]) is OPEN
    assert await models.end(before[1], FAILURE) is OPEN
    assert await models.begin() == Denied(DenialReason.BREAKER_OPEN, MINUTE_US - 10_000_000)
    models.clock.advance(50.0)
    probe = await models.permit()
    assert await models.end(before[2]) is HALF_OPEN
    assert await models.end(probe) is CLOSED


async def test_failures_and_recovery_are_those_of_the_policy(models: ModelHarness) -> None:
    policy = ProviderPolicy(failures=2, recovery_seconds=5.0)
    assert await models.fail(2, policy) is OPEN
    models.clock.advance(5.0)
    assert (await models.permit(policy=policy)).probe


async def test_of_a_hundred_at_once_only_as_many_as_the_budget_pays_for(models: ModelHarness) -> None:
    budgets = tenant_budget(1000)
    calls = [
        models.call(budgets=budgets, tokens=90, place=replace(PLACE, course=f"c{n}")) for n in range(100)
    ]
    stores = (models.store, models.other)
    answers = await asyncio.gather(*(stores[n % 2].begin(call) for n, call in enumerate(calls)))
    granted = permits(answers)
    assert len(granted) == 11
    refused = [answer for answer in answers if isinstance(answer, Denied)]
    assert {(one.reason, one.level) for one in refused} == {(DenialReason.BUDGET_EXHAUSTED, "tenant")}
    for permit in granted:
        await models.end(permit, used(20))
    usage = {one.spent.scope: one for one in await models.store.usage(PLACE.tenant)}
    assert usage[""].spent.tokens == 220
    assert usage[""].tokens_reserved == 0
    assert len(permits([await models.begin(budgets=budgets, tokens=780)])) == 1


@pytest.mark.parametrize(
    ("budgets", "level"),
    [
        (Budgets(tenant=Budget(150), course=Budget(120), assignment=Budget(120)), "tenant"),
        (Budgets(course=Budget(0, 15), assignment=Budget(150)), "course"),
        (Budgets(assignment=Budget(150)), "assignment"),
        (Budgets(named={"courses/net/assignments/a1": Budget(150)}), "assignment"),
    ],
)
async def test_the_widest_level_without_a_budget_is_named(
    models: ModelHarness, budgets: Budgets, level: str
) -> None:
    await models.permit(budgets=budgets, cost_micros=10)
    denied = await models.begin(budgets=budgets, cost_micros=10)
    assert isinstance(denied, Denied)
    assert (denied.reason, denied.level) == (DenialReason.BUDGET_EXHAUSTED, level)


async def test_budgets_of_others_are_theirs(models: ModelHarness) -> None:
    budgets = Budgets(assignment=Budget(100))
    await models.permit(budgets=budgets)
    await models.permit(budgets=budgets, place=Place("uni", "net", "a2"))
    await models.store.restore("city", [])
    await models.permit(budgets=budgets, place=Place("city", "net", "a1"))


async def test_a_budget_is_whole_again_in_the_next_period(models: ModelHarness) -> None:
    budgets = tenant_budget(100, period=Period.DAY)
    await models.end(await models.permit(budgets=budgets), used(100))
    denied = await models.begin(budgets=budgets)
    assert isinstance(denied, Denied)
    assert denied.retry_us is not None
    models.clock.advance(denied.retry_us / 1e6 - 1)
    assert isinstance(await models.begin(budgets=budgets), Denied)
    models.clock.advance(1)
    assert isinstance(await models.begin(budgets=budgets), Permit)


async def test_nobody_knows_when_a_budget_without_a_period_is_whole_again(models: ModelHarness) -> None:
    budgets = tenant_budget(100)
    reserved = await models.permit(budgets=budgets)
    assert await models.begin(budgets=budgets) == Denied(DenialReason.BUDGET_EXHAUSTED, 1_000_000, "tenant")
    await models.end(reserved, used(100))
    assert await models.begin(budgets=budgets) == Denied(DenialReason.BUDGET_EXHAUSTED, None, "tenant")


@pytest.mark.parametrize(
    ("ending", "charged"),
    [
        (Ending(How.SUCCESS, 70, 7), 70),
        (Ending(How.USELESS, 120, 12), 120),  # more than was reserved is charged too
        (Ending(How.FAILURE, 70, 7), 0),
        (Ending(How.THROTTLED, 70, 7), 0),
        (Ending(How.NOT_MADE, 70, 7), 0),
    ],
)
async def test_what_was_used_takes_the_place_of_what_was_reserved(
    models: ModelHarness, ending: Ending, charged: int
) -> None:
    permit = await models.permit(tokens=100, cost_micros=10)
    before = await models.store.usage(PLACE.tenant)
    assert [(one.tokens_reserved, one.cost_reserved) for one in before] == [(100, 10)] * 3
    for _ in range(2):  # the second time it changes nothing
        await models.end(permit, ending)
        after = await models.store.usage(PLACE.tenant)
        assert [one.spent.tokens for one in after] == [charged] * 3
        assert [one.spent.cost_micros for one in after] == [charged // 10] * 3
        assert [(one.tokens_reserved, one.cost_reserved) for one in after] == [(0, 0)] * 3
        assert (await models.store.providers())[0].calls == 0


async def test_what_nobody_ends_is_released_after_its_time(models: ModelHarness) -> None:
    policy = ProviderPolicy(concurrency=1)
    budgets = tenant_budget(100)
    lost = await models.permit(policy=policy, budgets=budgets, share="k", timeout=10.0)
    assert lost.expires_ms == models.clock.now_ms + 15_000
    models.clock.advance(15.0)
    await models.permit(policy=policy, budgets=budgets, share="k")
    await models.end(lost, used(100))
    assert (await models.store.usage(PLACE.tenant))[0].spent.tokens == 0
    assert (await models.store.providers())[0].calls == 1


async def test_of_fifty_who_ask_the_same_one_calls_and_all_others_get_its_answer(
    models: ModelHarness,
) -> None:
    stores = (models.store, models.other)
    answers = await asyncio.gather(*(stores[n % 2].begin(models.call(share="k")) for n in range(50)))
    (permit,) = permits(answers)
    assert answers.count(Wait(WaitReason.IN_FLIGHT, 250_000)) == 49
    assert isinstance(await models.begin(share="other"), Permit)
    await models.end(permit, Ending(How.SUCCESS, 10, 0, b"\x00full\xff"))
    again = await asyncio.gather(*(stores[n % 2].begin(models.call(share="k")) for n in range(49)))
    assert again == [Shared(b"\x00full\xff")] * 49
    await models.store.restore("city", [])
    assert isinstance(await models.begin(share="k", place=Place("city", "net", "a1")), Permit)


@pytest.mark.parametrize("how", [How.FAILURE, How.USELESS, How.THROTTLED, How.NOT_MADE, How.SUCCESS])
async def test_without_an_answer_to_share_the_next_one_calls(models: ModelHarness, how: How) -> None:
    await models.end(await models.permit(share="k"), Ending(how))
    assert isinstance(await models.begin(share="k"), Permit)


async def test_an_answer_is_shared_for_a_day_whatever_the_breaker_and_budgets_say(
    models: ModelHarness,
) -> None:
    await models.end(await models.permit(share="k"), Ending(How.SUCCESS, 100, 0, b"r"))
    await models.fail()
    models.clock.advance(86_399.0)
    assert await models.begin(share="k", budgets=tenant_budget(1)) == Shared(b"r")
    models.clock.advance(1.0)
    assert isinstance(await models.begin(share="k"), Permit)


async def test_the_oldest_answers_make_room(models: ModelHarness) -> None:
    for number in range(4):
        permit = await models.permit(share=f"k{number}")
        await models.end(permit, Ending(How.SUCCESS, 1, 0, bytes(300)))
        models.clock.advance(1.0)
    assert isinstance(await models.begin(share="k0"), Permit)
    for number in (1, 2, 3):
        assert isinstance(await models.begin(share=f"k{number}"), Shared)


async def test_places_requests_and_tokens_of_a_minute(models: ModelHarness) -> None:
    places = ProviderPolicy(concurrency=2)
    first = await models.permit(policy=places)
    await models.permit(policy=places)
    assert await models.begin(policy=places) == Wait(WaitReason.CONCURRENCY, 250_000)
    await models.end(first)
    await models.permit(policy=places)

    requests = ProviderPolicy(requests_per_minute=3)
    for _ in range(3):
        await models.permit(policy=requests, provider="slow")
    assert await models.begin(policy=requests, provider="slow") == Wait(WaitReason.RATE, 20_000_000)
    models.clock.advance(20.0)
    await models.permit(policy=requests, provider="slow")

    tokens = ProviderPolicy(tokens_per_minute=600)
    large = await models.permit(policy=tokens, provider="thin", tokens=600)
    assert await models.begin(policy=tokens, provider="thin", tokens=100) == Wait(WaitReason.RATE, 10_000_000)
    await models.end(large, used(200))  # what was not used is there again
    await models.permit(policy=tokens, provider="thin", tokens=400)
    models.clock.advance(60.0)
    await models.permit(policy=tokens, provider="thin", tokens=9000)  # more than a minute has, alone


async def test_a_provider_that_asks_for_patience_is_left_alone(models: ModelHarness) -> None:
    await models.end(await models.permit(), Ending(How.THROTTLED, retry_us=7_000_000))
    assert await models.begin() == Wait(WaitReason.RATE, 7_000_000)
    models.clock.advance(7.0)
    assert isinstance(await models.begin(), Permit)


async def test_who_is_not_let_through_reserves_nothing(models: ModelHarness) -> None:
    policy = ProviderPolicy(concurrency=1, requests_per_minute=100, tokens_per_minute=1000)
    await models.permit(policy=policy)
    for _ in range(3):
        assert isinstance(await models.begin(policy=policy), Wait)
    assert [one.tokens_reserved for one in await models.store.usage(PLACE.tenant)] == [100] * 3
    assert (await models.store.providers())[0].calls == 1


async def test_changes_are_kept_until_they_are_written_down(models: ModelHarness) -> None:
    budgets = tenant_budget(1000)
    await models.end(await models.permit(budgets=budgets), used(30, 3))
    changes = await models.store.changes(10)
    scopes = {"", "courses/net", "courses/net/assignments/a1"}
    assert {change.spent.scope for change in changes} == scopes
    assert {(change.tenant, change.spent.tokens, change.spent.cost_micros) for change in changes} == {
        ("uni", 30, 3)
    }
    await models.end(await models.permit(budgets=budgets, place=Place("uni", "net", "a2")), used(5))
    await models.store.kept(changes)
    left = {change.spent.scope: change for change in await models.store.changes(10)}
    assert left.keys() == {"", "courses/net", "courses/net/assignments/a2"}
    assert left[""].spent == Spent("", "always", 35, 3)
    await models.store.kept(list(left.values()))
    assert await models.store.changes(10) == []


async def test_after_a_loss_nothing_is_spent_before_it_is_known_what_was(models: ModelHarness) -> None:
    budgets = tenant_budget(100)
    before = await models.permit(budgets=budgets)
    await models.flush()
    with pytest.raises(BudgetsUnknown):
        await models.begin(budgets=budgets)
    with pytest.raises(BudgetsUnknown):
        await models.store.usage(PLACE.tenant)
    await models.store.restore(PLACE.tenant, [Spent("", "always", 80, 0), Spent("courses/x", "always", 1, 0)])
    await models.store.restore(PLACE.tenant, [Spent("", "always", 10, 0)])  # it is known by now
    assert isinstance(await models.begin(budgets=budgets), Denied)
    await models.end(before, used(50))  # of this nothing is known any more
    assert isinstance(await models.begin(budgets=budgets, tokens=20), Permit)


async def test_unknown_permits_are_ignored(models: ModelHarness) -> None:
    assert await models.store.end("cloud.nobody", FAILURE, ProviderPolicy()) is CLOSED
    assert await models.store.end("nonsense", FAILURE, ProviderPolicy()) is CLOSED
    await models.fail()
    assert await models.store.end("cloud.nobody", SUCCESS, ProviderPolicy()) is OPEN


async def test_providers_say_how_they_are(models: ModelHarness) -> None:
    await models.fail()
    await models.permit(provider="local")
    cloud, local = await models.store.providers()
    assert (cloud.provider, cloud.breaker, cloud.failures, cloud.calls) == ("cloud", OPEN, 5, 0)
    assert cloud.retry_ms == models.clock.now_ms + 60_000
    assert (local.provider, local.breaker, local.failures, local.retry_ms, local.calls) == (
        *("local", CLOSED, 0),
        *(None, 1),
    )
