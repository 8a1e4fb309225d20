"""Maps that claims add up to, and plans of moves."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinnabar_common.errors import InvalidRequest, StateForbids
from cinnabar_common.names import BUCKETS
from cinnabar_storage.records import Lsn
from cinnabar_storage.shards.bucket_map import BucketState, Claim, Claims, ShardMap, merged
from cinnabar_storage.shards.moves import Move, MoveStep, allowed, moved_to, rebalanced


def claims(shard_map: ShardMap, shard: int) -> Claims:
    """What a shard of the map claims, at epoch 1."""
    return Claims(1, [Claim(b, BucketState.OWNED, 1) for b in shard_map.owned_by(shard).numbers], Lsn(10))


def test_the_claim_of_the_highest_epoch_counts() -> None:
    two = ShardMap.contiguous(2)
    arrived = Claims(2, [*claims(two, 1).claims, Claim(3, BucketState.OWNED, 7)], Lsn(99))
    left = Claims(
        2, [c._replace(state=BucketState.FENCED) if c.bucket == 3 else c for c in claims(two, 0).claims]
    )
    now = merged({0: left, 1: arrived}, 2, two)
    assert now is not None
    assert (now.owners[3], now.epoch, now.fenced) == (1, 7, frozenset())
    assert (now.floor(0), now.floor(1)) == (0, 99)


def test_what_a_silent_shard_owned_stays_its_own() -> None:
    three = ShardMap.contiguous(3)
    now = merged({0: claims(three, 0), 2: claims(three, 2)}, 3, three)
    assert now is not None
    assert now.owners == three.owners
    # Without a map from before, the rest can only be the silent one's.
    first = merged({0: claims(three, 0), 2: claims(three, 2)}, 3, None)
    assert first is not None
    assert first.owners == three.owners


def test_nobody_owns_anything_at_first() -> None:
    assert merged({0: Claims(0, []), 1: Claims(0, [])}, 2, None) is None


@given(
    st.integers(1, 12).flatmap(
        lambda shards: st.tuples(
            st.just(shards),
            st.lists(st.integers(1, 9), min_size=shards, max_size=shards),
            st.randoms(use_true_random=False),
            st.sets(st.integers(0, shards - 1), max_size=shards - 1),
        )
    )
)
@settings(max_examples=30)
def test_a_rebalance_moves_only_the_fair_share(
    case: tuple[int, list[int], random.Random, set[int]],
) -> None:
    shards, weights, chance, drained = case
    owners = random.Random(chance.randrange(1000)).choices(range(shards), weights, k=BUCKETS)
    moves = rebalanced(owners, shards, drained)
    after = list(owners)
    for move in moves:
        assert after[move.bucket] == move.from_shard != move.to_shard
        after[move.bucket] = move.to_shard
    share, more = divmod(BUCKETS, shards - len(drained))
    sizes = sorted(after.count(shard) for shard in range(shards) if shard not in drained)
    assert sizes == [share] * (len(sizes) - more) + [share + 1] * more
    assert not drained & set(after)
    # Nothing that could have stayed has moved.
    fair = sorted((owners.count(s) for s in range(shards) if s not in drained), reverse=True)
    stay = sum(min(size, share + (rank < more)) for rank, size in enumerate(fair))
    assert len(moves) == BUCKETS - stay


def test_a_shard_that_is_added_gets_its_share_and_nothing_else_moves() -> None:
    moves = rebalanced(ShardMap.contiguous(2).owners, 3, [])
    assert {move.to_shard for move in moves} == {2}
    assert len(moves) == BUCKETS // 3


def test_plans_that_cannot_be() -> None:
    owners = ShardMap.contiguous(2).owners
    for drained in ([0, 1], [2], [-1]):
        with pytest.raises(InvalidRequest):
            rebalanced(owners, 2, drained)
    for buckets, to_shard in (([], 0), ([BUCKETS], 0), ([-1], 0), ([1], 2)):
        with pytest.raises(InvalidRequest):
            moved_to(owners, 2, buckets, to_shard)
    assert moved_to(owners, 2, [1, 1, 1023], 1) == [Move(1, 0, 1)]
    allowed([Move(1, 0, 1)], [Move(1, 0, 1)])
    with pytest.raises(StateForbids):
        allowed([Move(1, 0, 1)], [Move(1, 0, 1, MoveStep.CLEANING)])
