"""Grades by people, the history and the audit, of a shard in memory. Nothing seals its audit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

from cinnabar_common.errors import EtagMismatch, ResourceNotFound
from cinnabar_storage.adapters.memory.uploads import MemoryUploads
from cinnabar_storage.etags import etag_from
from cinnabar_storage.ports import MAX_PAGE_BYTES
from cinnabar_storage.records import Grade, GradeKind, Lsn, Task, TaskKey, TaskState
from cinnabar_storage.reviewing.records import (
    Grading,
    GradingQuery,
    Gradings,
    Overridden,
    Override,
    audit_detail,
)
from cinnabar_storage.trail.audit import ORIGIN, AuditEvent, AuditQuery, SealLink, SealPage


@dataclass(slots=True)
class MemoryReviews(MemoryUploads):
    """The part of ports.Shard and ports.Copy that is about reviews."""

    async def override_grade(self, override: Override) -> tuple[Overridden, Lsn]:
        return self._override(override), self._written()

    def _override(self, override: Override) -> Overridden:
        tenant, submission_id = override.key
        if self._owner(submission_id) != tenant:
            raise ResourceNotFound(submission_id)
        key = TaskKey(submission_id, override.item_id)
        fenced = self._tasks.get(key)
        counting = self._counting(submission_id)
        current = counting.get(override.item_id)
        if fenced is None and current is None:
            raise ResourceNotFound(f"{submission_id}/{override.item_id}")
        waits = fenced is not None and not fenced.task.shadow
        if current is not None and not waits and _repeats(override, current):
            return Overridden(current.generation, applied=False)
        if override.etag not in ("", self._etag(submission_id)):
            raise EtagMismatch(submission_id)
        newest = max((known[2] for known in self._grades if known[:2] == key), default=0)
        task = Task(*key, "", newest + 1, TaskState.OPEN, "", 0, self._now())
        if fenced is not None:
            closed = self._tasks.pop(key).task
            task = closed if closed.generation > newest else task
        self._grades[*key, task.generation] = Grade(
            key.submission_id,
            key.item_id,
            task.generation,
            override.score,
            override.grade,
            self._now(),
            GradeKind.OVERRIDDEN,
            revision_id=override.revision_id,
            actor=override.actor,
            reason=override.reason,
        )
        self._waiting.pop(key, None)
        detail = audit_detail(None if current is None else current.score, override.score, override.reason)
        self._audited(tenant, override.actor, "override", task, detail=detail)
        return Overridden(task.generation, applied=True)

    def _etag(self, submission_id: str) -> str:
        counting = self._counting(submission_id)
        tasks = [
            (task.item_id, task.generation, task.state)
            for task in (fenced.task for fenced in self._tasks.values())
            if task.submission_id == submission_id and not task.shadow and _is_ahead(task, counting)
        ]
        return etag_from(tasks, [(grade.item_id, grade.generation) for grade in counting.values()])

    def _counting(self, submission_id: str) -> dict[str, Grade]:
        """The grade that counts of each item."""
        grades = sorted(
            (grade for grade in self._grades.values() if grade.submission_id == submission_id),
            key=lambda grade: grade.generation,
        )
        return {grade.item_id: grade for grade in grades if grade.kind != GradeKind.SHADOW}

    async def gradings(self, query: GradingQuery) -> Gradings:
        tenant, submission_id = query.key
        if self._owner(submission_id) != tenant:
            return Gradings([], more=False)
        counting = self._counting(submission_id)
        after = (query.after_item_id, query.after_generation)
        found = sorted(
            (
                Grading(grade, counting.get(grade.item_id) is grade)
                for grade in self._grades.values()
                if grade.submission_id == submission_id
                and (query.shadows or grade.kind != GradeKind.SHADOW)
                and (grade.item_id, grade.generation) > after
            ),
            key=lambda grading: (grading.grade.item_id, grading.grade.generation),
        )
        sizes = accumulate(len(grading.grade.grade) for grading in found[: query.limit])
        fitting = max(sum(size <= MAX_PAGE_BYTES for size in sizes), min(1, len(found)))
        return Gradings(found[:fitting], more=fitting < len(found))

    async def audit_events(self, query: AuditQuery) -> list[AuditEvent]:
        place = (query.at, query.audit_id)
        return [
            AuditEvent(
                row.at, row.audit_id, row.actor, row.action, row.item_id, row.generation, row.detail, False
            )
            for row in self._audit
            if (row.tenant, row.submission_id) == query.key
            and ((row.at, row.audit_id) > place or (not query.exclusive and (row.at, row.audit_id) == place))
        ][: query.limit]

    async def check_seals(self, after: SealLink) -> SealPage:
        unsealed = sum(row.position > after.last for row in self._audit)
        return SealPage([], more=False, unsealed=unsealed, followed=ORIGIN)


def _is_ahead(task: Task, counting: Mapping[str, Grade]) -> bool:
    """Whether the task is of a later generation than the grade that counts."""
    grade = counting.get(task.item_id)
    return grade is None or task.generation > grade.generation


def _repeats(override: Override, current: Grade) -> bool:
    return current.kind == GradeKind.OVERRIDDEN and (
        current.score,
        current.grade,
        current.actor,
        current.reason,
    ) == (override.score, override.grade, override.actor, override.reason)
