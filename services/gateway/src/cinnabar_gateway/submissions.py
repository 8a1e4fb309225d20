"""Submissions: committing them, reading them as their caller may, and where they are.

Where a submission is follows from its tasks and grades, item by item:

- an open task: QUEUED, or REGRADING when it has a grade, which counts until the new one comes;
- else a grade: GRADED, also when grading it again was cancelled or given up;
- else the state of the task that has no grade: CANCELLED or FAILED.

and for the submission: while any item is QUEUED or REGRADING it is QUEUED, or
GRADING once an item has a grade; then FAILED when any item failed, else CANCELLED when any was
cancelled, else GRADED.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from cinnabar_common.coalescer import Coalescer
from cinnabar_common.errors import (
    DependencyUnavailable,
    Overloaded,
    RequestIdReused,
    ResourceNotFound,
    RoleForbidden,
    StateForbids,
    SuiteError,
    UploadNotReady,
)
from cinnabar_common.names import AssignmentName, SubmissionName, id_bucket, task_id
from cinnabar_gateway.admission import Settlement
from cinnabar_gateway.consistency import Positions, merged
from cinnabar_gateway.earlier_answers import EarlierAnswer
from cinnabar_gateway.estimates import Estimates
from cinnabar_gateway.handoff import Handoff
from cinnabar_gateway.identity import Identity, Role
from cinnabar_gateway.ports import Queue, SubmissionStore
from cinnabar_gateway.records import (
    Committed,
    Fate,
    Grade,
    ItemState,
    NewSubmission,
    QueuedTask,
    Reservation,
    Submission,
    SubmissionKey,
    SubmissionPage,
    SubmissionState,
    Task,
    TaskState,
)

log = logging.getLogger(__name__)

COMMIT_QUEUE = "storage.create_submissions"
FIRST_GENERATION = 1
FINAL = frozenset({SubmissionState.GRADED, SubmissionState.CANCELLED, SubmissionState.FAILED})
"""States in which nothing is open: nothing changes any more unless somebody intervenes."""

_WITHOUT_GRADE = {
    TaskState.OPEN: ItemState.QUEUED,
    TaskState.DEAD_LETTERED: ItemState.FAILED,
    TaskState.CANCELLED: ItemState.CANCELLED,
}

Outcome = NewSubmission | Submission | SuiteError
"""What became of a create: committed now, committed before, or refused."""


@dataclass(frozen=True, slots=True)
class ItemProgress:
    """Where one item is, and its grade when it has one."""

    state: ItemState
    grade: Grade | None
    generation: int


def progress_of(submission: Submission) -> dict[str, ItemProgress]:
    """Where each item is; see the module. Items in no particular order."""
    items = {
        grade.item: ItemProgress(ItemState.GRADED, grade, grade.generation) for grade in submission.grades
    }
    for task in submission.tasks:
        graded = items.get(task.item)
        if graded is None:
            items[task.item] = ItemProgress(_WITHOUT_GRADE[task.state], None, task.generation)
        elif task.state is TaskState.OPEN and task.generation > graded.generation:
            items[task.item] = ItemProgress(ItemState.REGRADING, graded.grade, graded.generation)
    return items


def state_of(items: Sequence[ItemProgress]) -> SubmissionState:
    """Where the submission with these items is; see the module."""
    states = {item.state for item in items}
    if not states.isdisjoint((ItemState.QUEUED, ItemState.REGRADING)):
        begun = any(item.grade is not None for item in items)
        return SubmissionState.GRADING if begun else SubmissionState.QUEUED
    if ItemState.FAILED in states:
        return SubmissionState.FAILED
    if ItemState.CANCELLED in states:
        return SubmissionState.CANCELLED
    return SubmissionState.GRADED


def is_final(submission: Submission) -> bool:
    """Whether the submission changes no more by itself."""
    return state_of(list(progress_of(submission).values())) in FINAL


def visible(submission: Submission | None, identity: Identity, name: SubmissionName) -> Submission:
    """The submission, when the caller may see it under this name.

    ResourceNotFound otherwise: one of another student looks like none at all.
    """
    if (
        submission is None
        or submission.tenant != identity.tenant
        or submission.name != name
        or (identity.role is Role.STUDENT and submission.author != identity.user)
    ):
        raise ResourceNotFound(str(name))
    return submission


class Submissions:
    """The submissions of all tenants; use inside ``async with submissions.running()``."""

    def __init__(
        self,
        store: SubmissionStore,
        queue: Queue,
        handoff: Handoff,
        estimates: Estimates,
        *,
        settle: Callable[[Sequence[Settlement]], None],
        commit_batch: int = 1000,
        commit_lanes: int = 2,
        max_pending: int = 50_000,
        max_pending_bytes: int = 256 * 1024 * 1024,
    ) -> None:
        """Bounds are in submissions, but for ``max_pending_bytes``: bytes of answers.

        ``settle`` is told what became of submissions with a reservation.
        """
        self._settle = settle
        self._store = store
        self._queue = queue
        self._handoff = handoff
        self._estimates = estimates
        self._max_pending_bytes = max_pending_bytes
        self._pending_bytes = 0
        self._commits = Coalescer[NewSubmission, Committed](
            self._commit,
            name=COMMIT_QUEUE,
            max_batch=commit_batch,
            max_pending=max_pending,
            lanes=commit_lanes,
        )
        self._reads = Coalescer[tuple[SubmissionKey, Positions], Submission | None](
            self._read, name="storage.get_submissions", max_batch=500, max_pending=max_pending, lanes=2
        )

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Submissions]:
        """Runs the batches."""
        async with self._commits.running(), self._reads.running():
            yield self

    async def create(self, new: Sequence[NewSubmission]) -> tuple[list[Outcome], Positions]:
        """Commits submissions; one outcome each, in order, and where to read them.

        Those committed now get their estimate, where there is one. One with a
        ``refusal`` (and a request id) is only looked for. Outcomes that are errors: the refusal,
        RequestIdReused, DependencyUnavailable. Raises Overloaded or
        DependencyUnavailable when nothing is known to be committed.
        """
        for tenant in {one.tenant for one in new}:
            self._estimates.expect(tenant)  # asked while storage commits, so that nobody waits for it
        size = sum(len(one.answers) for one in new)
        if self._pending_bytes and self._pending_bytes + size > self._max_pending_bytes:
            self._release(new)
            raise Overloaded(COMMIT_QUEUE)
        self._pending_bytes += size
        try:
            committed = await self._commits.submit_many(new)
        except Overloaded:
            self._release(new)
            raise
        finally:
            self._pending_bytes -= size
        positions = merged(*{id(one.positions): one.positions for one in committed}.values())
        outcomes: list[Outcome] = list(new)
        earlier: list[int] = []
        for index, one in enumerate(committed):
            match one.fate:
                case Fate.CREATED:
                    pass
                case Fate.ABSENT:
                    outcomes[index] = new[index].refusal or SuiteError()
                case Fate.DUPLICATE:
                    earlier.append(index)
                case Fate.CONFLICT:
                    outcomes[index] = RequestIdReused(new[index].request_id)
                case Fate.UPLOAD_REFUSED:
                    outcomes[index] = UploadNotReady(str(new[index].files[0][1]), "submission")
                case Fate.UNAVAILABLE:
                    outcomes[index] = DependencyUnavailable("storage")
        self._estimates.fill(outcomes)
        if earlier:
            keys = [SubmissionKey(new[index].tenant, committed[index].submission_id) for index in earlier]
            found = {one.submission_id: one for one in await self._store.get_submissions(keys, positions)}
            for index, key in zip(earlier, keys, strict=True):
                outcomes[index] = found.get(key.submission_id) or DependencyUnavailable("storage")
        return outcomes, positions

    async def answers(self, identity: Identity, answers: Sequence[EarlierAnswer]) -> list[Submission | None]:
        """The caller's submissions of these answers, as they are now; None for what there is not."""
        parsed = [SubmissionName.parse(answer.name) for answer in answers]
        keys = [
            (SubmissionKey(identity.tenant, name.submission), answer.positions)
            for name, answer in zip(parsed, answers, strict=True)
            if name is not None
        ]
        read = iter(await self._reads.submit_many(keys))
        found = [next(read) if name is not None else None for name in parsed]
        return [
            one if one is not None and one.tenant == identity.tenant and one.name == name else None
            for one, name in zip(found, parsed, strict=True)
        ]

    def _release(self, new: Sequence[NewSubmission]) -> None:
        """Frees the request ids of what was not tried, or of which nothing is known."""
        self._settle([Settlement(one.reservation, None) for one in new if one.reservation is not None])

    async def get(self, identity: Identity, name: SubmissionName, min_positions: Positions) -> Submission:
        """A submission that the caller may see. ResourceNotFound."""
        if id_bucket(name.submission) is None:
            raise ResourceNotFound(str(name))
        key = SubmissionKey(identity.tenant, name.submission)
        return visible(await self._reads.submit((key, min_positions)), identity, name)

    async def list(
        self,
        identity: Identity,
        parent: AssignmentName,
        *,
        author: str,
        before: str,
        limit: int,
        min_positions: Positions,
    ) -> SubmissionPage:
        """Newest first, those before the id ``before``; of everybody for "".

        RoleForbidden when a student asks for another's.
        """
        if identity.role is Role.STUDENT:
            if author not in ("", identity.user):
                raise RoleForbidden(role=identity.role.value, action="submissions.list_of_others")
            author = identity.user
        return await self._store.list_submissions(
            identity.tenant, parent, author=author, before=before, limit=limit, min_positions=min_positions
        )

    async def cancel(
        self, identity: Identity, name: SubmissionName, min_positions: Positions
    ) -> tuple[Submission, Positions]:
        """Cancels what is open; returns the submission after it.

        ResourceNotFound; DependencyUnavailable; StateForbids when nothing was open, but for a submission
        that is cancelled already.
        """
        await self.get(identity, name, min_positions)
        key = SubmissionKey(identity.tenant, name.submission)
        cancelled, positions = await self._store.cancel_submission(key, identity.actor)
        if cancelled:
            try:
                await self._queue.cancel(cancelled)
            except SuiteError as error:  # storage refuses their grades in any case
                log.warning("cancel not queued", extra={"submission": str(name), "error": error.message})
        after = await self.get(identity, name, merged(min_positions, positions))
        state = state_of(list(progress_of(after).values()))
        if not cancelled and state is not SubmissionState.CANCELLED:
            raise StateForbids(str(name), state.name)
        return after, positions

    async def _commit(self, batch: list[NewSubmission]) -> list[Committed]:
        try:
            committed = await self._store.create_submissions(batch)
        except SuiteError:
            self._release(batch)
            raise
        # Here and not in `create`: whoever waits there may be gone by now.
        self._settle(
            [
                _end(new.reservation, new, one)
                for new, one in zip(batch, committed, strict=True)
                if new.reservation
            ]
        )
        self._handoff.offer(
            [
                QueuedTask(
                    task_id(new.submission_id, plan.item),
                    new.tenant,
                    plan.queue,
                    FIRST_GENERATION,
                    new.priority,
                    plan.item_key,
                    answer,
                    new.grade_after_us,
                    new.grade_by_us,
                )
                for new, one in zip(batch, committed, strict=True)
                if one.fate is Fate.CREATED
                for plan, answer in new.tasks
            ]
        )
        return committed

    async def _read(self, batch: list[tuple[SubmissionKey, Positions]]) -> list[Submission | None]:
        keys = list(dict.fromkeys(key for key, _ in batch))
        positions = merged(*(positions for _, positions in batch))
        found = {
            SubmissionKey(one.tenant, one.submission_id): one
            for one in await self._store.get_submissions(keys, positions)
        }
        return [found.get(key) for key, _ in batch]


def _end(reservation: Reservation, new: NewSubmission, committed: Committed) -> Settlement:
    """How to settle the reservation of a submission.

    What is not known to be committed frees its key too: the next call meets the unique index, which says
    what became of the first, while a key that stays reserved keeps its caller out until it runs out.
    """
    if committed.fate not in (Fate.CREATED, Fate.DUPLICATE):
        return Settlement(reservation, None)
    name = SubmissionName(new.name.course, new.name.assignment, committed.submission_id)
    return Settlement(reservation, EarlierAnswer(str(name), committed.positions).encode())


def fresh(new: NewSubmission) -> Submission:
    """A submission just committed, as a read would show it."""
    return Submission(
        submission_id=new.submission_id,
        tenant=new.tenant,
        parent=new.name,
        revision_id=new.revision_id,
        author=new.author,
        priority=new.priority,
        answers=new.answers,
        max_score=new.max_score,
        create_time_us=new.create_time_us,
        tasks=tuple(
            Task(
                item=plan.item,
                queue=plan.queue,
                generation=FIRST_GENERATION,
                state=TaskState.OPEN,
                update_time_us=new.create_time_us,
            )
            for plan, _ in new.tasks
        ),
        grades=(),
        grade_after_us=new.grade_after_us,
        grade_by_us=new.grade_by_us,
    )
