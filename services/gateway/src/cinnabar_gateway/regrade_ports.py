"""Regrades: what the gateway needs of storage for them. Times are in µs since 1970-01-01 UTC."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cinnabar_common.names import AssignmentName, RegradeName, SubmissionName
from cinnabar_gateway.consistency import Position
from cinnabar_gateway.records import CancelledTask, QueuedTask

REGRADE_PRIORITY = 1
"""Number of REGRADE in ``cinnabar.scheduler.v1.Priority``: the lowest class."""


class RegradeState(enum.Enum):
    """Where a regrade is; the names are those of the public API."""

    OPENING = 1
    GRADING = 2
    READY = 3
    DONE = 4
    PROMOTING = 5
    PROMOTED = 6
    DISCARDED = 7


class Decision(enum.Enum):
    """What shall become of a regrade."""

    PROMOTE = 2
    DISCARD = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class RegradeFilter:
    """Which items of an assignment; what is empty or None says nothing.

    ``score_below`` is a share of the item's points.
    """

    authors: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    created_after_us: int | None = None
    created_before_us: int | None = None
    score_below: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRegrade:
    """A regrade that passed every check; ``revision_id`` is empty for that of each submission."""

    tenant: str
    name: RegradeName
    filter: RegradeFilter
    revision_id: str
    shadow: bool
    reason: str
    actor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Regrade(NewRegrade):
    """A regrade as it is now; numbers are of tasks, those ``skipped`` of items."""

    state: RegradeState
    create_time_us: int
    opened: int
    graded: int
    failed: int
    skipped: int
    promoted: int
    overtaken: int


@dataclass(frozen=True, slots=True)
class RegradeKey:
    """A regrade of a tenant."""

    tenant: str
    regrade_id: str


@dataclass(frozen=True, slots=True)
class Advance:
    """What one round of work did; ``busy`` while there is more to do."""

    opened: list[QueuedTask]
    cancelled: list[CancelledTask]
    busy: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Reopening:
    """Items of one submission to grade again; all that no person graded when there are no ``items``."""

    tenant: str
    name: SubmissionName
    items: tuple[str, ...]
    revision_id: str
    reason: str
    actor: str
    etag: str


@dataclass(frozen=True, slots=True)
class CriterionDelta:
    """The change of one criterion of one item, in points; the whole item when ``criterion`` is empty."""

    item: str
    criterion: str
    compared: int
    mean_delta: float
    rms_delta: float
    histogram: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """A grade that changes, in points."""

    submission: SubmissionName
    item: str
    old_score: float
    new_score: float
    max_score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RegradeReport:
    """What a regrade changes."""

    compared: int
    unchanged: int
    raised: int
    lowered: int
    failed_to_passed: int
    passed_to_failed: int
    deltas: tuple[CriterionDelta, ...]
    largest: tuple[Change, ...]


class RegradeStore(Protocol):
    """Where regrades are kept. Filters by tenant in everything but `claim`.

    Every method may raise DependencyUnavailable, and may then be repeated.
    """

    async def create(self, new: NewRegrade) -> tuple[Regrade, Position]:
        """Stores it, claimed by the caller; nothing is opened yet. Safe to repeat with the same name."""
        ...

    async def get(self, tenant: str, name: RegradeName) -> Regrade:
        """As it is now. ResourceNotFound."""
        ...

    async def list(self, tenant: str, parent: AssignmentName, *, before: str, limit: int) -> list[Regrade]:
        """Newest first, those before the id ``before``, up to ``limit`` (1 to 1,000)."""
        ...

    async def decide(
        self, tenant: str, name: RegradeName, decision: Decision, actor: str
    ) -> tuple[Regrade, Position]:
        """Decides it, for good. ResourceNotFound, StateForbids; deciding alike twice is not an error."""
        ...

    async def advance(self, key: RegradeKey, *, limit: int) -> Advance:
        """Does the next piece of its work, of about ``limit`` tasks, and keeps it claimed. ResourceNotFound.

        Calls at once do no harm.
        """
        ...

    async def claim(self, limit: int) -> Sequence[RegradeKey]:
        """Regrades of all tenants with work left that nobody has advanced for a while; they are ours now."""
        ...

    async def reopen(self, wanted: Reopening) -> tuple[list[QueuedTask], Position]:
        """Opens items of a submission; ResourceNotFound, EtagMismatch; StateForbids when there are none."""
        ...

    async def report(self, tenant: str, name: RegradeName, *, pass_share: float) -> RegradeReport:
        """Compares its grades with those that counted before. ResourceNotFound."""
        ...
