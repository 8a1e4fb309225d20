"""What overrides and histories need from outside; see ports.py."""

from __future__ import annotations

from typing import Protocol

from cinnabar_gateway.consistency import Positions
from cinnabar_gateway.records import SubmissionKey
from cinnabar_gateway.review_records import (
    AuditCursor,
    AuditPage,
    GradingPage,
    Overridden,
    Override,
    SealCheck,
    SealLink,
)


class ReviewStore(Protocol):
    """Where the grades of people are kept, and what happened. Filters by tenant but for the seals."""

    async def override_grade(self, override: Override) -> Overridden:
        """Gives the item the grade; a task of it that waits is closed.

        The same override of the same actor, when it is the grade that counts, is
        not written again. Raises ResourceNotFound, EtagMismatch with the name of
        nothing: what it is called is the caller's to know.
        """
        ...

    async def list_gradings(
        self,
        key: SubmissionKey,
        *,
        shadows: bool,
        after: tuple[str, int],
        limit: int,
        min_positions: Positions,
    ) -> GradingPage:
        """By (item, generation), those after ``after``, up to ``limit`` (1 to 1,000), or fewer large ones."""
        ...

    async def list_audit_events(
        self, key: SubmissionKey, *, after: AuditCursor | None, limit: int, min_positions: Positions
    ) -> AuditPage:
        """By time, those after ``after``, up to ``limit`` (1 to 1,000)."""
        ...

    async def shard_count(self) -> int:
        """How many shards have an audit."""
        ...

    async def check_seals(self, shard: int, after: SealLink | None) -> SealCheck:
        """The next seals of a shard after ``after``, from the first for None."""
        ...
