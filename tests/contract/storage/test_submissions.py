"""What every store promises about submissions."""

from __future__ import annotations

import pytest

from cinnabar_common.errors import InvalidRequest
from cinnabar_common.names import Bucket, bucket_of, new_id
from cinnabar_storage.records import (
    CreateStatus,
    NewSubmission,
    Position,
    Submission,
    SubmissionKey,
    SubmissionQuery,
    TaskKey,
    TaskState,
)
from tests.contract.storage.conftest import Stored
from tests.support.storage_domain import dead_letter, grade, key, new_tenant, submission

CREATED, DUPLICATE, CONFLICT = CreateStatus.CREATED, CreateStatus.DUPLICATE, CreateStatus.CONFLICT


async def created(stored: Stored, *rows: NewSubmission) -> list[Position]:
    results, positions = await stored.submissions.create(rows)
    assert [result.status for result in results] == [CREATED] * len(rows)
    return positions


async def read(stored: Stored, row: NewSubmission, positions: list[Position]) -> Submission:
    [found], _ = await stored.submissions.get([key(row)], positions)
    return found


async def test_what_is_created_is_read_back(stored: Stored) -> None:
    row = submission(new_tenant(), items=("q1", "q2"), answers="答案\0".encode())
    found = await read(stored, row, await created(stored, row))
    assert found.row == (
        *(row.submission_id, row.tenant, row.course, row.assignment, row.revision_id),
        *(row.author, row.priority, row.answers, row.max_score, row.create_time, None, None),
    )
    assert [(task.item_id, task.queue, task.generation, task.state) for task in found.tasks] == [
        ("q1", "text", 1, TaskState.OPEN),
        ("q2", "text", 1, TaskState.OPEN),
    ]
    assert found.grades == []


async def test_positions_name_the_shards_that_were_written(stored: Stored) -> None:
    tenant = new_tenant()
    rows = [submission(tenant) for _ in range(20)]
    shards = {stored.shards.map.shard_of_id(row.submission_id) for row in rows}
    first = await created(stored, *rows)
    assert {position.shard for position in first} == shards == {0, 1}
    second = await created(stored, *(submission(tenant) for _ in range(20)))
    before = {position.shard: position.lsn for position in first}
    assert all(position.lsn > before[position.shard] for position in second)


async def test_no_rows_are_no_work(stored: Stored) -> None:
    assert await stored.submissions.create([]) == ([], [])


async def test_the_same_request_is_a_duplicate_under_the_first_id(stored: Stored) -> None:
    tenant = new_tenant()
    first = submission(tenant, "ann", request_id="r", fingerprint=b"f")
    again = submission(tenant, "ann", request_id="r", fingerprint=b"f")
    await created(stored, first)
    results, positions = await stored.submissions.create([again])
    assert results == [(DUPLICATE, first.submission_id)]
    assert await stored.submissions.get([key(again)], positions) == ([], [])


async def test_the_same_request_id_with_other_content_is_a_conflict(stored: Stored) -> None:
    tenant = new_tenant()
    first = submission(tenant, "ann", request_id="r", fingerprint=b"f")
    other = submission(tenant, "ann", request_id="r", fingerprint=b"g")
    await created(stored, first)
    results, positions = await stored.submissions.create([other])
    assert results == [(CONFLICT, first.submission_id)]
    assert await stored.submissions.get([key(other)], positions) == ([], [])


async def test_a_request_id_is_the_authors_own(stored: Stored) -> None:
    tenant = new_tenant()
    await created(
        stored,
        submission(tenant, "ann", request_id="r"),
        submission(tenant, "bob", request_id="r"),
        submission(new_tenant(), "ann", request_id="r"),
    )


async def test_of_one_request_twice_in_a_batch_the_first_wins(stored: Stored) -> None:
    tenant = new_tenant()
    rows = [
        submission(tenant, "ann", request_id="r", fingerprint=b"f"),
        submission(tenant, "ann", request_id="r", fingerprint=b"f"),
        submission(tenant, "ann", request_id="r", fingerprint=b"g"),
        submission(tenant, "ann"),
    ]
    results, _ = await stored.submissions.create(rows)
    winner = rows[0].submission_id
    assert results == [
        (CREATED, winner),
        (DUPLICATE, winner),
        (CONFLICT, winner),
        (CREATED, rows[3].submission_id),
    ]


@pytest.mark.parametrize("request_id", [None, "r"])
async def test_the_same_id_again_is_a_duplicate(stored: Stored, request_id: str | None) -> None:
    row = submission(new_tenant(), request_id=request_id)
    results, _ = await stored.submissions.create([row, row])
    assert results == [(CREATED, row.submission_id), (DUPLICATE, row.submission_id)]
    results, positions = await stored.submissions.create([row])
    assert results == [(DUPLICATE, row.submission_id)]
    assert len((await read(stored, row, positions)).tasks) == 1


async def test_the_same_id_with_other_content_is_a_conflict(stored: Stored) -> None:
    row = submission(new_tenant())
    positions = await created(stored, row)
    results, _ = await stored.submissions.create([row._replace(answers=b"others")])
    assert results == [(CONFLICT, row.submission_id)]
    assert (await read(stored, row, positions)).row.answers == row.answers


async def test_the_same_id_under_another_request_id_is_the_same_submission(stored: Stored) -> None:
    row = submission(new_tenant(), request_id="r")
    await created(stored, row)
    results, _ = await stored.submissions.create([row._replace(request_id="s")])
    assert results == [(DUPLICATE, row.submission_id)]


async def test_a_duplicate_of_a_graded_submission_opens_nothing(stored: Stored) -> None:
    row = submission(new_tenant(), request_id="r")
    await created(stored, row)
    await stored.tasks.commit([grade(row)])
    results, positions = await stored.submissions.create([row])
    assert results == [(DUPLICATE, row.submission_id)]
    found = await read(stored, row, positions)
    assert (len(found.tasks), len(found.grades)) == (0, 1)


@pytest.mark.parametrize("bad", ["other-bucket", "no-bucket", "../x-3ff"])
async def test_an_id_outside_of_its_authors_bucket_is_refused(stored: Stored, bad: str) -> None:
    tenant = new_tenant()
    good, row = submission(tenant), submission(tenant)
    wrong = Bucket((bucket_of(tenant, row.author) + 1) % 1024)
    row = row._replace(submission_id=new_id(wrong) if bad == "other-bucket" else bad)
    with pytest.raises(InvalidRequest, match=r"submissions\[1\]\.submission_id"):
        await stored.submissions.create([good, row])
    assert await stored.submissions.get([key(good)], []) == ([], [])


async def test_another_tenant_sees_nothing(stored: Stored) -> None:
    row = submission(new_tenant())
    positions = await created(stored, row)
    stranger = SubmissionKey(new_tenant(), row.submission_id)
    assert await stored.submissions.get([stranger], positions) == ([], [])
    assert (await stored.submissions.cancel([stranger], "x"))[0] == []
    query = SubmissionQuery(stranger.tenant, "net", "a1", "", "", 10)
    assert await stored.submissions.list(query, positions) == ([], False, [])


async def test_ids_that_cannot_exist_are_left_out(stored: Stored) -> None:
    keys = [SubmissionKey("t", "nonsense"), SubmissionKey("t", new_id(Bucket(5)))]
    assert await stored.submissions.get(keys, []) == ([], [])
    assert (await stored.submissions.cancel(keys, "x"))[0] == []


async def test_cancelling_closes_what_is_open_and_only_that(stored: Stored) -> None:
    row = submission(new_tenant(), items=("done", "lost", "open"))
    await created(stored, row)
    await stored.tasks.commit([grade(row, "done"), dead_letter(row, "lost")])
    cancelled, positions, silent = await stored.submissions.cancel([key(row), key(row)], "ann")
    assert silent == []
    assert [(task.item_id, task.state) for task in cancelled] == [("open", TaskState.CANCELLED)]
    found = await read(stored, row, positions)
    assert {task.item_id: task.state for task in found.tasks} == {
        "lost": TaskState.DEAD_LETTERED,
        "open": TaskState.CANCELLED,
    }
    assert [item.item_id for item in found.grades] == ["done"]
    assert (await stored.submissions.cancel([key(row)], "ann"))[0] == []


async def test_a_list_is_newest_first_over_all_shards_in_pages(stored: Stored) -> None:
    tenant = new_tenant()
    rows = [submission(tenant) for _ in range(25)]
    positions = await created(stored, *rows, submission(tenant, assignment="a2"))
    await stored.tasks.commit([grade(rows[-1])])
    seen: list[str] = []
    sizes: list[int] = []
    more = True
    while more:
        page, more, _ = await stored.submissions.list(
            SubmissionQuery(tenant, "net", "a1", "", seen[-1] if seen else "", 10), positions
        )
        seen += [item.row.submission_id for item in page]
        sizes.append(len(page))
    assert sizes == [10, 10, 5]
    assert seen == sorted((row.submission_id for row in rows), reverse=True)


async def test_a_list_carries_tasks_and_grades(stored: Stored) -> None:
    tenant = new_tenant()
    row = submission(tenant, items=("q1", "q2"))
    await created(stored, row)
    _, positions = await stored.tasks.commit([grade(row)])
    query = SubmissionQuery(tenant, "net", "a1", "", "", 10)
    [found] = (await stored.submissions.list(query, positions)).submissions
    assert [task.item_id for task in found.tasks] == ["q2"]
    assert [item.item_id for item in found.grades] == ["q1"]


async def test_a_student_lists_their_own(stored: Stored) -> None:
    tenant = new_tenant()
    mine = [submission(tenant, "ann") for _ in range(3)]
    positions = await created(stored, *mine, *(submission(tenant) for _ in range(5)))
    query = SubmissionQuery(tenant, "net", "a1", "ann", "", 2)
    page, more, _ = await stored.submissions.list(query, positions)
    assert more
    assert [item.row.submission_id for item in page] == [mine[2].submission_id, mine[1].submission_id]


async def test_open_tasks_come_in_order_and_with_what_the_queue_needs(stored: Stored) -> None:
    tenant = new_tenant()
    rows = [submission(tenant, items=("q2", "q1")) for _ in range(6)]
    await created(stored, *rows)
    await stored.tasks.commit([grade(rows[0], "q1")])
    found: list[tuple[str, str]] = []
    for shard in range(2):
        after = TaskKey("", "")
        more = True
        while more:
            page, more = await stored.tasks.open(shard, after, 5)
            found += [(task.submission_id, task.item_id) for task in page if task.tenant == tenant]
            assert [(task.submission_id, task.item_id) for task in page] == sorted(
                (task.submission_id, task.item_id) for task in page
            )
            if page:
                after = TaskKey(page[-1].submission_id, page[-1].item_id)
    everything = {(row.submission_id, item) for row in rows for item in ("q1", "q2")}
    assert sorted(found) == sorted(everything - {(rows[0].submission_id, "q1")})


async def test_a_shard_that_is_not_there_is_refused(stored: Stored) -> None:
    with pytest.raises(InvalidRequest, match="no such shard"):
        await stored.tasks.open(2, TaskKey("", ""), 1)
