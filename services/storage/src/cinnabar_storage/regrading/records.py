"""What storage keeps of regrades, as the domain sees it. Times are microseconds since 1970-01-01 UTC."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple

from cinnabar_storage.records import Lsn, Micros, OpenTask


class Wanted(IntEnum):
    """What is decided of a regrade; only ever rises from OPEN. PROMOTE and DISCARD are as in the proto."""

    OPEN = 1
    PROMOTE = 2
    DISCARD = 3


class RegradeState(IntEnum):
    """Where a regrade is; numbers as in the proto."""

    OPENING = 1
    GRADING = 2
    READY = 3
    DONE = 4
    PROMOTING = 5
    PROMOTED = 6
    DISCARDED = 7


class RegradeFilter(NamedTuple):
    """Which items of an assignment; what is empty or None says nothing.

    Created from ``created_after``, inclusive, to ``created_before``, exclusive. ``score_below`` is a share of
    the item's points.
    """

    authors: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    created_after: Micros | None = None
    created_before: Micros | None = None
    score_below: float | None = None


class Regrade(NamedTuple):
    """A regrade of many submissions; ``revision_id`` is empty for that of each submission."""

    regrade_id: str
    tenant: str
    course: str
    assignment: str
    filter: RegradeFilter
    revision_id: str
    shadow: bool
    reason: str
    actor: str
    priority: int
    create_time: Micros = Micros(0)
    """Set by the store. Submissions that are newer are not meant."""
    wanted: Wanted = Wanted.OPEN
    decided_by: str = ""
    busy: bool = True
    """Some shard has not done what is wanted yet."""


class RegradeKey(NamedTuple):
    """A regrade of a tenant."""

    tenant: str
    regrade_id: str


class RegradeQuery(NamedTuple):
    """Which regrades to list, newest first; ``before`` may be empty."""

    tenant: str
    course: str
    assignment: str
    before: str
    limit: int


class Tally(NamedTuple):
    """How far a shard is with a regrade, in tasks; ``open`` and ``graded`` of those ``opened``."""

    opened: int = 0
    skipped: int = 0
    promoted: int = 0
    overtaken: int = 0
    open: int = 0
    graded: int = 0


class RegradeView(NamedTuple):
    """A regrade, where it is, and how far."""

    regrade: Regrade
    state: RegradeState
    tally: Tally

    @property
    def failed(self) -> int:
        """Tasks that were opened and are neither open nor graded: given up, cancelled, done by a person."""
        # Shards are not counted at the same moment.
        return max(0, self.tally.opened - self.tally.open - self.tally.graded)


class ItemPlan(NamedTuple):
    """How an item of a revision is graded: its queue, and its points."""

    queue: str
    points: float


Plans = Mapping[str, Mapping[str, ItemPlan]]
"""By revision and item."""


class Candidate(NamedTuple):
    """An item of a submission as a regrade finds it; numbers are 0 where there is no grade or no task."""

    submission_id: str
    revision_id: str
    item_id: str
    generation: int
    """Of the grade that counts; what follows is of it too."""
    kind: int
    score: float
    graded_by: str
    """Revision that it was graded by; empty for that of the submission."""
    last_generation: int
    """The highest of any grade or task of the item."""
    task_state: int
    done: bool = False
    """This very regrade has opened it before."""


class Reopened(NamedTuple):
    """A task to open in a new generation."""

    submission_id: str
    item_id: str
    queue: str
    generation: int


class Reopening(NamedTuple):
    """Items of one submission to grade again; all that no person graded when there are no ``items``."""

    tenant: str
    submission_id: str
    items: tuple[str, ...]
    revision_id: str
    reason: str
    actor: str
    priority: int
    etag: str


class CancelledTask(NamedTuple):
    """A task to take out of its queue."""

    submission_id: str
    item_id: str
    queue: str


class Step(NamedTuple):
    """A piece of work on one shard; ``done`` when nothing is left there.

    ``opened`` may lack tasks for which there was no room; ``changed`` are ids of submissions.
    """

    done: bool
    opened: list[OpenTask]
    cancelled: list[CancelledTask]
    changed: list[str]
    lsn: Lsn


class Comparison(NamedTuple):
    """A grade of a regrade and the one that counted when its task was opened; None when that is erased."""

    submission_id: str
    item_id: str
    old: bytes | None
    new: bytes
