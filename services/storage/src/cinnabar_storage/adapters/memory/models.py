"""Budgets of models and upgrades in memory, held to the same contract as those on Postgres."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cinnabar_common.clock import Clock
from cinnabar_storage.adapters.memory.regrades import Audited, Grades
from cinnabar_storage.adapters.memory.tables import Fenced, Upgradable
from cinnabar_storage.records import (
    Graded,
    GradeKind,
    Lsn,
    Micros,
    NewSubmission,
    OpenTask,
    Task,
    TaskKey,
    TaskState,
)
from cinnabar_storage.spending.ports import UPGRADES_AT_MOST, ModelBudget, Upgraded

ACTOR = "scheduler"


@dataclass(slots=True)
class MemoryModels:
    """Implements model_ports.ModelShard beside the rows of a MemoryShard; each step is atomic."""

    clock: Clock
    submissions: dict[str, NewSubmission]
    tasks: dict[TaskKey, Fenced]
    grades: Grades
    upgrades: dict[TaskKey, Upgradable]
    written: Callable[[], Lsn]
    audited: Audited
    _budgets: dict[tuple[str, str], ModelBudget] = field(default_factory=dict[tuple[str, str], ModelBudget])

    def graded(self, outcome: Graded, closed: Fenced) -> None:
        """A grade that counts was committed; ``closed`` is the task that it closes."""
        key = TaskKey(outcome.submission_id, outcome.item_id)
        known = self.upgrades.get(key)
        if known is not None and known.generation >= outcome.generation:
            return
        if not outcome.upgradable:
            self.upgrades.pop(key, None)
        else:
            queue, opened = closed.task.queue, known.opened if known else 0
            due = known.due if known else self.clock.time()
            self.upgrades[key] = Upgradable(
                outcome.tenant, outcome.generation, queue, closed.revision_id, due, opened
            )

    async def save_budgets(self, budgets: Sequence[ModelBudget]) -> None:
        for given in budgets:
            key = (given.tenant, given.scope)
            known = self._budgets.get(key, given)
            if known.period == given.period:
                given = given._replace(
                    tokens=max(known.tokens, given.tokens),
                    cost_micros=max(known.cost_micros, given.cost_micros),
                )
            self._budgets[key] = given

    async def budgets(self, tenant: str) -> list[ModelBudget]:
        return sorted(budget for budget in self._budgets.values() if budget.tenant == tenant)

    async def open_upgrades(self, limit: int, rest_seconds: float) -> Upgraded:
        now = self.clock.time()
        due = sorted(
            (one.due, key)
            for key, one in self.upgrades.items()
            if one.opened < UPGRADES_AT_MOST and one.due <= now
        )[:limit]
        opened: list[tuple[str, OpenTask]] = []
        for _, key in due:
            one = self.upgrades[key]
            own = [grade for grade in self.grades.values() if grade[:2] == key]
            counting = max((g.generation for g in own if g.kind is not GradeKind.SHADOW), default=0)
            if counting != one.generation:
                del self.upgrades[key]
                continue
            one.due = now + rest_seconds
            fenced = self.tasks.get(key)
            if fenced is not None and fenced.task.state is TaskState.OPEN:
                continue
            one.opened += 1
            last = max([grade.generation for grade in own] + ([fenced.task.generation] if fenced else []))
            opened.append((one.tenant, self._open(key, one, last + 1)))
        changed = sorted({(tenant, task.submission_id) for tenant, task in opened})
        lsn = self.written() if changed else Lsn(0)
        return Upgraded([task for _, task in opened], changed, len(due), lsn)

    def _open(self, key: TaskKey, one: Upgradable, generation: int) -> OpenTask:
        now = Micros(int(self.clock.time() * 1_000_000))
        task = Task(*key, one.queue, generation, TaskState.OPEN, "", 0, now)
        fenced = Fenced(task, 0, True, 1, one.revision_id, upgrade=True)
        self.tasks[key] = fenced
        self.audited(one.tenant, ACTOR, "upgrade", task)
        return fenced.open_task(self.submissions[key.submission_id])
