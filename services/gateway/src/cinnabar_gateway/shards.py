"""Shards and moves of buckets, as operators see and want them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple, Protocol


class MoveStep(IntEnum):
    """What is done of a move; numbers as in the proto."""

    PLANNED = 1
    COPYING = 2
    FENCED = 3
    CLEANING = 4


class Replica(NamedTuple):
    """A replica; its lag is None when it does not answer."""

    in_rotation: bool
    lag_bytes: int | None


class Shard(NamedTuple):
    """A shard: how many buckets it owns, whether its primary answers, its replicas."""

    buckets: int
    reachable: bool
    replicas: Sequence[Replica]


class BucketMove(NamedTuple):
    """A bucket on its way."""

    bucket: int
    from_shard: int
    to_shard: int
    step: MoveStep


class ShardsView(NamedTuple):
    """The shards by index, the epoch of the map, the moves in the order they are made."""

    shards: Sequence[Shard]
    epoch: int
    moves: Sequence[BucketMove]


class ShardStore(Protocol):
    """Where shards are known. All methods may raise DependencyUnavailable."""

    async def shards(self) -> ShardsView:
        """As they are."""
        ...

    async def rebalance(self, drained: Sequence[int], actor: str) -> ShardsView:
        """Plans the moves that give every shard its fair share, ``drained`` ones nothing. InvalidRequest."""
        ...

    async def move_buckets(self, buckets: Sequence[int], to_shard: int, actor: str) -> ShardsView:
        """Plans moves of these buckets. InvalidRequest; StateForbids when the move of one has begun."""
        ...
