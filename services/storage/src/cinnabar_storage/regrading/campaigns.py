"""Regrades: of many submissions in steps, of one at once, and what they change.

A regrade is kept in the bucket of its course and has a part on every shard. What
is wanted of it (open, then promote or discard) is written to the regrade first;
then somebody advances it: step after step, each on every shard at once, until no
part has anything left to do. Whoever does that may die at any moment, and whoever
claims the regrade next goes on.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple, TypeVar

from cinnabar_common.errors import FieldViolation, InvalidRequest, ResourceNotFound, StateForbids
from cinnabar_common.names import Bucket, id_bucket
from cinnabar_storage.assignments import Assignments
from cinnabar_storage.cached.invalidation import submission_key
from cinnabar_storage.ports import MAX_PAGE_BYTES, Shard
from cinnabar_storage.records import GradeKind, Lsn, OpenTask, Position, RevisionKey, SubmissionKey, TaskKey
from cinnabar_storage.regrading.ports import RegradeShard
from cinnabar_storage.regrading.records import (
    CancelledTask,
    Comparison,
    ItemPlan,
    Plans,
    Regrade,
    RegradeKey,
    RegradeQuery,
    RegradeState,
    RegradeView,
    Reopening,
    Step,
    Tally,
    Wanted,
)
from cinnabar_storage.regrading.report import GradeParts, Report
from cinnabar_storage.shards.bucket_map import BucketSet
from cinnabar_storage.shards.sharding import Shards, course_bucket, gather

T = TypeVar("T")
_COMPARED_AT_ONCE = 200
_NOT_PROMOTABLE = (
    RegradeState.OPENING,
    RegradeState.GRADING,
    RegradeState.DONE,
    RegradeState.DISCARDED,
)
_NOT_DISCARDABLE = (RegradeState.DONE, RegradeState.PROMOTING, RegradeState.PROMOTED)


class Advance(NamedTuple):
    """What one round of steps did; ``busy`` while there is more to do."""

    opened: list[OpenTask]
    cancelled: list[CancelledTask]
    busy: bool


class Regrades:
    """The regrades of all tenants."""

    def __init__(
        self,
        shards: Shards,
        assignments: Assignments,
        *,
        plans_in: Callable[[bytes], Mapping[str, ItemPlan]],
        parts_of: Callable[[bytes], GradeParts],
        claim_seconds: float = 5.0,
    ) -> None:
        """``plans_in`` reads a spec, ``parts_of`` a grade.

        A regrade that nobody has advanced for ``claim_seconds`` is given to whoever asks.
        """
        self._shards = shards
        self._assignments = assignments
        self._plans_in = plans_in
        self._parts_of = parts_of
        self._claim_seconds = claim_seconds

    async def create(self, regrade: Regrade) -> tuple[RegradeView, Position]:
        """Stores it. Raises InvalidRequest when its id is not in the bucket of its course."""
        if id_bucket(regrade.regrade_id) != course_bucket(regrade.tenant, regrade.course):
            rule = "must be in the bucket of its course"
            raise InvalidRequest([FieldViolation("regrade.regrade_id", rule)])
        stored, position = await self._at_home(
            RegradeKey(regrade.tenant, regrade.regrade_id),
            lambda home: home.create(regrade, self._claim_seconds),
        )
        return _view(stored, Tally()), position

    async def get(self, key: RegradeKey, parent: tuple[str, str]) -> RegradeView:
        """With its counts; it must be of the (course, assignment) ``parent``. ResourceNotFound."""
        regrade = await self._kept(key)
        if (regrade.course, regrade.assignment) != parent:
            raise ResourceNotFound(_name(key))
        [view], _ = await self._views([regrade])
        return view

    async def list(self, query: RegradeQuery) -> list[RegradeView]:
        """Newest first, with their counts."""
        found = await self._shards.at(
            course_bucket(query.tenant, query.course), lambda _, shard: shard.regrades.list(query)
        )
        views, _ = await self._views(found)
        return views

    async def decide(
        self, key: RegradeKey, parent: tuple[str, str], wanted: Wanted, actor: str
    ) -> tuple[RegradeView, Position]:
        """Promotes or discards; what is decided so already stays. ResourceNotFound, StateForbids."""
        view = await self.get(key, parent)
        _refuse(view, wanted)
        decided, position = await self._at_home(
            key, lambda home: home.decide(key, wanted, actor, self._claim_seconds)
        )
        if decided is None:
            raise ResourceNotFound(_name(key))
        [view], _ = await self._views([decided])
        _refuse(view, wanted)  # somebody else may have been faster
        return view, position

    async def claim(self, limit: int) -> list[RegradeKey]:
        """Regrades of all tenants that have work left and that nobody advances. Raises Overloaded."""
        found, _ = await self._shards.scatter_partly(
            lambda _, shard: shard.regrades.claim(limit, self._claim_seconds)
        )
        return list(chain.from_iterable(found.values()))

    async def advance(self, key: RegradeKey, limit: int) -> Advance:
        """One step on every shard, of ``limit`` tasks together; shards that are away do theirs later.

        ResourceNotFound. Raises Overloaded.
        """
        regrade = await self._kept(key)
        if not regrade.busy:
            return Advance([], [], False)
        share = max(1, limit // len(self._shards))
        # All by one map: a bucket is on one of these shards, and when it moves in
        # between, the shard that it comes to begins anew and finds what is done.
        steps, silent = await self._shards.scatter_partly(lambda _, shard: self._step(shard, regrade, share))
        for index, step in steps.items():
            keys = [submission_key(key.tenant, submission_id) for submission_id in step.changed]
            self._shards.invalidations.changed(keys, self._shards.position(index, step.lsn))
        left = bool(silent) or not all(step.done for step in steps.values())
        busy = await self._shards.at(
            _bucket(key),
            lambda _, shard: shard.regrades.advanced(regrade, busy=left, claim_seconds=self._claim_seconds),
        )
        opened = list(chain.from_iterable(step.opened for step in steps.values()))
        cancelled = list(chain.from_iterable(step.cancelled for step in steps.values()))
        return Advance(_roomy(opened), cancelled, busy)

    async def reopen(self, wanted: Reopening) -> tuple[list[OpenTask], Position]:
        """Opens items of one submission. ResourceNotFound, EtagMismatch; StateForbids when none was."""
        bucket = id_bucket(wanted.submission_id)
        if bucket is None:
            raise ResourceNotFound(f"submissions/{wanted.submission_id}")
        key = SubmissionKey(wanted.tenant, wanted.submission_id)
        found, _ = await self._shards.at(
            bucket,
            lambda _, shard: shard.read_primary(lambda copy: copy.submissions([key], max_bytes=1)),
        )
        if not found:
            raise ResourceNotFound(f"submissions/{wanted.submission_id}")
        plans = await self._plans(wanted.tenant, [found[0].row.revision_id, wanted.revision_id])

        async def reopened(index: int, shard: Shard) -> tuple[list[OpenTask], Position]:
            opened, lsn = await shard.regrades.reopen(wanted, plans)
            return opened, self._shards.position(index, lsn)

        opened, position = await self._shards.at(bucket, reopened)
        self._shards.invalidations.changed([submission_key(*key)], position)
        return opened, position

    async def report(self, key: RegradeKey, parent: tuple[str, str], pass_share: float) -> Report:
        """Compares all of its grades, page by page. ResourceNotFound."""
        regrade = await self._kept(key)
        if (regrade.course, regrade.assignment) != parent:
            raise ResourceNotFound(_name(key))
        _, lsns = await self._views([regrade])

        async def compared(index: int, shard: Shard) -> Report:
            report = Report(pass_share)
            async for page in _comparisons(shard, regrade, lsns.get(index, Lsn(0))):
                for one in page:
                    if one.old is not None:
                        old, new = self._parts_of(one.old), self._parts_of(one.new)
                        report.add(one.submission_id, one.item_id, old, new)
            return report

        reports = await self._shards.scatter(compared)
        return Report.merged(pass_share, reports.values())

    async def _step(self, shard: Shard, regrade: Regrade, limit: int) -> Step:
        match regrade.wanted:
            case Wanted.OPEN:
                revisions = await shard.regrades.upcoming_revisions(regrade, limit)
                plans = await self._plans(regrade.tenant, [*revisions, regrade.revision_id])
                return await shard.regrades.open(regrade, plans, limit)
            case Wanted.PROMOTE:
                return await shard.regrades.promote(regrade, limit)
            case Wanted.DISCARD:
                return await shard.regrades.discard(regrade, limit)

    async def _plans(self, tenant: str, revision_ids: Sequence[str]) -> Plans:
        """Of those that exist. One that does not has no items, so that nothing waits for it for ever."""
        keys = [
            RevisionKey(tenant, revision_id) for revision_id in dict.fromkeys(revision_ids) if revision_id
        ]
        found = await self._assignments.revisions(keys)
        plans: dict[str, Mapping[str, ItemPlan]] = {key.revision_id: {} for key in keys}
        plans.update({one.revision_id: self._plans_in(one.spec) for one in found})
        return plans

    async def _views(self, regrades: Sequence[Regrade]) -> tuple[list[RegradeView], dict[int, Lsn]]:
        """With the counts of all shards, and the positions that show them."""
        keys = [RegradeKey(regrade.tenant, regrade.regrade_id) for regrade in regrades]
        counted = await self._shards.scatter(lambda _, shard: shard.regrades.tallies(keys))
        # A shard that owns nothing any more still knows what it did when it did.
        counted |= await gather(
            {
                index: shard.holding(BucketSet(())).regrades.tallies(keys)
                for index, shard in enumerate(self._shards)
                if index not in counted
            }
        )
        tallies = zip(*(tallies for tallies, _ in counted.values()), strict=True)
        views = [
            _view(regrade, Tally._make(map(sum, zip(*parts, strict=True))))
            for regrade, parts in zip(regrades, tallies, strict=True)
        ]
        return views, {index: lsn for index, (_, lsn) in counted.items()}

    async def _kept(self, key: RegradeKey) -> Regrade:
        regrade = await self._shards.at(_bucket(key), lambda _, shard: shard.regrades.get(key))
        if regrade is None:
            raise ResourceNotFound(_name(key))
        return regrade

    async def _at_home(
        self, key: RegradeKey, call: Callable[[RegradeShard], Awaitable[tuple[T, Lsn]]]
    ) -> tuple[T, Position]:
        """What the shard that keeps the regrade answers, and where to read it."""

        async def called(index: int, shard: Shard) -> tuple[T, Position]:
            answer, lsn = await call(shard.regrades)
            return answer, self._shards.position(index, lsn)

        return await self._shards.at(_bucket(key), called)


async def _comparisons(shard: Shard, regrade: Regrade, lsn: Lsn) -> AsyncGenerator[list[Comparison]]:
    """All of a shard, a page at a time."""
    kind = GradeKind.SHADOW if regrade.shadow else GradeKind.GRADED
    key = RegradeKey(regrade.tenant, regrade.regrade_id)
    after = TaskKey("", "")

    async def page_after(place: TaskKey) -> list[Comparison]:
        return await shard.read(
            lambda copy: copy.comparisons(key, kind, place, _COMPARED_AT_ONCE), min_lsn=lsn
        )

    while page := await page_after(after):
        yield page
        after = TaskKey(page[-1].submission_id, page[-1].item_id)


def _bucket(key: RegradeKey) -> Bucket:
    bucket = id_bucket(key.regrade_id)
    if bucket is None:
        raise ResourceNotFound(_name(key))
    return bucket


def _name(key: RegradeKey) -> str:
    return f"regrades/{key.regrade_id}"


def _view(regrade: Regrade, tally: Tally) -> RegradeView:
    return RegradeView(regrade, _state(regrade, tally), tally)


def _state(regrade: Regrade, tally: Tally) -> RegradeState:
    match regrade.wanted:
        case Wanted.PROMOTE:
            return RegradeState.PROMOTING if regrade.busy else RegradeState.PROMOTED
        case Wanted.DISCARD:
            return RegradeState.DISCARDED
        case Wanted.OPEN:
            if regrade.busy:
                return RegradeState.OPENING
            if tally.open:
                return RegradeState.GRADING
            return RegradeState.READY if regrade.shadow else RegradeState.DONE


def _refuse(view: RegradeView, wanted: Wanted) -> None:
    forbidden = _NOT_PROMOTABLE if wanted is Wanted.PROMOTE else _NOT_DISCARDABLE
    if view.state in forbidden:
        raise StateForbids(f"regrades/{view.regrade.regrade_id}", view.state.name)


def _roomy(opened: list[OpenTask]) -> list[OpenTask]:
    """As many as a response has room for, but at least one; recovery queues the rest."""
    room = MAX_PAGE_BYTES
    for index, task in enumerate(opened):
        room -= len(task.answers)
        if room < 0 and index:
            return opened[:index]
    return opened
