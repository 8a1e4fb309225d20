"""What every store promises about grades that wait for a person."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import pytest_asyncio

from cinnabar_common.errors import EtagMismatch, ResourceNotFound
from cinnabar_common.names import bucket_of, new_id
from cinnabar_storage.adapters.memory.objects import MemoryObjects
from cinnabar_storage.etags import etag_of
from cinnabar_storage.privacy.erasures import Erasures
from cinnabar_storage.records import (
    CommitResult,
    Doubt,
    Graded,
    Micros,
    NewSubmission,
    Position,
    SubmissionKey,
)
from cinnabar_storage.regrading.records import Wanted
from cinnabar_storage.reviewing.overrides import Reviews
from cinnabar_storage.reviewing.records import Override
from cinnabar_storage.reviewing.waiting import WaitingReviews
from cinnabar_storage.reviewing.waiting_records import (
    FROM_THE_OLDEST,
    Acceptance,
    ReviewCursor,
    ReviewQuery,
    WaitingReview,
)
from tests.contract.storage.conftest import Stored
from tests.support.regrade_domain import PARENT, Course
from tests.support.storage_domain import grade, key, new_tenant, submission

FLAGS = ("INSTRUCTION_LIKE", "LOW_CONFIDENCE")


@pytest.fixture
def waiting(stored: Stored) -> WaitingReviews:
    return WaitingReviews(stored.shards)


def doubted(
    row: NewSubmission, item: str = "q1", *, generation: int = 1, fence: int = 1, flags: Sequence[str] = FLAGS
) -> Graded:
    """A grade that a person should look at: 1.5 of 4 points."""
    certain = grade(row, item, generation=generation, fence=fence)
    return certain._replace(doubt=Doubt(tuple(flags), 4.0))


def accept(row: NewSubmission, item: str = "q1", *, etag: str = "") -> Acceptance:
    return Acceptance(key(row), item, row.course, row.assignment, "instructor/ann", "as it is", etag)


async def everything_read(stored: Stored) -> list[Position]:
    """Where everything can be read that was written until now: a cancellation of nothing tells."""
    somebody = [new_id(bucket_of("nobody", f"author-{number}")) for number in range(32)]
    keys = [SubmissionKey("nobody", one) for one in somebody]
    return (await stored.submissions.cancel(keys, "nobody"))[1]


async def listed(
    stored: Stored,
    waiting: WaitingReviews,
    tenant: str,
    *,
    course: str = "",
    assignment: str = "",
    flag: str = "",
    limit: int = 100,
) -> list[WaitingReview]:
    """All that wait, read in pages."""
    positions = await everything_read(stored)
    found: list[WaitingReview] = []
    after = FROM_THE_OLDEST
    while True:
        query = ReviewQuery(tenant, course, assignment, flag, after, limit)
        page = await waiting.list(query, positions)
        assert page.unreachable == []
        assert len(page.reviews) <= limit
        found += page.reviews
        if not page.more:
            return found
        after = found[-1].cursor


async def names(stored: Stored, waiting: WaitingReviews, tenant: str) -> list[tuple[str, str, int]]:
    return [(one.submission_id, one.item_id, one.generation) for one in await listed(stored, waiting, tenant)]


async def test_a_grade_in_doubt_waits_with_what_is_needed_to_judge_it(
    stored: Stored, waiting: WaitingReviews
) -> None:
    row = submission(new_tenant(), items=("q1", "q2", "q3"))
    await stored.submissions.create([row])
    outcomes = [doubted(row), grade(row, "q2"), doubted(row, "q3", flags=())]
    assert (await stored.tasks.commit(outcomes))[0] == [CommitResult.COMMITTED] * 3
    found = {one.item_id: one for one in await listed(stored, waiting, row.tenant)}
    assert sorted(found) == ["q1", "q3"]
    first = found["q1"]
    assert first[:9] == (row.submission_id, "q1", "net", "a1", row.author, 1, FLAGS, 1.5, 4.0)
    assert first.create_time >= row.create_time - 60_000_000
    assert found["q3"].flags == ()


async def test_a_grade_that_is_refused_makes_no_review(stored: Stored, waiting: WaitingReviews) -> None:
    row = submission(new_tenant())
    await stored.submissions.create([row])
    await stored.tasks.commit([grade(row, fence=5)])
    late = [doubted(row, fence=9), doubted(row, generation=2, fence=9)]
    assert (await stored.tasks.commit(late))[0] == [CommitResult.ALREADY_GRADED, CommitResult.SUPERSEDED]
    assert await names(stored, waiting, row.tenant) == []


async def test_one_batch_has_all_kinds_and_the_same_task_twice(
    stored: Stored, waiting: WaitingReviews
) -> None:
    rows = [submission(new_tenant() if number == 3 else "batch-of-kinds") for number in range(4)]
    await stored.submissions.create(rows)
    outcomes = [doubted(rows[0]), grade(rows[1]), doubted(rows[0], fence=7), doubted(rows[3])]
    results, _ = await stored.tasks.commit(outcomes)
    assert [result.name for result in results] == ["COMMITTED", "COMMITTED", "ALREADY_GRADED", "COMMITTED"]
    assert await names(stored, waiting, "batch-of-kinds") == [(rows[0].submission_id, "q1", 1)]
    assert await names(stored, waiting, rows[3].tenant) == [(rows[3].submission_id, "q1", 1)]


async def test_the_list_goes_by_age_over_all_shards_and_by_what_is_asked(
    stored: Stored, waiting: WaitingReviews
) -> None:
    tenant = new_tenant()
    rows = [
        submission(tenant, f"s{number}", course=course, assignment=assignment)
        for number, (course, assignment) in enumerate(
            [("net", "a1"), ("net", "a2"), ("algo", "a1"), ("net", "a1")] * 3
        )
    ]
    await stored.submissions.create(rows)
    for number, row in enumerate(rows):
        await stored.tasks.commit([doubted(row, flags=["ODD"] if number % 2 else ["EVEN"])])
    everything = await listed(stored, waiting, tenant)
    assert [one.submission_id for one in everything] == [row.submission_id for row in rows]
    for limit in (1, 5, 12):
        assert await listed(stored, waiting, tenant, limit=limit) == everything
    of_course = await listed(stored, waiting, tenant, course="net", limit=2)
    assert of_course == [one for one in everything if one.course == "net"]
    of_assignment = await listed(stored, waiting, tenant, course="net", assignment="a1", limit=2)
    assert of_assignment == [one for one in of_course if one.assignment == "a1"]
    odd = await listed(stored, waiting, tenant, course="net", flag="ODD", limit=1)
    assert odd == [one for one in of_course if one.flags == ("ODD",)]
    assert len(odd) == 6
    for course, assignment, flag in (("none", "", ""), ("net", "none", ""), ("net", "a1", "odd")):
        assert await listed(stored, waiting, tenant, course=course, assignment=assignment, flag=flag) == []
    assert await listed(stored, waiting, new_tenant()) == []


async def test_accepting_ends_it_and_changes_nothing_else(stored: Stored, waiting: WaitingReviews) -> None:
    row = submission(new_tenant(), items=("q1", "q2"))
    await stored.submissions.create([row])
    await stored.tasks.commit([doubted(row), doubted(row, "q2")])
    [before] = (await stored.submissions.get([key(row)], await everything_read(stored)))[0]
    accepted, position = await waiting.accept(accept(row, etag=etag_of(before)))
    assert accepted.review[:9] == (row.submission_id, "q1", "net", "a1", row.author, 1, FLAGS, 1.5, 4.0)
    assert (accepted.grade.score, accepted.grade.grade) == (1.5, b"under 1")
    [after] = (await stored.submissions.get([key(row)], [position]))[0]
    assert sorted(after.grades) == sorted(before.grades)
    assert await names(stored, waiting, row.tenant) == [(row.submission_id, "q2", 1)]
    with pytest.raises(ResourceNotFound):
        await waiting.accept(accept(row))
    page = await Reviews(stored.shards).audit_events(key(row), None, 10, [position])
    told = [event[2:7] for _, event in page.events if event.action == "accept-review"]
    assert told == [("instructor/ann", "accept-review", "q1", 1, "as it is")]


async def test_accepting_what_has_changed_or_is_not_there_is_refused(
    stored: Stored, waiting: WaitingReviews
) -> None:
    row = submission(new_tenant(), items=("q1", "q2"))
    await stored.submissions.create([row])
    await stored.tasks.commit([doubted(row)])
    [seen] = (await stored.submissions.get([key(row)], await everything_read(stored)))[0]
    await stored.tasks.commit([grade(row, "q2", fence=2)])
    with pytest.raises(EtagMismatch):
        await waiting.accept(accept(row, etag=etag_of(seen)))
    right = accept(row)
    for wrong in (
        right._replace(key=SubmissionKey(new_tenant(), row.submission_id)),
        right._replace(key=SubmissionKey(row.tenant, "no-id")),
        right._replace(item_id="q2"),
        right._replace(item_id="q7"),
        right._replace(course="other"),
        right._replace(assignment="other"),
    ):
        with pytest.raises(ResourceNotFound):
            await waiting.accept(wrong)
    assert await names(stored, waiting, row.tenant) == [(row.submission_id, "q1", 1)]


async def test_an_override_ends_it(stored: Stored, waiting: WaitingReviews) -> None:
    row = submission(new_tenant())
    await stored.submissions.create([row])
    await stored.tasks.commit([doubted(row)])
    await Reviews(stored.shards).override(Override(key(row), "q1", 3.0, b"mine", "instructor/ann", "why"))
    assert await names(stored, waiting, row.tenant) == []
    with pytest.raises(ResourceNotFound):
        await waiting.accept(accept(row))


async def test_cancelling_the_rest_does_not_hide_a_grade_that_counts(
    stored: Stored, waiting: WaitingReviews
) -> None:
    row = submission(new_tenant(), items=("q1", "q2"))
    await stored.submissions.create([row])
    await stored.tasks.commit([doubted(row)])
    await stored.submissions.cancel([key(row)], "student/bob")
    assert await names(stored, waiting, row.tenant) == [(row.submission_id, "q1", 1)]


async def test_erasing_the_student_ends_it(stored: Stored, waiting: WaitingReviews) -> None:
    tenant = new_tenant()
    mine, others = submission(tenant, "ann"), submission(tenant, "bob")
    await stored.submissions.create([mine, others])
    await stored.tasks.commit([doubted(mine), doubted(others)])
    erasures = Erasures(stored.shards, MemoryObjects(), subject_key="k" * 32)
    wanted = new_id(bucket_of(tenant, "ann"))
    await erasures.begin(tenant, "ann", erasure_id=wanted, actor="operator/root", reason="asked to")
    for index in range(len(stored.shards)):
        while await erasures.erase_one(index):
            pass
    assert await names(stored, waiting, tenant) == [(others.submission_id, "q1", 1)]


async def opened_again(net: Course, row: NewSubmission, generation: int) -> None:
    assert await net.reopen(row, "q1") == 1
    assert {task.generation for task in (await net.now(row)).tasks} == {generation}


@pytest_asyncio.fixture
async def net(stored: Stored) -> Course:
    return await Course(stored.shards, stored.submissions, stored.tasks, stored.assignments).open()


async def test_a_newer_grade_takes_its_place_or_ends_it(
    stored: Stored, waiting: WaitingReviews, net: Course
) -> None:
    [ann] = await net.submit("ann")  # and graded, without a doubt
    await opened_again(net, ann, 2)
    await stored.tasks.commit([doubted(ann, generation=2, fence=1 << 40)])
    [first] = await listed(stored, waiting, net.tenant)
    await opened_again(net, ann, 3)
    assert await listed(stored, waiting, net.tenant) == [first]  # what counts is still this one
    await stored.tasks.commit([doubted(ann, generation=3, fence=1 << 41, flags=["OTHER"])])
    [second] = await listed(stored, waiting, net.tenant)
    assert (second.generation, second.flags) == (3, ("OTHER",))
    assert second.create_time >= first.create_time
    await opened_again(net, ann, 4)
    await stored.tasks.commit([grade(ann, generation=4, fence=1 << 42)])
    assert await listed(stored, waiting, net.tenant) == []


@pytest.mark.parametrize("before", [True, False], ids=["one waits", "none waits"])
async def test_a_shadow_has_none_until_it_is_promoted(
    stored: Stored, waiting: WaitingReviews, net: Course, before: bool
) -> None:
    ann, bob = await net.submit("ann", "bob")
    if before:
        for row in (ann, bob):
            await opened_again(net, row, 2)
            await stored.tasks.commit([doubted(row, generation=2, fence=1 << 40, flags=["BEFORE"])])
    waiting_before = await listed(stored, waiting, net.tenant)
    shadow = await net.opened(shadow=True)
    generation = 3 if before else 2
    await stored.tasks.commit(
        [doubted(ann, generation=generation, fence=1 << 41), grade(bob, generation=generation, fence=1 << 41)]
    )
    for row in (ann, bob):
        await stored.tasks.commit([grade(row, "q2", generation=2, fence=1 << 41)])
    assert await listed(stored, waiting, net.tenant) == waiting_before
    await net.regrades.decide(shadow, PARENT, Wanted.PROMOTE, "instructor/ann")
    await net.settle(shadow)
    # Bob's grade is beyond doubt now, Ann's is not.
    [left] = await listed(stored, waiting, net.tenant)
    assert (left.submission_id, left.generation, left.flags) == (ann.submission_id, generation + 1, FLAGS)
    assert left.max_score == 4.0


async def test_a_place_in_the_list_needs_no_review_there(stored: Stored, waiting: WaitingReviews) -> None:
    row = submission(new_tenant())
    await stored.submissions.create([row])
    await stored.tasks.commit([doubted(row)])
    [found] = await listed(stored, waiting, row.tenant)
    for step, left in ((-1, 1), (1, 0)):
        place = ReviewCursor(Micros(found.create_time + step), "x", "x")
        query = ReviewQuery(row.tenant, "", "", "", place, 10)
        assert len((await waiting.list(query, await everything_read(stored))).reviews) == left
