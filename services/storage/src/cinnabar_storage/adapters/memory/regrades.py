"""Regrades of a shard in memory, held to the same contract as those on Postgres."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cinnabar_common.clock import Clock
from cinnabar_common.errors import EtagMismatch, ResourceNotFound, StateForbids
from cinnabar_storage.adapters.memory.tables import Fenced
from cinnabar_storage.etags import etag_from
from cinnabar_storage.records import (
    Grade,
    GradeKind,
    Lsn,
    Micros,
    NewSubmission,
    OpenTask,
    Task,
    TaskKey,
    TaskState,
)
from cinnabar_storage.regrading.candidates import choose, last_fitting
from cinnabar_storage.regrading.records import (
    CancelledTask,
    Candidate,
    Comparison,
    Plans,
    Regrade,
    RegradeKey,
    RegradeQuery,
    Reopened,
    Reopening,
    Step,
    Tally,
    Wanted,
)


class Audited(Protocol):
    """Adds a row to the audit."""

    def __call__(self, tenant: str, actor: str, action: str, task: Task, *, detail: str = "") -> None: ...


Grades = dict[tuple[str, str, int], Grade]


@dataclass(slots=True)
class _Part:
    phase: Wanted
    done: bool = False
    after: str = ""
    tally: Tally = field(default_factory=Tally)


@dataclass(slots=True)
class MemoryRegrades:
    """Implements ports.RegradeShard beside the rows of a MemoryShard. No step awaits, so each is atomic."""

    clock: Clock
    submissions: dict[str, NewSubmission]
    tasks: dict[TaskKey, Fenced]
    grades: Grades
    written: Callable[[], Lsn]
    audited: Audited
    promoted: Callable[[Grade, Grade], None]
    _regrades: dict[RegradeKey, Regrade] = field(default_factory=dict[RegradeKey, Regrade])
    _claims: dict[RegradeKey, float] = field(default_factory=dict[RegradeKey, float])
    _parts: dict[RegradeKey, _Part] = field(default_factory=dict[RegradeKey, _Part])

    def _now(self) -> Micros:
        return Micros(int(self.clock.time() * 1_000_000))

    def _claim(self, key: RegradeKey, seconds: float) -> None:
        self._claims[key] = self.clock.time() + seconds

    async def create(self, regrade: Regrade, claim_seconds: float) -> tuple[Regrade, Lsn]:
        key = _key(regrade)
        if key not in self._regrades:
            self._regrades[key] = regrade._replace(create_time=self._now())
            self._claim(key, claim_seconds)
        return self._regrades[key], self.written()

    async def get(self, key: RegradeKey) -> Regrade | None:
        return self._regrades.get(key)

    async def list(self, query: RegradeQuery) -> list[Regrade]:
        found = [
            regrade
            for regrade in self._regrades.values()
            if (regrade.tenant, regrade.course, regrade.assignment) == query[:3]
            and (not query.before or regrade.regrade_id < query.before)
        ]
        return sorted(found, key=lambda regrade: regrade.regrade_id, reverse=True)[: query.limit]

    async def decide(
        self, key: RegradeKey, wanted: Wanted, actor: str, claim_seconds: float
    ) -> tuple[Regrade | None, Lsn]:
        regrade = self._regrades.get(key)
        if regrade is not None and regrade.wanted is Wanted.OPEN:
            self._regrades[key] = regrade._replace(wanted=wanted, decided_by=actor, busy=True)
            self._claim(key, claim_seconds)
        return self._regrades.get(key), self.written()

    async def claim(self, limit: int, claim_seconds: float) -> list[RegradeKey]:
        now = self.clock.time()
        free = [key for key, regrade in self._regrades.items() if regrade.busy and self._claims[key] <= now]
        for key in free[:limit]:
            self._claim(key, claim_seconds)
        return free[:limit]

    async def advanced(self, regrade: Regrade, *, busy: bool, claim_seconds: float) -> bool:
        key = _key(regrade)
        stored = self._regrades[key]
        if stored.wanted is not regrade.wanted:
            return True
        self._regrades[key] = stored._replace(busy=busy)
        self._claim(key, claim_seconds)
        return busy

    def _page(self, regrade: Regrade, after: str, limit: int) -> list[NewSubmission]:
        given = regrade.filter
        before = min(regrade.create_time, given.created_before or regrade.create_time)
        rows = [
            row
            for row in self.submissions.values()
            if (row.tenant, row.course, row.assignment)
            == (regrade.tenant, regrade.course, regrade.assignment)
            and row.submission_id > after
            and (given.created_after or 0) <= row.create_time < before
            and (not given.authors or row.author in given.authors)
        ]
        return sorted(rows, key=lambda row: row.submission_id)[:limit]

    async def upcoming_revisions(self, regrade: Regrade, limit: int) -> list[str]:
        part = self._parts.get(_key(regrade))
        after = part.after if part is not None and part.phase is Wanted.OPEN else ""
        page = self._page(regrade, after, limit)
        ids = {row.submission_id for row in page}
        graded_by = {grade.revision_id for grade in self.grades.values() if grade.submission_id in ids}
        return sorted({row.revision_id for row in page} | (graded_by - {""}))

    async def open(self, regrade: Regrade, plans: Plans, limit: int) -> Step:
        part = self._enter(regrade, Wanted.OPEN)
        if part is None:
            return self._nothing()
        page = self._page(regrade, part.after, limit)
        known: list[NewSubmission] = []
        for row in page:
            if row.revision_id not in plans:
                break
            known.append(row)
        if not known:
            part.done = not page
            return self._nothing(done=part.done)
        found = [candidate for row in known for candidate in self._candidates(row)]

        def chosen(candidates: Sequence[Candidate]) -> tuple[list[Reopened], int]:
            given = regrade.filter
            return choose(
                candidates,
                plans,
                revision_id=regrade.revision_id,
                items=given.items,
                score_below=given.score_below,
            )

        last = last_fitting([row.submission_id for row in known], chosen(found)[0], limit)
        reopened, skipped = chosen([one for one in found if one.submission_id <= last])
        opened = [
            self._open(
                *(one, regrade.priority, regrade.revision_id, regrade.regrade_id),
                actor=regrade.actor,
                detail=regrade.regrade_id,
                shadow=regrade.shadow,
            )
            for one in reopened
        ]
        part.after, part.done = last, len(page) < limit and last == page[-1].submission_id
        part.tally = part.tally._replace(
            opened=part.tally.opened + len(opened), skipped=part.tally.skipped + skipped
        )
        return Step(part.done, opened, [], sorted({one.submission_id for one in opened}), self.written())

    def _enter(self, regrade: Regrade, phase: Wanted) -> _Part | None:
        """The part when there is something left to do in this phase."""
        part = self._parts.setdefault(_key(regrade), _Part(phase))
        if part.phase < phase:
            part.phase, part.done, part.after = phase, False, ""
        return part if part.phase is phase and not part.done else None

    def _nothing(self, *, done: bool = True) -> Step:
        return Step(done, [], [], [], self.written())

    def _candidates(self, row: NewSubmission) -> list[Candidate]:
        items = {item for submission, item, _ in self.grades if submission == row.submission_id}
        items |= {key.item_id for key in self.tasks if key.submission_id == row.submission_id}
        return [self._candidate(row, item) for item in sorted(items)]

    def _history(self, key: TaskKey) -> list[Grade]:
        found = [grade for grade in self.grades.values() if (grade.submission_id, grade.item_id) == key]
        return sorted(found, key=lambda grade: grade.generation)

    def _candidate(self, row: NewSubmission, item: str) -> Candidate:
        key = TaskKey(row.submission_id, item)
        history, fenced = self._history(key), self.tasks.get(key)
        counting = [grade for grade in history if grade.kind != GradeKind.SHADOW]
        current = counting[-1] if counting else None
        generations = [grade.generation for grade in history]
        generations += [] if fenced is None else [fenced.task.generation]
        return Candidate(
            *(row.submission_id, row.revision_id, item),
            *(
                (0, 0, 0.0, "")
                if current is None
                else (*current[2:3], current.kind, current.score, current.revision_id)
            ),
            last_generation=max(generations),
            task_state=0 if fenced is None else fenced.task.state,
        )

    def _open(
        self,
        one: Reopened,
        priority: int,
        revision_id: str,
        regrade_id: str,
        *,
        actor: str,
        detail: str,
        shadow: bool,
    ) -> OpenTask:
        row = self.submissions[one.submission_id]
        task = Task(
            *(*one[:3], one.generation, TaskState.OPEN, "", 0, self._now()),
            regrade_id=regrade_id,
            shadow=shadow,
        )
        fenced = Fenced(task, 0, deadline_lifted=True, priority=priority, revision_id=revision_id)
        self.tasks[TaskKey(one.submission_id, one.item_id)] = fenced
        self.audited(row.tenant, actor, "regrade", task, detail=detail)
        return fenced.open_task(row)

    async def promote(self, regrade: Regrade, limit: int) -> Step:
        part = self._enter(regrade, Wanted.PROMOTE)
        if part is None:
            return self._nothing()
        if (cancelled := self._cancel(regrade, limit)) is not None:
            return cancelled
        shadows = [
            grade
            for grade in self.grades.values()
            if grade.regrade_id == regrade.regrade_id
            and grade.kind == GradeKind.SHADOW
            and grade.submission_id > part.after
        ]
        page = sorted({grade.submission_id for grade in shadows})[:limit]
        promoted = [self._promote(regrade, shadow) for shadow in shadows if shadow.submission_id in page]
        part.done = len(page) < limit
        part.after = page[-1] if page else part.after
        part.tally = part.tally._replace(
            promoted=part.tally.promoted + sum(promoted),
            overtaken=part.tally.overtaken + len(promoted) - sum(promoted),
        )
        return Step(part.done, [], [], page, self.written())

    def _promote(self, regrade: Regrade, shadow: Grade) -> bool:
        key = TaskKey(shadow.submission_id, shadow.item_id)
        history, fenced = self._history(key), self.tasks.get(key)
        newer = [grade.generation for grade in history if grade.kind != GradeKind.SHADOW]
        if fenced is not None and fenced.task.state == TaskState.OPEN and not fenced.task.shadow:
            newer.append(fenced.task.generation)
        if max(newer, default=0) > shadow.generation:
            return False
        last = max(history[-1].generation, 0 if fenced is None else fenced.task.generation)
        copy = shadow._replace(generation=last + 1, kind=GradeKind.PROMOTED, create_time=self._now())
        self.grades[*key, last + 1] = copy
        self.promoted(shadow, copy)
        closed = Task(*key, "", last + 1, TaskState.OPEN, "", 0, self._now())
        self.audited(regrade.tenant, regrade.decided_by, "promote", closed, detail=regrade.regrade_id)
        return True

    async def discard(self, regrade: Regrade, limit: int) -> Step:
        part = self._enter(regrade, Wanted.DISCARD)
        if part is None:
            return self._nothing()
        if (cancelled := self._cancel(regrade, limit)) is not None:
            return cancelled
        part.done = True
        return self._nothing()

    def _cancel(self, regrade: Regrade, limit: int) -> Step | None:
        """Cancels the next of its tasks; None when there are none."""
        left = (TaskState.OPEN, TaskState.DEAD_LETTERED)
        keys = sorted(
            key
            for key, fenced in self.tasks.items()
            if fenced.task.regrade_id == regrade.regrade_id and fenced.task.state in left
        )[:limit]
        for key in keys:
            fenced = self.tasks[key]
            task = fenced.task._replace(state=TaskState.CANCELLED, update_time=self._now())
            self.tasks[key] = fenced._replace(task=task)
            self.audited(
                regrade.tenant, regrade.decided_by, "cancel-regrade", task, detail=regrade.regrade_id
            )
        cancelled = [CancelledTask(*key, self.tasks[key].task.queue) for key in keys]
        changed = sorted({key.submission_id for key in keys})
        return Step(False, [], cancelled, changed, self.written()) if keys else None

    async def tallies(self, keys: Sequence[RegradeKey]) -> tuple[list[Tally], Lsn]:
        return [self._tally(key) for key in keys], self.written()

    def _tally(self, key: RegradeKey) -> Tally:
        part = self._parts.get(key)
        return (Tally() if part is None else part.tally)._replace(
            open=sum(
                fenced.task.regrade_id == key.regrade_id and fenced.task.state == TaskState.OPEN
                for fenced in self.tasks.values()
            ),
            graded=sum(
                grade.regrade_id == key.regrade_id and grade.kind in (GradeKind.GRADED, GradeKind.SHADOW)
                for grade in self.grades.values()
            ),
        )

    async def reopen(self, wanted: Reopening, plans: Plans) -> tuple[list[OpenTask], Lsn]:
        row = self.submissions.get(wanted.submission_id)
        if row is None or row.tenant != wanted.tenant:
            raise ResourceNotFound(f"submissions/{wanted.submission_id}")
        candidates = self._candidates(row)
        if wanted.etag and wanted.etag != self._etag(row, candidates):
            raise EtagMismatch(f"submissions/{wanted.submission_id}")
        reopened, _ = choose(
            candidates,
            plans,
            revision_id=wanted.revision_id,
            items=wanted.items,
            over_people=bool(wanted.items),
        )
        if not reopened:
            raise StateForbids(f"submissions/{wanted.submission_id}", "not to be graded again now")
        opened = [
            self._open(
                *(one, wanted.priority, wanted.revision_id, ""),
                actor=wanted.actor,
                detail=wanted.reason,
                shadow=False,
            )
            for one in reopened
        ]
        return opened, self.written()

    def _etag(self, row: NewSubmission, candidates: Sequence[Candidate]) -> str:
        counting = {one.item_id: one.generation for one in candidates if one.generation}
        tasks = [
            (key.item_id, fenced.task.generation, int(fenced.task.state))
            for key, fenced in self.tasks.items()
            if key.submission_id == row.submission_id
            and not fenced.task.shadow
            and fenced.task.generation > counting.get(key.item_id, 0)
        ]
        return etag_from(tasks, counting.items())

    def comparisons(self, key: RegradeKey, kind: GradeKind, after: TaskKey, limit: int) -> list[Comparison]:
        """See ports.Copy."""
        news = sorted(
            (TaskKey(grade.submission_id, grade.item_id), grade)
            for grade in self.grades.values()
            if grade.regrade_id == key.regrade_id and grade.kind == kind
        )
        found: list[Comparison] = []
        for of, new in news:
            if of > after:
                before = [
                    grade
                    for grade in self._history(of)
                    if grade.kind != GradeKind.SHADOW and grade.generation < new.generation
                ]
                found.append(Comparison(*of, before[-1].grade if before else None, new.grade))
        return found[:limit]


def _key(regrade: Regrade) -> RegradeKey:
    return RegradeKey(regrade.tenant, regrade.regrade_id)
