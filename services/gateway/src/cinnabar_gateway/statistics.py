"""Statistics of an assignment, in the order of its items."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cinnabar_common.names import AssignmentName
from cinnabar_gateway.assignments import Assignments
from cinnabar_gateway.consistency import Positions
from cinnabar_gateway.data_ports import AssignmentScores, DataStore, Scores
from cinnabar_gateway.identity import Identity


@dataclass(frozen=True, slots=True)
class AssignmentStatistics:
    """The scores of whole submissions, and of each item those of the item and of its criteria."""

    found: AssignmentScores
    submissions: Scores | None
    items: tuple[tuple[Scores, tuple[Scores, ...]], ...]


class Statistics:
    """The statistics of all tenants. Callers have checked the role."""

    def __init__(
        self, assignments: Assignments, store: DataStore, items_of: Callable[[bytes], Iterable[str]]
    ) -> None:
        """``items_of`` reads the ids of the items in a spec, in their order."""
        self._assignments = assignments
        self._store = store
        self._items_of = items_of

    async def of(
        self, identity: Identity, name: AssignmentName, min_positions: Positions
    ) -> AssignmentStatistics:
        """The items of the current revision first, then those of older ones. ResourceNotFound."""
        revision = await self._assignments.get(identity, name, min_positions)
        found = await self._store.assignment_scores(identity.tenant, name)
        whole = {one.item: one for one in found.scores if not one.criterion}
        order = dict.fromkeys([*self._items_of(revision.spec), *sorted(item for item in whole if item)])
        return AssignmentStatistics(
            found,
            whole.get(""),
            tuple(
                (
                    whole[item],
                    tuple(
                        sorted(
                            (one for one in found.scores if one.item == item and one.criterion),
                            key=lambda one: one.criterion,
                        )
                    ),
                )
                for item in order
                if item in whole
            ),
        )
