"""Homework for regrades, in the words of storage's domain: revisions with items, answers, grades."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

from cinnabar.gateway.v1.assignment_service_pb2 import Assignment
from cinnabar.grader.v1.grade_pb2 import CriterionScore, Grade
from cinnabar.grader.v1.item_pb2 import Item, NumericSpec, TextSpec
from cinnabar_common.names import bucket_of, new_id
from cinnabar_storage.adapters.grading_content import grade_parts, item_plans
from cinnabar_storage.assignments import Assignments
from cinnabar_storage.ports import Shard
from cinnabar_storage.records import (
    CommitResult,
    GivenUp,
    Graded,
    NewSubmission,
    NewTask,
    Submission,
    SubmissionKey,
    TaskCounts,
)
from cinnabar_storage.regrading.campaigns import Regrades
from cinnabar_storage.regrading.records import (
    Regrade,
    RegradeFilter,
    RegradeKey,
    RegradeState,
    RegradeView,
    Reopening,
)
from cinnabar_storage.reviewing.records import Override
from cinnabar_storage.shards.sharding import Shards
from cinnabar_storage.submissions import Submissions
from cinnabar_storage.tasks import Tasks
from tests.support.storage_domain import new_tenant, revision, submission

PARENT = ("net", "a1")
REGRADE = 1
"""Number of the priority of regrades."""
_fences = count(1)


def spec(*, points: float = 2, numeric: Sequence[str] = ()) -> bytes:
    """An assignment of the items q1 and q2, in the queue "text" but for those that are ``numeric``."""
    return Assignment(
        items=[
            Item(item=item, points=points, numeric=NumericSpec(value=1))
            if item in numeric
            else Item(item=item, points=points, text=TextSpec(accepted=["x"]))
            for item in ("q1", "q2")
        ]
    ).SerializeToString(deterministic=True)


def grade_of(score: float, points: float = 2) -> bytes:
    """A grade of one criterion."""
    return Grade(
        score=score,
        max_score=points,
        criteria=[CriterionScore(criterion="answer", score=score, max_score=points)],
    ).SerializeToString(deterministic=True)


@dataclass(slots=True)
class Course:
    """One assignment of a tenant of its own, its submissions, and what is done to them."""

    shards: Shards
    submissions: Submissions
    tasks: Tasks
    assignments: Assignments
    tenant: str = field(default_factory=new_tenant)
    claim_seconds: float = 60.0
    regrades: Regrades = field(init=False)
    revision_id: str = ""

    def __post_init__(self) -> None:
        self.regrades = Regrades(
            self.shards,
            self.assignments,
            plans_in=item_plans,
            parts_of=grade_parts,
            claim_seconds=self.claim_seconds,
        )

    async def open(self) -> Course:
        """Creates the assignment."""
        first = revision(self.tenant, PARENT[1], spec=spec())
        await self.assignments.create(first)
        self.revision_id = first.revision_id
        return self

    async def revise(self, content: bytes) -> str:
        """A new revision; the submissions that are there keep theirs."""
        new = revision(self.tenant, PARENT[1], spec=content)
        await self.assignments.update(new, "")
        return new.revision_id

    async def submit(self, *authors: str, grade: float | None = 1.0) -> list[NewSubmission]:
        """A submission of each, of both items, with these grades unless None."""
        rows = [
            submission(self.tenant, author)._replace(
                revision_id=self.revision_id, tasks=(NewTask("q1", "text"), NewTask("q2", "text"))
            )
            for author in authors
        ]
        await self.submissions.create(rows)
        if grade is not None:
            for row in rows:
                await self.grade(row, "q1", grade)
                await self.grade(row, "q2", grade)
        return rows

    async def grade(
        self, row: NewSubmission, item: str, score: float, *, generation: int = 1, points: float = 2
    ) -> CommitResult:
        """A grader's grade of an open task."""
        fence = next(_fences)
        fenced = (self.tenant, row.submission_id, item, generation, fence, f"{fence}-x", "worker")
        [result], _ = await self.tasks.commit([Graded(*fenced, score, grade_of(score, points))])
        return result

    async def give_up(self, row: NewSubmission, item: str, *, generation: int) -> CommitResult:
        """A dead letter."""
        fence = next(_fences)
        fenced = (self.tenant, row.submission_id, item, generation, fence, f"{fence}-x", "worker")
        [result], _ = await self.tasks.commit([GivenUp(*fenced, "broken", 3)])
        return result

    async def regrade(
        self, wanted: RegradeFilter | None = None, *, shadow: bool = False, revision_id: str = ""
    ) -> RegradeKey:
        """Creates a regrade; nothing is opened yet."""
        regrade = Regrade(
            regrade_id=new_id(bucket_of(self.tenant, f"course:{PARENT[0]}")),
            tenant=self.tenant,
            course=PARENT[0],
            assignment=PARENT[1],
            filter=wanted or RegradeFilter(),
            revision_id=revision_id,
            shadow=shadow,
            reason="a better key",
            actor="instructor:prof",
            priority=REGRADE,
        )
        await self.regrades.create(regrade)
        return RegradeKey(self.tenant, regrade.regrade_id)

    async def opened(
        self,
        wanted: RegradeFilter | None = None,
        *,
        shadow: bool = False,
        revision_id: str = "",
        limit: int = 1000,
    ) -> RegradeKey:
        """Creates a regrade and opens its tasks."""
        key = await self.regrade(wanted, shadow=shadow, revision_id=revision_id)
        await self.settle(key, limit=limit)
        return key

    async def settle(self, key: RegradeKey, *, limit: int = 1000) -> int:
        """Advances it until nothing is left; returns how often."""
        for rounds in range(1, 1000):
            if not (await self.regrades.advance(key, limit)).busy:
                return rounds
        raise AssertionError("it never ends")

    async def see(self, key: RegradeKey) -> RegradeView:
        """As it is now."""
        return await self.regrades.get(key, PARENT)

    async def state(self, key: RegradeKey) -> RegradeState:
        """Where it is now."""
        return (await self.see(key)).state

    async def reopen(self, row: NewSubmission, *items: str, revision_id: str = "", etag: str = "") -> int:
        """Regrades one submission; returns how many tasks were opened."""
        wanted = Reopening(
            self.tenant, row.submission_id, items, revision_id, "he asked", "instructor:prof", REGRADE, etag
        )
        return len((await self.regrades.reopen(wanted))[0])

    async def override(self, row: NewSubmission, item: str, score: float, *, etag: str = "") -> int:
        """A person's grade; returns its generation."""
        shard = self._shard_of(row)
        key = SubmissionKey(self.tenant, row.submission_id)
        override = Override(key, item, score, grade_of(score), "instructor:prof", "fair", etag)
        overridden, _ = await shard.override_grade(override)
        return overridden.generation

    def _shard_of(self, row: NewSubmission) -> Shard:
        index = self.shards.map.shard_of_id(row.submission_id)
        assert index is not None
        return self.shards[index]

    async def now(self, row: NewSubmission) -> Submission:
        """The submission as everybody sees it."""
        [found], _ = await self._shard_of(row).read_primary(
            lambda copy: copy.submissions([SubmissionKey(self.tenant, row.submission_id)], max_bytes=1)
        )
        return found

    async def scores(self, row: NewSubmission) -> dict[str, tuple[int, float]]:
        """Generation and score of the grade that counts, by item."""
        return {grade.item_id: (grade.generation, grade.score) for grade in (await self.now(row)).grades}

    async def conserved(self) -> TaskCounts:
        """The counts of all shards; that nothing is lost is asserted."""
        counts = [await shard.count_tasks() for shard in self.shards]
        total = TaskCounts._make(map(sum, zip(*counts, strict=True)))
        assert total.accepted == total.open + total.dead_lettered + total.cancelled + total.graded
        return total
