"""Erasures of a shard in memory, held to the same contract as those in Postgres."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cinnabar_storage.adapters.memory.waiting_reviews import MemoryWaitingReviews
from cinnabar_storage.files.records import Upload
from cinnabar_storage.privacy.records import CLAIM_SECONDS, Erasure, NewErasure, OldSubmission
from cinnabar_storage.records import Lsn, Micros, TaskKey, TaskState


@dataclass(slots=True)
class MemoryErasures(MemoryWaitingReviews):
    """Implements erasure_records.ErasureRows."""

    _erasures: dict[str, Erasure] = field(default_factory=dict[str, Erasure])
    _claims: dict[str, Micros] = field(default_factory=dict[str, Micros])

    async def begin_erasure(self, erasure: NewErasure) -> tuple[list[tuple[TaskKey, str]], Lsn]:
        if erasure.erasure_id not in self._erasures:
            self._erasures[erasure.erasure_id] = Erasure(*erasure, 0, 0, 0, 0, self._now(), None)
            if not erasure.student:
                self._claims[erasure.erasure_id] = Micros(self._now() + int(CLAIM_SECONDS * 1_000_000))
        cancelled: list[tuple[TaskKey, str]] = []
        for key, fenced in self._tasks.items():
            row = self._submissions[key.submission_id]
            if (row.tenant, row.author) == erasure[1:3] and fenced.task.state == TaskState.OPEN:
                task = fenced.task._replace(state=TaskState.CANCELLED, update_time=self._now())
                self._tasks[key] = fenced._replace(task=task)
                self._audited(row.tenant, erasure.actor, "cancel", task)
                cancelled.append((key, task.queue))
        return sorted(cancelled), self._written()

    async def erasure(self, tenant: str, erasure_id: str) -> Erasure | None:
        found = self._erasures.get(erasure_id)
        return found if found is not None and found.tenant == tenant else None

    async def claim_erasure(self, seconds: float) -> Erasure | None:
        now = self._now()
        for erasure in self._erasures.values():
            if not erasure.done and self._claims.get(erasure.erasure_id, now) <= now:
                self._claims[erasure.erasure_id] = Micros(now + int(seconds * 1_000_000))
                return erasure
        return None

    async def submissions_to_erase(self, tenant: str, student: str, limit: int) -> list[str]:
        ids = [
            row.submission_id
            for row in self._submissions.values()
            if (row.tenant, row.author) == (tenant, student)
        ]
        return sorted(ids)[:limit]

    async def redact_audit(self, erasure: Erasure, submission_ids: Sequence[str]) -> None:
        for index, row in enumerate(self._audit):
            if row.tenant == erasure.tenant and row.submission_id in submission_ids:
                self._audit[index] = row._replace(actor="", detail="")

    async def erase_submissions(self, erasure: Erasure, submission_ids: Sequence[str]) -> Lsn:
        gone = {one for one in submission_ids if self._owner(one) == erasure.tenant}
        # In place: other parts of the shard hold the same tables.
        grades = [key for key in self._grades if key[0] in gone]
        for key in grades:
            del self._grades[key]
        for key in [key for key in self._tasks if key.submission_id in gone]:
            del self._tasks[key]
        for key in [key for key in self._waiting if key.submission_id in gone]:
            del self._waiting[key]
        for key in [key for key in self._upgrades if key.submission_id in gone]:
            del self._upgrades[key]
        for request in [request for request, one in self._requests.items() if one in gone]:
            del self._requests[request]
        for one in gone:
            del self._submissions[one]
        await self.redact_audit(erasure, submission_ids)
        counted = self._erasures[erasure.erasure_id]
        self._erasures[erasure.erasure_id] = counted._replace(
            submissions=counted.submissions + len(gone), grades=counted.grades + len(grades)
        )
        return self._written()

    async def erase_uploads(self, erasure: Erasure, uploads: Sequence[Upload]) -> None:
        gone = [self._rows.pop(one.upload_id) for one in uploads if one.upload_id in self._rows]
        counted = self._erasures[erasure.erasure_id]
        self._erasures[erasure.erasure_id] = counted._replace(objects=counted.objects + len(gone))

    async def uploads_of_submissions(self, tenant: str, submission_ids: Sequence[str]) -> list[Upload]:
        return [
            one for one in self._rows.values() if one.tenant == tenant and one.submission_id in submission_ids
        ]

    async def forget_in_filters(self, tenant: str, student: str) -> None:
        return

    async def redacted_events(self, erasure_id: str) -> int:
        return 0

    async def complete_erasure(self, erasure: Erasure, redacted_events: int) -> Lsn:
        found = self._erasures[erasure.erasure_id]
        if not found.done:
            self._erasures[erasure.erasure_id] = found._replace(
                student="", redacted_events=redacted_events, complete_time=self._now()
            )
        return self._written()

    async def old_submissions(self, after: str, before: str, limit: int) -> list[OldSubmission]:
        found = [
            OldSubmission(row.submission_id, row.tenant, row.course)
            for row in self._submissions.values()
            if after < row.submission_id < before
        ]
        return sorted(found)[:limit]
