"""What every store promises about times, redriving, where tasks are, and what operators want."""

from __future__ import annotations

import time
from uuid import uuid4

import pytest

from cinnabar_common.errors import InvalidRequest
from cinnabar_common.names import Bucket, bucket_of, new_id
from cinnabar_storage.records import (
    Created,
    CreateStatus,
    NewSubmission,
    OpenTask,
    OwnedTaskKey,
    QueueControl,
    RedriveResult,
    TaskCounts,
    TaskKey,
)
from tests.contract.storage.conftest import Stored
from tests.support.storage_domain import dead_letter, grade, key, new_tenant, sought, submission
from tests.support.waiting import until

LATER = 4_000_000_000_000_000
EARLIER = 1_000_000_000_000_001


async def created(stored: Stored, *rows: NewSubmission) -> None:
    results, _ = await stored.submissions.create(rows)
    assert {result.status for result in results} == {CreateStatus.CREATED}


def shard_of(stored: Stored, row: NewSubmission) -> int:
    shard = stored.shards.map.shard_of_id(row.submission_id)
    assert shard is not None
    return shard


async def open_task(stored: Stored, row: NewSubmission, item: str = "q1") -> OpenTask:
    """The task as recovery reads it."""
    before = TaskKey(row.submission_id, item[:-1])
    [task], _ = await stored.tasks.open(shard_of(stored, row), before, 1)
    assert (task.submission_id, task.item_id) == (row.submission_id, item)
    return task


async def redrive(stored: Stored, row: NewSubmission, *items: str) -> list[RedriveResult]:
    results, _, _ = await stored.tasks.redrive(
        row.tenant, [TaskKey(row.submission_id, item) for item in items], "operator"
    )
    return results


async def test_times_are_kept_to_the_microsecond(stored: Stored) -> None:
    row = submission(new_tenant(), grade_after=EARLIER, grade_by=LATER + 1)
    _, positions = await stored.submissions.create([row])
    [found], _ = await stored.submissions.get([key(row)], positions)
    assert (found.row.grade_after, found.row.grade_by) == (EARLIER, LATER + 1)
    task = await open_task(stored, row)
    assert (task.grade_after, task.grade_by) == (EARLIER, LATER + 1)


async def test_rows_with_and_without_times_share_a_batch(stored: Stored) -> None:
    tenant = new_tenant()
    rows = [submission(tenant), submission(tenant, grade_by=LATER), submission(tenant, grade_after=LATER)]
    await created(stored, *rows)
    tasks = [await open_task(stored, row) for row in rows]
    assert [(task.grade_after, task.grade_by) for task in tasks] == [
        (None, None),
        (None, LATER),
        (LATER, None),
    ]


async def test_looking_for_a_request_tells_what_became_of_it_and_stores_nothing(stored: Stored) -> None:
    tenant = new_tenant()
    row = submission(tenant, "ann", request_id="r", fingerprint=b"f")
    await created(stored, row)
    results, _ = await stored.submissions.create(
        [
            sought(tenant, "ann", "r", b"f"),
            sought(tenant, "ann", "r", b"g"),
            sought(tenant, "ann", "s", b"f"),
            sought(tenant, "bob", "r", b"f"),
            sought(new_tenant(), "ann", "r", b"f"),
        ]
    )
    assert results[:2] == [
        Created(CreateStatus.DUPLICATE, row.submission_id),
        Created(CreateStatus.CONFLICT, row.submission_id),
    ]
    assert [result.status for result in results[2:]] == [CreateStatus.ABSENT] * 3
    results, _ = await stored.submissions.create([sought(tenant, "ann", "s", b"f")])
    assert [result.status for result in results] == [CreateStatus.ABSENT]


async def test_a_whole_submission_can_be_looked_for_and_created_later(stored: Stored) -> None:
    row = submission(new_tenant(), request_id="r", fingerprint=b"f")
    looked = row._replace(existing_only=True)
    results, _ = await stored.submissions.create([looked, looked])
    assert results == [Created(CreateStatus.ABSENT, row.submission_id)] * 2
    await created(stored, row)
    results, _ = await stored.submissions.create([looked])
    assert results == [Created(CreateStatus.DUPLICATE, row.submission_id)]


async def test_a_submission_is_not_found_by_its_id_when_its_request_is_looked_for(stored: Stored) -> None:
    row = submission(new_tenant(), request_id="r")
    await created(stored, row)
    other = row._replace(existing_only=True, request_id="s")
    results, _ = await stored.submissions.create([other])
    assert results == [Created(CreateStatus.ABSENT, row.submission_id)]


async def test_looking_sees_what_its_own_batch_creates(stored: Stored) -> None:
    tenant = new_tenant()
    row = submission(tenant, "ann", request_id="r", fingerprint=b"f")
    results, _ = await stored.submissions.create([sought(tenant, "ann", "r", b"f"), row])
    assert results == [
        Created(CreateStatus.DUPLICATE, row.submission_id),
        Created(CreateStatus.CREATED, row.submission_id),
    ]


async def test_each_redriven_task_has_its_own_result_in_order(stored: Stored) -> None:
    row = submission(new_tenant(), items=("cancelled", "dead-1", "dead-2", "done"))
    await created(stored, row)
    await stored.tasks.commit([grade(row, "done"), dead_letter(row, "dead-1"), dead_letter(row, "dead-2")])
    await stored.submissions.cancel([key(row)], "ann")
    items = ("dead-2", "unknown", "done", "cancelled", "dead-1", "dead-2")
    assert await redrive(stored, row, *items) == [
        RedriveResult.REDRIVEN,
        RedriveResult.NOT_FOUND,
        RedriveResult.NOT_DEAD_GRADED,
        RedriveResult.NOT_DEAD_CANCELLED,
        RedriveResult.REDRIVEN,
        RedriveResult.NOT_DEAD_OPEN,
    ]


async def test_what_is_not_the_tenants_or_no_id_is_not_found(stored: Stored) -> None:
    row = submission(new_tenant())
    await created(stored, row)
    await stored.tasks.commit([dead_letter(row)])
    keys = [
        TaskKey(row.submission_id, "q1"),
        TaskKey("nonsense", "q1"),
        TaskKey(new_id(bucket_of(row.tenant, row.author)), "q1"),
    ]
    results, opened, _ = await stored.tasks.redrive(new_tenant(), keys, "operator")
    assert results == [RedriveResult.NOT_FOUND] * 3
    assert opened == []
    assert await redrive(stored, row, "q1") == [RedriveResult.REDRIVEN]


async def test_redriving_after_the_deadline_lifts_it_for_that_task_alone(stored: Stored) -> None:
    row = submission(new_tenant(), items=("dead", "open"), grade_by=EARLIER)
    await created(stored, row)
    await stored.tasks.commit([dead_letter(row, "dead")])
    _, [opened], _ = await stored.tasks.redrive(row.tenant, [TaskKey(row.submission_id, "dead")], "operator")
    assert opened.grade_by is None
    assert (await open_task(stored, row, "dead")).grade_by is None
    assert (await open_task(stored, row, "open")).grade_by == EARLIER
    [found], _ = await stored.shards[shard_of(stored, row)].read_primary(
        lambda copy: copy.submissions([key(row)], max_bytes=1)
    )
    assert found.row.grade_by == EARLIER


async def test_a_deadline_stays_lifted_when_the_task_dies_again(stored: Stored) -> None:
    row = submission(new_tenant(), grade_by=EARLIER)
    await created(stored, row)
    for fence in (1, 2):
        await stored.tasks.commit([dead_letter(row, fence=fence)])
        await redrive(stored, row, "q1")
        assert (await open_task(stored, row)).grade_by is None


async def test_redriving_before_the_deadline_keeps_it(stored: Stored) -> None:
    row = submission(new_tenant(), grade_by=LATER)
    await created(stored, row)
    await stored.tasks.commit([dead_letter(row)])
    _, [opened], _ = await stored.tasks.redrive(row.tenant, [TaskKey(row.submission_id, "q1")], "operator")
    assert opened.grade_by == LATER


async def test_open_generations_are_told_in_order(stored: Stored) -> None:
    rows = [submission(new_tenant(), items=("done", "dead", "open")) for _ in range(6)]
    await created(stored, *rows)
    cancelled = submission(new_tenant())
    await created(stored, cancelled)
    await stored.submissions.cancel([key(cancelled)], "ann")
    for row in rows:
        await stored.tasks.commit([grade(row, "done"), dead_letter(row, "dead")])
    keys = [
        OwnedTaskKey(row.tenant, row.submission_id, item)
        for item in ("open", "dead", "done", "unknown", "open")
        for row in rows
    ]
    found = await stored.tasks.open_generations(keys)
    assert found == [1] * 6 + [0] * 18 + [1] * 6
    others = [
        OwnedTaskKey(cancelled.tenant, cancelled.submission_id, "q1"),
        OwnedTaskKey(new_tenant(), rows[0].submission_id, "open"),
        OwnedTaskKey("t", "nonsense", "q1"),
        OwnedTaskKey("t", new_id(Bucket(5)), "q1"),
    ]
    assert await stored.tasks.open_generations(others) == [0, 0, 0, 0]
    assert await stored.tasks.open_generations([]) == []


async def test_a_count_says_where_every_task_is(stored: Stored) -> None:
    shard = stored.shards[0]
    before: list[TaskCounts] = []

    async def at_rest() -> bool:
        before.append(await shard.count_tasks())
        return len(before) > 1 and before[-1] == before[-2] and sum(before[-1][1:]) == before[-1].accepted

    await until(at_rest, description="the replica shows what other tests did")
    rows = [submission(new_tenant(), items=("done", "dead", "open", "more")) for _ in range(8)]
    cancelled = submission(new_tenant(), items=("q1", "q2"))
    await created(stored, *rows, cancelled)
    await stored.tasks.commit(
        [outcome for row in rows for outcome in (grade(row, "done"), dead_letter(row, "dead"))]
    )
    await stored.submissions.cancel([key(cancelled)], "ann")
    here = sum(shard_of(stored, row) == 0 for row in rows)
    gone = 2 * (shard_of(stored, cancelled) == 0)
    added = (4 * here + gone, 2 * here, here, gone, here)
    wanted = TaskCounts(*(old + new for old, new in zip(before[-1], added, strict=True)))

    async def counted() -> bool:
        return await shard.count_tasks() == wanted

    await until(counted, description=f"the counts are {wanted}")


async def test_only_a_shard_that_is_there_is_counted(stored: Stored) -> None:
    with pytest.raises(InvalidRequest, match="no such shard"):
        await stored.tasks.count(2)
    assert (await stored.tasks.count(1)).accepted >= 0


async def test_what_is_wanted_of_a_queue_is_remembered_and_replaced(stored: Stored) -> None:
    first, second = (f"{letter}-{uuid4().hex[:8]}" for letter in "ab")
    await stored.controls.set(QueueControl(second, 2, "ann"))
    await stored.controls.set(QueueControl(first, 3, "ann"))
    await stored.controls.set(QueueControl(second, 1, "bob"))
    await stored.controls.set(QueueControl(second, 1, "bob"))
    found = [control for control in await stored.controls.list() if control.queue in (first, second)]
    assert found == [QueueControl(first, 3, "ann"), QueueControl(second, 1, "bob")]


def test_the_times_of_these_tests_are_before_and_after_now() -> None:
    assert EARLIER < time.time_ns() // 1000 < LATER
