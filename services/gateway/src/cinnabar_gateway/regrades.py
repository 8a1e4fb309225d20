"""Regrades: starting them, deciding them, and doing their work in the background.

Storage knows what is left to do of a regrade; a gateway asks it to go on, step by
step, and hands what was opened to the queue. Any gateway can do so for any
regrade: one that dies leaves its regrades to whoever claims them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from cinnabar_common.clock import Clock
from cinnabar_common.errors import ResourceNotFound, SuiteError
from cinnabar_common.names import AssignmentName, Bucket, RegradeName, SubmissionName, id_bucket, new_id
from cinnabar_gateway.assignments import course_bucket
from cinnabar_gateway.consistency import Position, Positions, merged
from cinnabar_gateway.handoff import Handoff
from cinnabar_gateway.identity import Identity
from cinnabar_gateway.ports import AssignmentStore, Queue
from cinnabar_gateway.records import Submission
from cinnabar_gateway.regrade_ports import (
    Decision,
    NewRegrade,
    Regrade,
    RegradeFilter,
    RegradeKey,
    RegradeReport,
    RegradeStore,
    Reopening,
)
from cinnabar_gateway.submissions import Submissions

log = logging.getLogger(__name__)

_FULL_PAUSE_SECONDS = 0.01


class Regrades:
    """The regrades of all tenants. Callers have checked the role."""

    def __init__(
        self,
        store: RegradeStore,
        assignments: AssignmentStore,
        submissions: Submissions,
        handoff: Handoff,
        driver: RegradeDriver,
        *,
        mint: Callable[[Bucket], str] = new_id,
    ) -> None:
        """``mint`` makes ids."""
        self._store = store
        self._assignments = assignments
        self._submissions = submissions
        self._handoff = handoff
        self._driver = driver
        self._mint = mint

    async def create(
        self,
        identity: Identity,
        parent: AssignmentName,
        wanted: RegradeFilter,
        *,
        revision_id: str,
        shadow: bool,
        reason: str,
        min_positions: Positions,
    ) -> tuple[Regrade, Position]:
        """Stores a regrade and starts its work. ResourceNotFound: the assignment or the revision."""
        await self._known(identity, parent, revision_id, min_positions)
        regrade_id = self._mint(course_bucket(identity.tenant, parent.course))
        stored, position = await self._store.create(
            NewRegrade(
                tenant=identity.tenant,
                name=RegradeName(parent.course, parent.assignment, regrade_id),
                filter=wanted,
                revision_id=revision_id,
                shadow=shadow,
                reason=reason,
                actor=identity.actor,
            )
        )
        self._driver.take(RegradeKey(identity.tenant, regrade_id))
        return stored, position

    async def _known(
        self, identity: Identity, parent: AssignmentName, revision_id: str, min_positions: Positions
    ) -> None:
        found = await self._assignments.get_assignment(
            identity.tenant, parent, revision_id="", min_positions=min_positions
        )
        if found is None:
            raise ResourceNotFound(str(parent))
        if revision_id in ("", found.revision_id):
            return
        known = id_bucket(revision_id) is not None and await self._assignments.get_assignment(
            identity.tenant, parent, revision_id=revision_id, min_positions=min_positions
        )
        if not known:
            raise ResourceNotFound(f"{parent}@{revision_id}")

    async def get(self, identity: Identity, name: RegradeName) -> Regrade:
        """How far it is. ResourceNotFound."""
        return await self._store.get(identity.tenant, _possible(name))

    async def list(
        self,
        identity: Identity,
        parent: AssignmentName,
        *,
        before: str,
        limit: int,
        min_positions: Positions,
    ) -> list[Regrade]:
        """Newest first, those before the id ``before``. ResourceNotFound for an unknown assignment."""
        found = await self._store.list(identity.tenant, parent, before=before, limit=limit)
        if not found and not before:
            await self._known(identity, parent, "", min_positions)
        return found

    async def report(self, identity: Identity, name: RegradeName, pass_share: float) -> RegradeReport:
        """What it changes. ResourceNotFound."""
        return await self._store.report(identity.tenant, _possible(name), pass_share=pass_share)

    async def decide(
        self, identity: Identity, name: RegradeName, decision: Decision
    ) -> tuple[Regrade, Position]:
        """Promotes or discards it, in the background. ResourceNotFound, StateForbids."""
        decided = await self._store.decide(identity.tenant, _possible(name), decision, identity.actor)
        self._driver.take(RegradeKey(identity.tenant, name.regrade))
        return decided

    async def reopen(
        self,
        identity: Identity,
        name: SubmissionName,
        *,
        items: tuple[str, ...],
        revision_id: str,
        reason: str,
        etag: str,
        min_positions: Positions,
    ) -> tuple[Submission, Positions]:
        """Grades items of one submission again; returns it as it is after that.

        ResourceNotFound; EtagMismatch; StateForbids when none of the items can be graded again now.
        """
        await self._submissions.get(identity, name, min_positions)
        if revision_id:
            await self._known(identity, name.parent, revision_id, min_positions)
        opened, position = await self._store.reopen(
            Reopening(
                tenant=identity.tenant,
                name=name,
                items=items,
                revision_id=revision_id,
                reason=reason,
                actor=identity.actor,
                etag=etag,
            )
        )
        self._handoff.offer(opened)
        positions = merged((position,))
        return await self._submissions.get(identity, name, merged(min_positions, positions)), positions


def _possible(name: RegradeName) -> RegradeName:
    """Raises ResourceNotFound for an id that no regrade can have."""
    if id_bucket(name.regrade) is None:
        raise ResourceNotFound(str(name))
    return name


class RegradeDriver:
    """Does the work of regrades; use inside ``async with driver.running()``.

    It works on a few at once, rests after each step for as long as the step took,
    and lets the queue take what was opened before it opens more: a large regrade
    takes its time and leaves the rest to others.
    """

    def __init__(
        self,
        store: RegradeStore,
        queue: Queue,
        handoff: Handoff,
        clock: Clock,
        *,
        lanes: int = 2,
        step_tasks: int = 1000,
        poll_seconds: float = 2.0,
    ) -> None:
        """A step opens about ``step_tasks``; every ``poll_seconds`` it looks for what others left behind."""
        self._store = store
        self._queue = queue
        self._handoff = handoff
        self._clock = clock
        self._lanes = lanes
        self._step_tasks = step_tasks
        self._poll_seconds = poll_seconds
        self._taken: deque[RegradeKey] = deque()
        self._working: set[RegradeKey] = set()
        self._arrived = asyncio.Event()

    def take(self, key: RegradeKey) -> None:
        """Works on this one, unless it does so already or has no lane free. Never waits.

        What is not taken is claimed later, by this gateway or another.
        """
        if key not in self._working and len(self._working) < self._lanes:
            self._working.add(key)
            self._taken.append(key)
            self._arrived.set()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[RegradeDriver]:
        """Works inside of the block. A step that is under way at its end is finished by storage."""
        async with asyncio.TaskGroup() as group:
            # Tasks of their own: the deadline of the call that started a regrade is not that of its work.
            tasks = [group.create_task(self._lane(), name=f"regrade-{lane}") for lane in range(self._lanes)]
            tasks.append(group.create_task(self._adopt(), name="regrade-adopt"))
            try:
                yield self
            finally:
                for task in tasks:
                    task.cancel()

    async def _lane(self) -> None:
        while True:
            while not self._taken:
                self._arrived.clear()
                await self._arrived.wait()
            key = self._taken.popleft()
            try:
                await self._finish(key)
            finally:
                self._working.discard(key)

    async def _finish(self, key: RegradeKey) -> None:
        """Step after step; gives up when one fails: then it is claimed again in a while."""
        busy = True
        while busy:
            if self._handoff.pending > self._step_tasks:
                await asyncio.sleep(_FULL_PAUSE_SECONDS)
                continue
            start = self._clock.monotonic()
            try:
                busy = await self.advance_once(key)
            except SuiteError as error:
                log.warning("regrade stopped", extra={"regrade": key.regrade_id, "error": error.message})
                return
            await asyncio.sleep(self._clock.monotonic() - start)

    async def advance_once(self, key: RegradeKey) -> bool:
        """One step; returns whether there is more to do. Raises what the store raises."""
        advance = await self._store.advance(key, limit=self._step_tasks)
        self._handoff.offer(advance.opened)
        if advance.cancelled:
            try:
                await self._queue.cancel(advance.cancelled)
            except SuiteError as error:  # storage refuses their grades in any case
                log.warning("cancel not queued", extra={"regrade": key.regrade_id, "error": error.message})
        return advance.busy

    async def _adopt(self) -> None:
        while True:
            await asyncio.sleep(self._poll_seconds)
            await self.adopt_once()

    async def adopt_once(self) -> int:
        """Takes what nobody works on, as lanes are free; returns how many."""
        free = self._lanes - len(self._working)
        if free < 1:
            return 0
        try:
            claimed = await self._store.claim(free)
        except SuiteError as error:
            log.debug("no regrades claimed", extra={"error": error.message})
            return 0
        for key in claimed:
            self.take(key)
        return len(claimed)
