"""What operators decide about tenants and queues: data, changed without a restart.

The text form is TOML; every key may be left out, unknown ones are refused::

    [tenants.default]              # for tenants that are not named
    weight = 1                     # 1 to 1000: share of the graders, next to other tenants
    max_concurrency = 0            # tasks of the tenant under lease per queue; 0: no cap
    limits.tenant = { units = 600_000, seconds = 60 }
    limits.user = { units = 600_000, seconds = 60 }
    limits.method.CreateSubmission = { units = 100, seconds = 60 }
    # Of language models, for all of the tenant, each of its courses, each assignment; 0: without a limit.
    budgets.tenant = { tokens = 0, cost = 0.0, period = "month" }    # or "day", or "none"
    budgets.course = { tokens = 0, cost = 0.0, period = "month" }
    budgets.assignment = { tokens = 0, cost = 0.0, period = "none" }
    budgets.named."courses/net" = { tokens = 0, cost = 0.0, period = "month" }

    [tenants.named.acme]           # what is left out is that of the default
    weight = 10

    [anonymous]                    # callers without a credential, per address
    limit = { units = 600, seconds = 60 }

    [queues.default]
    partitions = 1                 # read at the start of a scheduler only
    max_faults = 6                 # leases lost to the system before a task is given up
    retry.failed = { attempts = 4, base_seconds = 1, cap_seconds = 60 }
    retry.unavailable = { attempts = 20, base_seconds = 2, cap_seconds = 120 }

    [queues.named.free-text]
    retry.failed.attempts = 8

    [providers.default]            # of language models; 0: without a limit
    concurrency = 0                # calls at once, of all graders together
    requests_per_minute = 0
    tokens_per_minute = 0
    failures = 5                   # in a row: the breaker opens
    recovery_seconds = 60

    [providers.named.local]
    concurrency = 2

A limit of 0 units is none. Limits of methods are per user. Costs are in the currency of the prices that
graders are told.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from cinnabar_common.names import AssignmentName, CourseName, is_id
from cinnabar_scheduler.model_policy import MICROS, Budget, Budgets, Period, ProviderPolicy

MAX_WEIGHT = 1000
MAX_PARTITIONS = 64
MAX_UNITS = 10**9
MAX_TOKENS = 10**12
DAY_SECONDS = 86_400.0


_PERIODS = tuple(period.value for period in Period)


class PolicyError(ValueError):
    """The policy is not one; ``problems`` has a line for each broken rule, with the path of its key."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Limit:
    """``units`` per ``seconds``, all of which may be used at once (the burst is the limit)."""

    units: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantPolicy:
    """What one tenant may do; None is no limit and no cap."""

    weight: int = 1
    max_concurrency: int | None = None
    tenant_limit: Limit | None = Limit(600_000, 60.0)
    user_limit: Limit | None = Limit(600_000, 60.0)
    # 100 a minute for single submits is the default that users of the API are told.
    method_limits: Mapping[str, Limit] = field(
        default_factory=lambda: {
            "CreateSubmission": Limit(100, 60.0),
            "SubmitGrading": Limit(100, 60.0),
        }
    )
    budgets: Budgets = field(default_factory=Budgets)


@dataclass(frozen=True, slots=True)
class RetryRule:
    """``attempts`` in all; the wait after the n-th is uniform in [0, min(cap, base * 2^(n-1))) seconds."""

    attempts: int
    base_seconds: float
    cap_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePolicy:
    """How a queue is laid out and how its tasks are tried again; each class of failure is counted apart."""

    partitions: int = 1
    max_faults: int = 6
    failed: RetryRule = RetryRule(4, 1.0, 60.0)
    unavailable: RetryRule = RetryRule(20, 2.0, 120.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """All of it."""

    default_tenant: TenantPolicy = TenantPolicy()
    tenants: Mapping[str, TenantPolicy] = field(default_factory=dict[str, TenantPolicy])
    # Of each address that calls without a credential; all it can get are refusals and the public description.
    anonymous_limit: Limit | None = Limit(600, 60.0)
    default_queue: QueuePolicy = QueuePolicy()
    queues: Mapping[str, QueuePolicy] = field(default_factory=dict[str, QueuePolicy])
    default_provider: ProviderPolicy = field(default_factory=ProviderPolicy)
    providers: Mapping[str, ProviderPolicy] = field(default_factory=dict[str, ProviderPolicy])

    def tenant(self, name: str) -> TenantPolicy:
        """That of a tenant."""
        return self.tenants.get(name, self.default_tenant)

    def queue(self, name: str) -> QueuePolicy:
        """That of a queue."""
        return self.queues.get(name, self.default_queue)

    def provider(self, name: str) -> ProviderPolicy:
        """That of a provider of language models."""
        return self.providers.get(name, self.default_provider)


def parse_policy(text: str) -> Policy:
    """The policy in a TOML text. Raises PolicyError with everything that is wrong."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PolicyError([f"not TOML: {error}"]) from error
    reader = _Reader()
    root = reader.table(document, "", {"tenants", "queues", "anonymous", "providers"})
    anonymous = reader.table(root.get("anonymous", {}), "anonymous", {"limit"})
    tenants = reader.table(root.get("tenants", {}), "tenants", {"default", "named"})
    queues = reader.table(root.get("queues", {}), "queues", {"default", "named"})
    providers = reader.table(root.get("providers", {}), "providers", {"default", "named"})
    default_tenant = reader.tenant(tenants.get("default", {}), "tenants.default", TenantPolicy())
    default_queue = reader.queue(queues.get("default", {}), "queues.default", QueuePolicy())
    default_provider = reader.provider(providers.get("default", {}), "providers.default", ProviderPolicy())
    policy = Policy(
        default_tenant=default_tenant,
        tenants={
            name: reader.tenant(value, f"tenants.named.{name}", default_tenant)
            for name, value in reader.named(tenants.get("named", {}), "tenants.named").items()
        },
        anonymous_limit=reader.limit(anonymous.get("limit"), "anonymous.limit", Policy().anonymous_limit),
        default_queue=default_queue,
        queues={
            name: reader.queue(value, f"queues.named.{name}", default_queue)
            for name, value in reader.named(queues.get("named", {}), "queues.named").items()
        },
        default_provider=default_provider,
        providers={
            name: reader.provider(value, f"providers.named.{name}", default_provider)
            for name, value in reader.named(providers.get("named", {}), "providers.named").items()
        },
    )
    if reader.problems:
        raise PolicyError(reader.problems)
    return policy


class _Reader:
    """Reads tables over defaults; remembers every broken rule."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def table(self, value: object, path: str, keys: set[str] | None) -> dict[str, Any]:
        if not isinstance(value, dict):
            self.problems.append(f"{path} must be a table")
            return {}
        found = cast("dict[str, Any]", value)
        if keys is not None:
            prefix = f"{path}." if path else ""
            self.problems += [f"{prefix}{key} is not a setting" for key in found if key not in keys]
        return found

    def named(self, value: object, path: str) -> dict[str, Any]:
        found = self.table(value, path, None)
        self.problems += [f"{path}.{name} is not a name" for name in found if not is_id(name)]
        return found

    def tenant(self, value: object, path: str, default: TenantPolicy) -> TenantPolicy:
        found = self.table(value, path, {"weight", "max_concurrency", "limits", "budgets"})
        limits = self.table(found.get("limits", {}), f"{path}.limits", {"tenant", "user", "method"})
        methods = self.table(limits.get("method", {}), f"{path}.limits.method", None)
        own = {
            method: self.limit(limit, f"{path}.limits.method.{method}", default.method_limits.get(method))
            for method, limit in methods.items()
        }
        merged = {**default.method_limits, **own}
        cap = self.whole(found, "max_concurrency", path, default.max_concurrency or 0, 0, MAX_UNITS)
        return TenantPolicy(
            weight=self.whole(found, "weight", path, default.weight, 1, MAX_WEIGHT),
            max_concurrency=cap or None,
            tenant_limit=self.limit(limits.get("tenant"), f"{path}.limits.tenant", default.tenant_limit),
            user_limit=self.limit(limits.get("user"), f"{path}.limits.user", default.user_limit),
            method_limits={method: limit for method, limit in merged.items() if limit is not None},
            budgets=self.budgets(found.get("budgets", {}), f"{path}.budgets", default.budgets),
        )

    def budgets(self, value: object, path: str, default: Budgets) -> Budgets:
        found = self.table(value, path, {"tenant", "course", "assignment", "named"})
        own = self.table(found.get("named", {}), f"{path}.named", None)
        self.problems += [
            f"{path}.named.{name} is not the name of a course or an assignment"
            for name in own
            if AssignmentName.parse(name) is None and CourseName.parse(name) is None
        ]
        course = self.budget(found.get("course", {}), f"{path}.course", default.course)
        assignment = self.budget(found.get("assignment", {}), f"{path}.assignment", default.assignment)
        named = {
            name: self.budget(
                budget,
                f"{path}.named.{name}",
                default.named.get(name, assignment if "/assignments/" in name else course),
            )
            for name, budget in own.items()
        }
        tenant = self.budget(found.get("tenant", {}), f"{path}.tenant", default.tenant)
        return Budgets(tenant, course, assignment, {**default.named, **named})

    def budget(self, value: object, path: str, default: Budget) -> Budget:
        found = self.table(value, path, {"tokens", "cost", "period"})
        cost = found.get("cost", default.cost_micros / MICROS)
        if type(cost) not in (int, float) or not 0 <= cost <= MAX_UNITS:
            self.problems.append(f"{path}.cost must be a number from 0 to {MAX_UNITS}")
            cost = 0
        period = found.get("period", default.period.value)
        if period not in _PERIODS:
            self.problems.append(f"{path}.period must be one of {', '.join(_PERIODS)}")
            period = default.period.value
        return Budget(
            self.whole(found, "tokens", path, default.tokens, 0, MAX_TOKENS),
            round(cost * MICROS),
            Period(period),
        )

    def provider(self, value: object, path: str, default: ProviderPolicy) -> ProviderPolicy:
        bounds = {"concurrency": 0, "requests_per_minute": 0, "tokens_per_minute": 0, "failures": 1}
        found = self.table(value, path, {*bounds, "recovery_seconds"})
        numbers = {
            key: self.whole(found, key, path, cast("int", getattr(default, key)), least, MAX_UNITS)
            for key, least in bounds.items()
        }
        recovery = self.seconds(found, "recovery_seconds", path, default.recovery_seconds)
        return ProviderPolicy(**numbers, recovery_seconds=recovery)

    def queue(self, value: object, path: str, default: QueuePolicy) -> QueuePolicy:
        found = self.table(value, path, {"partitions", "max_faults", "retry"})
        retry = self.table(found.get("retry", {}), f"{path}.retry", {"failed", "unavailable"})
        return QueuePolicy(
            partitions=self.whole(found, "partitions", path, default.partitions, 1, MAX_PARTITIONS),
            max_faults=self.whole(found, "max_faults", path, default.max_faults, 1, 1000),
            failed=self.rule(retry.get("failed", {}), f"{path}.retry.failed", default.failed),
            unavailable=self.rule(
                retry.get("unavailable", {}), f"{path}.retry.unavailable", default.unavailable
            ),
        )

    def rule(self, value: object, path: str, default: RetryRule) -> RetryRule:
        found = self.table(value, path, {"attempts", "base_seconds", "cap_seconds"})
        base = self.seconds(found, "base_seconds", path, default.base_seconds)
        cap = self.seconds(found, "cap_seconds", path, max(default.cap_seconds, base))
        if cap < base:
            self.problems.append(f"{path}.cap_seconds must be at least base_seconds")
        return RetryRule(self.whole(found, "attempts", path, default.attempts, 1, 1000), base, cap)

    def limit(self, value: object, path: str, default: Limit | None) -> Limit | None:
        if value is None:
            return default
        found = self.table(value, path, {"units", "seconds"})
        units = self.whole(found, "units", path, default.units if default else 0, 0, MAX_UNITS)
        seconds = self.seconds(found, "seconds", path, default.seconds if default else 60.0)
        return Limit(units, seconds) if units else None

    def whole(
        self, table: Mapping[str, object], key: str, path: str, default: int, least: int, most: int
    ) -> int:
        value = table.get(key, default)
        if type(value) is not int or not least <= value <= most:
            self.problems.append(f"{path}.{key} must be a whole number from {least} to {most}")
            return default
        return value

    def seconds(self, table: Mapping[str, object], key: str, path: str, default: float) -> float:
        value = table.get(key, default)
        if type(value) not in (int, float) or not 0 < cast("float", value) <= DAY_SECONDS:
            self.problems.append(f"{path}.{key} must be a number of seconds, more than 0 and at most a day")
            return default
        return float(cast("float", value))


def backoff_ms(rule: RetryRule, attempt: int, jitter: float) -> int:
    """Wait after the ``attempt``-th failure, in ms: exponential with full jitter in [0, 1)."""
    return math.floor(1000 * jitter * min(rule.cap_seconds, rule.base_seconds * 2 ** (attempt - 1)))
