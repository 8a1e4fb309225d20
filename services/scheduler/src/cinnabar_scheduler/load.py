"""How much a queue has to do, and who is there to do it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cinnabar_common.clock import Clock
from cinnabar_scheduler.ports import Queue
from cinnabar_scheduler.service_times import Backlog, Estimate, ServiceTime, ServiceTimes, estimate
from cinnabar_scheduler.session import WorkerSession
from cinnabar_scheduler.tasks import QueueCounts, QueueName, QueueState


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One queue, at one moment.

    ``time`` is None while nothing has been measured; ``estimate`` is that of a new task of the tenant
    asked for, see `service_times.estimate`.
    """

    queue: QueueName
    counts: QueueCounts
    oldest_age_seconds: float
    """Age of the oldest ready task; 0 when none is."""
    workers: int
    """Workers on this scheduler that serve the queue."""
    credits: int
    """Credits that they have granted and that are not spent."""
    open_credits: int
    """Those that may be spent now: of workers that were heard lately."""
    slots_per_worker: float
    """Tasks that one of them takes at a time, as last seen; 0 when none ever came."""
    time: ServiceTime | None
    estimate: Estimate | None

    @property
    def depth(self) -> int:
        """Tasks that graders have, or could have at once: without those of a paused queue, and without
        those of tenants at their cap.
        """
        if self.counts.state is QueueState.PAUSED:
            return self.counts.leased
        return self.counts.ready - self.counts.capped + self.counts.leased

    @property
    def available(self) -> int:
        """Ready tasks that a worker could have at once, had it credits."""
        return 0 if self.counts.state is QueueState.PAUSED else max(0, self.counts.ready - self.counts.capped)

    @property
    def work_seconds(self) -> float | None:
        """Predicted work, for one credit: tasks ready or under lease, times the mean time under lease."""
        return None if self.time is None else (self.counts.ready + self.counts.leased) * self.time.mean

    @property
    def grader_seconds(self) -> float | None:
        """The work that can be done now, for one grader with as many credits as those that were last here."""
        if self.time is None:
            return None
        return self.depth * self.time.mean / max(1.0, self.slots_per_worker)


class Loads:
    """Looks at queues."""

    def __init__(
        self,
        queue: Queue,
        sessions: Callable[[], Sequence[WorkerSession]],
        times: ServiceTimes,
        clock: Clock,
        weight: Callable[[str], float] = lambda tenant: 1.0,
    ) -> None:
        """``weight`` of a tenant, in multiples of that of most others."""
        self._queue = queue
        self._sessions = sessions
        self._times = times
        self._clock = clock
        self._weight = weight
        self._slots: dict[QueueName, float] = {}

    async def queues(self) -> list[QueueName]:
        """All known queues, by name. Raises QueueUnavailable."""
        return sorted(await self._queue.queues())

    async def of(self, queue: QueueName, tenant: str | None = None) -> Load:
        """The load of one queue, and the estimate for a tenant. Raises QueueUnavailable."""
        counts = await self._queue.counts(queue, tenant)
        serving = [session for session in self._sessions() if queue in session.queues]
        credits = sum(session.credits[queue] for session in serving)
        if serving:
            held = sum(
                lease.queue == queue
                for session in serving
                for leases in (session.held, session.committing)
                for lease in leases.values()
            )
            self._slots[queue] = (credits + held) / len(serving)
        open_credits = sum(session.open_credits(queue) for session in serving)
        time = self._times.of(queue, self._clock.monotonic())
        oldest = counts.oldest_ready_ms
        return Load(
            queue=queue,
            counts=counts,
            oldest_age_seconds=0.0 if oldest is None else max(0.0, self._clock.time() - oldest / 1000),
            workers=len(serving),
            credits=credits,
            open_credits=open_credits,
            slots_per_worker=self._slots.get(queue, 0.0),
            time=time,
            estimate=None if tenant is None else self._estimate(counts, tenant, open_credits, time),
        )

    def _estimate(
        self, counts: QueueCounts, tenant: str, open_credits: int, time: ServiceTime | None
    ) -> Estimate | None:
        if counts.state is QueueState.PAUSED:
            return None  # nobody knows for how long
        backlog = Backlog(
            ready=counts.ready,
            tenant_ready=counts.tenant_ready,
            tenants=counts.tenants,
            leased=counts.leased,
            open_credits=open_credits,
            capped=counts.capped,
            weight=self._weight(tenant),
        )
        return estimate(backlog, time)
