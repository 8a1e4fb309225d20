"""What the domain needs of a shard. Shards know nothing of each other.

Every method may raise DependencyUnavailable when the shard cannot be reached,
and Overloaded when no connection came free in time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from cinnabar_storage.files.ports import UploadRows
from cinnabar_storage.privacy.records import ErasureRows
from cinnabar_storage.records import (
    ANYWHERE,
    Assignment,
    AssignmentKey,
    AssignmentPage,
    AssignmentQuery,
    CommitResult,
    Created,
    DeadLetterPage,
    DeadLetterQuery,
    GradeKind,
    Lsn,
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
    Task,
    TaskCounts,
    TaskKey,
)
from cinnabar_storage.regrading.ports import RegradeShard
from cinnabar_storage.regrading.records import Comparison, RegradeKey
from cinnabar_storage.reviewing.records import GradingQuery, Gradings, Overridden, Override
from cinnabar_storage.reviewing.waiting_records import Acceptance, Accepted, ReviewQuery, WaitingReview
from cinnabar_storage.scoring.records import ScoreRows
from cinnabar_storage.shards.bucket_map import BucketSet, Claims
from cinnabar_storage.spending.ports import ModelShard
from cinnabar_storage.trail.audit import AuditEvent, AuditQuery, SealLink, SealPage

T = TypeVar("T")

NO_FLOOR = Lsn(0)
MAX_PAGE_BYTES = 16 * 1024 * 1024
"""Answers and grades in one response: a message of the suite has 64 MiB, and many at once must fit memory."""


class Copy(Protocol):
    """One copy of a shard's data: the primary or a replica. Reads filter by tenant.

    When it `holds` buckets, reads raise BucketsElsewhere unless all of these are owned by its shard
    in the state that was read.
    """

    @property
    def buckets(self) -> BucketSet:
        """The buckets that are asked for. What lists rows by anything but ids shows only those of them."""
        ...

    @property
    def authoritative(self) -> bool:
        """Whether what is not here does not exist."""
        ...

    @property
    def shows(self) -> Lsn:
        """Reads that begin now show every write that is answered with this position or an earlier one.

        As far as is known without asking: a little behind.
        """
        ...

    async def submissions(
        self, keys: Sequence[SubmissionKey], *, max_bytes: int
    ) -> tuple[list[Submission], list[SubmissionKey]]:
        """Those that are here, in the order of the keys; no key may come twice.

        A task that has a grade never shows as a task too. And the keys of those
        that are here but left out: the first is always given, and from the one
        on with which answers and grades would have more than ``max_bytes`` none.
        """
        ...

    async def submission_ids(self, query: SubmissionQuery) -> list[str]:
        """At most ``query.limit`` ids, descending."""
        ...

    async def assignments(self, keys: Sequence[AssignmentKey]) -> list[Assignment]:
        """Those that are here, in any order."""
        ...

    async def revisions(self, keys: Sequence[RevisionKey]) -> list[Assignment]:
        """Those that are here, in any order."""
        ...

    async def assignments_of_course(self, query: AssignmentQuery) -> AssignmentPage:
        """At most ``query.limit``, ascending by id, in their current revision.

        The first is always given, and from the one on with which their specs
        would have more than MAX_PAGE_BYTES none.
        """
        ...

    async def revision_ids(self, query: RevisionQuery) -> list[str]:
        """At most ``query.limit`` ids, descending."""
        ...

    async def open_tasks(self, after: TaskKey, limit: int) -> tuple[list[OpenTask], bool]:
        """At most ``limit`` of all tenants, ascending by key, and whether there are more.

        The first is always given, and from the one on with which their answers
        would have more than MAX_PAGE_BYTES none.
        """
        ...

    async def dead_letters(self, query: DeadLetterQuery, *, max_bytes: int) -> DeadLetterPage:
        """At most ``query.limit``, ascending by key.

        The first is always given, and from the one on with which their reasons
        would have more than ``max_bytes`` none.
        """
        ...

    async def open_generations(self, keys: Sequence[OwnedTaskKey]) -> list[int]:
        """Of each key, in order, the generation that is open; 0 when none is."""
        ...

    async def queue_controls(self) -> list[QueueControl]:
        """All, ascending by queue."""
        ...

    async def gradings(self, query: GradingQuery) -> Gradings:
        """Grades by (item, generation), at most MAX_PAGE_BYTES of them but at least one."""
        ...

    async def audit_events(self, query: AuditQuery) -> list[AuditEvent]:
        """What this shard did to a submission, by time and number."""
        ...

    async def waiting_reviews(self, query: ReviewQuery) -> list[WaitingReview]:
        """At most ``query.limit`` whose grade is the one that counts, ascending by place."""
        ...

    async def comparisons(
        self, key: RegradeKey, kind: GradeKind, after: TaskKey, limit: int
    ) -> list[Comparison]:
        """At most ``limit`` grades of this kind that a regrade made, ascending by key."""
        ...


class Shard(UploadRows, ScoreRows, ErasureRows, Protocol):
    """One shard. Each write is one atomic step; the Lsn it returns is at or after its commit.

    A write of a row in a bucket that is not owned here, or that is fenced, raises
    BucketsElsewhere and does nothing.
    """

    def holding(self, buckets: BucketSet, version: int = 0, floor: Lsn = NO_FLOOR) -> Shard:
        """The same shard, asked for these buckets only; ``version`` and ``floor`` as in ShardMap.

        Its reads, and its writes where they find nothing to change, raise
        BucketsElsewhere unless all of them are owned here; `read_primary` and
        writes also when one is fenced: somebody else may own it by now.
        """
        ...

    async def claims(self) -> Claims:
        """The buckets that it owns; as a replica saw it when the primary does not answer."""
        ...

    @property
    def regrades(self) -> RegradeShard:
        """Its regrades, and its part in those of others."""
        ...

    @property
    def models(self) -> ModelShard:
        """What was spent on models of language, and grades that wait for them."""
        ...

    async def read(self, work: Callable[[Copy], Awaitable[T]], *, min_lsn: Lsn) -> T:
        """Runs ``work`` on a copy that shows everything up to ``min_lsn``.

        ``work`` may run twice: a replica that fails is replaced by the primary.
        """
        ...

    async def read_primary(self, work: Callable[[Copy], Awaitable[T]]) -> T:
        """Runs ``work`` on the primary."""
        ...

    async def create_submissions(self, rows: Sequence[NewSubmission]) -> tuple[list[Created], Lsn]:
        """Creates submissions and their tasks, each wholly or not at all; one result per row.

        A row whose (tenant, author, request id) is taken is a DUPLICATE when the
        fingerprint is the same and else a CONFLICT; one whose id is taken is a
        DUPLICATE when the content is the same and else a CONFLICT. Of equals in
        one batch the first wins. Safe against other writers.

        Uploads that a row refers to are attached to it in the same step. When one of them is
        not there as a verified answer of its author to its assignment, or belongs to another
        submission, a row that is not stored already is UPLOAD_REFUSED.

        A row with ``existing_only`` stores nothing: it is a DUPLICATE or CONFLICT
        by its request id, after all other rows of the batch, or else ABSENT.
        """
        ...

    async def commit_outcomes(self, outcomes: Sequence[Outcome]) -> tuple[list[CommitResult], Lsn]:
        """Closes or gives up tasks that are open in the outcome's generation under a lower fence.

        One result per outcome, as if they had been applied in order. A grade, the
        end of its task, the audit row and, when there is a doubt, its review are one
        step. Of an item at most one review waits, that of the newest grade which
        counts: one without a doubt ends it. A shadow has none until it is promoted.
        """
        ...

    async def cancel_submissions(self, keys: Sequence[SubmissionKey], actor: str) -> tuple[list[Task], Lsn]:
        """Cancels their open tasks and returns these."""
        ...

    async def redrive_tasks(
        self, tenant: str, keys: Sequence[TaskKey], actor: str, place: Place = ANYWHERE
    ) -> tuple[list[tuple[RedriveResult, OpenTask | None]], Lsn]:
        """Opens dead letters again, under the fence they have. What is of another ``place`` is NOT_FOUND.

        One result per key, in order, with the task when it is REDRIVEN; no key
        may come twice. When its submission's ``grade_by`` has passed, the task
        has no deadline any more: the operator wants it graded. That of the
        submission stays as it is, for the record and for its other tasks.
        """
        ...

    async def count_tasks(self) -> TaskCounts:
        """Counts in one snapshot, on a replica when one is fit.

        It may take longer than other calls: it has a connection and a time limit of its own.
        """
        ...

    async def set_queue_control(self, control: QueueControl) -> None:
        """Replaces what was wanted of the queue; a change leaves an audit row, a repetition none."""
        ...

    async def create_assignment(self, revision: NewRevision) -> tuple[Assignment, Lsn]:
        """Raises ResourceExists when the id or the revision id is taken.

        A repeat of the call that created the current revision is answered like the first.
        """
        ...

    async def update_assignment(
        self, revision: NewRevision, expected_revision_id: str
    ) -> tuple[Assignment, Lsn]:
        """Adds a revision and makes it current; unconditionally when nothing is expected.

        Raises ResourceNotFound, EtagMismatch, and ResourceExists when the
        revision id is taken. A repeat of the call that made the current
        revision is answered like the first.
        """
        ...

    async def override_grade(self, override: Override) -> tuple[Overridden, Lsn]:
        """Gives an item a grade by hand.

        It closes the task of the item, whatever its state, in its generation;
        without one it opens the next generation. The etag, if there is one, is
        compared with what the submission is at that very moment. When the grade
        that counts is the same already, by the same actor and for the same
        reason, and the item does not wait for another one, nothing changes,
        whatever the etag: the call may have been repeated. Raises
        ResourceNotFound (submission or item), EtagMismatch. A review that waits ends.
        """
        ...

    async def accept_review(self, acceptance: Acceptance) -> tuple[Accepted, Lsn]:
        """Ends a review; the grade stays as it is, and so does the etag.

        Raises ResourceNotFound when none of the item waits, or none there, and
        EtagMismatch, compared at that very moment.
        """
        ...

    async def check_seals(self, after: SealLink) -> SealPage:
        """Computes the next seals again, a bounded number; each call sees the state of its own moment."""
        ...

    def replicas(self) -> list[ReplicaState]:
        """How each replica is, in the order of the configuration, by what was seen a moment ago."""
        ...

    async def check(self) -> None:
        """Returns when the primary answers and takes writes."""
        ...
