"""What operators see and want of shards."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import NamedTuple

from cinnabar_common.errors import SuiteError
from cinnabar_storage.ports import Shard
from cinnabar_storage.records import ReplicaState
from cinnabar_storage.shards.moves import Ledger, Move, allowed, intended, moved_to, rebalanced
from cinnabar_storage.shards.sharding import Shards

_CHECK_SECONDS = 1.0


class ShardStatus(NamedTuple):
    """One shard."""

    buckets: int
    reachable: bool
    replicas: Sequence[ReplicaState]


class ShardsStatus(NamedTuple):
    """All shards, the epoch of the map, and the moves in the order in which they are made."""

    shards: Sequence[ShardStatus]
    epoch: int
    moves: Sequence[Move]


class Rebalancing:
    """Plans moves; movers make them. All methods raise DependencyUnavailable, Overloaded."""

    def __init__(self, shards: Shards, ledger: Ledger) -> None:
        self._shards = shards
        self._ledger = ledger

    async def status(self) -> ShardsStatus:
        """As of now."""
        now = await self._shards.fresh_map()
        reachable = await asyncio.gather(*map(_reachable, self._shards))
        return ShardsStatus(
            [
                ShardStatus(len(now.owned_by(index)), reachable[index], shard.replicas())
                for index, shard in enumerate(self._shards)
            ],
            now.epoch,
            await self._ledger.moves(),
        )

    async def rebalance(self, drained: Collection[int], actor: str) -> ShardsStatus:
        """Gives every shard its fair share. Raises InvalidRequest."""
        known = await self._ledger.moves()
        owners = intended((await self._shards.fresh_map()).owners, known)
        moves = rebalanced(owners, len(self._shards), drained)
        # A bucket that is on its way arrives before it may go on.
        begun = {move.bucket for move in known if move.step != 1}
        await self._ledger.plan(
            [move for move in moves if move.bucket not in begun],
            [move.bucket for move in known],
            actor,
        )
        return await self.status()

    async def move(self, buckets: Collection[int], to_shard: int, actor: str) -> ShardsStatus:
        """Moves these buckets to a shard. Raises InvalidRequest, StateForbids."""
        known = await self._ledger.moves()
        owners = (await self._shards.fresh_map()).owners
        moves = moved_to(owners, len(self._shards), buckets, to_shard)
        allowed(moves, known)
        await self._ledger.plan(moves, buckets, actor)
        return await self.status()


async def _reachable(shard: Shard) -> bool:
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            await shard.check()
    except (SuiteError, TimeoutError):
        return False
    return True
