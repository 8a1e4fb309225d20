"""What operators see and do: queues, dead letters, health."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from cinnabar_common.names import id_bucket
from cinnabar_gateway.handoff import Handoff
from cinnabar_gateway.identity import Identity
from cinnabar_gateway.ports import HealthProbe, Queue, SubmissionStore
from cinnabar_gateway.records import DeadLetter, QueueCounts

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check of a dependency found, and how long it took."""

    name: str
    healthy: bool
    latency_seconds: float


class Operations:
    """The operator's view of the suite. Callers have checked the role."""

    def __init__(
        self,
        store: SubmissionStore,
        queue: Queue,
        handoff: Handoff,
        probes: Sequence[HealthProbe],
        *,
        probe_seconds: float = 2.0,
    ) -> None:
        """A probe that takes longer than ``probe_seconds`` counts as unhealthy."""
        self._store = store
        self._queue = queue
        self._handoff = handoff
        self._probes = probes
        self._probe_seconds = probe_seconds

    async def queues(self) -> list[QueueCounts]:
        """All queues by name."""
        return await self._queue.counts()

    async def dead_letters(
        self, identity: Identity, *, queue: str, after: tuple[str, str], limit: int
    ) -> list[DeadLetter]:
        """Those of the caller's tenant by (submission id, item id), after ``after``."""
        return await self._store.list_dead_letters(identity.tenant, queue=queue, after=after, limit=limit)

    async def redrive(self, identity: Identity, tasks: Sequence[tuple[str, str]]) -> int:
        """Opens the dead letters among (submission id, item id) again; returns how many there were."""
        known = [task for task in tasks if id_bucket(task[0]) is not None]  # other ids are nobody's
        opened = await self._store.redrive(identity.tenant, known, identity.actor) if known else []
        self._handoff.offer(opened)
        return len(opened)

    async def health(self) -> list[Verdict]:
        """Runs all probes together; an error and a time-out are unhealthy."""
        return await asyncio.gather(*map(self._verdict, self._probes))

    async def _verdict(self, probe: HealthProbe) -> Verdict:
        start = time.perf_counter()
        try:
            async with asyncio.timeout(self._probe_seconds):
                await probe.check()
        except Exception as error:  # any failure at all means unhealthy
            log.info("dependency unhealthy", extra={"dependency": probe.name, "error": repr(error)})
            return Verdict(probe.name, False, time.perf_counter() - start)
        return Verdict(probe.name, True, time.perf_counter() - start)
