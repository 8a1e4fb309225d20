"""Which shard owns which bucket. No I/O: shards say what they claim, and the highest epoch wins.

A bucket is claimed by the shard that owns it, also while it moves. Each move
ends with a claim of a higher epoch at its new shard, so that whoever has seen
that claim knows better than whoever has not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from functools import cached_property
from typing import NamedTuple

from cinnabar_common.errors import DependencyUnavailable
from cinnabar_common.names import BUCKETS, Bucket, id_bucket
from cinnabar_storage.records import Lsn


class BucketState(IntEnum):
    """What a bucket is to a shard; numbers as in the table ``buckets``."""

    OWNED = 1
    MOVING = 2
    """Owned and written here while its rows are copied to another shard."""
    FENCED = 3
    """Owned, but writes wait until it is owned by another shard."""
    INCOMING = 4
    """Not owned: rows are being copied in."""
    GONE = 5
    """Not owned any more: its rows are to be removed."""


class Claim(NamedTuple):
    """A bucket that a shard owns: OWNED, MOVING or FENCED."""

    bucket: int
    state: int
    epoch: int


class Claims(NamedTuple):
    """What a shard claims, as of some time.

    ``version`` rises with every change at the shard. Whoever has replayed its log up to ``lsn`` shows
    all of it, the rows included.
    """

    version: int
    claims: list[Claim]
    lsn: Lsn = Lsn(0)


class BucketsElsewhere(DependencyUnavailable):
    """the data is on its way to another shard: try again later

    A shard was asked for buckets that it does not own, or to write into one that
    is fenced. Whoever asked has an old map, or must wait for the end of a move.
    """

    def __init__(self, buckets: Iterable[int]) -> None:
        self.buckets = frozenset(buckets)
        super().__init__("bucket")


class BucketSet:
    """Some buckets, ascending."""

    def __init__(self, buckets: Iterable[int]) -> None:
        self.numbers = tuple(sorted(set(buckets)))

    def __len__(self) -> int:
        return len(self.numbers)

    def __contains__(self, bucket: object) -> bool:
        return bucket in self._members

    @cached_property
    def _members(self) -> frozenset[int]:
        return frozenset(self.numbers)

    @cached_property
    def mask(self) -> bytes:
        """128 bytes; bit ``b % 8`` (from the lowest) of byte ``b // 8`` says whether bucket b is in the set.

        The numbering of Postgres' ``get_bit`` on bytea.
        """
        return sum(1 << bucket for bucket in self.numbers).to_bytes(BUCKETS // 8, "little")


ALL_BUCKETS = BucketSet(range(BUCKETS))


class ShardMap:
    """Who owns what at one time. Never changes; a newer map is another object.

    ``owners``: the index of a shard for each of the 1,024 buckets.
    """

    def __init__(
        self,
        owners: Sequence[int],
        shard_count: int,
        *,
        epoch: int = 1,
        fenced: Iterable[int] = (),
        versions: Mapping[int, int] | None = None,
        floors: Mapping[int, Lsn] | None = None,
        epochs: Sequence[int] = (),
    ) -> None:
        """``epochs``: in which each bucket came to its owner; in the first when none are given."""
        if len(owners) != BUCKETS or not all(0 <= owner < shard_count for owner in owners):
            raise ValueError(f"a map gives each of {BUCKETS} buckets to one of {shard_count} shards")
        self.owners = tuple(owners)
        self.shard_count = shard_count
        self.epoch = epoch
        self.fenced = frozenset(fenced)
        self._versions = dict(versions or {})
        self._floors = dict(floors or {})
        self._epochs = tuple(epochs) or (1,) * BUCKETS

    def arrival(self, shard: int) -> int:
        """The epoch in which the last of its buckets came to a shard; 0 when it has none."""
        return max((self._epochs[bucket] for bucket in self.owned_by(shard).numbers), default=0)

    def floor(self, shard: int) -> Lsn:
        """A replica of the shard that has not replayed so far may lack what has arrived there."""
        return self._floors.get(shard, Lsn(0))

    def version(self, shard: int) -> int:
        """What the shard called the state of its buckets that this map is of; 0 when not known.

        A writer who says it, and whom the shard finds to be right, is trusted to have routed each row well.
        """
        return self._versions.get(shard, 0)

    @classmethod
    def contiguous(cls, shard_count: int) -> ShardMap:
        """Ranges as equal as can be: what a new suite begins with."""
        return cls([first_owner(bucket, shard_count) for bucket in range(BUCKETS)], shard_count)

    def shard_of(self, bucket: Bucket) -> int:
        """Index of the shard that owns ``bucket``."""
        return self.owners[bucket]

    def shard_of_id(self, text: str) -> int | None:
        """Index of the shard that keeps a submission or revision; None for what is no id of ours."""
        bucket = id_bucket(text)
        return None if bucket is None else self.owners[bucket]

    def owned_by(self, shard: int) -> BucketSet:
        """The buckets of one shard."""
        return self._owned[shard]

    @cached_property
    def _owned(self) -> tuple[BucketSet, ...]:
        owned: list[list[int]] = [[] for _ in range(self.shard_count)]
        for bucket, owner in enumerate(self.owners):
            owned[owner].append(bucket)
        return tuple(map(BucketSet, owned))


def first_owner(bucket: int, shard_count: int) -> int:
    """The shard that a bucket belongs to before it ever moved."""
    return bucket * shard_count // BUCKETS


def merged(claims: Mapping[int, Claims], shard_count: int, before: ShardMap | None) -> ShardMap | None:
    """The map that the claims of the shards add up to; None when nobody claims anything.

    ``claims``: of each shard that answers, by index. A bucket that nobody claims belongs to a shard
    that does not answer: to the one it belonged to ``before`` if that is one of them, else to the
    first. When all answer, it was seen between leaving and arriving, and stays where it was.
    """
    owners: list[int | None] = [None] * BUCKETS
    epochs = [0] * BUCKETS
    fenced: set[int] = set()
    for shard, answer in claims.items():
        for bucket, state, epoch in answer.claims:
            if epoch > epochs[bucket]:
                owners[bucket], epochs[bucket] = shard, epoch
                if state == BucketState.FENCED:
                    fenced.add(bucket)
                else:
                    fenced.discard(bucket)
    if not any(epochs) and before is None:
        return None
    silent = [shard for shard in range(shard_count) if shard not in claims]

    def heir(bucket: int) -> int:
        owner = None if before is None else before.owners[bucket]
        if owner is not None and (not silent or owner in silent):
            return owner
        return silent[0] if silent else 0

    settled = [heir(bucket) if owner is None else owner for bucket, owner in enumerate(owners)]
    epoch = max(*epochs, 0 if before is None else before.epoch)
    versions = {shard: answer.version for shard, answer in claims.items()}
    floors = {
        shard: answer.lsn if before is None or _gained(before.owners, settled, shard) else before.floor(shard)
        for shard, answer in claims.items()
    }
    return ShardMap(
        *(settled, shard_count),
        epoch=epoch,
        fenced=fenced,
        versions=versions,
        floors=floors,
        epochs=epochs,
    )


def _gained(before: Sequence[int], after: Sequence[int], shard: int) -> bool:
    return any(new == shard != old for old, new in zip(before, after, strict=True))
