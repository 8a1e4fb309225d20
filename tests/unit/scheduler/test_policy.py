"""The policy file: defaults, inheritance, and what is refused."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from cinnabar_scheduler.model_policy import Budget, Period, ProviderPolicy, Span, span_at
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
        ("[providers.default]\nfailures = 0", "providers.default.failures must be a whole number from 1"),
        ("[providers.named.x]\nconcurrency = -1", "providers.named.x.concurrency must be"),
        ("[providers.named.x]\nrecovery_seconds = 0", "providers.named.x.recovery_seconds must be"),
        ("[providers.named.x]\nrpm = 1", "providers.named.x.rpm is not a setting"),
        ("[providers.named.'X Y']", "providers.named.X Y is not a name"),
        (
            "[tenants.default]\nbudgets.tenant.period = 'week'",
            "tenants.default.budgets.tenant.period must be one of day, month, none",
        ),
        ("[tenants.default]\nbudgets.tenant.tokens = -1", "tenants.default.budgets.tenant.tokens must be"),
        ("[tenants.default]\nbudgets.course.cost = nan", "tenants.default.budgets.course.cost must be"),
        ("[tenants.default]\nbudgets.student.cost = 1", "tenants.default.budgets.student is not a setting"),
        (
            "[tenants.named.a]\nbudgets.named.net.tokens = 1",
            "tenants.named.a.budgets.named.net is not the name of a course or an assignment",
        ),
    ],
)
def test_what_is_refused(text: str, problem: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text)
    assert any(line.startswith(problem) for line in caught.value.problems), caught.value.problems


def test_providers_and_budgets_inherit_what_they_leave_out() -> None:
    policy = parse_policy(
        """
        [providers.default]
        recovery_seconds = 30
        tokens_per_minute = 90_000
        [providers.named.local]
        concurrency = 2
        [tenants.default]
        budgets.tenant = { tokens = 1_000_000, cost = 12.5 }
        budgets.course.period = "day"
        [tenants.named.acme]
        budgets.tenant.tokens = 7
        budgets.named."courses/net".tokens = 5
        budgets.named."courses/net/assignments/a1" = { cost = 0.000001, period = "none" }
        """
    )
    local = policy.provider("local")
    assert local == ProviderPolicy(concurrency=2, tokens_per_minute=90_000, recovery_seconds=30.0)
    assert policy.provider("other").failures == 5
    acme = policy.tenant("acme").budgets
    assert acme.tenant == Budget(7, 12_500_000, Period.MONTH)
    assert acme.named == {
        "courses/net": Budget(5, 0, Period.DAY),
        "courses/net/assignments/a1": Budget(0, 1, Period.NONE),
    }
    assert policy.tenant("other").budgets.tenant == Budget(1_000_000, 12_500_000, Period.MONTH)


@pytest.mark.parametrize(
    ("period", "moment", "name", "end"),
    [
        (Period.DAY, "2024-02-29T23:59:59.9+00:00", "2024-02-29", "2024-03-01T00:00:00+00:00"),
        (Period.MONTH, "2024-12-01T00:00:00+00:00", "2024-12", "2025-01-01T00:00:00+00:00"),
        (Period.MONTH, "2024-01-31T12:00:00+00:00", "2024-01", "2024-02-01T00:00:00+00:00"),
        (Period.NONE, "2024-01-31T12:00:00+00:00", "always", None),
    ],
)
def test_periods_end_by_utc(period: Period, moment: str, name: str, end: str | None) -> None:
    span = span_at(period, datetime.fromisoformat(moment).timestamp())
    assert span == Span(name, None if end is None else int(datetime.fromisoformat(end).timestamp() * 1000))


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
