"""What every store promises about language models: what was spent is kept, what stood in is replaced."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from cinnabar_common.names import id_bucket
from cinnabar_storage.records import (
    CommitResult,
    Graded,
    NewSubmission,
    OpenTask,
    OwnedTaskKey,
    TaskKey,
)
from cinnabar_storage.reviewing.records import Override
from cinnabar_storage.spending.budgets import ModelBudgets, Upgrades
from cinnabar_storage.spending.ports import ModelBudget
from tests.contract.storage.conftest import Stored
from tests.support.regrade_domain import Course
from tests.support.storage_domain import dead_letter, grade, key, new_tenant, submission

REGRADE = 1


async def commit(stored: Stored, *outcomes: Graded) -> None:
    results, _ = await stored.tasks.commit(outcomes)
    assert set(results) == {CommitResult.COMMITTED}


def fallback(row: NewSubmission, item: str = "q1", generation: int = 1, fence: int = 1) -> Graded:
    return grade(row, item, generation=generation, fence=fence)._replace(upgradable=True)


async def fallen_back(stored: Stored, *items: str) -> NewSubmission:
    """A submission whose items a fallback graded."""
    row = submission(new_tenant(), items=items or ("q1",), grade_by=4_000_000_000_000_000)
    await stored.submissions.create([row])
    await commit(stored, *(fallback(row, item) for item in row_items(row)))
    return row


def row_items(row: NewSubmission) -> list[str]:
    return [task.item_id for task in row.tasks]


async def opened(stored: Stored, row: NewSubmission, rest_seconds: float = 0.0) -> list[OpenTask]:
    """What rounds open of a submission until they find nothing."""
    upgrades, mine = Upgrades(stored.shards, rest_seconds=rest_seconds), list[OpenTask]()
    tasks, _, _ = await upgrades.open(1000)
    mine += [task for task in tasks if task.submission_id == row.submission_id]
    return sorted(mine, key=lambda task: task.item_id)


async def open_generation(stored: Stored, row: NewSubmission) -> int | None:
    keys = [OwnedTaskKey(row.tenant, row.submission_id, "q1")]
    return (await stored.tasks.open_generations(keys))[0]


async def test_what_a_fallback_graded_is_opened_again_in_the_lowest_class(stored: Stored) -> None:
    row = await fallen_back(stored, "q1", "q2")
    tasks = await opened(stored, row, 600.0)
    assert [(task.item_id, task.generation, task.priority, task.upgrade) for task in tasks] == [
        ("q1", 2, REGRADE, True),
        ("q2", 2, REGRADE, True),
    ]
    first = tasks[0]
    assert (first.tenant, first.queue, first.revision_id) == (row.tenant, "text", row.revision_id)
    assert (first.answers, first.grade_by) == (row.answers, None)
    assert await opened(stored, row, 600.0) == []


async def test_an_upgrade_is_still_one_after_a_rebuild_and_after_a_redrive(stored: Stored) -> None:
    row = await fallen_back(stored)
    await opened(stored, row)
    shard = stored.shards.map.shard_of_id(row.submission_id)
    assert shard is not None
    page, _ = await stored.tasks.open(shard, TaskKey(row.submission_id, ""), 1)
    assert [(task.submission_id, task.upgrade) for task in page] == [(row.submission_id, True)]
    await stored.tasks.commit([dead_letter(row, generation=2)])
    _, redriven, _ = await stored.tasks.redrive(row.tenant, [TaskKey(row.submission_id, "q1")], "operator")
    assert [task.upgrade for task in redriven] == [True]


async def test_an_ordinary_grade_asks_for_nothing(stored: Stored) -> None:
    row = submission(new_tenant())
    await stored.submissions.create([row])
    await commit(stored, grade(row))
    assert await opened(stored, row) == []


async def test_the_grade_of_an_upgrade_ends_it(stored: Stored) -> None:
    row = await fallen_back(stored)
    await opened(stored, row)
    await commit(stored, grade(row, generation=2))
    assert await opened(stored, row) == []


async def test_nothing_is_opened_while_the_item_is_being_graded(stored: Stored) -> None:
    row = await fallen_back(stored)
    assert len(await opened(stored, row)) == 1
    assert await opened(stored, row) == []
    assert await open_generation(stored, row) == 2


async def test_an_item_is_upgraded_three_times_at_most(stored: Stored) -> None:
    row = await fallen_back(stored)
    for generation in (2, 3, 4):
        assert [task.generation for task in await opened(stored, row)] == [generation]
        if generation == 3:  # a fallback again: what was tried counts on
            await commit(stored, fallback(row, generation=generation))
        else:
            await stored.tasks.commit([dead_letter(row, generation=generation)])
    assert await opened(stored, row) == []


async def test_the_grade_of_a_person_is_left_alone(stored: Stored) -> None:
    row = await fallen_back(stored)
    override = Override(key(row), "q1", 2.0, b"by hand", "ina", "I read it")
    bucket = id_bucket(row.submission_id)
    assert bucket is not None
    await stored.shards.at(bucket, lambda _, shard: shard.override_grade(override))
    assert await opened(stored, row) == []


async def test_the_regrade_of_a_person_after_a_failed_upgrade_is_none(stored: Stored) -> None:
    net = await Course(stored.shards, stored.submissions, stored.tasks, stored.assignments).open()
    [row] = await net.submit("ann", grade=None)
    await commit(stored, *(fallback(row, item) for item in row_items(row)))
    for task in await opened(stored, row, 600.0):
        await stored.tasks.commit([dead_letter(row, task.item_id, generation=2)])
    await net.opened()
    shard = stored.shards.map.shard_of_id(row.submission_id)
    assert shard is not None
    page, _ = await stored.tasks.open(shard, TaskKey(row.submission_id, ""), len(row.tasks))
    assert {(task.generation, task.upgrade) for task in page} == {(3, False)}


async def test_two_who_open_at_once_open_once(stored: Stored) -> None:
    rows = [await fallen_back(stored) for _ in range(5)]
    upgrades = Upgrades(stored.shards, rest_seconds=600.0)
    rounds = await asyncio.gather(*(upgrades.open(1000) for _ in range(4)))
    ids = [task.submission_id for tasks, _, _ in rounds for task in tasks]
    mine = [one for one in ids if one in {row.submission_id for row in rows}]
    assert sorted(mine) == sorted(row.submission_id for row in rows)


async def test_a_round_is_bounded_and_says_that_there_is_more(stored: Stored) -> None:
    rows = [await fallen_back(stored) for _ in range(7)]
    upgrades = Upgrades(stored.shards, rest_seconds=600.0)
    seen = list[str]()
    more = True
    while more:
        tasks, positions, more = await upgrades.open(2)
        assert len(tasks) <= 2 * len(stored.shards)
        assert bool(positions) == bool(tasks)
        seen += [task.submission_id for task in tasks]
    assert {row.submission_id for row in rows} <= set(seen)
    assert len(seen) == len(set(seen))


def budget(tenant: str, scope: str, tokens: int, cost: int = 0, period: str = "2025-06") -> ModelBudget:
    return ModelBudget(tenant, scope, period, tokens, cost)


async def test_what_was_spent_is_kept_by_tenant_and_scope(stored: Stored) -> None:
    budgets, ours, theirs = ModelBudgets(stored.shards), new_tenant(), new_tenant()
    given: Sequence[ModelBudget] = [
        budget(ours, "courses/net", 5),
        budget(ours, "", 7, 2**50),
        budget(theirs, "", 1),
    ]
    await budgets.save(given)
    assert await budgets.of(ours) == [given[1], given[0]]
    assert await budgets.of(theirs) == [given[2]]
    assert await budgets.of(new_tenant()) == []


async def test_within_a_period_an_amount_never_falls(stored: Stored) -> None:
    budgets, tenant = ModelBudgets(stored.shards), new_tenant()
    await budgets.save([budget(tenant, "", 50, 5)])
    await budgets.save([budget(tenant, "", 40, 9)])
    assert await budgets.of(tenant) == [budget(tenant, "", 50, 9)]
    await budgets.save([budget(tenant, "", 3, 0, "2025-07")])
    assert await budgets.of(tenant) == [budget(tenant, "", 3, 0, "2025-07")]
