"""Moves of buckets from shard to shard while both are written and read: which, and step by step.

A bucket that moves is, in this order,

1. INCOMING at its target and MOVING at its source: it is written at the source,
   and every row that is written leaves a note there. All of its rows are copied.
2. caught up: rows with a note are copied again, until few are left.
3. FENCED at its source: writes wait. The last rows are copied.
4. OWNED at its target under a new epoch. This one write is the move; whatever
   happens before it can be undone, and whatever comes after must be done.
5. GONE at its source, where its rows are removed after a while.

Every step can be repeated. A mover that dies is followed by another one, of a
higher term; whatever changes a bucket on its way names its term, so a mover
that only seemed dead changes nothing any more.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from enum import IntEnum
from typing import NamedTuple, Protocol

from cinnabar_common.errors import FieldViolation, InvalidRequest, StateForbids
from cinnabar_common.names import BUCKETS
from cinnabar_storage.shards.bucket_map import BucketSet


class MoveStep(IntEnum):
    """What is done of a move; numbers as in the proto."""

    PLANNED = 1
    COPYING = 2
    FENCED = 3
    CLEANING = 4


class Move(NamedTuple):
    """A bucket that is to leave one shard for another."""

    bucket: int
    from_shard: int
    to_shard: int
    step: int = MoveStep.PLANNED


class Holding(NamedTuple):
    """What a bucket is to a shard."""

    state: int
    epoch: int


class Change(NamedTuple):
    """A note that a row of a bucket on its way was written."""

    change_id: int
    bucket: int
    table: str
    row_id: str


class Superseded(Exception):
    """Another mover, of a later term, is at work."""


class MovingShard(Protocol):
    """One shard as a mover sees it. Every method is safe to repeat; raises DependencyUnavailable, Overloaded.

    Those that take a term raise Superseded when a later mover is at work.
    """

    tables: Sequence[str]
    """Those whose rows move, in the order in which they are copied."""

    async def holdings(self, buckets: Collection[int]) -> Mapping[int, Holding]:
        """What is known here of these buckets."""
        ...

    async def busy(self) -> bool:
        """Whether something goes over all rows of the shard that must see each row once."""
        ...

    async def expect(self, buckets: Collection[int], term: int) -> None:
        """They are INCOMING from now on, unless they are owned here; earlier movers are shut out."""
        ...

    async def begin(self, buckets: Collection[int], term: int) -> None:
        """They are MOVING from now on, if they are owned here; what was written before is committed."""
        ...

    async def fence(self, bucket: int, term: int) -> None:
        """It is FENCED from now on; what was written before is committed."""
        ...

    async def accept(self, bucket: int, term: int, epoch: int) -> None:
        """It is OWNED from now on, with what was put."""
        ...

    async def release(self, bucket: int, term: int) -> None:
        """It is GONE from now on."""
        ...

    async def page(self, table: str, buckets: BucketSet, after: str) -> list[str]:
        """Ids of rows of these buckets after this one, ascending; empty at the end."""
        ...

    async def rows(self, table: str, row_ids: Sequence[str]) -> list[str]:
        """All rows with these ids, as text."""
        ...

    async def put(
        self, table: str, row_ids: Sequence[str], rows: Sequence[str], buckets: Collection[int], term: int
    ) -> None:
        """These rows are from now on all that there are with these ids, of buckets that are INCOMING."""
        ...

    async def changes(self, buckets: Collection[int], limit: int) -> list[Change]:
        """Some notes, at most so many, of each bucket the earliest."""
        ...

    async def drop_changes(self, changes: Sequence[Change]) -> None:
        """Removes notes."""
        ...

    async def wipe(self, table: str, buckets: BucketSet, after: str) -> str | None:
        """Removes some rows of buckets that are GONE. Returns from where to go on; None at the end."""
        ...

    async def forget(self, buckets: Collection[int]) -> None:
        """Nothing is known here any more of those of them that are GONE."""
        ...


class Ledger(Protocol):
    """The moves of the whole suite. Raises DependencyUnavailable, Overloaded."""

    def alone(self) -> AbstractAsyncContextManager[bool]:
        """Whether no other mover is inside of such a block."""
        ...

    async def new_term(self) -> int:
        """A number higher than those of all movers before."""
        ...

    async def new_epoch(self, above: int) -> int:
        """An epoch higher than all that were given out, and than ``above``."""
        ...

    async def moves(self) -> list[Move]:
        """All, in the order in which they are made."""
        ...

    async def plan(self, moves: Sequence[Move], replaced: Collection[int], actor: str) -> None:
        """Adds moves, and removes those of the buckets ``replaced`` that have not begun."""
        ...

    async def advance(self, buckets: Collection[int], step: MoveStep) -> None:
        """They have come so far."""
        ...

    async def done(self, buckets: Collection[int]) -> None:
        """Removes their moves."""
        ...


def rebalanced(owners: Sequence[int], shard_count: int, drained: Collection[int]) -> list[Move]:
    """The fewest moves after which each shard has its fair share, and ``drained`` ones nothing.

    ``owners``: of each bucket. Fair is the number of buckets by that of shards,
    rounded down or up; up for those that have most now. Raises InvalidRequest.
    """
    if bad := [shard for shard in drained if not 0 <= shard < shard_count]:
        raise InvalidRequest([FieldViolation("drained_shards", f"there is no shard {bad[0]}")])
    staying = [shard for shard in range(shard_count) if shard not in drained]
    if not staying:
        raise InvalidRequest([FieldViolation("drained_shards", "must leave a shard")])
    owned: dict[int, list[int]] = {shard: [] for shard in range(shard_count)}
    for bucket, owner in enumerate(owners):
        owned[owner].append(bucket)
    share, more = divmod(len(owners), len(staying))
    staying.sort(key=lambda shard: (-len(owned[shard]), shard))
    wanted = {shard: share + (rank < more) for rank, shard in enumerate(staying)}
    surplus = [
        (bucket, shard)
        for shard in range(shard_count)
        # The last ones of each: what stays is as contiguous as it was.
        for bucket in owned[shard][wanted.get(shard, 0) :]
    ]
    gaps = [shard for shard in sorted(staying) for _ in range(max(0, wanted[shard] - len(owned[shard])))]
    return [Move(bucket, source, target) for (bucket, source), target in zip(surplus, gaps, strict=True)]


def moved_to(owners: Sequence[int], shard_count: int, buckets: Collection[int], to_shard: int) -> list[Move]:
    """The moves after which one shard owns these buckets. Raises InvalidRequest."""
    violations: list[FieldViolation] = []
    if not buckets:
        violations.append(FieldViolation("buckets", "is required"))
    if bad := [bucket for bucket in buckets if not 0 <= bucket < BUCKETS]:
        violations.append(FieldViolation("buckets", f"there is no bucket {bad[0]}"))
    if not 0 <= to_shard < shard_count:
        violations.append(FieldViolation("to_shard", "no such shard"))
    if violations:
        raise InvalidRequest(violations)
    return [
        Move(bucket, owners[bucket], to_shard)
        for bucket in sorted(set(buckets))
        if owners[bucket] != to_shard
    ]


def intended(owners: Sequence[int], known: Sequence[Move]) -> list[int]:
    """Who will own each bucket when the moves that have begun are done."""
    after = list(owners)
    for move in known:
        if move.step != MoveStep.PLANNED:
            after[move.bucket] = move.to_shard
    return after


def allowed(moves: Sequence[Move], known: Sequence[Move]) -> None:
    """Raises StateForbids when one of ``moves`` is of a bucket whose move has begun."""
    begun = {move.bucket for move in known if move.step != MoveStep.PLANNED}
    for move in moves:
        if move.bucket in begun:
            raise StateForbids(f"buckets/{move.bucket}", "MOVING")
