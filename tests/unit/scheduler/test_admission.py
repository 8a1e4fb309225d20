"""The domain of admission: which store decides, what is counted, and what happens without the shared one."""

from dataclasses import replace

import pytest

from cinnabar_scheduler.adapters.memory_admission import MemoryAdmission
from cinnabar_scheduler.admission import (
    AWAY_SECONDS,
    Admissions,
    AdmissionUnavailable,
    Request,
    Result,
)
from cinnabar_scheduler.policy import Limit, Policy, TenantPolicy
from tests.support.scheduler_admission import Breakable, charge, claim, settlement
from tests.support.scheduler_queue import ManualClock


class World:
    """Admission over a store that can be taken away, under a policy that can be changed."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.shared = Breakable(MemoryAdmission(self.clock))
        self.policy = Policy(
            default_tenant=TenantPolicy(user_limit=Limit(3, 60.0)),
            tenants={"big": TenantPolicy(user_limit=Limit(100, 60.0))},
        )
        self.admissions = Admissions(
            self.shared, MemoryAdmission(self.clock), lambda: self.policy, self.clock
        )

    async def calls(self, count: int, *, tenant: str = "uni", key: str = "") -> list[Result]:
        """Results of equal calls of one user."""
        request = Request(
            tenant=tenant,
            user="ann",
            method="GetSubmission",
            cost=1,
            key=key,
            fingerprint=b"f" if key else b"",
        )
        return [verdict.result for verdict in await self.admissions.admit([request] * count)]


@pytest.fixture
def world() -> World:
    return World()


async def test_each_tenant_has_its_own_limits_and_is_asked_for_once(world: World) -> None:
    requests = [
        Request(tenant=tenant, user="ann", method="Get", cost=1)
        for tenant in ("uni", "big")
        for _ in range(5)
    ]
    requests = requests[::2] + requests[1::2]
    verdicts = await world.admissions.admit(requests)
    passed = [
        one.tenant
        for one, verdict in zip(requests, verdicts, strict=True)
        if verdict.result is Result.ADMITTED
    ]
    assert (passed.count("uni"), passed.count("big"), world.shared.asked) == (3, 5, 2)


async def test_a_changed_policy_holds_with_the_next_call(world: World) -> None:
    assert (await world.calls(4)).count(Result.ADMITTED) == 3
    world.policy = replace(world.policy, default_tenant=TenantPolicy(user_limit=Limit(10, 60.0)))
    assert (await world.calls(10)).count(Result.ADMITTED) == 7


async def test_without_the_shared_store_limits_are_its_own_and_keys_are_not_guarded(world: World) -> None:
    await world.calls(3)
    world.shared.broken = True
    request = Request(tenant="uni", user="ann", method="Get", cost=1, key="k", fingerprint=b"f")
    verdicts = await world.admissions.admit([request] * 4)
    assert [verdict.result for verdict in verdicts] == [Result.ADMITTED] * 3 + [Result.LIMITED]
    assert all(verdict.degraded and not verdict.reservation for verdict in verdicts)
    assert world.admissions.counters.degraded
    assert world.admissions.counters.degraded_total == 4
    assert await world.admissions.settle([settlement("k", "r", b"a")]) == [False]


async def test_while_it_is_away_only_one_call_a_second_asks(world: World) -> None:
    world.shared.broken = True
    await world.calls(1)
    asked = world.shared.asked
    for _ in range(50):
        await world.calls(1)
    assert world.shared.asked == asked
    world.clock.advance(AWAY_SECONDS)
    for _ in range(50):
        await world.calls(1)
    assert world.shared.asked == asked + 1


async def test_the_first_call_that_it_answers_ends_the_outage(world: World) -> None:
    world.shared.broken = True
    await world.calls(1)
    world.shared.broken = False
    world.clock.advance(AWAY_SECONDS)
    verdicts = await world.calls(4)
    assert verdicts.count(Result.ADMITTED) == 3
    assert not world.admissions.counters.degraded


async def test_health_tells_and_finds_the_way_back(world: World) -> None:
    await world.admissions.healthy()
    world.shared.broken = True
    with pytest.raises(AdmissionUnavailable):
        await world.admissions.healthy()
    assert world.admissions.counters.degraded
    world.shared.broken = False
    await world.admissions.healthy()
    assert not world.admissions.counters.degraded


async def test_everything_is_counted(world: World) -> None:
    counters = world.admissions.counters
    request = Request(tenant="uni", user="ann", method="Get", cost=1, key="k", fingerprint=b"f")
    first = (await world.admissions.admit([request]))[0]
    await world.admissions.admit([request, replace(request, fingerprint=b"g")])
    assert await world.admissions.settle([settlement("k", first.reservation, b"a")]) == [True]
    await world.admissions.admit([request])
    await world.calls(3)
    assert (
        counters.admitted,
        counters.in_progress,
        counters.keys_reused,
        counters.replayed,
        counters.limited,
        counters.settled,
        counters.degraded_total,
    ) == (3, 1, 1, 1, 1, 1, 0)


async def test_the_own_store_has_a_bound_and_forgets_what_was_used_longest_ago() -> None:
    clock = ManualClock()
    store = MemoryAdmission(clock, max_entries=100)
    await store.admit(
        "uni", [claim(charge(1, bucket=f"user:{number}"), key=f"k{number}") for number in range(1000)]
    )
    assert len(store) == 200
    [old, new] = await store.admit("uni", [claim(charge(1, bucket=f"user:{number}")) for number in (0, 999)])
    assert (old.result, new.result) == (Result.ADMITTED, Result.LIMITED)
