"""Brings ready tasks to workers with credits."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from cinnabar_scheduler.items import ItemSource
from cinnabar_scheduler.ports import Queue, QueueUnavailable, StoreUnavailable
from cinnabar_scheduler.session import WorkerSession
from cinnabar_scheduler.tally import Tally
from cinnabar_scheduler.tasks import Lease, LeaseToken, QueueName, Why

log = logging.getLogger(__name__)

MAX_BATCH = 512
# A wake-up may be lost with the connection that carries it; nobody waits longer than this for one.
IDLE_SECONDS = 1.0
RETRY_SECONDS = 0.25
# Forgetting which items a stream has seen only costs sending them again.
MAX_SEEN_ITEMS = 10_000


@dataclass(slots=True)
class Delivery:
    """What goes out to a worker: leases with items new to the stream, or tokens to forget."""

    leases: Sequence[Lease] = ()
    items: dict[str, bytes] = field(default_factory=dict[str, bytes])
    cancelled: Sequence[LeaseToken] = ()


@dataclass(frozen=True, slots=True)
class Pause:
    """How long a queue's loop rests, and whether a wake-up ends it."""

    seconds: float
    wakeable: bool = True


class Attachment:
    """A session and the way to its worker."""

    def __init__(self, session: WorkerSession, deliver: Callable[[Delivery], None]) -> None:
        self.session = session
        self.deliver = deliver
        self._seen: set[str] = set()

    def hand(self, leases: list[Lease], items: dict[str, bytes]) -> None:
        """Grants leases and sends them with the items that the stream has not carried."""
        self.session.grant(leases, time.monotonic())
        if len(self._seen) > MAX_SEEN_ITEMS:
            self._seen.clear()
        fresh = {lease.item_key for lease in leases} - self._seen
        self._seen |= fresh
        self.deliver(Delivery(leases=leases, items={key: items[key] for key in fresh}))


class Dispatcher:
    """One loop per queue: waits for credits and work, leases, hands out.

    ``unknown_item`` is told of leases whose item storage does not have.
    """

    def __init__(
        self,
        queue: Queue,
        items: ItemSource,
        unknown_item: Callable[[list[Lease]], None],
        tally: Tally | None = None,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        """``now`` is the unix time of the queue, in seconds."""
        self._queue = queue
        self._items = items
        self._unknown_item = unknown_item
        self._tally = tally or Tally()
        self._now = now
        self._attached: list[Attachment] = []
        self._wakes: dict[QueueName, asyncio.Event] = {}
        self._loops: dict[QueueName, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._available = True

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Dispatcher]:
        """Runs the loops of the queues as they are needed."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                yield self
            finally:
                self._group = None
                for loop in self._loops.values():
                    loop.cancel()

    def attach(self, attachment: Attachment) -> None:
        """A worker said hello."""
        self._attached.append(attachment)

    def detach(self, attachment: Attachment) -> None:
        """A worker is gone; its leases are the caller's to give back."""
        if attachment in self._attached:
            self._attached.remove(attachment)

    def wake(self, queue: QueueName) -> None:
        """There may be work or credits for a queue."""
        if self._group is not None and queue not in self._loops and self._credits(queue):
            self._wakes[queue] = asyncio.Event()
            self._loops[queue] = self._group.create_task(self._loop(queue), name=f"dispatch-{queue}")
        if queue in self._wakes:
            self._wakes[queue].set()

    def wake_all(self) -> None:
        """There may be work in any queue."""
        for queue in {queue for attached in self._attached for queue in attached.session.queues}:
            self.wake(queue)

    def cancel(self, tokens: Sequence[LeaseToken]) -> None:
        """Tells the workers that hold these leases to stop."""
        for attachment in self._attached:
            held = attachment.session.drop(tokens)
            if held:
                attachment.deliver(Delivery(cancelled=held))

    def sessions(self) -> list[WorkerSession]:
        """The connected workers."""
        return [attached.session for attached in self._attached]

    async def run_once(self, queue: QueueName) -> Pause:
        """Leases one batch and hands it out; returns how long to wait before the next."""
        credits = self._credits(queue)
        if not credits:
            return Pause(IDLE_SECONDS)
        limit = min(credits, MAX_BATCH)
        try:
            leased = await self._queue.lease(queue, limit, free=credits)
        except QueueUnavailable as error:
            self._see(available=False, cause=error)
            return Pause(RETRY_SECONDS)
        self._see(available=True)
        if leased.leases and not await self._hand_out(queue, leased.leases):
            return Pause(RETRY_SECONDS, wakeable=False)
        if len(leased.leases) == limit:
            return Pause(0)
        if leased.next_due_ms is None:
            return Pause(IDLE_SECONDS)
        return Pause(min(IDLE_SECONDS, max(0.001, leased.next_due_ms / 1000 - self._now())))

    async def _loop(self, queue: QueueName) -> None:
        wake = self._wakes[queue]
        while any(queue in attached.session.queues for attached in self._attached):
            wake.clear()
            pause = await self.run_once(queue)
            if not pause.wakeable:
                await asyncio.sleep(pause.seconds)
            elif pause.seconds > 0 and not wake.is_set():
                try:
                    async with asyncio.timeout(pause.seconds):
                        await wake.wait()
                except TimeoutError:
                    continue
        del self._wakes[queue], self._loops[queue]

    def _see(self, *, available: bool, cause: Exception | None = None) -> None:
        if available != self._available:
            self._available = available
            reason = str(cause.__cause__) if cause is not None else ""
            log.warning("queue changed", extra={"available": available, "cause": reason})

    def _credits(self, queue: QueueName) -> int:
        return sum(attached.session.open_credits(queue) for attached in self._attached)

    async def _hand_out(self, queue: QueueName, leases: list[Lease]) -> bool:
        try:
            items = await self._items.of(leases)
        except StoreUnavailable:
            items = self._items.known(leases)
            await self._return(queue, [lease for lease in leases if lease.item_key not in items])
            rest = self._share(queue, [lease for lease in leases if lease.item_key in items], items)
            await self._return(queue, rest)
            return False
        unknown = [lease for lease in leases if lease.item_key not in items]
        if unknown:
            self._unknown_item(unknown)
            leases = [lease for lease in leases if lease.item_key in items]
        rest = self._share(queue, leases, items)
        await self._return(queue, rest)
        return True

    def _share(self, queue: QueueName, leases: list[Lease], items: dict[str, bytes]) -> list[Lease]:
        """Deals leases out in proportion to credits; returns those left by workers that left meanwhile."""
        takers = [attached for attached in self._attached if attached.session.open_credits(queue) > 0]
        takers.sort(key=lambda attached: attached.session.credits[queue], reverse=True)
        credits = sum(attached.session.credits[queue] for attached in takers)
        start = 0
        left = len(leases)
        for taker in takers:
            own = taker.session.credits[queue]
            share = min(own, left, -(-left * own // credits))
            credits -= own
            if share:
                taker.hand(leases[start : start + share], items)
                start += share
                left -= share
        self._tally.leased[queue] += start
        return leases[start:]

    async def _return(self, queue: QueueName, leases: list[Lease]) -> None:
        if not leases:
            return
        try:
            await self._queue.give_back(queue, [(lease.task, lease.token) for lease in leases], Why.RETURNED)
        except QueueUnavailable:
            log.warning("leases left to expire", extra={"queue": queue, "count": len(leases)})
