"""What is where, and calls to several shards."""

from __future__ import annotations

import pytest

from cinnabar_common.errors import DependencyUnavailable, InvalidRequest, Overloaded
from cinnabar_common.names import BUCKETS, Bucket, new_id
from cinnabar_storage.records import Lsn, Position
from cinnabar_storage.shards.bucket_map import ShardMap
from cinnabar_storage.shards.sharding import MinPositions, gather, gather_reachable


@pytest.mark.parametrize("shards", [1, 2, 3, 10, 1024])
def test_shards_have_contiguous_equal_ranges(shards: int) -> None:
    placed = [ShardMap.contiguous(shards).shard_of(Bucket(bucket)) for bucket in range(BUCKETS)]
    assert placed == sorted(placed)
    sizes = [placed.count(shard) for shard in range(shards)]
    assert max(sizes) - min(sizes) <= 1


def test_an_id_alone_says_its_shard() -> None:
    two = ShardMap.contiguous(2)
    assert two.shard_of_id(new_id(Bucket(0))) == 0
    assert two.shard_of_id(new_id(Bucket(511))) == 0
    assert two.shard_of_id(new_id(Bucket(512))) == 1
    assert two.shard_of_id(new_id(Bucket(1023))) == 1
    assert two.shard_of_id("nonsense") is None


def test_a_shard_that_is_not_there_any_more_asks_for_nothing() -> None:
    positions = MinPositions([Position(7, Lsn(5), 3), Position(0, Lsn(9), 2)])
    assert (positions.of(0), positions.of(1), positions.epoch) == (9, 0, 3)


def test_of_several_positions_of_a_shard_the_latest_counts() -> None:
    positions = MinPositions([Position(0, Lsn(5)), Position(0, Lsn(9)), Position(0, Lsn(7))])
    assert (positions.of(0), positions.of(1)) == (9, 0)


@pytest.mark.parametrize(
    ("position", "field"),
    [
        (Position(-1, Lsn(1)), "min_positions[0].shard"),
        (Position(0, Lsn(-1)), "min_positions[0].lsn"),
        (Position(0, Lsn(1), -1), "min_positions[0].epoch"),
    ],
)
def test_positions_that_cannot_be_are_refused(position: Position, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        MinPositions([position])
    assert refused.value.metadata == {"field": field}


async def _answer(value: int) -> int:
    return value


async def _fail(error: Exception) -> int:
    raise error


async def test_all_shards_answer() -> None:
    assert await gather({0: _answer(5), 1: _answer(6)}) == {0: 5, 1: 6}
    assert await gather({1: _answer(6)}) == {1: 6}
    assert await gather({}) == {}


async def test_shards_that_cannot_be_reached_are_left_out() -> None:
    calls = {0: _answer(5), 1: _fail(DependencyUnavailable("postgres")), 2: _fail(Overloaded("storage"))}
    assert await gather_reachable(calls) == {0: 5}
    assert await gather_reachable({0: _fail(DependencyUnavailable("postgres"))}) == {}


async def test_when_all_are_too_busy_the_caller_is_told() -> None:
    with pytest.raises(Overloaded):
        await gather_reachable({0: _fail(Overloaded("storage")), 1: _fail(Overloaded("storage"))})


async def test_a_defect_is_not_taken_for_an_outage() -> None:
    with pytest.raises(ZeroDivisionError):
        await gather_reachable({0: _fail(ZeroDivisionError())})
