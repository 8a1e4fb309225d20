"""What a shard in memory keeps, and what all of its parts do with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from cinnabar_common.clock import Clock, SystemClock
from cinnabar_storage.records import (
    Doubt,
    Grade,
    GradeKind,
    Lsn,
    Micros,
    NewRevision,
    NewSubmission,
    OpenTask,
    QueueControl,
    RevisionKey,
    Task,
    TaskKey,
)
from cinnabar_storage.trail.audit import AuditRow


class Fenced(NamedTuple):
    """A task that has no grade, the fence of its last write, and what it has of its own.

    Empty or None is "as its submission".
    """

    task: Task
    fence: int
    deadline_lifted: bool = False
    priority: int | None = None
    revision_id: str = ""
    upgrade: bool = False

    def open_task(self, row: NewSubmission) -> OpenTask:
        """As the queue takes it; ``row`` is its submission."""
        return OpenTask(
            *(row.submission_id, self.task.item_id, row.tenant, self.task.queue, self.task.generation),
            row.priority if self.priority is None else self.priority,
            *(self.revision_id or row.revision_id, row.answers, row.create_time),
            *(row.grade_after, None if self.deadline_lifted else row.grade_by),
            upgrade=self.upgrade,
        )


@dataclass(slots=True)
class Upgradable:
    """A grade that a fallback made; ``due`` is a unix time, ``revision_id`` as in Fenced."""

    tenant: str
    generation: int
    queue: str
    revision_id: str
    due: float
    opened: int = 0


@dataclass(slots=True)
class Course:
    """One assignment: when it was created, and which revision is current."""

    create_time: Micros
    revision_id: str


@dataclass(slots=True)
class MemoryTables:
    """The tables of a shard."""

    clock: Clock = field(default_factory=SystemClock)
    _writes: list[None] = field(default_factory=list[None])
    _submissions: dict[str, NewSubmission] = field(default_factory=dict[str, NewSubmission])
    _requests: dict[tuple[str, str, str], str] = field(default_factory=dict[tuple[str, str, str], str])
    _tasks: dict[TaskKey, Fenced] = field(default_factory=dict[TaskKey, Fenced])
    _grades: dict[tuple[str, str, int], Grade] = field(default_factory=dict[tuple[str, str, int], Grade])
    _assignments: dict[tuple[str, str, str], Course] = field(
        default_factory=dict[tuple[str, str, str], Course]
    )
    _upgrades: dict[TaskKey, Upgradable] = field(default_factory=dict[TaskKey, Upgradable])
    _controls: dict[str, QueueControl] = field(default_factory=dict[str, QueueControl])
    _revisions: dict[RevisionKey, tuple[NewRevision, Micros]] = field(
        default_factory=dict[RevisionKey, tuple[NewRevision, Micros]]
    )

    _audit: list[AuditRow] = field(default_factory=list[AuditRow])
    _doubts: dict[tuple[str, str, int], Doubt] = field(default_factory=dict[tuple[str, str, int], Doubt])
    # The generation that waits, and since when.
    _waiting: dict[TaskKey, tuple[int, Micros]] = field(default_factory=dict[TaskKey, tuple[int, Micros]])

    def _now(self) -> Micros:
        return Micros(int(self.clock.time() * 1_000_000))

    def _written(self) -> Lsn:
        self._writes.append(None)
        return Lsn(len(self._writes))

    def _owner(self, submission_id: str) -> str | None:
        row = self._submissions.get(submission_id)
        return None if row is None else row.tenant

    def _counts(self, grade: Grade) -> None:
        """A grade was written that is no shadow: its item waits for a person, or does not any more."""
        key = TaskKey(grade.submission_id, grade.item_id)
        newer = any(
            known[:2] == key and known[2] > grade.generation and one.kind != GradeKind.SHADOW
            for known, one in self._grades.items()
        )
        if (*key, grade.generation) not in self._doubts:
            if self._waiting.get(key, (grade.generation, 0))[0] < grade.generation:
                del self._waiting[key]
        elif not newer:
            self._waiting[key] = (grade.generation, self._now())

    def _audited(self, tenant: str, actor: str, action: str, task: Task, *, detail: str = "") -> None:
        """A row of the audit; each is a transaction of its own."""
        number = len(self._audit) + 1
        row = (task.submission_id, task.item_id, task.generation, detail)
        self._audit.append(AuditRow(number, number, self._now(), tenant, actor, action, *row))
