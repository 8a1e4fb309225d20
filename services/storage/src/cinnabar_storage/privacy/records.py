"""Erasures, and what a shard must be able to do for them. Times are microseconds since 1970 UTC."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from cinnabar_storage.files.records import Upload
from cinnabar_storage.records import Lsn, Micros, TaskKey

CLAIM_SECONDS = 30.0
"""How long an erasure is left alone after the last step of who works on it."""


class NewErasure(NamedTuple):
    """An erasure that is asked for. ``student`` and ``subject`` are empty for what was kept long enough."""

    erasure_id: str
    tenant: str
    student: str
    subject: str
    actor: str
    reason: str


class Erasure(NamedTuple):
    """The proof of an erasure, or how far it is; ``student`` is empty once it is done."""

    erasure_id: str
    tenant: str
    student: str
    subject: str
    actor: str
    reason: str
    submissions: int
    grades: int
    objects: int
    redacted_events: int
    create_time: Micros
    complete_time: Micros | None

    @property
    def done(self) -> bool:
        """Nothing is left to do."""
        return self.complete_time is not None


class OldSubmission(NamedTuple):
    """A submission as retention sees it."""

    submission_id: str
    tenant: str
    course: str


class ErasureRows(Protocol):
    """What one shard does for erasures; part of `ports.Shard`, with the same errors. Reads ask the primary.

    Each method may be repeated: what is gone is counted once.
    """

    async def begin_erasure(self, erasure: NewErasure) -> tuple[list[tuple[TaskKey, str]], Lsn]:
        """Writes it down and cancels the student's open tasks: these, with their queues.

        The same again does nothing. One without a student is claimed by who begins it.
        """
        ...

    async def erasure(self, tenant: str, erasure_id: str) -> Erasure | None:
        """None when there is no such erasure."""
        ...

    async def claim_erasure(self, seconds: float) -> Erasure | None:
        """One of any tenant that is not done and that nobody works on; nobody else gets it for so long."""
        ...

    async def submissions_to_erase(self, tenant: str, student: str, limit: int) -> list[str]:
        """Ids of submissions of a student."""
        ...

    async def redact_audit(self, erasure: Erasure, submission_ids: Sequence[str]) -> None:
        """Erases the texts of these submissions' audit on this shard, which need not be theirs."""
        ...

    async def erase_submissions(self, erasure: Erasure, submission_ids: Sequence[str]) -> Lsn:
        """Removes submissions of the erasure's tenant with tasks, grades, statistics and audit texts.

        In one step with the count in the erasure, which must be on this shard, and claimed further.
        """
        ...

    async def erase_uploads(self, erasure: Erasure, uploads: Sequence[Upload]) -> None:
        """Removes rows of uploads, whose objects are gone, in one step with their count."""
        ...

    async def uploads_of_submissions(self, tenant: str, submission_ids: Sequence[str]) -> list[Upload]:
        """Those that belong to these submissions."""
        ...

    async def forget_in_filters(self, tenant: str, student: str) -> None:
        """Takes the student out of what regrades were asked for, on this shard."""
        ...

    async def redacted_events(self, erasure_id: str) -> int:
        """How many rows of this shard's audit the erasure has redacted."""
        ...

    async def complete_erasure(self, erasure: Erasure, redacted_events: int) -> Lsn:
        """Marks it done, forgets whom it was about, and leaves the proof in the audit."""
        ...

    async def old_submissions(self, after: str, before: str, limit: int) -> list[OldSubmission]:
        """Of all tenants, ascending by id: those with ids after ``after`` and below ``before``."""
        ...
