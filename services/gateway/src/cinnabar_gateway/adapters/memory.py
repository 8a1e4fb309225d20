"""Stores and a queue in this process's memory: the same promises, nothing survives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from cinnabar.grader.v1.grade_pb2 import AnswerSet
from cinnabar_common.clock import Clock, SystemClock
from cinnabar_common.errors import DependencyUnavailable, EtagMismatch, ResourceExists, ResourceNotFound
from cinnabar_common.names import AssignmentName, task_id
from cinnabar_gateway.adapters.memory_etags import with_etag
from cinnabar_gateway.adapters.memory_reviews import MemoryReviews
from cinnabar_gateway.adapters.memory_uploads import MemoryUploads
from cinnabar_gateway.adapters.memory_waiting_reviews import MemoryWaitingReviews
from cinnabar_gateway.consistency import Position, Positions
from cinnabar_gateway.records import (
    Assignment,
    AssignmentPage,
    CancelledTask,
    Change,
    Committed,
    Conservation,
    DeadLetter,
    DeadLetterFilter,
    DeadLetterPage,
    Fate,
    Grade,
    NewSubmission,
    QueueCounts,
    QueuedTask,
    QueueState,
    RedriveFate,
    Redriven,
    RunningTask,
    Submission,
    SubmissionKey,
    SubmissionPage,
    Task,
    TaskState,
    WaitEstimate,
)
from cinnabar_gateway.submissions import fresh


class MemoryStorage:
    """Implements the ports AssignmentStore and SubmissionStore. One shard, whose log counts writes."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._assignments: dict[tuple[str, AssignmentName], Assignment] = {}
        self._revisions: dict[tuple[str, str], Assignment] = {}
        self._submissions: dict[SubmissionKey, Submission] = {}
        self._requests: dict[tuple[str, str, str], tuple[str, bytes]] = {}
        self._writes = 0
        self.reviews = MemoryReviews(
            self._submissions, written=self._written, now_us=self._now_us, overridden=self._overridden
        )
        self.waiting_reviews = MemoryWaitingReviews(
            self._submissions, written=self._written, told=self.reviews.audited
        )
        self.uploads = MemoryUploads(self._clock)

    def _overridden(self, key: SubmissionKey, item: str) -> None:
        self.waiting_reviews.ended(key, item)

    @property
    def submissions(self) -> dict[SubmissionKey, Submission]:
        """All that is stored."""
        return self._submissions

    @property
    def assignments(self) -> dict[tuple[str, AssignmentName], Assignment]:
        """All current revisions."""
        return self._assignments

    def _written(self) -> Position:
        self._writes += 1
        return Position(0, self._writes)

    def _now_us(self) -> int:
        return int(self._clock.time() * 1e6)

    async def create_assignment(self, assignment: Assignment) -> tuple[Assignment, Position]:
        """See AssignmentStore."""
        key = (assignment.tenant, assignment.name)
        if key in self._assignments:
            raise ResourceExists(str(assignment.name))
        now = self._now_us()
        return self._put(replace(assignment, create_time_us=now, update_time_us=now))

    async def update_assignment(
        self, assignment: Assignment, expected_revision_id: str
    ) -> tuple[Assignment, Position]:
        """See AssignmentStore."""
        current = self._assignments.get((assignment.tenant, assignment.name))
        if current is None:
            raise ResourceNotFound(str(assignment.name))
        if expected_revision_id not in ("", current.revision_id):
            raise EtagMismatch(str(assignment.name))
        return self._put(
            replace(assignment, create_time_us=current.create_time_us, update_time_us=self._now_us())
        )

    def _put(self, assignment: Assignment) -> tuple[Assignment, Position]:
        self._assignments[assignment.tenant, assignment.name] = assignment
        self._revisions[assignment.tenant, assignment.revision_id] = assignment
        return assignment, self._written()

    async def get_assignment(
        self, tenant: str, name: AssignmentName, *, revision_id: str, min_positions: Positions
    ) -> Assignment | None:
        """See AssignmentStore."""
        current = self._assignments.get((tenant, name))
        if not revision_id:
            return current
        revision = self._revisions.get((tenant, revision_id))
        return revision if revision is not None and revision.name == name else None

    async def list_assignments(
        self, tenant: str, course: str, *, after: str, limit: int, min_positions: Positions
    ) -> AssignmentPage:
        """See AssignmentStore."""
        found = [
            one
            for (owner, name), one in self._assignments.items()
            if owner == tenant and name.course == course and name.assignment > after
        ]
        page = tuple(sorted(found, key=lambda one: one.name)[:limit])
        return AssignmentPage(page, more=len(found) > limit)

    async def list_revisions(
        self, tenant: str, name: AssignmentName, *, before: str, limit: int
    ) -> list[str]:
        """See AssignmentStore."""
        found = [
            revision_id
            for (owner, revision_id), one in self._revisions.items()
            if owner == tenant and one.name == name and (not before or revision_id < before)
        ]
        return sorted(found, reverse=True)[:limit]

    async def create_submissions(self, new: Sequence[NewSubmission]) -> list[Committed]:
        """See SubmissionStore."""
        position = (self._written(),)
        return [self._create(one, position) for one in new]

    def _create(self, new: NewSubmission, positions: Positions) -> Committed:
        key = SubmissionKey(new.tenant, new.submission_id)
        request = (new.tenant, new.author, new.request_id)
        if new.request_id and request in self._requests:
            stored, fingerprint = self._requests[request]
            same = fingerprint == new.fingerprint
            fate = Fate.DUPLICATE if same else Fate.CONFLICT
            return Committed(fate, stored if same else new.submission_id, positions)
        if key in self._submissions:
            return Committed(Fate.DUPLICATE, new.submission_id, positions)
        if new.refusal is not None:
            return Committed(Fate.ABSENT, new.submission_id, positions)
        if new.files and not self.uploads.attach(new):
            return Committed(Fate.UPLOAD_REFUSED, new.submission_id, positions)
        self._submissions[key] = fresh(new)
        if new.request_id:
            self._requests[request] = (new.submission_id, new.fingerprint)
        return Committed(Fate.CREATED, new.submission_id, positions)

    async def get_submissions(
        self, keys: Sequence[SubmissionKey], min_positions: Positions
    ) -> list[Submission]:
        """See SubmissionStore."""
        return [with_etag(self._submissions[key]) for key in keys if key in self._submissions]

    async def list_submissions(
        self,
        tenant: str,
        parent: AssignmentName,
        *,
        author: str,
        before: str,
        limit: int,
        min_positions: Positions,
    ) -> SubmissionPage:
        """See SubmissionStore."""
        found = [
            one
            for key, one in self._submissions.items()
            if key.tenant == tenant
            and one.parent == parent
            and author in ("", one.author)
            and (not before or one.submission_id < before)
        ]
        found.sort(key=lambda one: one.submission_id, reverse=True)
        return SubmissionPage(tuple(map(with_etag, found[:limit])), more=len(found) > limit)

    async def cancel_submission(
        self, key: SubmissionKey, actor: str
    ) -> tuple[list[CancelledTask], Positions]:
        """See SubmissionStore."""
        stored = self._submissions.get(key)
        opened = [task for task in stored.tasks if task.state is TaskState.OPEN] if stored else []
        for task in opened:
            self._move(key, replace(task, state=TaskState.CANCELLED, update_time_us=self._now_us()))
        cancelled = [CancelledTask(task_id(key.submission_id, task.item), task.queue) for task in opened]
        return cancelled, (self._written(),)

    async def list_dead_letters(
        self, tenant: str, wanted: DeadLetterFilter, *, after: tuple[str, str], limit: int
    ) -> DeadLetterPage:
        """See SubmissionStore."""
        found = [
            DeadLetter(submission=one.name, task=task)
            for key, one in self._submissions.items()
            for task in one.tasks
            if key.tenant == tenant
            and _is_wanted(wanted, one, task)
            and (one.submission_id, task.item) > after
        ]
        found.sort(key=lambda one: (one.submission.submission, one.task.item))
        return DeadLetterPage(tuple(found[:limit]), more=len(found) > limit)

    async def redrive(
        self,
        tenant: str,
        tasks: Sequence[tuple[str, str]],
        actor: str,
        *,
        parent: AssignmentName | None = None,
    ) -> Redriven:
        """See SubmissionStore."""
        opened: list[QueuedTask] = []
        fates: list[RedriveFate] = []
        for submission_id, item in tasks:
            key = SubmissionKey(tenant, submission_id)
            stored = self._submissions.get(key)
            if stored is None or parent not in (None, stored.parent):
                fates.append(RedriveFate.NOT_FOUND)
            else:
                fates.append(self._redrive(stored, item, opened))
        return Redriven(opened, fates, (self._written(),))

    def _redrive(self, stored: Submission, item: str, opened: list[QueuedTask]) -> RedriveFate:
        task = next((one for one in stored.tasks if one.item == item), None)
        if task is None:
            graded = any(one.item == item for one in stored.grades)
            return RedriveFate.GRADED if graded else RedriveFate.NOT_FOUND
        if task.state is TaskState.DEAD_LETTERED:
            now = self._now_us()
            key = SubmissionKey(stored.tenant, stored.submission_id)
            self._move(key, replace(task, state=TaskState.OPEN, update_time_us=now))
            opened.append(_queued(stored, task, now))
            return RedriveFate.REDRIVEN
        return RedriveFate.OPEN if task.state is TaskState.OPEN else RedriveFate.CANCELLED

    def forget(self, stored: Submission) -> None:
        """What erasing its student does: it is gone, and its request id is free."""
        del self._submissions[SubmissionKey(stored.tenant, stored.submission_id)]
        self._requests = {key: one for key, one in self._requests.items() if one[0] != stored.submission_id}

    def grade(
        self,
        key: SubmissionKey,
        item: str,
        *,
        score: float,
        grade: bytes,
        doubts: tuple[str, ...] | None = None,
        max_score: float = 0.0,
    ) -> Positions:
        """What a grader's outcome does: closes the open task of the item. KeyError when there is none.

        ``doubts`` are the flags of a grade that a person should look at.
        """
        stored = self._submissions[key]
        task = {one.item: one for one in stored.tasks if one.state is TaskState.OPEN}[item]
        committed = Grade(
            item=item,
            generation=task.generation,
            score=score,
            grade=grade,
            create_time_us=self._now_us(),
        )
        self.reviews.committed(key, committed)
        self.waiting_reviews.graded(stored, committed, doubts, max_score)
        self._submissions[key] = replace(
            stored,
            tasks=tuple(one for one in stored.tasks if one is not task),
            grades=(*(one for one in stored.grades if one.item != item), committed),
        )
        return (self._written(),)

    def dead_letter(self, key: SubmissionKey, item: str, *, reason: str, attempts: int) -> Positions:
        """What giving up does to the open task of the item. KeyError when there is none."""
        stored = self._submissions[key]
        task = {one.item: one for one in stored.tasks if one.state is TaskState.OPEN}[item]
        self._move(
            key,
            replace(
                task,
                state=TaskState.DEAD_LETTERED,
                reason=reason,
                attempts=attempts,
                update_time_us=self._now_us(),
            ),
        )
        return (self._written(),)

    def _move(self, key: SubmissionKey, task: Task) -> None:
        stored = self._submissions[key]
        tasks = tuple(task if one.item == task.item else one for one in stored.tasks)
        self._submissions[key] = replace(stored, tasks=tasks)


def _is_wanted(wanted: DeadLetterFilter, stored: Submission, task: Task) -> bool:
    given_up_us = task.update_time_us
    return (
        task.state is TaskState.DEAD_LETTERED
        and wanted.queue in ("", task.queue)
        and wanted.course in ("", stored.parent.course)
        and wanted.assignment in ("", stored.parent.assignment)
        and wanted.reason in task.reason
        and (wanted.given_up_after_us is None or given_up_us >= wanted.given_up_after_us)
        and (wanted.given_up_before_us is None or given_up_us < wanted.given_up_before_us)
    )


def _queued(stored: Submission, task: Task, now_us: int) -> QueuedTask:
    answers = AnswerSet.FromString(stored.answers).answers
    lifted = stored.grade_by_us is not None and stored.grade_by_us <= now_us
    return QueuedTask(
        task=task_id(stored.submission_id, task.item),
        tenant=stored.tenant,
        queue=task.queue,
        generation=task.generation,
        priority=stored.priority,
        item_key=f"{stored.revision_id}/{task.item}",
        answer=next(answer.SerializeToString() for answer in answers if answer.item == task.item),
        not_before_us=stored.grade_after_us,
        grade_by_us=None if lifted else stored.grade_by_us,
    )


class MemoryQueue:
    """Implements the port Queue; nothing is ever leased.

    ``waits`` are the estimates that everybody gets; ``states`` are those of the queues that were used;
    ``told`` is how far tasks are, by (task, generation).
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self.tasks: dict[tuple[str, int], QueuedTask] = {}
        self.states: dict[str, QueueState] = {}
        self.waits: dict[str, WaitEstimate] = {}
        self.told: dict[tuple[str, int], bytes] = {}

    async def enqueue(self, tasks: Sequence[QueuedTask]) -> None:
        """See Queue."""
        for task in tasks:
            self.tasks.setdefault((task.task, task.generation), task)
            self.states.setdefault(task.queue, QueueState.RUNNING)

    async def cancel(self, tasks: Sequence[CancelledTask]) -> None:
        """See Queue."""
        gone = {task.task for task in tasks}
        self.tasks = {key: task for key, task in self.tasks.items() if task.task not in gone}

    async def progress(self, tasks: Sequence[RunningTask]) -> list[bytes]:
        """See Queue."""
        return [
            self.told.get((one.task, one.generation), b"")
            if (one.task, one.generation) in self.tasks
            else b""
            for one in tasks
        ]

    async def counts(self) -> list[QueueCounts]:
        """See Queue."""
        return [
            QueueCounts(
                queue=queue,
                ready=sum(task.queue == queue and not self._delayed(task) for task in self.tasks.values()),
                delayed=sum(task.queue == queue and self._delayed(task) for task in self.tasks.values()),
                state=state,
            )
            for queue, state in sorted(self.states.items())
        ]

    async def estimates(self, tenant: str) -> dict[str, WaitEstimate]:
        """See Queue."""
        paused = {queue for queue, state in self.states.items() if state is QueueState.PAUSED}
        return {queue: wait for queue, wait in self.waits.items() if queue not in paused}

    async def control(self, queue: str, state: QueueState, actor: str) -> None:
        """See Queue."""
        if queue not in self.states:
            raise ResourceNotFound(f"queues/{queue}")
        self.states[queue] = state

    async def conservation(self) -> Conservation:
        """See Queue. All that was accepted is here, or was cancelled and forgotten."""
        delayed = sum(map(self._delayed, self.tasks.values()))
        return Conservation(
            accepted=len(self.tasks),
            open=len(self.tasks),
            dead_lettered=0,
            cancelled=0,
            graded=0,
            queued=len(self.tasks) - delayed,
            waiting=delayed,
            leased=0,
            balanced=True,
        )

    def _delayed(self, task: QueuedTask) -> bool:
        return task.not_before_us is not None and task.not_before_us > self._clock.time() * 1e6


class MemoryChanges:
    """Implements the port ChangeSource; ``announce`` tells those who follow."""

    def __init__(self) -> None:
        self.open: set[MemoryFollowing] = set()

    @asynccontextmanager
    async def follow(self) -> AsyncGenerator[MemoryFollowing]:
        """See ChangeSource."""
        following = MemoryFollowing()
        self.open.add(following)
        try:
            yield following
        finally:
            self.open.discard(following)

    def announce(self, submission_ids: Iterable[str], positions: Positions = ()) -> None:
        """Tells all who follow one of these."""
        for following in self.open:
            told = tuple(one for one in submission_ids if one in following.followed)
            if told:
                following.outbox.put_nowait(Change(told, positions))

    def break_off(self) -> None:
        """Breaks all open streams."""
        for following in self.open:
            following.outbox.put_nowait(None)


class MemoryFollowing:
    """Implements the port Following."""

    def __init__(self) -> None:
        self.followed: set[str] = set()
        self.outbox: asyncio.Queue[Change | None] = asyncio.Queue()
        self.outbox.put_nowait(Change((), ()))

    def add(self, submission_ids: Sequence[str]) -> None:
        """See Following."""
        self.followed.update(submission_ids)

    def remove(self, submission_ids: Sequence[str]) -> None:
        """See Following."""
        self.followed.difference_update(submission_ids)

    async def changes(self) -> AsyncIterator[Change]:
        """See Following."""
        while (change := await self.outbox.get()) is not None:
            yield change
        raise DependencyUnavailable("scheduler")
