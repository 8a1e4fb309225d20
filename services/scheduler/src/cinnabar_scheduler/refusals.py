"""Tasks that can never be graded, because their item does not exist."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from cinnabar_scheduler.outcomes import Outcomes
from cinnabar_scheduler.tasks import Lease


class Refusals:
    """Takes leases of such tasks from the dispatcher and makes dead letters of them.

    Bounded by the leases that can be out; on a full stop they expire and come again.
    """

    def __init__(self) -> None:
        self._leases: asyncio.Queue[Sequence[Lease]] = asyncio.Queue()

    def add(self, leases: Sequence[Lease]) -> None:
        """Hands leases over."""
        self._leases.put_nowait(leases)

    async def run(self, outcomes: Outcomes) -> None:
        """Works for ever."""
        while True:
            await outcomes.refuse(await self._leases.get(), "the assignment revision has no such item")
