"""A shard in memory, held to the same contract as Postgres. Its log position is a count of writes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from copy import copy
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TypeVar

from cinnabar_common.errors import EtagMismatch, ResourceExists, ResourceNotFound
from cinnabar_common.names import AssignmentName, id_bucket
from cinnabar_storage.adapters.memory.erasures import MemoryErasures
from cinnabar_storage.adapters.memory.models import MemoryModels
from cinnabar_storage.adapters.memory.regrades import MemoryRegrades
from cinnabar_storage.adapters.memory.scores import scores_of
from cinnabar_storage.adapters.memory.tables import Course, Fenced
from cinnabar_storage.ports import MAX_PAGE_BYTES, NO_FLOOR, Copy
from cinnabar_storage.records import (
    ANYWHERE,
    Assignment,
    AssignmentKey,
    AssignmentPage,
    AssignmentQuery,
    CommitResult,
    Created,
    CreateStatus,
    DeadLetter,
    DeadLetterPage,
    DeadLetterQuery,
    GivenUp,
    Grade,
    Graded,
    GradeKind,
    Lsn,
    Micros,
    NewRevision,
    NewSubmission,
    OpenTask,
    Outcome,
    OwnedTaskKey,
    Place,
    QueueControl,
    RedriveResult,
    ReplicaState,
    RevisionKey,
    RevisionQuery,
    Submission,
    SubmissionKey,
    SubmissionQuery,
    SubmissionRow,
    Task,
    TaskCounts,
    TaskKey,
    TaskState,
)
from cinnabar_storage.regrading.records import Comparison, RegradeKey
from cinnabar_storage.scoring.records import AssignmentScores
from cinnabar_storage.shards.bucket_map import BucketSet, BucketState, Claim, Claims

T = TypeVar("T")


@dataclass(slots=True)
class MemoryShard(MemoryErasures):
    """Implements ports.Shard and, being its only copy, ports.Copy. No step awaits, so each is atomic."""

    authoritative: bool = True
    regrades: MemoryRegrades = field(init=False)
    models: MemoryModels = field(init=False)

    def __post_init__(self) -> None:
        self.regrades = MemoryRegrades(
            *(self.clock, self._submissions, self._tasks, self._grades, self._written, self._audited),
            self._promoted,
        )
        self.models = MemoryModels(
            *(self.clock, self._submissions, self._tasks, self._grades, self._upgrades),
            *(self._written, self._audited),
        )

    def _promoted(self, shadow: Grade, promoted: Grade) -> None:
        place = (promoted.submission_id, promoted.item_id)
        doubt = self._doubts.get((*place, shadow.generation))
        if doubt is not None:
            self._doubts[*place, promoted.generation] = doubt
        self._counts(promoted)

    @property
    def shows(self) -> Lsn:
        return Lsn(len(self._writes))

    def holding(self, buckets: BucketSet, version: int = 0, floor: Lsn = NO_FLOOR) -> MemoryShard:
        view = copy(self)
        view.buckets = buckets
        return view

    async def claims(self) -> Claims:
        return Claims(1, [Claim(bucket, BucketState.OWNED, 1) for bucket in self.buckets.numbers])

    def _held(self, submission_id: str) -> bool:
        return id_bucket(submission_id) in self.buckets

    async def read(self, work: Callable[[Copy], Awaitable[T]], *, min_lsn: Lsn) -> T:
        return await work(self)

    async def read_primary(self, work: Callable[[Copy], Awaitable[T]]) -> T:
        return await work(self)

    def replicas(self) -> list[ReplicaState]:
        return []

    async def check(self) -> None:
        return

    async def create_submissions(self, rows: Sequence[NewSubmission]) -> tuple[list[Created], Lsn]:
        results = [None if row.existing_only else self._create(row) for row in rows]
        looked = [result or self._look(row) for result, row in zip(results, rows, strict=True)]
        return looked, self._written()

    def _look(self, row: NewSubmission) -> Created:
        if row.request_id is None or (row.tenant, row.author, row.request_id) not in self._requests:
            return Created(CreateStatus.ABSENT, row.submission_id)
        return self._create(row)

    def _create(self, row: NewSubmission) -> Created:
        request = None if row.request_id is None else (row.tenant, row.author, row.request_id)
        if request is not None and request in self._requests:
            holder = self._submissions[self._requests[request]]
            same = holder.fingerprint == row.fingerprint
        elif row.submission_id in self._submissions:
            holder = self._submissions[row.submission_id]
            same = _content(holder) == _content(row)
        elif not self._may_attach(row):
            return Created(CreateStatus.UPLOAD_REFUSED, row.submission_id)
        else:
            self._submissions[row.submission_id] = row
            self._attach(row)
            if request is not None:
                self._requests[request] = row.submission_id
            now = self._now()
            for item_id, queue in row.tasks:
                task = Task(row.submission_id, item_id, queue, 1, TaskState.OPEN, "", 0, now)
                self._tasks[TaskKey(row.submission_id, item_id)] = Fenced(task, 0)
            return Created(CreateStatus.CREATED, row.submission_id)
        status = CreateStatus.DUPLICATE if same else CreateStatus.CONFLICT
        return Created(status, holder.submission_id)

    async def commit_outcomes(self, outcomes: Sequence[Outcome]) -> tuple[list[CommitResult], Lsn]:
        return [self._commit(outcome) for outcome in outcomes], self._written()

    def _commit(self, outcome: Outcome) -> CommitResult:
        key = TaskKey(outcome.submission_id, outcome.item_id)
        fenced = self._tasks.get(key)
        open_here = (
            fenced is not None
            and self._owner(outcome.submission_id) == outcome.tenant
            and fenced.task.state == TaskState.OPEN
            and fenced.task.generation == outcome.generation
            and fenced.fence < outcome.fence
        )
        if fenced is None or not open_here:
            graded = (*key, outcome.generation) in self._grades
            known = graded and self._owner(outcome.submission_id) == outcome.tenant
            return CommitResult.ALREADY_GRADED if known else CommitResult.SUPERSEDED
        match outcome:
            case Graded():
                del self._tasks[key]
                grade = Grade(*key, outcome.generation, outcome.score, outcome.grade, self._now())
                shadow = fenced.task.shadow
                self._grades[*key, outcome.generation] = grade._replace(
                    kind=GradeKind.SHADOW if shadow else GradeKind.GRADED,
                    revision_id=fenced.revision_id,
                    regrade_id=fenced.task.regrade_id,
                    actor=outcome.worker,
                )
                if outcome.doubt is not None:
                    self._doubts[*key, outcome.generation] = outcome.doubt
                if not shadow:
                    self._counts(self._grades[*key, outcome.generation])
                    self.models.graded(outcome, fenced)
                action, detail = "shadow-grade" if shadow else "grade", outcome.lease_token
                self._audited(outcome.tenant, outcome.worker, action, fenced.task, detail=detail)
            case GivenUp():
                task = fenced.task._replace(
                    state=TaskState.DEAD_LETTERED,
                    reason=outcome.reason,
                    attempts=outcome.attempts,
                    update_time=self._now(),
                )
                self._tasks[key] = fenced._replace(task=task, fence=outcome.fence)
                self._audited(outcome.tenant, outcome.worker, "dead-letter", task, detail=outcome.reason)
        return CommitResult.COMMITTED

    def _move(self, key: TaskKey, state: TaskState) -> Task:
        fenced = self._tasks[key]
        task = fenced.task._replace(state=state, update_time=self._now())
        if state is TaskState.OPEN:
            task = task._replace(reason="", attempts=0)
        self._tasks[key] = fenced._replace(task=task)
        return task

    async def cancel_submissions(self, keys: Sequence[SubmissionKey], actor: str) -> tuple[list[Task], Lsn]:
        wanted = {key.submission_id for key in keys if self._owner(key.submission_id) == key.tenant}
        open_keys = [
            key
            for key, fenced in self._tasks.items()
            if key.submission_id in wanted
            and fenced.task.state == TaskState.OPEN
            and fenced.task.generation == 1
        ]
        cancelled = [self._move(key, TaskState.CANCELLED) for key in open_keys]
        for task in cancelled:
            self._audited(self._submissions[task.submission_id].tenant, actor, "cancel", task)
        return cancelled, self._written()

    async def redrive_tasks(
        self, tenant: str, keys: Sequence[TaskKey], actor: str, place: Place = ANYWHERE
    ) -> tuple[list[tuple[RedriveResult, OpenTask | None]], Lsn]:
        return [self._redrive(tenant, key, actor, place) for key in keys], self._written()

    def _redrive(
        self, tenant: str, key: TaskKey, actor: str, place: Place
    ) -> tuple[RedriveResult, OpenTask | None]:
        row = self._submissions.get(key.submission_id)
        if row is None or row.tenant != tenant:
            return RedriveResult.NOT_FOUND, None
        if place.course not in ("", row.course) or place.assignment not in ("", row.assignment):
            return RedriveResult.NOT_FOUND, None
        fenced = self._tasks.get(key)
        match None if fenced is None else fenced.task.state:
            case TaskState.OPEN:
                return RedriveResult.NOT_DEAD_OPEN, None
            case TaskState.CANCELLED:
                return RedriveResult.NOT_DEAD_CANCELLED, None
            case TaskState.DEAD_LETTERED:
                task = self._move(key, TaskState.OPEN)
                self._audited(tenant, actor, "redrive", task)
                if row.grade_by is not None and row.grade_by <= self._now():
                    self._tasks[key] = self._tasks[key]._replace(deadline_lifted=True)
                return RedriveResult.REDRIVEN, self._open_task(task)
            case _:
                graded = any(known[:2] == key for known in self._grades)
                return RedriveResult.NOT_DEAD_GRADED if graded else RedriveResult.NOT_FOUND, None

    def _open_task(self, task: Task) -> OpenTask:
        fenced = self._tasks[TaskKey(task.submission_id, task.item_id)]
        return fenced.open_task(self._submissions[task.submission_id])

    async def count_tasks(self) -> TaskCounts:
        tasks = [fenced.task for key, fenced in self._tasks.items() if self._held(key.submission_id)]
        states = [task.state for task in tasks]
        # As in SQL: a grade that closed no task counts on neither side.
        graded = [
            grade
            for grade in self._grades.values()
            if self._held(grade.submission_id)
            and (grade.generation == 1 or grade.kind in (GradeKind.GRADED, GradeKind.SHADOW))
        ]
        generations = [task.generation for task in tasks]
        generations += [grade.generation for grade in graded]
        return TaskCounts(
            accepted=sum(len(row.tasks) for key, row in self._submissions.items() if self._held(key))
            + sum(generation > 1 for generation in generations),
            open=states.count(TaskState.OPEN),
            dead_lettered=states.count(TaskState.DEAD_LETTERED),
            cancelled=states.count(TaskState.CANCELLED),
            graded=len(graded),
        )

    async def assignment_scores(self, tenant: str, course: str, assignment: str) -> AssignmentScores:
        place = (tenant, course, assignment)
        rows = [
            row for row in self._submissions.values() if (row.tenant, row.course, row.assignment) == place
        ]
        return AssignmentScores(self._now(), scores_of(map(self._submission, rows)))

    async def set_queue_control(self, control: QueueControl) -> None:
        self._controls[control.queue] = control

    async def queue_controls(self) -> list[QueueControl]:
        return [self._controls[queue] for queue in sorted(self._controls)]

    async def create_assignment(self, revision: NewRevision) -> tuple[Assignment, Lsn]:
        course = self._assignments.get(revision[:3])
        if course is None:
            create_time = self._add_revision(revision)
            self._assignments[revision[:3]] = Course(create_time, revision.revision_id)
        elif not self._repeats(course, revision):
            raise ResourceExists(_name(revision))
        return self._assignment(_key_of(revision)), self._written()

    async def update_assignment(
        self, revision: NewRevision, expected_revision_id: str
    ) -> tuple[Assignment, Lsn]:
        course = self._assignments.get(revision[:3])
        if course is None:
            raise ResourceNotFound(_name(revision))
        if revision.revision_id == course.revision_id or expected_revision_id not in ("", course.revision_id):
            if not self._repeats(course, revision):
                raise EtagMismatch(_name(revision))
        else:
            self._add_revision(revision)
            course.revision_id = revision.revision_id
        return self._assignment(_key_of(revision)), self._written()

    def _repeats(self, course: Course, revision: NewRevision) -> bool:
        current = self._revisions[RevisionKey(revision.tenant, course.revision_id)]
        return current[0] == revision

    def _add_revision(self, revision: NewRevision) -> Micros:
        if _key_of(revision) in self._revisions:
            raise ResourceExists(f"{_name(revision)}@{revision.revision_id}")
        now = self._now()
        self._revisions[_key_of(revision)] = (revision, now)
        return now

    def _assignment(self, key: RevisionKey) -> Assignment:
        revision, time = self._revisions[key]
        return Assignment(*revision, self._assignments[revision[:3]].create_time, time)

    async def submissions(
        self, keys: Sequence[SubmissionKey], *, max_bytes: int
    ) -> tuple[list[Submission], list[SubmissionKey]]:
        here = [key for key in keys if self._owner(key.submission_id) == key.tenant]
        given = _fitting([self._size(key.submission_id) for key in here], max_bytes)
        found = [self._submission(self._submissions[key.submission_id]) for key in here[:given]]
        return found, here[given:]

    def _size(self, submission_id: str) -> int:
        grades = (len(grade.grade) for grade in self._grades.values() if grade.submission_id == submission_id)
        return len(self._submissions[submission_id].answers) + sum(grades)

    def _submission(self, row: NewSubmission) -> Submission:
        counting = self._counting(row.submission_id)
        tasks = [
            fenced.task
            for key, fenced in self._tasks.items()
            if key.submission_id == row.submission_id
            and not fenced.task.shadow
            and (key.item_id not in counting or counting[key.item_id].generation < fenced.task.generation)
        ]
        stored = SubmissionRow(
            *(row.submission_id, row.tenant, row.course, row.assignment, row.revision_id),
            *(row.author, row.priority, row.answers, row.max_score, row.create_time),
            *(row.grade_after, row.grade_by),
        )
        return Submission(stored, tasks, list(counting.values()))

    async def submission_ids(self, query: SubmissionQuery) -> list[str]:
        ids = [
            row.submission_id
            for row in self._submissions.values()
            if (row.tenant, row.course, row.assignment) == query[:3]
            and query.author in ("", row.author)
            and (not query.before or row.submission_id < query.before)
            and self._held(row.submission_id)
        ]
        return sorted(ids, reverse=True)[: query.limit]

    async def assignments(self, keys: Sequence[AssignmentKey]) -> list[Assignment]:
        found: list[Assignment] = []
        for key in keys:
            course = self._assignments.get(key[:3])
            if course is None:
                continue
            revision = self._revisions.get(RevisionKey(key.tenant, key.revision_id or course.revision_id))
            if revision is not None and revision[0][:3] == key[:3]:
                found.append(self._assignment(_key_of(revision[0])))
        return found

    async def revisions(self, keys: Sequence[RevisionKey]) -> list[Assignment]:
        return [self._assignment(key) for key in keys if key in self._revisions]

    async def assignments_of_course(self, query: AssignmentQuery) -> AssignmentPage:
        keys = sorted(key for key in self._assignments if key[:2] == query[:2] and key[2] > query.after)
        found = [
            self._assignment(RevisionKey(query.tenant, self._assignments[key].revision_id)) for key in keys
        ]
        page = found[: _fitting([len(one.spec) for one in found[: query.limit]], MAX_PAGE_BYTES)]
        return AssignmentPage(page, len(page) < len(found))

    async def revision_ids(self, query: RevisionQuery) -> list[str]:
        ids = [
            key.revision_id
            for key, (revision, _) in self._revisions.items()
            if revision[:3] == query[:3] and (not query.before or key.revision_id < query.before)
        ]
        return sorted(ids, reverse=True)[: query.limit]

    def _in_state(self, state: TaskState, after: TaskKey) -> list[Task]:
        keys = sorted(
            key
            for key, fenced in self._tasks.items()
            if fenced.task.state == state and key > after and self._held(key.submission_id)
        )
        return [self._tasks[key].task for key in keys]

    async def open_tasks(self, after: TaskKey, limit: int) -> tuple[list[OpenTask], bool]:
        found = [self._open_task(task) for task in self._in_state(TaskState.OPEN, after)]
        page = found[: _fitting([len(task.answers) for task in found[:limit]], MAX_PAGE_BYTES)]
        return page, len(page) < len(found)

    async def dead_letters(self, query: DeadLetterQuery, *, max_bytes: int) -> DeadLetterPage:
        letters: list[DeadLetter] = []
        for task in self._in_state(TaskState.DEAD_LETTERED, query.after):
            row = self._submissions[task.submission_id]
            if (
                row.tenant == query.tenant
                and query.queue in ("", task.queue)
                and query.course in ("", row.course)
                and query.assignment in ("", row.assignment)
                and query.reason in task.reason
                and (query.given_up_after is None or task.update_time >= query.given_up_after)
                and (query.given_up_before is None or task.update_time < query.given_up_before)
            ):
                letters.append(DeadLetter(task, row.course, row.assignment))
        sizes = [len(letter.task.reason.encode()) for letter in letters[: query.limit]]
        page = letters[: _fitting(sizes, max_bytes)]
        return DeadLetterPage(page, len(page) < len(letters))

    async def comparisons(
        self, key: RegradeKey, kind: GradeKind, after: TaskKey, limit: int
    ) -> list[Comparison]:
        return self.regrades.comparisons(key, kind, after, limit)

    async def open_generations(self, keys: Sequence[OwnedTaskKey]) -> list[int]:
        return [self._open_generation(key) for key in keys]

    def _open_generation(self, key: OwnedTaskKey) -> int:
        fenced = self._tasks.get(TaskKey(key.submission_id, key.item_id))
        if fenced is None or fenced.task.state != TaskState.OPEN:
            return 0
        return fenced.task.generation if self._owner(key.submission_id) == key.tenant else 0


def _fitting(sizes: Sequence[int], max_bytes: int) -> int:
    """How many from the start have no more than ``max_bytes``, but at least one."""
    fitting = sum(total <= max_bytes for total in accumulate(sizes))
    return max(fitting, min(1, len(sizes)))


def _content(row: NewSubmission) -> tuple[object, ...]:
    return (
        *(row.tenant, row.course, row.assignment, row.revision_id, row.author),
        *(row.fingerprint, row.answers),
    )


def _key_of(revision: NewRevision) -> RevisionKey:
    return RevisionKey(revision.tenant, revision.revision_id)


def _name(revision: NewRevision) -> str:
    return str(AssignmentName(revision.course, revision.assignment))
