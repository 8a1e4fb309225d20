"""What operators want of queues."""

from __future__ import annotations

from cinnabar_storage.records import QueueControl
from cinnabar_storage.shards.sharding import Shards

_HOME = 0
"""The shard that keeps them: a queue spans all shards, and what is wanted of it must not be in two minds."""


class QueueControls:
    """The controls of all queues."""

    def __init__(self, shards: Shards) -> None:
        self._shard = shards[_HOME]

    async def set(self, control: QueueControl) -> None:
        """Replaces what was wanted of the queue before. Raises DependencyUnavailable, Overloaded."""
        await self._shard.set_queue_control(control)

    async def list(self) -> list[QueueControl]:
        """All, by queue, from the primary. Raises DependencyUnavailable, Overloaded."""
        return await self._shard.read_primary(lambda copy: copy.queue_controls())
