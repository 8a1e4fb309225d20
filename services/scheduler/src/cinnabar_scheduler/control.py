"""What operators want of queues: Postgres remembers it, Redis obeys."""

from __future__ import annotations

import logging
from collections.abc import Callable

from cinnabar_scheduler.ports import Queue, Store
from cinnabar_scheduler.tasks import QueueName, QueueState

log = logging.getLogger(__name__)


class UnknownQueue(Exception):
    """Nobody uses a queue of this name."""


class QueueControl:
    """Pauses, resumes and drains. ``wake`` is told of queues that may lease again."""

    def __init__(self, queue: Queue, store: Store, wake: Callable[[QueueName], None]) -> None:
        self._queue = queue
        self._store = store
        self._wake = wake

    async def change(self, queue: QueueName, state: QueueState, actor: str) -> None:
        """Raises UnknownQueue, StoreUnavailable (nothing changed) and QueueUnavailable.

        After QueueUnavailable it may be remembered already; then the leader brings Redis in line.
        """
        if queue not in await self._queue.queues():
            raise UnknownQueue
        await self._store.set_control(queue, state, actor)
        await self._queue.control(queue, state)
        log.info("queue controlled", extra={"queue": queue, "state": state.value, "actor": actor})
        self._wake(queue)

    async def align(self) -> int:
        """Brings Redis in line with what Postgres remembers; returns how many queues were not.

        An operator may change a queue meanwhile, in Postgres first and then in Redis. So
        Redis is read before Postgres, and Postgres once more after each change here:
        what was written by what it said before is then written again. A leader that is
        none any more does no more harm than that. Raises StoreUnavailable and
        QueueUnavailable.
        """
        aligned = 0
        while changed := await self._align_once():
            aligned += changed
        return aligned

    async def _align_once(self) -> int:
        states = await self._queue.states()
        wanted = await self._store.controls()
        changed = 0
        for queue in sorted(wanted.keys() | states.keys()):
            state = wanted.get(queue, QueueState.RUNNING)
            if states.get(queue, QueueState.RUNNING) is not state:
                await self._queue.control(queue, state)
                log.info("queue brought in line", extra={"queue": queue, "state": state.value})
                self._wake(queue)
                changed += 1
        return changed
