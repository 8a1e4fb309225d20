"""What the domain needs from outside for statistics and erasures; the rules of `ports` hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from cinnabar_common.names import AssignmentName
from cinnabar_gateway.consistency import Position
from cinnabar_gateway.records import CancelledTask


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Scores in numbers, in points; ``histogram`` has 20 counts, by share of the points.

    ``item`` is "" for whole submissions, ``criterion`` is "" for an item as a whole.
    """

    item: str
    criterion: str
    count: int
    mean: float
    standard_deviation: float
    histogram: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AssignmentScores:
    """The scores of an assignment, in any order.

    What was committed before ``as_of_us`` is counted, but for shards that could not be reached.
    """

    scores: tuple[Scores, ...]
    as_of_us: int
    unreachable: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """The proof of an erasure, or how far it is; ``complete_time_us`` is None until it is done."""

    erasure_id: str
    subject: str
    actor: str
    reason: str
    submissions: int
    grades: int
    objects: int
    redacted_events: int
    create_time_us: int
    complete_time_us: int | None


class DataStore(Protocol):
    """Where grades are counted and students are erased. Filters by tenant in everything."""

    async def assignment_scores(self, tenant: str, name: AssignmentName) -> AssignmentScores:
        """No scores for an assignment that nobody knows."""
        ...

    async def erase_student(
        self, tenant: str, student: str, *, erasure_id: str, actor: str, reason: str
    ) -> tuple[Erasure, list[CancelledTask], Position]:
        """Writes it down and cancels what is open: these tasks. The rest goes on by itself.

        The same id again does nothing more. StateForbids where nothing can be erased.
        """
        ...

    async def get_erasure(self, tenant: str, erasure_id: str) -> Erasure | None:
        """None when there is none."""
        ...
