"""What operators see and do: queues, dead letters, conservation, health."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cinnabar_common.names import AssignmentName, SubmissionName, id_bucket
from cinnabar_gateway.consistency import Positions, merged
from cinnabar_gateway.handoff import Handoff
from cinnabar_gateway.identity import Identity
from cinnabar_gateway.ports import HealthProbe, Queue, SubmissionStore
from cinnabar_gateway.records import (
    Conservation,
    DeadLetterFilter,
    DeadLetterPage,
    QueueCounts,
    QueueState,
    RedriveFate,
    Redriven,
    Redriving,
)

log = logging.getLogger(__name__)

MAX_REDRIVE = 1000
"""Tasks that one call redrives."""


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

    async def control(self, identity: Identity, queue: str, state: QueueState) -> QueueCounts:
        """Makes a queue do this from now on; returns the queue. ResourceNotFound when nobody uses it."""
        # Queues are shared by all tenants, so the audit needs the operator's own.
        await self._queue.control(queue, state, f"{identity.tenant}/{identity.actor}")
        counts = {one.queue: one for one in await self._queue.counts()}
        # Every scheduler obeys within a second; what was asked is decided now.
        return replace(counts.get(queue, QueueCounts(queue=queue)), state=state)

    async def conservation(self) -> Conservation:
        """Where every accepted task is, of all tenants."""
        return await self._queue.conservation()

    async def dead_letters(
        self, identity: Identity, wanted: DeadLetterFilter, *, after: tuple[str, str], limit: int
    ) -> DeadLetterPage:
        """Those of the caller's tenant by (submission id, item id), after ``after``."""
        return await self._store.list_dead_letters(identity.tenant, wanted, after=after, limit=limit)

    async def redrive(
        self, identity: Identity, tasks: Sequence[tuple[SubmissionName, str]]
    ) -> tuple[list[RedriveFate], Positions]:
        """Opens the dead letters among (submission, item id) again.

        The fate of each, in order, and where to see it.
        """
        fates = [RedriveFate.NOT_FOUND for _ in tasks]
        positions: Positions = ()
        by_parent: dict[AssignmentName, list[int]] = {}
        for index, (name, _) in enumerate(tasks):
            # An id that carries no bucket is nobody's, and storage could not even say where to look.
            if id_bucket(name.submission) is not None:
                by_parent.setdefault(name.parent, []).append(index)
        for parent, indexes in by_parent.items():
            known = [(tasks[index][0].submission, tasks[index][1]) for index in indexes]
            opened = await self._redrive(identity, known, parent)
            positions = merged(positions, opened.positions)
            for index, fate in zip(indexes, opened.fates, strict=True):
                fates[index] = fate
        return fates, positions

    async def _redrive(
        self, identity: Identity, tasks: Sequence[tuple[str, str]], parent: AssignmentName | None = None
    ) -> Redriven:
        redriven = await self._store.redrive(identity.tenant, tasks, identity.actor, parent=parent)
        self._handoff.offer(redriven.opened)
        return redriven

    async def redrive_all(self, identity: Identity, wanted: DeadLetterFilter) -> Redriving:
        """Opens the first dead letters of a filter again, up to 1,000."""
        page = await self._store.list_dead_letters(identity.tenant, wanted, after=("", ""), limit=MAX_REDRIVE)
        tasks = [(letter.submission.submission, letter.task.item) for letter in page.letters]
        more = page.more and bool(
            (await self._store.list_dead_letters(identity.tenant, wanted, after=tasks[-1], limit=1)).letters
        )
        redriven = await self._redrive(identity, tasks) if tasks else Redriven([], [], ())
        return Redriving(
            fates=tuple(zip(page.letters, redriven.fates, strict=True)),
            more=more,
            unreachable=page.unreachable,
            positions=redriven.positions,
        )

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
