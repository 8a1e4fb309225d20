"""What tenants have spent on language models, and the grades that wait for these to come back."""

from __future__ import annotations

from collections.abc import Sequence

from cinnabar_storage.cached.invalidation import submission_key
from cinnabar_storage.ports import MAX_PAGE_BYTES
from cinnabar_storage.records import OpenTask, Position
from cinnabar_storage.shards.sharding import Shards
from cinnabar_storage.spending.ports import UPGRADE_REST_SECONDS, ModelBudget

_HOME = 0
"""The shard that keeps the budgets, as it keeps what operators want of queues."""


class ModelBudgets:
    """What all tenants have spent."""

    def __init__(self, shards: Shards) -> None:
        self._shard = shards[_HOME]

    async def save(self, budgets: Sequence[ModelBudget]) -> None:
        """See ModelShard; of budgets that stand twice the last. Raises DependencyUnavailable, Overloaded."""
        await self._shard.models.save_budgets(
            list({(budget.tenant, budget.scope): budget for budget in budgets}.values())
        )

    async def of(self, tenant: str) -> list[ModelBudget]:
        """Those of a tenant, by scope. Raises DependencyUnavailable, Overloaded."""
        return await self._shard.models.budgets(tenant)


class Upgrades:
    """Opens tasks for what fallbacks graded."""

    def __init__(self, shards: Shards, *, rest_seconds: float = UPGRADE_REST_SECONDS) -> None:
        self._shards = shards
        self._rest_seconds = rest_seconds

    async def open(self, limit: int) -> tuple[list[OpenTask], list[Position], bool]:
        """One round: what was opened, where to read it, and whether there may be more at once.

        Shards that cannot be reached are left out. Raises DependencyUnavailable
        when none can be reached, Overloaded.
        """
        rounds, _ = await self._shards.scatter_partly(
            lambda _, shard: shard.models.open_upgrades(limit, self._rest_seconds)
        )
        opened: list[OpenTask] = []
        positions: list[Position] = []
        room = MAX_PAGE_BYTES
        for index, done in rounds.items():
            if not done.changed:
                continue
            position = self._shards.position(index, done.lsn)
            positions.append(position)
            self._shards.invalidations.changed([submission_key(*key) for key in done.changed], position)
            for task in done.tasks:
                if len(task.answers) <= room or not opened:
                    room -= len(task.answers)
                    opened.append(task)
        return opened, positions, any(done.looked >= limit for done in rounds.values())
