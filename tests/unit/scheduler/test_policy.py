"""The policy file: defaults, inheritance, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from cinnabar_scheduler.policy import (
    Limit,
    Policy,
    PolicyError,
    QueuePolicy,
    RetryRule,
    backoff_ms,
    parse_policy,
)


def test_nothing_said_is_the_default() -> None:
    assert parse_policy("") == Policy()
    assert Policy().tenant("any").method_limits["CreateSubmission"] == Limit(100, 60.0)


def test_the_shipped_policy_is_the_default() -> None:
    shipped = Path(__file__).parents[3] / "deploy/policy.toml"
    assert parse_policy(shipped.read_text("utf-8")) == Policy()


def test_a_named_tenant_inherits_what_it_leaves_out() -> None:
    policy = parse_policy(
        """
        [tenants.default]
        weight = 2
        limits.user = { units = 10, seconds = 1 }
        [tenants.named.acme]
        max_concurrency = 5
        limits.method.GetSubmission = { units = 7, seconds = 2.5 }
        """
    )
    acme = policy.tenant("acme")
    assert (acme.weight, acme.max_concurrency, acme.user_limit) == (2, 5, Limit(10, 1.0))
    assert acme.method_limits["GetSubmission"] == Limit(7, 2.5)
    assert acme.method_limits["CreateSubmission"] == Limit(100, 60.0)
    assert policy.tenant("other").max_concurrency is None


def test_zero_units_lift_a_limit() -> None:
    policy = parse_policy("[tenants.named.acme]\nlimits.method.CreateSubmission.units = 0")
    assert "CreateSubmission" not in policy.tenant("acme").method_limits
    assert "CreateSubmission" in policy.tenant("other").method_limits


def test_a_named_queue_inherits_what_it_leaves_out() -> None:
    policy = parse_policy(
        """
        [queues.default]
        max_faults = 3
        retry.failed = { attempts = 2, base_seconds = 0.5, cap_seconds = 4 }
        [queues.named.code]
        partitions = 4
        retry.failed.attempts = 9
        """
    )
    assert policy.queue("code") == QueuePolicy(partitions=4, max_faults=3, failed=RetryRule(9, 0.5, 4.0))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[", "not TOML"),
        ("tenants = 1", "tenants must be a table"),
        ("[tenant]", "tenant is not a setting"),
        ("[tenants.default]\nwieght = 1", "tenants.default.wieght is not a setting"),
        ("[tenants.default]\nweight = 0", "tenants.default.weight must be a whole number from 1 to 1000"),
        ("[tenants.default]\nweight = true", "tenants.default.weight must be"),
        ("[tenants.named.'A B']", "tenants.named.A B is not a name"),
        ("[tenants.named.a]\nlimits.user.units = -1", "tenants.named.a.limits.user.units must be"),
        ("[tenants.named.a]\nlimits.user.seconds = 0", "tenants.named.a.limits.user.seconds must be"),
        (
            "[queues.named.a]\npartitions = 65",
            "queues.named.a.partitions must be a whole number from 1 to 64",
        ),
        ("[queues.default]\nretry.failed.base_seconds = nan", "queues.default.retry.failed.base_seconds"),
        (
            "[queues.default]\nretry.failed = { base_seconds = 2, cap_seconds = 1 }",
            "queues.default.retry.failed.cap_seconds must be at least base_seconds",
        ),
    ],
)
def test_what_is_refused(text: str, problem: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text)
    assert any(line.startswith(problem) for line in caught.value.problems), caught.value.problems


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy("[tenants.default]\nweight = 0\nmax_concurrency = -1\n[queues.default]\nmax_faults = 0")
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize(("attempt", "most"), [(1, 1000), (2, 2000), (3, 4000), (4, 5000), (50, 5000)])
def test_backoff_doubles_up_to_its_cap_with_full_jitter(attempt: int, most: int) -> None:
    rule = RetryRule(60, 1.0, 5.0)
    assert backoff_ms(rule, attempt, 0.0) == 0
    assert backoff_ms(rule, attempt, 0.5) == most // 2
    assert most - 1 <= backoff_ms(rule, attempt, 0.9999999) <= most


def test_callers_without_a_credential_have_a_limit_of_their_own() -> None:
    assert Policy().anonymous_limit == Limit(600, 60.0)
    assert parse_policy("anonymous.limit = { units = 5, seconds = 1 }").anonymous_limit == Limit(5, 1.0)
    assert parse_policy("anonymous.limit.units = 0").anonymous_limit is None
    with pytest.raises(PolicyError) as raised:
        parse_policy("[anonymous]\nlimits = 3")
    assert raised.value.problems == ["anonymous.limits is not a setting"]
