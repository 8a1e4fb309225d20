"""What regrades need of a shard. Every method may raise what those of ``ports`` may."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from cinnabar_storage.records import Lsn, OpenTask
from cinnabar_storage.regrading.records import (
    Plans,
    Regrade,
    RegradeKey,
    RegradeQuery,
    Reopening,
    Step,
    Tally,
    Wanted,
)


class RegradeShard(Protocol):
    """The regrades that are kept on a shard, and the shard's part in regrades wherever they are kept.

    A step is one transaction: it goes on where the last one ended, and does
    nothing once a later decision has reached the shard. Steps of several callers
    take turns.
    """

    async def create(self, regrade: Regrade, claim_seconds: float) -> tuple[Regrade, Lsn]:
        """Stores it, claimed, and an audit row; returns it with its time. A repetition stores nothing."""
        ...

    async def get(self, key: RegradeKey) -> Regrade | None:
        """As the primary has it."""
        ...

    async def list(self, query: RegradeQuery) -> list[Regrade]:
        """At most ``query.limit``, descending by id, as the primary has them."""
        ...

    async def decide(
        self, key: RegradeKey, wanted: Wanted, actor: str, claim_seconds: float
    ) -> tuple[Regrade | None, Lsn]:
        """Decides it, unless that was done before; returns what is decided now. An audit row tells of it."""
        ...

    async def claim(self, limit: int, claim_seconds: float) -> list[RegradeKey]:
        """At most ``limit`` that are busy and not claimed any more, of all tenants; they are claimed now."""
        ...

    async def advanced(self, regrade: Regrade, *, busy: bool, claim_seconds: float) -> bool:
        """Notes whether work is left, and claims it if so; returns that.

        Changes nothing when the regrade was decided otherwise meanwhile: then work is left.
        """
        ...

    async def upcoming_revisions(self, regrade: Regrade, limit: int) -> list[str]:
        """Revisions that the next ``limit`` submissions answer, or that their grades were given by."""
        ...

    async def open(self, regrade: Regrade, plans: Plans, limit: int) -> Step:
        """Opens what ``candidates.choose`` chooses of the next submissions: at most ``limit`` tasks, but at
        least one submission.

        Tasks get a generation above all before, no deadline, and an audit row
        each. What a regrade before left behind, given up or cancelled, makes way.
        A submission of whose revision ``plans`` says nothing is left to the next step.
        """
        ...

    async def promote(self, regrade: Regrade, limit: int) -> Step:
        """Cancels what has no grade; then appends a copy that counts of the next shadows, with an audit row.

        Not of a shadow above which a grade that counts, or an open task for one, has come.
        """
        ...

    async def discard(self, regrade: Regrade, limit: int) -> Step:
        """Cancels the next tasks that have no grade, with an audit row each."""
        ...

    async def tallies(self, keys: Sequence[RegradeKey]) -> tuple[list[Tally], Lsn]:
        """One per key, in order, each in one snapshot of the primary, and a position that shows them."""
        ...

    async def reopen(self, wanted: Reopening, plans: Plans) -> tuple[list[OpenTask], Lsn]:
        """Opens items of a submission. Raises ResourceNotFound, EtagMismatch; StateForbids when none was."""
        ...
