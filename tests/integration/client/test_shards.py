"""Shards and moves of buckets, with the library and the command line, against a gateway in memory."""

import pytest

from cinnabar_client import ApiError, Client
from cinnabar_client.cli import main
from cinnabar_common.errors import StateForbids
from tests.support.client_cli import run
from tests.support.client_fixtures import world
from tests.support.gateway_world import world as real_world

STUDENT = "dev.uni.student.ann"


async def test_shards_are_listed() -> None:
    async with world() as w:
        listed = await w.client.list_shards()
        assert [(one.index, one.buckets, one.reachable) for one in listed.shards] == [
            (0, 512, True),
            (1, 512, True),
        ]
        first, second = (await run(w, "ops", "shards", "--json")).document["shards"]
        assert first == {
            **{"index": 0, "buckets": 512, "reachable": True},
            "replicas": [{"inRotation": True, "lagBytes": "0"}],
        }
        assert second["replicas"] == [{"inRotation": False}]
        w.gateway.healthy = False
        shown = await run(w, "ops", "shards")
        words = " ".join(shown.out.split())
        assert (shown.code, "0 512 unreachable 1 of 1 0 bytes 1 512" in words) == (0, True), words
        assert "0 of 1 unknown epoch 1, 0 buckets to move" in words, words


async def test_moves_are_planned_and_waited_for() -> None:
    async with world() as w:
        planned = await w.client.move_buckets([511, 7, 600], 1)
        assert [(one.bucket, one.from_shard, one.to_shard) for one in planned.moves] == [
            (7, 0, 1),
            (511, 0, 1),
        ]
        w.gateway.moves.clear()
        told = await run(w, "ops", "shards", "move", "7", "511", "--to", "1")
        assert (told.code, "511 0 1 PLANNED" in " ".join(told.out.split())) == (0, True)
        assert w.gateway.calls.count("ListShards") == 0
        waited = await run(w, "ops", "shards", "move", "8", "--to", "1", "--wait", "20", "--json")
        assert (waited.code, waited.document["moves"], waited.document["epoch"]) == (0, [], "4")
        assert [one["buckets"] for one in waited.document["shards"]] == [509, 515]
        assert w.gateway.calls.count("ListShards") == 3
        assert len((await w.client.rebalance_shards()).moves) == 3


async def test_a_drained_shard_gives_all_it_has() -> None:
    async with world() as w:
        shown = await run(w, "ops", "shards", "rebalance", "--drain", "1")
        assert (shown.code, "and 472 more" in shown.out) == (0, True)
        w.gateway.pace = 512
        done = await run(w, "ops", "shards", "rebalance", "--drain", "1", "--wait", "20", "--json")
        assert (done.code, [one["buckets"] for one in done.document["shards"]]) == (0, [1024, 0])


async def test_waiting_ends() -> None:
    async with world() as w:
        w.gateway.pace = 0
        late = await run(w, "ops", "shards", "move", "7", "--to", "1", "--wait", "0.1")
        assert (late.code, "PLANNED" in late.out, "1 buckets are still moving" in late.err) == (1, True, True)


async def test_what_is_not_there_is_refused() -> None:
    async with world() as w:
        refused = await run(w, "ops", "shards", "move", "1024", "--to", "2", "--json")
        assert (refused.code, refused.out) == (1, "")
        assert refused.problem["violations"] == [
            {"field": "buckets", "rule": "there is no bucket 1024"},
            {"field": "to_shard", "rule": "no such shard"},
        ]
        for drained, rule in (([2], "there is no shard 2"), ([0, 1], "must leave a shard")):
            with pytest.raises(ApiError) as caught:
                await w.client.rebalance_shards(drained=drained)
            assert [(one.field, one.rule) for one in caught.value.violations] == [("drained_shards", rule)]
        w.gateway.failures["MoveBuckets"].append(StateForbids("buckets/7", "MOVING"))
        with pytest.raises(ApiError) as caught:
            await w.client.move_buckets([7], 1)
        assert caught.value.reason == "STATE_FORBIDS"
        assert not w.gateway.moves


@pytest.mark.parametrize(
    "arguments", ["move --to 1", "move 7", "move seven --to 1", "rebalance --wait -1", "merge"]
)
def test_bad_words_are_refused_before_anything_is_asked(arguments: str) -> None:
    assert main(["ops", "shards", *arguments.split()]) == 2


async def test_only_operators_see_and_move_shards() -> None:
    async with real_world() as w:
        address = f"127.0.0.1:{w.gateway.port}"
        refused = await run(address, "ops", "shards", "rebalance", "--json", token=STUDENT)
        assert (refused.code, refused.problem["reason"]) == (1, "ROLE_FORBIDDEN")
        async with Client(address, token="dev.uni.instructor.prof") as client:
            with pytest.raises(ApiError) as caught:
                await client.list_shards()
        assert caught.value.reason == "ROLE_FORBIDDEN"
