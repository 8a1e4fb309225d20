"""Reviews in this process's memory: the same promises. Nothing seals the audit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from cinnabar_common.errors import EtagMismatch, ResourceNotFound
from cinnabar_gateway.adapters.memory_etags import etag_of
from cinnabar_gateway.consistency import Position, Positions
from cinnabar_gateway.records import Grade, Submission, SubmissionKey
from cinnabar_gateway.review_records import (
    AuditCursor,
    AuditEvent,
    AuditPage,
    Grading,
    GradingKind,
    GradingPage,
    Overridden,
    Override,
    SealCheck,
    SealLink,
)


class MemoryReviews:
    """Implements the port ReviewStore over the submissions of somebody else.

    ``written`` counts a write of theirs, ``now_us`` is their time; ``overridden`` is called with the
    submission and item of what a person has graded.
    """

    def __init__(
        self,
        submissions: dict[SubmissionKey, Submission],
        *,
        written: Callable[[], Position],
        now_us: Callable[[], int],
        overridden: Callable[[SubmissionKey, str], None],
    ) -> None:
        self._overridden = overridden
        self._submissions = submissions
        self._written = written
        self._now_us = now_us
        self._gradings: dict[tuple[SubmissionKey, str, int], Grading] = {}
        self._events: list[tuple[SubmissionKey, AuditEvent]] = []

    def committed(self, key: SubmissionKey, grade: Grade) -> None:
        """A grader's outcome was committed."""
        self._add(key, grade, GradingKind.GRADED, "worker", "", "")

    def _add(
        self, key: SubmissionKey, grade: Grade, kind: GradingKind, actor: str, reason: str, detail: str
    ) -> None:
        self._gradings[key, grade.item, grade.generation] = Grading(
            grade=grade, kind=kind, actor=actor, reason=reason, regrade_id="", current=False
        )
        action = "override" if kind is GradingKind.OVERRIDDEN else "grade"
        self.audited(key, grade, actor, action, detail)

    def audited(self, key: SubmissionKey, grade: Grade, actor: str, action: str, detail: str) -> None:
        """Something was done about a grade, just now."""
        event = AuditEvent(
            cursor=AuditCursor(self._now_us(), len(self._events) + 1, 0),
            actor=actor,
            action=action,
            item=grade.item,
            generation=grade.generation,
            detail=detail,
            sealed=False,
        )
        self._events.append((key, event))

    async def override_grade(self, override: Override) -> Overridden:
        """See ReviewStore."""
        stored = self._submissions.get(override.key)
        if stored is None:
            raise ResourceNotFound(override.key.submission_id)
        current = next((grade for grade in stored.grades if grade.item == override.item), None)
        task = next((task for task in stored.tasks if task.item == override.item), None)
        if current is None and task is None:
            raise ResourceNotFound(override.key.submission_id)
        if current is not None and task is None and self._repeats(override, current):
            return Overridden(False, (self._written(),))
        if override.etag not in ("", etag_of(stored)):
            raise EtagMismatch(override.key.submission_id)
        generation = task.generation if task is not None else current.generation + 1 if current else 1
        grade = Grade(
            item=override.item,
            generation=generation,
            score=override.score,
            grade=override.grade,
            create_time_us=self._now_us(),
            overridden=True,
            revision_id=override.revision_id,
        )
        self._submissions[override.key] = replace(
            stored,
            tasks=tuple(one for one in stored.tasks if one is not task),
            grades=(*(one for one in stored.grades if one.item != override.item), grade),
        )
        self._overridden(override.key, override.item)
        old = "none" if current is None else repr(current.score)
        detail = f"score {old} -> {override.score!r}; {override.reason}"
        self._add(override.key, grade, GradingKind.OVERRIDDEN, override.actor, override.reason, detail)
        return Overridden(True, (self._written(),))

    def _repeats(self, override: Override, current: Grade) -> bool:
        known = self._gradings.get((override.key, current.item, current.generation))
        return known is not None and (
            (known.kind, known.actor, known.reason, current.score, current.grade)
            == (GradingKind.OVERRIDDEN, override.actor, override.reason, override.score, override.grade)
        )

    async def list_gradings(
        self,
        key: SubmissionKey,
        *,
        shadows: bool,
        after: tuple[str, int],
        limit: int,
        min_positions: Positions,
    ) -> GradingPage:
        """See ReviewStore."""
        stored = self._submissions.get(key)
        current = {(grade.item, grade.generation) for grade in (stored.grades if stored else ())}
        found = [
            replace(grading, current=(item, generation) in current)
            for (owner, item, generation), grading in sorted(
                self._gradings.items(), key=lambda entry: entry[0][1:]
            )
            if owner == key and (item, generation) > after
        ]
        return GradingPage(tuple(found[:limit]), more=len(found) > limit)

    async def list_audit_events(
        self, key: SubmissionKey, *, after: AuditCursor | None, limit: int, min_positions: Positions
    ) -> AuditPage:
        """See ReviewStore."""
        found = [
            event for owner, event in self._events if owner == key and (after is None or event.cursor > after)
        ]
        return AuditPage(tuple(found[:limit]), more=len(found) > limit)

    async def shard_count(self) -> int:
        """See ReviewStore."""
        return 1

    async def check_seals(self, shard: int, after: SealLink | None) -> SealCheck:
        """See ReviewStore."""
        return SealCheck(
            seals=0,
            events=0,
            redacted=0,
            breaks=(),
            link=SealLink(0, 0, 0, b""),
            more=False,
            unsealed=len(self._events),
        )
