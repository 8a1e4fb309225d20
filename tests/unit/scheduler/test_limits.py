"""Which limits apply, and the arithmetic of one."""

import math

import pytest

from cinnabar_scheduler.limits import Charge, Usage, charges_of, nearest, state_of, usage_at, wait_us
from cinnabar_scheduler.policy import Limit, Policy, TenantPolicy, parse_policy

MINUTE = 60_000_000


def test_a_call_has_a_limit_at_each_level_from_the_widest_to_the_narrowest() -> None:
    assert charges_of(Policy(), "uni", "ann", "CreateSubmission") == (
        Charge("tenant", "tenant", Limit(600_000, 60.0)),
        Charge("user", "user:ann", Limit(600_000, 60.0)),
        Charge("user-method", "method:ann:CreateSubmission", Limit(100, 60.0)),
    )
    assert [charge.level for charge in charges_of(Policy(), "uni", "ann", "GetSubmission")] == [
        "tenant",
        "user",
    ]


def test_a_tenant_of_its_own_policy() -> None:
    policy = parse_policy(
        """
        [tenants.named.free]
        limits.tenant.units = 0
        limits.user.units = 0
        limits.method.CreateSubmission.units = 0
        """
    )
    assert charges_of(policy, "free", "ann", "CreateSubmission") == ()
    assert len(charges_of(policy, "uni", "ann", "CreateSubmission")) == 3


def test_callers_without_a_credential_have_the_limit_of_their_address() -> None:
    assert charges_of(Policy(), "", "10.0.0.1", "") == (
        Charge("address", "address:10.0.0.1", Limit(600, 60.0)),
    )
    assert charges_of(parse_policy("anonymous.limit.units = 0"), "", "10.0.0.1", "") == ()
    assert (
        charges_of(Policy(default_tenant=TenantPolicy()), "", "::1", "CreateSubmission")[0].level == "address"
    )


def test_what_was_used_comes_back_with_time() -> None:
    usage = Usage(50.0, 1_000_000)
    assert usage_at(usage, 1_000_000 + MINUTE // 10, 100, MINUTE) == Usage(40.0, 1_000_000 + MINUTE // 10)
    assert usage_at(usage, 10 * MINUTE, 100, MINUTE).used == 0.0
    assert usage_at(usage, 0, 100, MINUTE) == usage


@pytest.mark.parametrize(
    ("used", "cost", "wait"),
    [
        (0.0, 100, 0),
        (0.0, 101, MINUTE),
        (100.0, 0, 0),
        (100.0, 1, MINUTE // 100),
        (99.0, 1, 0),
        (99.5, 1, MINUTE // 200),
        (99.0000001, 1, 0),
    ],
)
def test_the_wait_until_a_cost_fits(used: float, cost: int, wait: int) -> None:
    assert wait_us(used, cost, 100, MINUTE) == wait


def test_what_a_caller_sees() -> None:
    state = state_of(Charge("user", "user:ann", Limit(100, 60.0)), 30.5)
    assert (state.remaining, state.reset_us, state.period_us) == (69, math.ceil(30.5 * MINUTE / 100), MINUTE)


def test_the_nearest_is_what_holds_longest_else_what_has_least_left() -> None:
    assert nearest([0, 0, 0], [5, 3, 4]) == 1
    assert nearest([0, 0, 0], [3, 3, 4]) == 1
    assert nearest([1, 7, 0], [0, 0, 0]) == 1
