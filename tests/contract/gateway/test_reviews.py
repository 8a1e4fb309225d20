"""Overrides and histories, from memory and from the real storage service alike."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

import pytest

from cinnabar_common.errors import EtagMismatch, ResourceNotFound
from cinnabar_gateway.consistency import Positions
from cinnabar_gateway.records import SubmissionKey
from cinnabar_gateway.review_records import AuditCursor, Grading, GradingKind, Override
from tests.contract.gateway.test_stores import key as key_of
from tests.contract.gateway.test_stores import submission
from tests.support.gateway_stores import Backend


async def created(backend: Backend) -> tuple[SubmissionKey, Positions]:
    new = submission(f"tenant-{uuid4().hex[:12]}")
    [committed] = await backend.store.create_submissions([new])
    return key_of(new), committed.positions


def override(key: SubmissionKey, item: str = "q1", *, etag: str = "") -> Override:
    return Override(
        key=key,
        item=item,
        score=2.0,
        grade=b"by hand",
        actor="instructor/ann",
        reason="why",
        etag=etag,
        revision_id="r2",
    )


async def test_an_override_counts_and_the_grade_before_stays(backend: Backend) -> None:
    key, _ = await created(backend)
    await backend.grade(key, "q1", score=1.0, grade=b"by a grader")
    done = await backend.reviews.override_grade(override(key))
    assert done.applied
    [stored] = await backend.store.get_submissions([key], done.positions)
    [grade] = stored.grades
    assert (grade.generation, grade.score, grade.grade) == (2, 2.0, b"by hand")
    assert (grade.overridden, grade.revision_id) == (True, "r2")
    shown: list[Grading] = []
    after = ("", 0)
    while True:
        page = await backend.reviews.list_gradings(
            key, shadows=True, after=after, limit=1, min_positions=done.positions
        )
        shown += page.gradings
        if not page.more:
            break
        after = (shown[-1].grade.item, shown[-1].grade.generation)
    assert [(one.kind, one.grade.score, one.current, one.reason) for one in shown] == [
        (GradingKind.GRADED, 1.0, False, ""),
        (GradingKind.OVERRIDDEN, 2.0, True, "why"),
    ]
    told: list[tuple[str, str]] = []
    cursor: AuditCursor | None = None
    while True:
        events = await backend.reviews.list_audit_events(
            key, after=cursor, limit=1, min_positions=done.positions
        )
        told += [(one.action, one.detail) for one in events.events if one.action == "override"]
        cursor = events.events[-1].cursor
        if not events.more:
            break
    assert told == [("override", "score 1.0 -> 2.0; why")]


async def test_a_repeated_override_is_not_written_again(backend: Backend) -> None:
    key, positions = await created(backend)
    [stored] = await backend.store.get_submissions([key], positions)
    assert stored.etag
    wanted = override(key, etag=stored.etag)
    assert [(await backend.reviews.override_grade(wanted)).applied for _ in range(2)] == [True, False]
    with pytest.raises(EtagMismatch):
        await backend.reviews.override_grade(replace(wanted, score=1.0))
    with pytest.raises(EtagMismatch):
        await backend.reviews.override_grade(override(key, "q2", etag=stored.etag))


async def test_what_there_is_not_cannot_be_overridden(backend: Backend) -> None:
    key, _ = await created(backend)
    for unknown in (
        override(key, "q7"),
        override(SubmissionKey("other", key.submission_id)),
        override(SubmissionKey(key.tenant, "nothing")),
    ):
        with pytest.raises(ResourceNotFound):
            await backend.reviews.override_grade(unknown)


async def test_seals_can_be_checked_on_every_shard(backend: Backend) -> None:
    for shard in range(await backend.reviews.shard_count()):
        check = await backend.reviews.check_seals(shard, None)
        assert (check.breaks, check.more) == ((), False)
        again = await backend.reviews.check_seals(shard, check.link)
        assert (again.breaks, again.redacted) == ((), 0)
