"""What the domain needs from outside.

Every method may raise DependencyUnavailable: nothing is then known to have been
done, and the call may be repeated. Every method is bounded in time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from cinnabar_common.names import AssignmentName
from cinnabar_gateway.consistency import Position, Positions
from cinnabar_gateway.records import (
    Assignment,
    AssignmentPage,
    CancelledTask,
    Change,
    Committed,
    Conservation,
    DeadLetterFilter,
    DeadLetterPage,
    NewSubmission,
    QueueCounts,
    QueuedTask,
    QueueState,
    Redriven,
    RunningTask,
    Submission,
    SubmissionKey,
    SubmissionPage,
    WaitEstimate,
)


class AssignmentStore(Protocol):
    """Where assignments are kept. Filters by tenant in everything."""

    async def create_assignment(self, assignment: Assignment) -> tuple[Assignment, Position]:
        """Stores a new assignment; returns it with its times. ResourceExists when the name is taken."""
        ...

    async def update_assignment(
        self, assignment: Assignment, expected_revision_id: str
    ) -> tuple[Assignment, Position]:
        """Makes ``assignment`` the current revision, if the expected one still is.

        Raises EtagMismatch when it is not, ResourceNotFound when there is no such assignment.
        """
        ...

    async def get_assignment(
        self, tenant: str, name: AssignmentName, *, revision_id: str, min_positions: Positions
    ) -> Assignment | None:
        """One revision, the current one for ""; None when there is none."""
        ...

    async def list_assignments(
        self, tenant: str, course: str, *, after: str, limit: int, min_positions: Positions
    ) -> AssignmentPage:
        """Up to ``limit`` (1 to 1,000) current revisions by id, those after ``after``.

        Fewer do not mean the end when they are large; only ``more`` tells, which
        may also be true of a full page that is the last.
        """
        ...

    async def list_revisions(
        self, tenant: str, name: AssignmentName, *, before: str, limit: int
    ) -> list[str]:
        """Ids of all revisions, newest first, those before ``before``, up to ``limit`` (1 to 1,000).

        A submission that was read before is never of a revision that is not listed.
        """
        ...


class SubmissionStore(Protocol):
    """Where submissions, tasks and grades are kept. Filters by tenant in everything."""

    async def create_submissions(self, new: Sequence[NewSubmission]) -> list[Committed]:
        """Commits each with its tasks, or none of it; one fate per submission, in order.

        Safe to repeat with the same ids or request ids: those give DUPLICATE with
        the id stored before, or CONFLICT when the fingerprint is another one. The
        positions show all that is CREATED or DUPLICATE. One with a ``refusal`` is
        only looked for: DUPLICATE, CONFLICT or ABSENT, and nothing is stored.
        """
        ...

    async def get_submissions(
        self, keys: Sequence[SubmissionKey], min_positions: Positions
    ) -> list[Submission]:
        """Those that exist, in any order. At most 1,000."""
        ...

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
        """Newest first, up to ``limit`` (1 to 1,000), those before the id ``before``; of everybody for "".

        Fewer do not mean the end when they are large; only ``more`` tells, which
        may also be true of a full page that is the last. What is on shards that
        cannot be reached is missing, and they are named; DependencyUnavailable
        when nothing can be said.
        """
        ...

    async def cancel_submission(
        self, key: SubmissionKey, actor: str
    ) -> tuple[list[CancelledTask], Positions]:
        """Cancels the open tasks; returns those that it cancelled.

        DependencyUnavailable also when only the submission's shard is away.
        """
        ...

    async def list_dead_letters(
        self, tenant: str, wanted: DeadLetterFilter, *, after: tuple[str, str], limit: int
    ) -> DeadLetterPage:
        """By (submission id, item id), those after ``after``, up to ``limit`` (1 to 1,000).

        ``more`` and ``unreachable`` as those of ``list_submissions``.
        """
        ...

    async def redrive(
        self,
        tenant: str,
        tasks: Sequence[tuple[str, str]],
        actor: str,
        *,
        parent: AssignmentName | None = None,
    ) -> Redriven:
        """Opens the dead letters among (submission id, item id) again, up to 1,000.

        With ``parent`` those of another assignment are NOT_FOUND.
        A shard that is away costs only its own tasks: their fate is UNAVAILABLE.
        What is opened after its ``grade_by`` has no deadline any more.
        """
        ...


class Queue(Protocol):
    """The scheduler. Losing what is sent to it is no harm: recovery rebuilds it from storage."""

    async def enqueue(self, tasks: Sequence[QueuedTask]) -> None:
        """Puts tasks into their queues; those that are there already stay as they are."""
        ...

    async def cancel(self, tasks: Sequence[CancelledTask]) -> None:
        """Takes tasks out of their queues; unknown ones are ignored."""
        ...

    async def progress(self, tasks: Sequence[RunningTask]) -> list[bytes]:
        """How far each of up to 1,000 tasks is: a serialized Grade that has tests only; b"" for unknown."""
        ...

    async def counts(self) -> list[QueueCounts]:
        """All queues by name."""
        ...

    async def estimates(self, tenant: str) -> dict[str, WaitEstimate]:
        """How long a new task of the tenant waits, by queue.

        Left out are queues that are paused, and those whose service time nobody has measured.
        """
        ...

    async def control(self, queue: str, state: QueueState, actor: str) -> None:
        """Makes the queue do this from now on. ResourceNotFound when nobody uses the queue."""
        ...

    async def conservation(self) -> Conservation:
        """Where every accepted task is, of all tenants."""
        ...


class Following(Protocol):
    """One open stream of changes."""

    def add(self, submission_ids: Sequence[str]) -> None:
        """Follows these too. Never waits."""
        ...

    def remove(self, submission_ids: Sequence[str]) -> None:
        """Forgets these. Never waits."""
        ...

    def changes(self) -> AsyncIterator[Change]:
        """What changes, as it changes; the first is empty. Raises when the stream breaks."""
        ...


class ChangeSource(Protocol):
    """One scheduler, as a source of changes. Delivery is at most once."""

    def follow(self) -> AbstractAsyncContextManager[Following]:
        """Opens a stream that follows nothing yet."""
        ...


class HealthProbe(Protocol):
    """A dependency that can be asked for its health."""

    @property
    def name(self) -> str:
        """What the dependency is called in reports."""
        ...

    async def check(self) -> None:
        """Returns when it is healthy, raises when it is not."""
        ...
