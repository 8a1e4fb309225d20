"""When to expect a grade: what the schedulers promise a tenant, known before anybody asks.

No call waits for an estimate. A create starts the question about its tenant when
the answer it has is older than a second, and takes whatever is known once storage
has committed; so the first create of a tenant may go without.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from contextvars import Context
from dataclasses import dataclass, field

from cinnabar_common.clock import Clock
from cinnabar_common.errors import SuiteError
from cinnabar_gateway.ports import Queue
from cinnabar_gateway.records import NewSubmission, WaitEstimate

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Known:
    """What is known for one tenant; times by the monotonic clock, in seconds."""

    waits: dict[str, WaitEstimate] = field(default_factory=dict[str, WaitEstimate])
    learned: float = -float("inf")
    asked: float = -float("inf")
    asking: bool = False


class Estimates:
    """Estimates by tenant; use inside ``async with estimates.running()``."""

    def __init__(
        self,
        queue: Queue,
        clock: Clock,
        *,
        fresh_seconds: float = 1.0,
        kept_seconds: float = 10.0,
        max_tenants: int = 1000,
        max_asking: int = 16,
    ) -> None:
        """Asked again after ``fresh_seconds``, believed for ``kept_seconds`` while no new answer comes."""
        self._queue = queue
        self._clock = clock
        self._fresh = fresh_seconds
        self._kept = kept_seconds
        self._max_tenants = max_tenants
        self._max_asking = max_asking
        self._asking = 0
        self._tenants: OrderedDict[str, _Known] = OrderedDict()
        self._group: asyncio.TaskGroup | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Estimates]:
        """Lets questions be asked; those still open at the end are dropped."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                yield self
            finally:
                self._group = None
                for task in self._tasks:
                    task.cancel()

    def expect(self, tenant: str) -> None:
        """Somebody will want estimates for this tenant. Never waits, never raises."""
        known = self._tenants.get(tenant)
        if known is None:
            known = self._tenants[tenant] = _Known()
            if len(self._tenants) > self._max_tenants:
                self._tenants.popitem(last=False)
        else:
            self._tenants.move_to_end(tenant)
        now = self._clock.monotonic()
        if known.asking or now - known.asked < self._fresh:
            return
        if self._group is None or self._asking >= self._max_asking:
            return
        known.asking, known.asked = True, now
        self._asking += 1
        # Many share the answer, so it does not inherit the deadline of the call that asks first.
        task = self._group.create_task(self._ask(tenant, known), name="estimates", context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, tenant: str, known: _Known) -> None:
        try:
            known.waits = await self._queue.estimates(tenant)
            known.learned = self._clock.monotonic()
        except SuiteError as error:
            log.info("no estimates", extra={"tenant": tenant, "error": error.message})
        finally:
            known.asking = False
            self._asking -= 1

    def fill(self, created: Sequence[object]) -> None:
        """Gives every NewSubmission among these its estimate; None where a queue of it is not known."""
        by_plan: dict[tuple[str, str], WaitEstimate | None] = {}
        for one in created:
            if not isinstance(one, NewSubmission):
                continue
            key = (one.tenant, one.revision_id)
            if key not in by_plan:  # every submission of a revision has the same tasks
                by_plan[key] = self.slowest(one.tenant, {plan.queue for plan, _ in one.tasks})
            estimate = by_plan[key]
            if estimate is not None and one.grade_after_us is not None:
                ahead = max(0.0, one.grade_after_us / 1e6 - self._clock.time())
                estimate = WaitEstimate(
                    estimate.position, estimate.p50_seconds + ahead, estimate.p90_seconds + ahead
                )
            one.estimate = estimate

    def slowest(self, tenant: str, queues: set[str]) -> WaitEstimate | None:
        """The longest wait among these queues; None while one of them is not known."""
        known = self._tenants.get(tenant)
        if known is None or self._clock.monotonic() - known.learned > self._kept:
            return None
        waits = [known.waits.get(queue) for queue in queues]
        found = [wait for wait in waits if wait is not None]
        if not found or len(found) < len(waits):
            return None
        return max(found, key=lambda wait: (wait.p90_seconds, wait.p50_seconds))
