"""What every store promises about large submissions: pages end early, and say so."""

from __future__ import annotations

from cinnabar_storage.ports import MAX_PAGE_BYTES
from cinnabar_storage.records import (
    AssignmentQuery,
    DeadLetterQuery,
    NewSubmission,
    Position,
    SubmissionKey,
    SubmissionQuery,
    TaskKey,
)
from tests.contract.storage.conftest import Stored
from tests.support.storage_domain import dead_letter, grade, key, new_tenant, revision, submission

MIB = 1024 * 1024


async def large(
    stored: Stored, tenant: str, count: int, size: int
) -> tuple[list[NewSubmission], list[Position]]:
    """Submissions over all shards, of ``size`` bytes each, oldest first, and where to read them."""
    rows = [submission(tenant, answers=bytes(size)) for _ in range(count)]
    positions: list[Position] = []
    for row in rows:
        positions += (await stored.submissions.create([row]))[1]
    return rows, positions


async def cancel(stored: Stored, rows: list[NewSubmission]) -> None:
    """Takes them out of the way of tests that read all open tasks."""
    await stored.submissions.cancel(list(map(key, rows)), "ann")


async def test_a_page_of_open_tasks_is_bounded_in_bytes(stored: Stored) -> None:
    tenant = new_tenant()
    items = tuple(f"q{number:02}" for number in range(30))
    row = submission(tenant, items=items, answers=bytes(2 * 1024 * 1024))
    await stored.submissions.create([row])
    shard = stored.shards.map.shard_of_id(row.submission_id)
    assert shard is not None
    before = TaskKey(row.submission_id, "")
    page, more = await stored.tasks.open(shard, before, 30)
    assert [task.item_id for task in page] == list(items[:8])
    assert more
    page, more = await stored.tasks.open(shard, TaskKey(row.submission_id, items[27]), 2)
    assert [task.item_id for task in page] == list(items[28:])
    await stored.submissions.cancel([key(row)], "ann")


async def test_one_open_task_is_given_whatever_its_size(stored: Stored) -> None:
    row = submission(new_tenant(), items=("q1", "q2"), answers=bytes(MAX_PAGE_BYTES + 1))
    await stored.submissions.create([row])
    shard = stored.shards.map.shard_of_id(row.submission_id)
    assert shard is not None
    page, more = await stored.tasks.open(shard, TaskKey(row.submission_id, ""), 5)
    assert [task.item_id for task in page] == ["q1"]
    assert page[0].answers == row.answers
    assert more
    await cancel(stored, [row])


async def test_reading_many_large_submissions_leaves_out_what_has_no_room(stored: Stored) -> None:
    rows, positions = await large(stored, new_tenant(), 20, 2 * MIB)
    wanted = set(map(key, rows))
    rounds = 0
    while wanted:
        found, left_out = await stored.submissions.get(sorted(wanted), positions)
        assert 0 < sum(len(one.row.answers) for one in found) <= MAX_PAGE_BYTES
        given = {SubmissionKey(one.row.tenant, one.row.submission_id) for one in found}
        assert given.isdisjoint(left_out)
        assert given | set(left_out) == wanted
        wanted = set(left_out)
        rounds += 1
    assert rounds >= 3
    await cancel(stored, rows)


async def test_one_submission_is_given_whatever_its_size(stored: Stored) -> None:
    rows, positions = await large(stored, new_tenant(), 1, MAX_PAGE_BYTES + 1)
    [found], left_out = await stored.submissions.get([key(rows[0])], positions)
    assert len(found.row.answers) == MAX_PAGE_BYTES + 1
    assert left_out == []
    await cancel(stored, rows)


async def test_grades_take_room_too(stored: Stored) -> None:
    rows = [submission(new_tenant()) for _ in range(4)]
    await stored.submissions.create(rows)
    graded = [grade(row)._replace(grade=bytes(6 * MIB)) for row in rows]
    positions: list[Position] = []
    for outcome in graded:
        positions += (await stored.tasks.commit([outcome]))[1]
    found, left_out = await stored.submissions.get(list(map(key, rows)), positions)
    assert len(found) + len(left_out) == 4
    assert 1 <= len(found) <= 2


async def test_a_list_of_large_submissions_comes_in_short_pages_without_a_gap(stored: Stored) -> None:
    tenant = new_tenant()
    rows, positions = await large(stored, tenant, 20, 2 * MIB)
    seen: list[str] = []
    more, pages = True, 0
    while more:
        query = SubmissionQuery(tenant, "net", "a1", "", seen[-1] if seen else "", 20)
        page, more, _ = await stored.submissions.list(query, positions)
        assert page
        seen += [one.row.submission_id for one in page]
        pages += 1
    assert seen == sorted((row.submission_id for row in rows), reverse=True)
    assert pages >= 3
    await cancel(stored, rows)


async def test_a_page_that_is_full_says_whether_there_are_more(stored: Stored) -> None:
    tenant = new_tenant()
    rows = [submission(tenant) for _ in range(4)]
    _, positions = await stored.submissions.create(rows)
    query = SubmissionQuery(tenant, "net", "a1", "", "", 4)
    assert (await stored.submissions.list(query, positions)).more is False
    assert (await stored.submissions.list(query._replace(limit=3), positions)).more is True


async def test_a_list_of_large_assignments_comes_in_short_pages_without_a_gap(stored: Stored) -> None:
    tenant, names = new_tenant(), ["a", "b", "c", "d", "e"]
    sizes = dict(zip(names, (6 * MIB, 6 * MIB, 6 * MIB, MAX_PAGE_BYTES + 1, 1), strict=True))
    positions = [
        (await stored.assignments.create(revision(tenant, name, spec=bytes(size))))[1]
        for name, size in sizes.items()
    ]
    pages: list[list[str]] = []
    more, after = True, ""
    while more:
        page, more = await stored.assignments.list(AssignmentQuery(tenant, "net", after, 5), positions)
        assert [len(one.spec) for one in page] == [sizes[one.assignment] for one in page]
        pages.append([one.assignment for one in page])
        after = page[-1].assignment
    assert pages == [["a", "b"], ["c"], ["d"], ["e"]]


async def test_a_list_of_large_reasons_comes_in_short_pages_without_a_gap(stored: Stored) -> None:
    tenant = new_tenant()
    rows = [submission(tenant) for _ in range(8)]
    await stored.submissions.create(rows)
    await stored.tasks.commit([dead_letter(row, reason="x" * 3 * MIB) for row in rows])
    seen: list[str] = []
    more, pages = True, 0
    while more:
        after = TaskKey(seen[-1], "q1") if seen else TaskKey("", "")
        page, more, _ = await stored.tasks.dead_letters(DeadLetterQuery(tenant, "", after, 12))
        assert 0 < sum(len(letter.task.reason) for letter in page) <= MAX_PAGE_BYTES
        seen += [letter.task.submission_id for letter in page]
        pages += 1
    assert seen == sorted(row.submission_id for row in rows)
    assert pages >= 2


async def test_redriving_large_tasks_gives_as_many_as_have_room(stored: Stored) -> None:
    tenant = new_tenant()
    rows, _ = await large(stored, tenant, 10, 2 * MIB)
    await stored.tasks.commit([dead_letter(row) for row in rows])
    results, opened, _ = await stored.tasks.redrive(
        tenant, [TaskKey(row.submission_id, "q1") for row in rows], "operator"
    )
    assert {result.name for result in results} == {"REDRIVEN"}
    assert len(results) == 10
    assert len(opened) == 8
    await cancel(stored, rows)
