"""Grades by people: over whatever is there, once, and only over what was read where that was asked for."""

from __future__ import annotations

import asyncio

import pytest

from cinnabar_common.errors import EtagMismatch, ResourceNotFound
from cinnabar_storage.etags import etag_of
from cinnabar_storage.records import CommitResult, GradeKind, NewSubmission, Position, Submission, TaskKey
from cinnabar_storage.reviewing.overrides import Reviews
from cinnabar_storage.reviewing.records import GradingQuery, Override
from tests.contract.storage.conftest import Stored
from tests.support.storage_domain import dead_letter, grade, key, new_tenant, submission


@pytest.fixture
def reviews(stored: Stored) -> Reviews:
    return Reviews(stored.shards)


def override(
    row: NewSubmission, item: str = "q1", *, score: float = 2.0, actor: str = "instructor/ann", etag: str = ""
) -> Override:
    content = f"by hand: {score}".encode()
    return Override(key(row), item, score, content, actor, "a better reading", etag, "revision-2")


async def read(stored: Stored, row: NewSubmission) -> Submission:
    [found], _ = await stored.shards[stored.shards.map.shard_of_id(row.submission_id) or 0].read_primary(
        lambda copy: copy.submissions([key(row)], max_bytes=1_000_000)
    )
    return found


async def newest(stored: Stored, row: NewSubmission) -> list[Position]:
    """Where everything can be read that was written until now: a cancellation of nothing tells."""
    _, positions, _ = await stored.submissions.cancel([key(row)._replace(tenant="nobody")], "nobody")
    return positions


async def history(
    stored: Stored, reviews: Reviews, row: NewSubmission, *, limit: int = 100
) -> list[tuple[object, ...]]:
    """(item, generation, kind, score, current) of all grades, read in pages."""
    positions = await newest(stored, row)
    found: list[tuple[object, ...]] = []
    after = ("", 0)
    while True:
        page = await reviews.gradings(GradingQuery(key(row), True, *after, limit), positions)
        found += [(*one.grade[1:3], one.grade.kind, one.grade.score, one.current) for one in page.gradings]
        if not page.more:
            return found
        after = (page.gradings[-1].grade.item_id, page.gradings[-1].grade.generation)


async def test_over_a_grade_it_opens_the_next_generation(stored: Stored, reviews: Reviews) -> None:
    row = submission(new_tenant())
    await stored.submissions.create([row])
    await stored.tasks.commit([grade(row)])
    overridden, position = await reviews.override(override(row))
    assert overridden == (2, True)
    assert position.lsn > 0
    found = await read(stored, row)
    [counting] = found.grades
    assert (counting.generation, counting.kind, counting.score) == (2, GradeKind.OVERRIDDEN, 2.0)
    assert (counting.grade, counting.revision_id) == (b"by hand: 2.0", "revision-2")
    assert found.tasks == []
    assert await history(stored, reviews, row, limit=1) == [
        ("q1", 1, GradeKind.GRADED, 1.5, False),
        ("q1", 2, GradeKind.OVERRIDDEN, 2.0, True),
    ]
    page = await reviews.gradings(GradingQuery(key(row), True, "", 0, 10), await newest(stored, row))
    assert [(one.grade.actor, one.grade.reason) for one in page.gradings] == [
        ("worker", ""),
        ("instructor/ann", "a better reading"),
    ]


@pytest.mark.parametrize("state", ["open", "dead", "cancelled"])
async def test_a_task_without_a_grade_is_closed_by_it(stored: Stored, reviews: Reviews, state: str) -> None:
    row = submission(new_tenant(), items=("q1", "q2"))
    await stored.submissions.create([row])
    if state == "dead":
        await stored.tasks.commit([dead_letter(row)])
    elif state == "cancelled":
        await stored.submissions.cancel([key(row)], "student/bob")
    assert (await reviews.override(override(row)))[0] == (1, True)
    found = await read(stored, row)
    assert [(one.item_id, one.generation, one.kind) for one in found.grades] == [
        ("q1", 1, GradeKind.OVERRIDDEN)
    ]
    assert [task.item_id for task in found.tasks] == ["q2"]
    late = await stored.tasks.commit([grade(row, fence=9)])
    assert late[0] == [CommitResult.ALREADY_GRADED]
    redriven, *_ = await stored.tasks.redrive(row.tenant, [TaskKey(row.submission_id, "q1")], "operator/eve")
    assert [result.name for result in redriven] == ["NOT_DEAD_GRADED"]
    assert await history(stored, reviews, row) == [("q1", 1, GradeKind.OVERRIDDEN, 2.0, True)]


async def test_repeated_it_changes_nothing(stored: Stored, reviews: Reviews) -> None:
    row = submission(new_tenant())
    await stored.submissions.create([row])
    etag = etag_of(await read(stored, row))
    for applied in (True, False, False):
        assert (await reviews.override(override(row, etag=etag)))[0] == (1, applied)
    # Somebody else, or other points: not a repetition.
    assert (await reviews.override(override(row, actor="instructor/zoe")))[0] == (2, True)
    assert (await reviews.override(override(row, score=1.0)))[0] == (3, True)
    assert (await reviews.override(override(row)))[0] == (4, True)
    assert len(await history(stored, reviews, row)) == 4


async def test_an_etag_holds_until_the_grading_changes(stored: Stored, reviews: Reviews) -> None:
    row = submission(new_tenant(), items=("q1", "q2"))
    await stored.submissions.create([row])
    seen: list[str] = []

    async def changed() -> str:
        etag = etag_of(await read(stored, row))
        assert etag == etag_of(await read(stored, row))
        assert (etag[0], etag[-1]) == ('"', '"')
        assert etag not in seen
        seen.append(etag)
        return etag

    await changed()
    await stored.tasks.commit([dead_letter(row, "q2")])
    await changed()
    await stored.tasks.redrive(row.tenant, [TaskKey(row.submission_id, "q2")], "operator/eve")
    # Open again in the same generation: the same state as in the beginning.
    assert etag_of(await read(stored, row)) == seen[0]
    await stored.tasks.commit([grade(row, "q2", fence=8)])
    fresh = await changed()
    for stale in (seen[0], '"made-up"', "*"):
        with pytest.raises(EtagMismatch):
            await reviews.override(override(row, etag=stale))
    assert (await reviews.override(override(row, etag=fresh)))[0] == (1, True)
    await changed()
    assert len(await history(stored, reviews, row)) == 2


async def test_what_there_is_not_is_not_found(stored: Stored, reviews: Reviews) -> None:
    row = submission(new_tenant())
    await stored.submissions.create([row])
    for unknown in (
        override(row)._replace(key=key(row)._replace(tenant=new_tenant())),
        override(row)._replace(key=key(submission(row.tenant))),
        override(row)._replace(key=key(row)._replace(submission_id="no-id")),
        override(row, "q7"),
    ):
        with pytest.raises(ResourceNotFound):
            await reviews.override(unknown)
        assert (await reviews.gradings(GradingQuery(unknown.key, True, "", 0, 10), [])).gradings == []
    assert await history(stored, reviews, row) == []


async def test_the_audit_tells_who_did_what_in_order(stored: Stored, reviews: Reviews) -> None:
    row = submission(new_tenant(), items=("q1", "q2"))
    await stored.submissions.create([row])
    await stored.tasks.commit([grade(row)])
    await stored.tasks.commit([dead_letter(row, "q2", fence=2)])
    await stored.tasks.redrive(row.tenant, [TaskKey(row.submission_id, "q2")], "operator/eve")
    await stored.submissions.cancel([key(row)], "student/bob")
    await reviews.override(override(row, "q2"))
    await reviews.override(override(row))
    await reviews.override(override(row))
    everything: list[tuple[object, ...]] = []
    after = None
    while True:
        page = await reviews.audit_events(key(row), after, 2, await newest(stored, row))
        everything += [event[2:7] for _, event in page.events]
        if not page.more:
            break
        after = page.events[-1][0]
    assert everything == [
        ("worker", "grade", "q1", 1, "1-x"),
        ("worker", "dead-letter", "q2", 1, "broken"),
        ("operator/eve", "redrive", "q2", 1, ""),
        ("student/bob", "cancel", "q2", 1, ""),
        ("instructor/ann", "override", "q2", 1, "score none -> 2.0; a better reading"),
        ("instructor/ann", "override", "q1", 2, "score 1.5 -> 2.0; a better reading"),
    ]
    foreign = key(row)._replace(tenant=new_tenant())
    assert (await reviews.audit_events(foreign, None, 10, [])).events == []


async def test_large_grades_come_in_several_pages(stored: Stored, reviews: Reviews) -> None:
    row = submission(new_tenant(), items=("q1", "q2"))
    await stored.submissions.create([row])
    for item in ("q1", "q2"):
        await reviews.override(override(row, item)._replace(grade=bytes(9 * 1024 * 1024)))
    page = await reviews.gradings(GradingQuery(key(row), True, "", 0, 100), await newest(stored, row))
    assert [one.grade.item_id for one in page.gradings] == ["q1"]
    assert page.more
    assert [one[0] for one in await history(stored, reviews, row)] == ["q1", "q2"]


@pytest.mark.parametrize("with_etag", [False, True])
async def test_many_at_once_are_applied_in_order_or_refused(
    stored: Stored, reviews: Reviews, with_etag: bool
) -> None:
    row = submission(new_tenant(), items=("q1", "q2"))
    await stored.submissions.create([row])
    outcomes: list[tuple[int, bool] | None] = []

    async def overriding(number: int) -> None:
        etag = etag_of(await read(stored, row)) if with_etag else ""
        await asyncio.sleep(0)
        try:
            wanted = override(row, score=float(number), actor=f"instructor/i{number}", etag=etag)
            outcomes.append((await reviews.override(wanted))[0])
        except EtagMismatch:
            outcomes.append(None)

    async def grading(fence: int) -> None:
        await stored.tasks.commit([grade(row, "q1", fence=fence), grade(row, "q2", fence=fence)])

    async def intervening(number: int) -> None:
        await stored.tasks.commit([dead_letter(row, "q2", fence=number)])
        await stored.tasks.redrive(row.tenant, [TaskKey(row.submission_id, "q2")], "operator/eve")
        await stored.submissions.cancel([key(row)], "student/bob")

    async with asyncio.TaskGroup() as group:
        for number in range(100):
            group.create_task(overriding(number))
            if number % 10 == 5:
                group.create_task(intervening(number))
                group.create_task(grading(number + 100))
    generations = sorted(outcome[0] for outcome in outcomes if outcome is not None)
    assert len(outcomes) == 100
    assert None in outcomes if with_etag else None not in outcomes
    grades = [one for one in await history(stored, reviews, row) if one[0] == "q1"]
    assert [one[1] for one in grades] == list(range(1, len(grades) + 1))
    overridden = [one[1] for one in grades if one[2] == GradeKind.OVERRIDDEN]
    assert overridden == generations
    assert [one[1] for one in grades if one[4]] == [len(grades)]
    # One row of the audit for each grade, in the order of the generations.
    page = await reviews.audit_events(key(row), None, 1000, await newest(stored, row))
    told = [
        (event.generation, event.action == "override")
        for _, event in page.events
        if event.item_id == "q1" and event.action in ("override", "grade")
    ]
    assert told == [(one[1], one[2] == GradeKind.OVERRIDDEN) for one in grades]
