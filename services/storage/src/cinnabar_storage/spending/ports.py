"""What models of language need of a shard: what was spent on them, and grades that fallbacks made.

Every method may raise what those of ``ports`` may.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from cinnabar_storage.records import Lsn, OpenTask

UPGRADES_AT_MOST = 3
"""Of one item."""
UPGRADE_REST_SECONDS = 600.0
"""Before an item is looked at again whose upgrade was opened, or that was being graded."""


class ModelBudget(NamedTuple):
    """What was spent on a budget in a period; the scope of the tenant's is empty."""

    tenant: str
    scope: str
    period: str
    tokens: int
    cost_micros: int


class Upgraded(NamedTuple):
    """What one round opened: tasks for the queue, as many as there was room for, and who has changed.

    ``changed`` are (tenant, submission); ``looked`` at so many grades.
    """

    tasks: list[OpenTask]
    changed: list[tuple[str, str]]
    looked: int
    lsn: Lsn


class ModelShard(Protocol):
    """Budgets, of which only those of one shard are used; and the upgradable grades of each."""

    async def save_budgets(self, budgets: Sequence[ModelBudget]) -> None:
        """Replaces those of other periods; within a period an amount never falls. Each key stands once."""
        ...

    async def budgets(self, tenant: str) -> list[ModelBudget]:
        """Those of a tenant, by scope, as the primary has them."""
        ...

    async def open_upgrades(self, limit: int, rest_seconds: float) -> Upgraded:
        """Looks at up to ``limit`` upgradable grades whose time has come, of all tenants.

        One that does not count any more is forgotten. Where the item is not being
        graded, a task is opened in the next generation, in the class REGRADE and
        without a deadline, by the revision and for the queue of that grade. Each is
        looked at again after ``rest_seconds``, until ``UPGRADES_AT_MOST`` were opened.
        """
        ...
