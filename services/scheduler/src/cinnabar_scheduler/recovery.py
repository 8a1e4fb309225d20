"""The leader's work: it makes Redis disposable, and gives up what is out of time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial

from cinnabar_scheduler.conservation import Conservation
from cinnabar_scheduler.control import QueueControl
from cinnabar_scheduler.locks import Held
from cinnabar_scheduler.model_calls import ModelCallsUnavailable
from cinnabar_scheduler.open_tasks import each_shard, open_pages
from cinnabar_scheduler.outcomes import Outcomes
from cinnabar_scheduler.ports import LocksUnavailable, Queue, QueueUnavailable, Store, StoreUnavailable
from cinnabar_scheduler.sweep import EpochLost, Sweep
from cinnabar_scheduler.tasks import Findings
from cinnabar_scheduler.upgrades import Tick

log = logging.getLogger(__name__)

EPOCH_CHECK_SECONDS = 0.1
EXPIRY_CHECK_SECONDS = 0.5
CONTROL_CHECK_SECONDS = 2.0
COUNT_SECONDS = 30.0
BATCH = 1000
# A sweep, and a count of all tasks, may each use up to one part in so many of the time, but for this:
# what it takes also grows with a machine that is busy, and what a sweep would find waits for it.
DUTY = 20
# How often a rebuild reads a shard to which tasks go on moving.
_READINGS = 3
LONGEST_PAUSE_SECONDS = 15.0


class Recovery:
    """Loops that the leader runs. Each is harmless when a leader that is none any more runs on in it.

    rebuild   a task that is there is not queued again; only a rebuild whose marks, with
              its fence, are all in place may declare the queues complete
    sweep     see Sweep
    expiry    a lease is given back under its token, once; a renewed one is not found
    deadlines ended under a fresh lease and its fence, so once
    control   see QueueControl
    """

    def __init__(
        self,
        queue: Queue,
        store: Store,
        outcomes: Outcomes,
        sweep: Sweep,
        control: QueueControl,
        conservation: Conservation,
        *,
        sweep_seconds: float,
        also: Sequence[Tick] = (),
    ) -> None:
        """``also``: what the leader does besides, which must be as harmless."""
        self._queue = queue
        self._store = store
        self._outcomes = outcomes
        self._sweep = sweep
        self._control = control
        self._conservation = conservation
        self._also = also
        self._sweeps = _Due(sweep_seconds)
        self._counts = _Due(COUNT_SECONDS)
        # What the last sweep of this scheduler found, None before the first.
        self.findings: Findings | None = None

    async def lead(self, held: Held) -> None:
        """Runs the loops for ever."""
        try:
            await self._loops(held)
        finally:
            self._conservation.last = None

    async def _loops(self, held: Held) -> None:
        async with asyncio.TaskGroup() as group:
            for name, seconds, once in (
                ("epoch", EPOCH_CHECK_SECONDS, partial(self.complete_once, held)),
                ("time", EXPIRY_CHECK_SECONDS, self.keep_time_once),
                ("control", CONTROL_CHECK_SECONDS, self._control.align),
                ("counts", EXPIRY_CHECK_SECONDS, self.count_when_due),
                *self._also,
            ):
                group.create_task(_every(seconds, once), name=f"recovery-{name}")

    async def complete_once(self, held: Held) -> None:
        """Rebuilds when the epoch is gone, again until it is complete; sweeps when it is time."""
        if await self._queue.has_epoch():
            await self.sweep_when_due()
            return
        # Whatever lost the epoch has most likely taken the lock as well: then this is not ours to do.
        while await held.confirm() and await self.rebuild_once(held.fence) is None:
            log.warning("rebuild begins again")

    async def rebuild_once(self, fence: int) -> int | None:
        """Rebuilds all queues; returns the tasks put back.

        None: the data was lost again meanwhile, or a rebuild of a higher fence began.
        """
        started = time.monotonic()
        if not await self._queue.begin_rebuild(fence):
            return None
        await self._control.align()  # before there is anything to lease
        restored = await self._restore_all()
        if not await self._queue.finish_rebuild(fence):
            return None
        log.info("queues rebuilt", extra={"tasks": restored, "seconds": round(time.monotonic() - started, 3)})
        return restored

    async def _restore_all(self) -> int:
        """Queues the open tasks of all shards; returns how many were not queued.

        Tasks may move from a shard that is yet to be read to one that has been: so those to which some came
        meanwhile are read again.
        """
        restored = 0
        epoch, before = await self._store.arrivals()
        shards: Sequence[int] = range(len(before))
        for _ in range(_READINGS):
            restored += await each_shard(shards, partial(self._restore, epoch=epoch))
            epoch, after = await self._store.arrivals()
            known = dict(enumerate(before))
            shards = [shard for shard, came in enumerate(after) if came > known.get(shard, -1)]
            before = after
            if not shards:
                break
        else:
            log.warning("tasks go on moving: the sweep looks for the rest", extra={"shards": shards})
        return restored

    async def _restore(self, shard: int, *, epoch: int) -> int:
        restored = 0
        async with aclosing(open_pages(self._store, shard, epoch)) as pages:
            async for tasks in pages:
                restored += sum(await self._queue.enqueue(tasks))
        return restored

    async def sweep_when_due(self) -> Findings | None:
        """Sweeps when it is time; returns the findings."""
        if not self._sweeps.due:
            return None
        began = time.monotonic()
        try:
            self.findings = await self._sweep.run()
        except EpochLost:
            return None
        finally:
            self._sweeps.done(time.monotonic() - began - self._sweep.rested)
        return self.findings

    async def keep_time_once(self) -> None:
        """Ends what is past its deadline, then takes back what is out of its lease: a task may be both."""
        await self.end_overdue_once()
        await self.expire_once()

    async def expire_once(self) -> int:
        """Takes back leases that ran out of time; returns how many."""
        total = 0
        for queue in await self._queue.queues():
            expired = await self._queue.expired(queue, BATCH)
            if expired:
                log.info("leases expired", extra={"queue": queue, "count": len(expired)})
                await self._outcomes.expire(queue, expired)
            total += len(expired)
        return total

    async def end_overdue_once(self) -> int:
        """Gives up tasks whose deadline has passed; returns how many were found.

        When storage is away they stay under the lease they were found by, and are found again.
        """
        total = 0
        for queue in await self._queue.queues():
            overdue = await self._queue.overdue(queue, BATCH)
            if overdue:
                log.info("deadlines passed", extra={"queue": queue, "count": len(overdue)})
                await self._outcomes.end_overdue(queue, overdue)
            total += len(overdue)
        return total

    async def count_when_due(self) -> None:
        """Takes a snapshot of all tasks when it is time."""
        if not self._counts.due:
            return
        began = time.monotonic()
        try:
            self._conservation.last = await self._conservation.take()
        finally:
            self._counts.done(time.monotonic() - began)


def pause_seconds(wanted: float, took: float) -> float:
    """How long to rest after work of ``took`` seconds that is to be done every ``wanted`` seconds."""
    return max(wanted, min(DUTY * took, max(LONGEST_PAUSE_SECONDS, took)))


class _Due:
    """When something is to be done again: after ``seconds``, or more when it takes long."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._next = time.monotonic() + seconds

    @property
    def due(self) -> bool:
        return time.monotonic() >= self._next

    def done(self, took: float) -> None:
        """It ended just now, after ``took`` seconds of work."""
        self._next = time.monotonic() + pause_seconds(self._seconds, took)


async def _every(seconds: float, run_once: Callable[[], Awaitable[object]]) -> None:
    """Ticks for ever; an outage of Redis or storage skips a tick."""
    while True:
        try:
            await run_once()
        except (
            *(QueueUnavailable, StoreUnavailable, LocksUnavailable),
            ModelCallsUnavailable,
        ) as error:
            log.debug("recovery waits", extra={"cause": str(error)})
        await asyncio.sleep(seconds)
