"""What every store of admissions promises: keys, limits, and nothing charged for what is refused."""

from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio

from cinnabar_scheduler.admission import Result, Verdict
from cinnabar_scheduler.limits import LimitState
from tests.support.scheduler_admission import (
    RESERVATION_SECONDS,
    AdmissionHarness,
    charge,
    claim,
    memory_admission,
    redis_admission,
    settlement,
)
from tests.support.valkey_cluster import ValkeyCluster

MINUTE_US = 60_000_000
DAY_SECONDS = 86_400.0


@pytest_asyncio.fixture(params=["memory", "redis", "cluster"])
async def admission(
    request: pytest.FixtureRequest, valkey_url: str, valkey_cluster_url: str, valkey_cluster: ValkeyCluster
) -> AsyncGenerator[AdmissionHarness]:
    """A store of each kind."""
    if request.param == "memory":
        yield memory_admission()
    elif request.param == "redis":
        async with redis_admission(valkey_url) as harness:
            yield harness
    else:
        async with redis_admission(valkey_cluster_url, valkey_cluster.flush) as harness:
            yield harness


def results(verdicts: list[Verdict]) -> list[Result]:
    return [verdict.result for verdict in verdicts]


async def passed(admission: AdmissionHarness, count: int, *charges: object) -> int:
    """How many of ``count`` calls pass."""
    verdicts = await admission.admit(*(claim(*charges) for _ in range(count)))  # pyright: ignore[reportArgumentType]
    return results(verdicts).count(Result.ADMITTED)


async def test_all_units_may_be_used_at_once_and_come_back_one_by_one(admission: AdmissionHarness) -> None:
    limit = charge(100)
    assert await passed(admission, 150, limit) == 100
    refused = await admission.one(claim(limit))
    assert (refused.result, refused.retry_after_us) == (Result.LIMITED, 600_000)
    assert refused.limit == LimitState("user", 100, 0, MINUTE_US, MINUTE_US)
    admission.clock.advance(0.6)
    assert await passed(admission, 2, limit) == 1
    admission.clock.advance(6.0)
    assert await passed(admission, 20, limit) == 10


async def test_no_window_lets_twice_the_limit_through_at_its_edge(admission: AdmissionHarness) -> None:
    limit = charge(100)
    admission.clock.advance(59.9)  # a fixed window that began at 0 ends in a moment
    assert await passed(admission, 200, limit) == 100
    admission.clock.advance(0.2)
    assert await passed(admission, 200, limit) == 0


async def test_after_idling_exactly_the_units_are_there_and_no_more(admission: AdmissionHarness) -> None:
    limit = charge(100)
    await passed(admission, 100, limit)
    admission.clock.advance(60.0)
    assert await passed(admission, 300, limit) == 100
    admission.clock.advance(86_400.0)
    assert await passed(admission, 300, limit) == 100


async def test_a_cost_is_charged_in_full_or_not_at_all(admission: AdmissionHarness) -> None:
    limit = charge(1000)
    first = await admission.one(claim(limit, cost=600))
    assert (first.result, first.limit and first.limit.remaining) == (Result.ADMITTED, 400)
    second = await admission.one(claim(limit, cost=500))
    assert (second.result, second.retry_after_us) == (Result.LIMITED, 6_000_000)
    third = await admission.one(claim(limit, cost=400))
    assert (third.result, third.limit and third.limit.remaining) == (Result.ADMITTED, 0)


async def test_a_cost_above_the_limit_never_fits(admission: AdmissionHarness) -> None:
    verdict = await admission.one(claim(charge(100), cost=101))
    assert (verdict.result, verdict.retry_after_us) == (Result.LIMITED, MINUTE_US)
    assert await passed(admission, 101, charge(100)) == 100


async def test_a_cost_of_nothing_passes_a_limit_that_is_used_up(admission: AdmissionHarness) -> None:
    await passed(admission, 100, charge(100))
    verdict = await admission.one(claim(charge(100), cost=0))
    assert (verdict.result, verdict.limit and verdict.limit.remaining) == (Result.ADMITTED, 0)


async def test_what_one_level_refuses_is_charged_at_no_level(admission: AdmissionHarness) -> None:
    tenant, user = charge(10, level="tenant"), charge(3, level="user")
    assert await passed(admission, 9, tenant, user) == 3
    other = charge(10, level="user", bucket="user:bob")
    assert await passed(admission, 9, tenant, other) == 7
    refused = await admission.one(claim(tenant, other))
    assert refused.limit is not None
    assert (refused.result, refused.limit.level) == (Result.LIMITED, "tenant")


async def test_the_limit_that_is_told_is_the_one_nearest_to_its_end(admission: AdmissionHarness) -> None:
    levels = charge(50, level="tenant"), charge(1000, level="user"), charge(100, level="user-method")
    first = await admission.one(claim(*levels))
    assert first.limit == LimitState("tenant", 50, 49, 1_200_000, MINUTE_US)
    last = await admission.one(claim(*levels[1:], cost=2))
    assert last.limit == LimitState("user-method", 100, 97, 1_800_000, MINUTE_US)
    refused = await admission.one(claim(charge(10, bucket="a"), charge(2, level="slow", bucket="b"), cost=11))
    assert refused.limit is not None
    assert refused.limit.level == "slow"


async def test_tenants_users_and_methods_do_not_share(admission: AdmissionHarness) -> None:
    assert await passed(admission, 5, charge(5)) == 5
    assert (await admission.one(claim(charge(5), tenant="other"), tenant="other")).result is Result.ADMITTED
    assert await passed(admission, 9, charge(5, bucket="user:bob")) == 5


async def test_another_process_sees_what_was_used(admission: AdmissionHarness) -> None:
    await passed(admission, 5, charge(5))
    assert results(await admission.other.admit("uni", [claim(charge(5))])) == [Result.LIMITED]


async def test_a_raised_limit_holds_at_once_and_keeps_what_was_used(admission: AdmissionHarness) -> None:
    assert await passed(admission, 10, charge(5)) == 5
    assert await passed(admission, 200, charge(100)) == 95
    assert await passed(admission, 1, charge(5)) == 0
    admission.clock.advance(12.0)  # a lowered limit gives its own units back at its own pace
    assert await passed(admission, 5, charge(5)) == 1


async def test_no_limits_let_everything_through(admission: AdmissionHarness) -> None:
    verdict = await admission.one(claim(cost=10**9))
    assert (verdict.result, verdict.limit) == (Result.ADMITTED, None)


async def test_a_key_is_reserved_then_answered(admission: AdmissionHarness) -> None:
    first = await admission.one(claim(key="k"))
    assert first.result is Result.ADMITTED
    assert first.reservation
    again = await admission.one(claim(key="k"))
    assert (again.result, again.reservation) == (Result.IN_PROGRESS, "")
    assert 0 < again.retry_after_us <= 1_000_000
    assert await admission.store.settle("uni", [settlement("k", first.reservation, b"\x00answer\xff")]) == [
        True
    ]
    replay = (await admission.other.admit("uni", [claim(key="k")]))[0]
    assert (replay.result, replay.answer, replay.reservation) == (Result.REPLAY, b"\x00answer\xff", "")


async def test_of_many_with_one_key_in_a_call_one_is_admitted(admission: AdmissionHarness) -> None:
    verdicts = await admission.admit(*(claim(key="k") for _ in range(50)))
    assert results(verdicts) == [Result.ADMITTED] + [Result.IN_PROGRESS] * 49


async def test_a_key_with_another_content_is_refused_before_and_after_the_answer(
    admission: AdmissionHarness,
) -> None:
    first = await admission.one(claim(key="k"))
    assert (await admission.one(claim(key="k", fingerprint=b"g"))).result is Result.KEY_REUSED
    await admission.store.settle("uni", [settlement("k", first.reservation, b"a")])
    assert (await admission.one(claim(key="k", fingerprint=b"g"))).result is Result.KEY_REUSED


async def test_a_key_is_of_its_user_and_tenant(admission: AdmissionHarness) -> None:
    await admission.one(claim(key="k"))
    assert (await admission.one(claim(key="k", user="bob"))).result is Result.ADMITTED
    assert (await admission.one(claim(key="k", tenant="b"), tenant="b")).result is Result.ADMITTED


async def test_an_answer_is_kept_for_a_day(admission: AdmissionHarness) -> None:
    first = await admission.one(claim(key="k"))
    await admission.store.settle("uni", [settlement("k", first.reservation, b"a")])
    admission.clock.advance(DAY_SECONDS - 1)
    assert (await admission.one(claim(key="k"))).result is Result.REPLAY
    admission.clock.advance(1.0)
    assert (await admission.one(claim(key="k"))).result is Result.ADMITTED


async def test_a_reservation_that_nobody_settles_runs_out(admission: AdmissionHarness) -> None:
    dead = await admission.one(claim(key="k"))
    admission.clock.advance(RESERVATION_SECONDS - 0.001)
    last = await admission.one(claim(key="k"))
    assert (last.result, last.retry_after_us) == (Result.IN_PROGRESS, 1_000)
    admission.clock.advance(0.001)
    heir = await admission.one(claim(key="k"))
    assert heir.result is Result.ADMITTED
    assert await admission.store.settle("uni", [settlement("k", dead.reservation, b"late")]) == [False]
    assert (await admission.one(claim(key="k"))).result is Result.IN_PROGRESS
    assert await admission.store.settle("uni", [settlement("k", heir.reservation, b"a")]) == [True]


async def test_settling_needs_the_reservation_that_stands(admission: AdmissionHarness) -> None:
    first = await admission.one(claim(key="k"))
    ends = [
        settlement("k", "forged", b"a"),
        settlement("unknown", first.reservation, b"a"),
        settlement("k", first.reservation, b"a", user="bob"),
    ]
    assert await admission.store.settle("uni", ends) == [False] * 3
    assert (await admission.one(claim(key="k"))).result is Result.IN_PROGRESS
    admission.clock.advance(RESERVATION_SECONDS)
    assert await admission.store.settle("uni", [settlement("k", first.reservation, b"a")]) == [False]
    assert (await admission.one(claim(key="k"))).result is Result.ADMITTED


async def test_an_answer_stands_whatever_is_settled_after_it(admission: AdmissionHarness) -> None:
    first = await admission.one(claim(key="k"))
    await admission.store.settle("uni", [settlement("k", first.reservation, b"a")])
    assert await admission.store.settle("uni", [settlement("k", first.reservation, None)]) == [False]
    assert await admission.store.settle("uni", [settlement("k", "", b"b")]) == [False]
    assert (await admission.one(claim(key="k"))).answer == b"a"


async def test_a_released_key_is_free(admission: AdmissionHarness) -> None:
    first = await admission.one(claim(key="k"))
    assert await admission.store.settle("uni", [settlement("k", first.reservation, None)]) == [True]
    assert (await admission.one(claim(key="k", fingerprint=b"other"))).result is Result.ADMITTED


async def test_only_what_is_admitted_is_charged_and_only_what_is_charged_is_reserved(
    admission: AdmissionHarness,
) -> None:
    limit = charge(2)
    first = await admission.one(claim(limit, key="a"))
    for fingerprint in (b"f", b"g"):  # in progress, reused
        await admission.one(claim(limit, key="a", fingerprint=fingerprint))
    await admission.store.settle("uni", [settlement("a", first.reservation, b"x")])
    replay = await admission.one(claim(limit, key="a"))
    assert (replay.result, replay.limit and replay.limit.remaining) == (Result.REPLAY, 1)
    assert (await admission.one(claim(limit, key="b", cost=2))).result is Result.LIMITED
    assert (await admission.one(claim(limit, key="b"))).result is Result.ADMITTED


async def test_nothing_is_left_after_a_loss_of_data(admission: AdmissionHarness) -> None:
    first = await admission.one(claim(charge(1), key="k"))
    await admission.flush()
    assert await admission.store.settle("uni", [settlement("k", first.reservation, b"a")]) == [False]
    assert (await admission.one(claim(charge(1), key="k"))).result is Result.ADMITTED


async def test_more_than_one_script_takes_are_decided_in_order(admission: AdmissionHarness) -> None:
    limit = charge(2500)
    verdicts = await admission.admit(*(claim(limit, key=f"k{number}") for number in range(3000)))
    assert results(verdicts) == [Result.ADMITTED] * 2500 + [Result.LIMITED] * 500
    ends = [settlement(f"k{number}", verdicts[number].reservation, b"a") for number in range(2500)]
    assert await admission.store.settle("uni", ends) == [True] * 2500


async def test_a_clock_that_goes_back_gives_nothing_and_takes_nothing(admission: AdmissionHarness) -> None:
    await passed(admission, 60, charge(100))
    admission.clock.advance(-30.0)
    assert await passed(admission, 100, charge(100)) == 40
    admission.clock.advance(30.0)
    assert await passed(admission, 1, charge(100)) == 0
