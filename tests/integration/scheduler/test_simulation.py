"""The simulation in its short form: every scenario plays to its end, and every published bound holds."""

import random
from collections.abc import AsyncGenerator, Iterator
from copy import deepcopy
from itertools import islice
from typing import Any, cast

import pytest
import pytest_asyncio

from bench.simulate import SCENARIOS, HeadStart, Served, World, simulate
from cinnabar_common.redis_connection import connect
from tests.support.servers import ValkeyServer


@pytest_asyncio.fixture(scope="module")
async def worlds(valkey_server: ValkeyServer, valkey_databases: Iterator[int]) -> AsyncGenerator[list[World]]:
    """What happened in each scenario."""
    urls = [valkey_server.url_of(number) for number in islice(valkey_databases, len(SCENARIOS))]
    yield await simulate(urls, seed=7, scale=0.02)
    for url in urls:
        redis = cast("Any", connect(url, timeout_seconds=5))
        await redis.flushdb()
        await redis.aclose()


def test_the_bounds_hold(worlds: list[World]) -> None:
    assert [world.problems() for world in worlds] == [[]] * len(SCENARIOS)
    assert all(len(world.served) > 100 for world in worlds)


@pytest.mark.parametrize("broken", ["order", "credit", "cap", "lost"])
def test_a_broken_bound_is_told(worlds: list[World], broken: str) -> None:
    world = deepcopy(worlds[3])
    first = world.served[0]
    if broken == "order":
        at = len(world.served) - 1
        world.served[at] = Served(at, first.at_ms, first.ready_ms - 1, "free", first.head_start, 9)
    elif broken == "credit":
        world.served[0] = Served(0, first.at_ms, first.ready_ms, "x", HeadStart.REGRADE, 1)
    elif broken == "cap":
        world.most_running["capped"] = 5
    else:
        world.served.pop()
    assert world.problems()


def test_the_same_seed_gives_the_same_scenario() -> None:
    for make in SCENARIOS:
        one, other = (make(random.Random(3), 0.02).arrivals for _ in range(2))
        assert one == other
