"""Tasks whose item storage does not have."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from cinnabar_scheduler.outcomes import Failure, Outcomes
from cinnabar_scheduler.tasks import Lease

_UNKNOWN_ITEM = Failure("the assignment revision has no such item")


class Refusals:
    """Takes leases of such tasks from the dispatcher and counts a failure for each.

    They are tried again like all failures, because a replica may lag behind the
    commit of a new revision, and become dead letters in the end. Bounded by the
    leases that can be out; on a full stop they expire and come again.
    """

    def __init__(self) -> None:
        self._leases: asyncio.Queue[Sequence[Lease]] = asyncio.Queue()

    def add(self, leases: Sequence[Lease]) -> None:
        """Hands leases over."""
        self._leases.put_nowait(leases)

    async def run(self, outcomes: Outcomes) -> None:
        """Works for ever."""
        while True:
            leases = await self._leases.get()
            await outcomes.fail("scheduler", [(lease, _UNKNOWN_ITEM) for lease in leases])
