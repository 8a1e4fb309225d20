"""What every store promises about grades: one for each generation, under its fence."""

from __future__ import annotations

import pytest

from cinnabar_common.names import Bucket, new_id
from cinnabar_storage.records import (
    CommitResult,
    DeadLetterQuery,
    NewSubmission,
    Outcome,
    Submission,
    TaskKey,
    TaskState,
)
from tests.contract.storage.conftest import Stored
from tests.support.storage_domain import dead_letter, grade, key, new_tenant, submission

COMMITTED, ALREADY_GRADED, SUPERSEDED = (
    CommitResult.COMMITTED,
    CommitResult.ALREADY_GRADED,
    CommitResult.SUPERSEDED,
)
FIRST = TaskKey("", "")


async def commit(stored: Stored, *outcomes: Outcome) -> list[CommitResult]:
    results, _ = await stored.tasks.commit(outcomes)
    return results


async def new(stored: Stored, *items: str) -> NewSubmission:
    row = submission(new_tenant(), items=items or ("q1",))
    await stored.submissions.create([row])
    return row


async def now(stored: Stored, row: NewSubmission) -> Submission:
    shard = stored.shards.map.shard_of_id(row.submission_id)
    assert shard is not None
    [found], _ = await stored.shards[shard].read_primary(
        lambda copy: copy.submissions([key(row)], max_bytes=1)
    )
    return found


async def redrive(stored: Stored, row: NewSubmission, item: str = "q1", tenant: str | None = None) -> int:
    tasks = [TaskKey(row.submission_id, item)]
    _, opened, _ = await stored.tasks.redrive(tenant or row.tenant, tasks, "operator")
    return len(opened)


async def test_a_grade_closes_its_task(stored: Stored) -> None:
    row = await new(stored, "q1", "q2")
    assert await commit(stored, grade(row, "q1")) == [COMMITTED]
    found = await now(stored, row)
    assert [task.item_id for task in found.tasks] == ["q2"]
    assert [(item.item_id, item.generation, item.score, item.grade) for item in found.grades] == [
        ("q1", 1, 1.5, b"under 1")
    ]


@pytest.mark.parametrize("fence", [1, 2, 3])
async def test_a_second_grade_changes_nothing_whatever_its_fence(stored: Stored, fence: int) -> None:
    row = await new(stored)
    assert await commit(stored, grade(row, fence=2)) == [COMMITTED]
    assert await commit(stored, grade(row, fence=fence)) == [ALREADY_GRADED]
    assert [item.grade for item in (await now(stored, row)).grades] == [b"under 2"]


async def test_of_two_grades_in_one_batch_the_first_wins(stored: Stored) -> None:
    row = await new(stored, "q1", "q2")
    results = await commit(
        stored, grade(row, "q1", fence=5), grade(row, "q2"), grade(row, "q1", fence=6), dead_letter(row, "q1")
    )
    assert results == [COMMITTED, COMMITTED, ALREADY_GRADED, ALREADY_GRADED]
    assert {item.grade for item in (await now(stored, row)).grades} == {b"under 5", b"under 1"}


async def test_in_one_batch_a_refused_outcome_does_not_hide_a_good_one(stored: Stored) -> None:
    row = await new(stored)
    assert await commit(stored, grade(row, generation=2), grade(row)) == [SUPERSEDED, COMMITTED]


@pytest.mark.parametrize("generation", [2, 7])
async def test_another_generation_is_superseded(stored: Stored, generation: int) -> None:
    row = await new(stored)
    assert await commit(stored, grade(row, generation=generation)) == [SUPERSEDED]
    assert (await now(stored, row)).grades == []


async def test_a_grade_of_another_tenant_is_superseded(stored: Stored) -> None:
    row = await new(stored)
    stranger = new_tenant()
    assert await commit(stored, grade(row, tenant=stranger)) == [SUPERSEDED]
    assert await commit(stored, grade(row)) == [COMMITTED]
    assert await commit(stored, grade(row, tenant=stranger)) == [SUPERSEDED]


async def test_unknown_tasks_are_superseded_and_harm_no_others(stored: Stored) -> None:
    row = await new(stored)
    unknown = row._replace(submission_id=new_id(Bucket(5)))
    nonsense = row._replace(submission_id="nonsense")
    assert await commit(stored, grade(unknown), grade(row), grade(nonsense), grade(row, "q9")) == [
        SUPERSEDED,
        COMMITTED,
        SUPERSEDED,
        SUPERSEDED,
    ]


async def test_a_cancelled_task_takes_no_grade(stored: Stored) -> None:
    row = await new(stored)
    await stored.submissions.cancel([key(row)], "ann")
    assert await commit(stored, grade(row), dead_letter(row)) == [SUPERSEDED, SUPERSEDED]


async def test_a_dead_letter_takes_no_grade(stored: Stored) -> None:
    row = await new(stored)
    assert await commit(stored, dead_letter(row, fence=4)) == [COMMITTED]
    assert await commit(stored, grade(row, fence=9), dead_letter(row, fence=9)) == [SUPERSEDED, SUPERSEDED]
    [task] = (await now(stored, row)).tasks
    assert (task.state, task.reason, task.attempts) == (TaskState.DEAD_LETTERED, "broken", 3)


async def test_a_redriven_task_keeps_its_fence(stored: Stored) -> None:
    row = await new(stored)
    await commit(stored, dead_letter(row, fence=4))
    assert await redrive(stored, row) == 1
    [task] = (await now(stored, row)).tasks
    assert (task.state, task.generation, task.reason, task.attempts) == (TaskState.OPEN, 1, "", 0)
    assert await commit(stored, grade(row, fence=3), grade(row, fence=4)) == [SUPERSEDED, SUPERSEDED]
    assert await commit(stored, grade(row, fence=5)) == [COMMITTED]


async def test_a_dead_letter_under_an_older_fence_is_superseded(stored: Stored) -> None:
    row = await new(stored)
    await commit(stored, dead_letter(row, fence=4))
    await redrive(stored, row)
    assert await commit(stored, dead_letter(row, fence=4)) == [SUPERSEDED]
    assert await commit(stored, dead_letter(row, fence=5)) == [COMMITTED]


async def test_only_dead_letters_of_the_tenant_are_redriven(stored: Stored) -> None:
    row = await new(stored, "dead", "open", "done", "cancelled")
    await commit(stored, dead_letter(row, "dead"), grade(row, "done"))
    assert await redrive(stored, row, "open") == 0
    assert await redrive(stored, row, "done") == 0
    assert await redrive(stored, row, "dead", tenant=new_tenant()) == 0
    assert await redrive(stored, row, "dead") == 1
    assert await redrive(stored, row, "dead") == 0


async def test_a_redriven_task_comes_with_what_the_queue_needs(stored: Stored) -> None:
    row = await new(stored)
    await commit(stored, dead_letter(row))
    _, [task], _ = await stored.tasks.redrive(row.tenant, [TaskKey(row.submission_id, "q1")], "operator")
    assert task == (
        *(row.submission_id, "q1", row.tenant, "text", 1),
        *(row.priority, row.revision_id, row.answers, row.create_time, None, None, False),
    )


async def test_dead_letters_are_listed_over_all_shards_in_pages(stored: Stored) -> None:
    tenant = new_tenant()
    rows = [submission(tenant, items=("q2", "q1")) for _ in range(10)]
    await stored.submissions.create(rows)
    await commit(stored, *(dead_letter(row, item) for row in rows for item in ("q1", "q2")))
    seen: list[TaskKey] = []
    more = True
    while more:
        query = DeadLetterQuery(tenant, "", seen[-1] if seen else FIRST, 7)
        page, more, _ = await stored.tasks.dead_letters(query)
        seen += [TaskKey(letter.task.submission_id, letter.task.item_id) for letter in page]
    assert seen == sorted(TaskKey(row.submission_id, item) for row in rows for item in ("q1", "q2"))


async def test_dead_letters_are_the_tenants_and_the_queues_own(stored: Stored) -> None:
    row = await new(stored)
    await commit(stored, dead_letter(row))
    assert await stored.tasks.dead_letters(DeadLetterQuery(new_tenant(), "", FIRST, 9)) == ([], False, [])
    assert not (await stored.tasks.dead_letters(DeadLetterQuery(row.tenant, "numeric", FIRST, 9))).letters
    [letter] = (await stored.tasks.dead_letters(DeadLetterQuery(row.tenant, "text", FIRST, 9))).letters
    assert (letter.course, letter.assignment) == (row.course, row.assignment)
