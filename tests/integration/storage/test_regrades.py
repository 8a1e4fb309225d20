"""Regrades on Postgres while people and graders change the same submissions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack

import pytest_asyncio

from cinnabar_common.errors import StateForbids
from cinnabar_local import sql
from cinnabar_storage.adapters.sql.shard import sql_shard
from cinnabar_storage.assignments import Assignments
from cinnabar_storage.records import CommitResult, NewSubmission
from cinnabar_storage.regrading.records import RegradeFilter, RegradeState, Wanted
from cinnabar_storage.shards.sharding import Shards
from cinnabar_storage.submissions import Submissions
from cinnabar_storage.tasks import Tasks
from tests.support.regrade_domain import PARENT, Course
from tests.support.servers import ShardUrls
from tests.support.storage_service import config_for

ACTOR = "instructor:prof"
OVERRIDES = 100


@pytest_asyncio.fixture
async def net(storage_shards: list[ShardUrls]) -> AsyncGenerator[Course]:
    """A course on Postgres."""
    async with AsyncExitStack() as exits:
        config = config_for(storage_shards)
        shards = Shards(
            [
                await exits.enter_async_context(sql_shard(index, urls, config))
                for index, urls in enumerate(config.urls())
            ]
        )
        yield await Course(shards, Submissions(shards), Tasks(shards), Assignments(shards)).open()


async def audited(shards: list[ShardUrls], row: NewSubmission) -> list[tuple[str, int]]:
    """(action, generation) of everything that was done to q1 of a submission, by generation."""
    found: list[tuple[str, int]] = []
    query = "SELECT action, generation FROM audit WHERE submission_id = $1 AND item_id = 'q1'"
    for shard in shards:
        async with sql.connected(shard.primary_url) as connection:
            found += [(line[0], line[1]) for line in await connection.fetch(query, row.submission_id)]
    return sorted(found, key=lambda one: (one[1], one[0]))


async def test_overrides_regrades_and_grades_at_once_take_turns(
    net: Course, storage_shards: list[ShardUrls]
) -> None:
    [ann] = await net.submit("ann")
    opened = 0
    committed: list[int] = []
    regrading = True

    async def regrade() -> None:
        nonlocal opened
        for _ in range(20):
            try:
                opened += await net.reopen(ann, "q1")
            except StateForbids:
                await asyncio.sleep(0)

    async def grade() -> None:
        while regrading:
            committed.extend(
                [
                    task.generation
                    for task in (await net.now(ann)).tasks
                    if await net.grade(ann, "q1", 0.5, generation=task.generation) is CommitResult.COMMITTED
                ]
            )

    async with asyncio.TaskGroup() as group:
        grading = [group.create_task(grade()) for _ in range(2)]
        overrides = await asyncio.gather(
            *(net.override(ann, "q1", number / OVERRIDES) for number in range(OVERRIDES)), regrade()
        )
        regrading = False
        await asyncio.gather(*grading)
    generations = [one for one in overrides if one is not None]
    assert len(set(generations)) == OVERRIDES  # each has a generation of its own
    assert not set(generations) & set(committed)
    trail = await audited(storage_shards, ann)
    assert sorted(one for action, one in trail if action == "override") == sorted(generations)
    assert sorted(one for action, one in trail if action == "grade") == sorted([1, *committed])
    assert sum(action == "regrade" for action, _ in trail) == opened > 0
    # What was opened is graded, or forestalled by a person, or still open: nothing else.
    forestalled = sum(("override", one) in trail for action, one in trail if action == "regrade")
    still_open = len([task for task in (await net.now(ann)).tasks if task.item_id == "q1"])
    assert opened == len(committed) + forestalled + still_open
    await net.conserved()


async def test_people_and_a_promotion_at_once(net: Course) -> None:
    rows = await net.submit(*(f"s{number}" for number in range(20)))
    key = await net.opened(RegradeFilter(items=("q1",)), shadow=True)
    for row in rows:
        await net.grade(row, "q1", 0.25, generation=2)
    await net.regrades.decide(key, PARENT, Wanted.PROMOTE, ACTOR)
    people = asyncio.gather(*(net.override(row, "q1", 2.0) for row in rows[::2]))
    drivers = asyncio.gather(*(net.settle(key, limit=2) for _ in range(3)))
    given, _ = await asyncio.gather(people, drivers)
    view = await net.see(key)
    assert view.state is RegradeState.PROMOTED
    assert view.tally.promoted + view.tally.overtaken == len(rows)
    # Whoever came first, the person has the last word: over the promotion, or instead of it.
    assert view.tally.overtaken == sum(generation == 3 for generation in given)
    for number, row in enumerate(rows):
        generation, score = (await net.scores(row))["q1"]
        assert score == (0.25 if number % 2 else 2.0)
        assert generation == (3 if number % 2 else given[number // 2])
    await net.conserved()
