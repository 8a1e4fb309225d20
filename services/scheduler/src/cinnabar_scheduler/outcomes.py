"""What happens to a task when its worker is done with it, or is no more."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum

from cinnabar_common.coalescer import Coalescer

from cinnabar_scheduler.ports import Bus, Changed, Queue, QueueUnavailable, Store, StoreUnavailable
from cinnabar_scheduler.tasks import (
    Committed,
    DeadLetter,
    ExpiredLease,
    FencedOutcome,
    Grade,
    Lease,
    LeaseToken,
    QueueName,
    Verdict,
    Why,
)

log = logging.getLogger(__name__)

COMMIT_ATTEMPTS = 30
COMMIT_RETRY_SECONDS = 0.1
COMMIT_RETRY_CAP_SECONDS = 1.0


class Fate(Enum):
    """What became of a reported outcome."""

    COMMITTED = "committed"
    RETRYING = "retrying"
    DEAD_LETTERED = "dead lettered"
    RETURNED = "returned"
    STALE_LEASE = "stale lease"
    ALREADY_GRADED = "already graded"
    SUPERSEDED = "superseded"


@dataclass(frozen=True, slots=True)
class Failure:
    """The grader could not grade; ``reason`` is for operators."""

    reason: str


_FATES = {
    Committed.COMMITTED: Fate.COMMITTED,
    Committed.ALREADY_GRADED: Fate.ALREADY_GRADED,
    Committed.SUPERSEDED: Fate.SUPERSEDED,
    Committed.UNAVAILABLE: Fate.RETRYING,
}


class Outcomes:
    """Commits to the truth first, then tells the queue and whoever watches."""

    def __init__(self, queue: Queue, store: Store, bus: Bus, on_changed: Callable[[Changed], None]) -> None:
        self._queue = queue
        self._store = store
        self._bus = bus
        self._on_changed = on_changed
        self._commits = Coalescer[tuple[QueueName, FencedOutcome], Committed](
            self._commit, name="scheduler.commits", max_batch=1000, lanes=2
        )

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Outcomes]:
        """Runs the commit lanes."""
        async with self._commits.running():
            yield self

    async def grade(self, worker: str, graded: Sequence[tuple[Lease, Grade]]) -> list[Fate]:
        """Commits grades; RETRYING means storage stayed away and the task went back to its queue."""
        results = await self._commits.submit_many(
            [(lease.queue, _fenced(lease, worker, grade)) for lease, grade in graded]
        )
        lost = [
            lease
            for (lease, _), result in zip(graded, results, strict=True)
            if result is Committed.UNAVAILABLE
        ]
        await self._give_back(lost, Why.RETURNED)
        return [_FATES[result] for result in results]

    async def fail(self, worker: str, failed: Sequence[tuple[Lease, Failure]]) -> list[Fate]:
        """Counts failures told by a grader: a retry after backoff, or a dead letter."""
        return await self._attempted(worker, failed, Why.FAILED)

    async def lose(self, worker: str, leases: Sequence[Lease]) -> None:
        """The worker's stream is gone: its tasks go back at once, counted as faults of the system."""
        failure = Failure(f"worker {worker} was lost")
        await self._attempted(worker, [(lease, failure) for lease in leases], Why.FAULT)

    async def release(self, leases: Sequence[Lease]) -> list[Fate]:
        """Handed back unworked."""
        await self._give_back(leases, Why.RETURNED)
        return [Fate.RETURNED] * len(leases)

    async def refuse(self, leases: Sequence[Lease], reason: str) -> None:
        """Dead letters at once, for tasks that no attempt can help."""
        await self._bury("scheduler", [(lease, reason, lease.delivery) for lease in leases])

    async def expire(self, queue: QueueName, expired: Sequence[ExpiredLease]) -> None:
        """Leases out of time: their tasks go back, counted as faults of the system."""
        leases = [
            Lease(one.task, one.token, one.generation, 0, one.tenant, queue, "", b"") for one in expired
        ]
        failure = Failure("the lease expired without a heartbeat")
        await self._attempted("scheduler", [(lease, failure) for lease in leases], Why.FAULT)

    async def _attempted(self, worker: str, failed: Sequence[tuple[Lease, Failure]], why: Why) -> list[Fate]:
        verdicts = await self._give_back([lease for lease, _ in failed], why)
        given_up = [
            (lease, failure.reason, attempts)
            for lease, failure in failed
            if (attempts := verdicts.get(lease.token, (Verdict.LOST, 0))[1])
        ]
        await self._bury(worker, given_up)
        fates = {
            Verdict.LOST: Fate.STALE_LEASE,
            Verdict.QUEUED: Fate.RETRYING,
            Verdict.GIVEN_UP: Fate.DEAD_LETTERED,
        }
        return [fates[verdicts.get(lease.token, (Verdict.LOST, 0))[0]] for lease, _ in failed]

    async def _bury(self, worker: str, given_up: Sequence[tuple[Lease, str, int]]) -> None:
        if not given_up:
            return
        for lease, reason, attempts in given_up:
            log.warning(
                "task given up",
                extra={"task": lease.task, "queue": lease.queue, "attempts": attempts, "reason": reason},
            )
        await self._commits.submit_many(
            [
                (lease.queue, _fenced(lease, worker, DeadLetter(reason, attempts)))
                for lease, reason, attempts in given_up
            ]
        )

    async def _give_back(self, leases: Sequence[Lease], why: Why) -> dict[LeaseToken, tuple[Verdict, int]]:
        verdicts: dict[LeaseToken, tuple[Verdict, int]] = {}
        for queue, members in _by_queue(leases).items():
            try:
                answers = await self._queue.give_back(
                    queue, [(lease.task, lease.token) for lease in members], why
                )
            except QueueUnavailable:
                # Their leases expire, or the whole queue is rebuilt: nothing is lost.
                log.warning("leases left to expire", extra={"queue": queue, "count": len(members)})
                continue
            for lease, answer in zip(members, answers, strict=True):
                verdicts[lease.token] = (answer.verdict, answer.deliveries)
        return verdicts

    async def _commit(self, batch: list[tuple[QueueName, FencedOutcome]]) -> list[Committed]:
        results = [Committed.UNAVAILABLE] * len(batch)
        changed = Changed([], [])
        open_indexes = list(range(len(batch)))
        delay = COMMIT_RETRY_SECONDS
        for attempt in range(COMMIT_ATTEMPTS):
            if attempt:
                await asyncio.sleep(delay)
                delay = min(COMMIT_RETRY_CAP_SECONDS, delay * 2)
            try:
                answers, positions = await self._store.commit([batch[index][1] for index in open_indexes])
            except StoreUnavailable:
                continue
            changed.positions.extend(positions)
            for index, answer in zip(open_indexes, answers, strict=True):
                results[index] = answer
            open_indexes = [index for index in open_indexes if results[index] is Committed.UNAVAILABLE]
            if not open_indexes:
                break
        else:
            log.error("outcomes not committed", extra={"count": len(open_indexes)})
        await self._forget(batch, results)
        changed.submissions.extend(
            dict.fromkeys(
                outcome.task.partition("/")[0]
                for (_, outcome), result in zip(batch, results, strict=True)
                if result is Committed.COMMITTED
            )
        )
        if changed.submissions:
            self._on_changed(changed)
            await self._bus.publish_changed(changed)
        return results

    async def _forget(
        self, batch: Sequence[tuple[QueueName, FencedOutcome]], results: Sequence[Committed]
    ) -> None:
        done: dict[QueueName, list[tuple[str, int]]] = defaultdict(list)
        for (queue, outcome), result in zip(batch, results, strict=True):
            if result is not Committed.UNAVAILABLE:
                done[queue].append((outcome.task, outcome.generation))
        for queue, tasks in done.items():
            try:
                await self._queue.remove(queue, tasks)
            except QueueUnavailable:
                # Delivered once more at worst; the fence then refuses the second grade.
                log.warning("finished tasks left in the queue", extra={"queue": queue, "count": len(tasks)})


def _fenced(lease: Lease, worker: str, outcome: Grade | DeadLetter) -> FencedOutcome:
    return FencedOutcome(
        lease.tenant, lease.task, lease.generation, lease.fence, lease.token, worker, outcome
    )


def _by_queue(leases: Sequence[Lease]) -> dict[QueueName, list[Lease]]:
    groups: dict[QueueName, list[Lease]] = defaultdict(list)
    for lease in leases:
        groups[lease.queue].append(lease)
    return groups
