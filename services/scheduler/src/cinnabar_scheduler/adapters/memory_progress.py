"""Progress of tasks under lease in the memory of one process, beside the queue there."""

from __future__ import annotations

from collections.abc import Sequence

from cinnabar_scheduler.adapters.memory import MemoryQueue
from cinnabar_scheduler.adapters.memory_state import Entry
from cinnabar_scheduler.ports import QueueUnavailable
from cinnabar_scheduler.tasks import LeaseToken, QueueName


class MemoryProgress:
    """Implements ports.ProgressBoard on the tasks of ``queue``, with its outages."""

    def __init__(self, queue: MemoryQueue) -> None:
        self._queue = queue

    async def keep(self, queue: QueueName, told: Sequence[tuple[str, LeaseToken, bytes]]) -> list[LeaseToken]:
        entries = self._entries(queue)
        lost: list[LeaseToken] = []
        for task, token, payload in told:
            entry = entries.get(task)
            if entry is None or entry.token != token:
                lost.append(token)
            else:
                entry.progress = (token, payload)
        return lost

    async def of(self, queue: QueueName, tasks: Sequence[tuple[str, int]]) -> list[bytes]:
        entries = self._entries(queue)
        return [_shown(entries.get(task), generation) for task, generation in tasks]

    def _entries(self, queue: QueueName) -> dict[str, Entry]:
        if self._queue.outage:
            raise QueueUnavailable
        return self._queue.state.entries.get(queue, {})


def _shown(entry: Entry | None, generation: int) -> bytes:
    if entry is None or entry.progress is None or entry.task.generation != generation:
        return b""
    token, payload = entry.progress
    return payload if entry.token == token else b""
