"""How far long tasks are: what their graders tell, kept while the lease holds, and passed on to followers.

All of it may be lost at any time: the grade, when it is there, says everything again.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence

from cinnabar_scheduler.ports import Bus, Changed, ProgressBoard, QueueUnavailable
from cinnabar_scheduler.tasks import Lease, LeaseToken, QueueName

log = logging.getLogger(__name__)


class ProgressReports:
    """Keeps what graders tell, and says whose submissions changed."""

    def __init__(self, board: ProgressBoard, bus: Bus, on_changed: Callable[[Changed], None]) -> None:
        self._board = board
        self._bus = bus
        self._on_changed = on_changed

    async def publish(self, told: Sequence[tuple[Lease, bytes]]) -> list[LeaseToken]:
        """Keeps (lease, serialized progress); returns the tokens that hold no lease any more."""
        by_queue: dict[QueueName, list[tuple[Lease, bytes]]] = defaultdict(list)
        for lease, payload in told:
            by_queue[lease.queue].append((lease, payload))
        lost: set[LeaseToken] = set()
        for queue, members in by_queue.items():
            try:
                lost.update(
                    await self._board.keep(
                        queue, [(lease.task, lease.token, payload) for lease, payload in members]
                    )
                )
            except QueueUnavailable:
                log.debug("progress not kept", extra={"queue": queue})
                return list(lost)
        submissions = [lease.submission for lease, _ in told if lease.token not in lost]
        if submissions:
            changed = Changed(list(dict.fromkeys(submissions)), [])
            self._on_changed(changed)
            await self._bus.publish_changed(changed)
        return list(lost)
