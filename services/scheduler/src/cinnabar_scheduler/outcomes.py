"""What happens to a task when its worker is done with it, or is no more."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum

from cinnabar_common.coalescer import Coalescer
from cinnabar_common.errors import DependencyUnavailable, Overloaded
from cinnabar_scheduler.ports import Bus, Changed, Queue, QueueUnavailable, Store, StoreUnavailable
from cinnabar_scheduler.tally import Tally
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
    fence_of,
)

log = logging.getLogger(__name__)

COMMIT_RETRY_SECONDS = 0.1
COMMIT_RETRY_CAP_SECONDS = 1.0
# A grade is kept in memory as long for storage to come back; then its task is graded again.
COMMIT_PATIENCE_SECONDS = 30.0


class Fate(Enum):
    """What became of a reported outcome."""

    COMMITTED = "committed"
    RETRYING = "retrying"
    DEAD_LETTERED = "dead lettered"
    RETURNED = "returned"
    STALE_LEASE = "stale lease"
    ALREADY_GRADED = "already graded"
    SUPERSEDED = "superseded"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Failure:
    """The grader could not grade; ``reason`` is for operators, ``why`` says how it is tried again."""

    reason: str
    why: Why = Why.FAILED


_FATES = {
    Committed.COMMITTED: Fate.COMMITTED,
    Committed.ALREADY_GRADED: Fate.ALREADY_GRADED,
    Committed.SUPERSEDED: Fate.SUPERSEDED,
    Committed.UNAVAILABLE: Fate.RETRYING,
}


class Outcomes:
    """Commits to the truth first, then tells the queue and whoever watches."""

    def __init__(
        self,
        queue: Queue,
        store: Store,
        bus: Bus,
        on_changed: Callable[[Changed], None],
        on_cancelled: Callable[[Sequence[LeaseToken]], None],
        *,
        patience_seconds: float = COMMIT_PATIENCE_SECONDS,
        tally: Tally | None = None,
    ) -> None:
        self._queue = queue
        self._store = store
        self._bus = bus
        self._on_changed = on_changed
        self._on_cancelled = on_cancelled
        self._patience = patience_seconds
        self._tally = tally or Tally()
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
        results = await self._commit_patiently(
            [(lease.queue, _fenced(lease, worker, grade)) for lease, grade in graded]
        )
        lost = [
            lease
            for (lease, _), result in zip(graded, results, strict=True)
            if result is Committed.UNAVAILABLE
        ]
        await self._give_back(lost, Why.RETURNED)
        fates = [_FATES[result] for result in results]
        self._count([lease for lease, _ in graded], fates)
        return fates

    async def fail(self, worker: str, failed: Sequence[tuple[Lease, Failure]]) -> list[Fate]:
        """Counts failures told by a grader, by their class: a retry after backoff, or a dead letter."""
        by_class: dict[Why, list[int]] = defaultdict(list)
        for index, (_, failure) in enumerate(failed):
            by_class[failure.why].append(index)
        fates = [Fate.STALE_LEASE] * len(failed)
        for why, members in by_class.items():
            answers = await self._attempted(worker, [failed[index] for index in members], why)
            for index, fate in zip(members, answers, strict=True):
                fates[index] = fate
        self._count([lease for lease, _ in failed], fates)
        return fates

    async def reject(self, worker: str, malformed: Sequence[tuple[Lease, Failure]]) -> None:
        """The same for outcomes that are none; all of them are REJECTED."""
        await self._attempted(worker, malformed, Why.FAILED)
        self._count([lease for lease, _ in malformed], [Fate.REJECTED] * len(malformed))

    def stale(self, count: int) -> None:
        """So many outcomes were reported under tokens that their worker does not hold."""
        if count:
            self._tally.outcomes["", Fate.STALE_LEASE.value] += count

    async def lose(self, worker: str, leases: Sequence[Lease]) -> None:
        """The worker's stream is gone: its tasks go back at once, counted as faults of the system."""
        failure = Failure(f"worker {worker} was lost")
        await self._attempted(worker, [(lease, failure) for lease in leases], Why.FAULT)
        self._tally.lost.update(lease.queue for lease in leases)

    async def release(self, leases: Sequence[Lease]) -> list[Fate]:
        """Handed back unworked."""
        await self._give_back(leases, Why.RETURNED)
        fates = [Fate.RETURNED] * len(leases)
        self._count(leases, fates)
        return fates

    async def expire(self, queue: QueueName, expired: Sequence[ExpiredLease]) -> None:
        """Leases out of time: their tasks go back, counted as faults of the system."""
        leases = [
            Lease(one.task, one.token, one.generation, 0, one.tenant, queue, "", b"") for one in expired
        ]
        failure = Failure("the lease expired without a heartbeat")
        await self._attempted("scheduler", [(lease, failure) for lease in leases], Why.FAULT)
        self._tally.expired[queue] += len(leases)
        await self.cancel([lease.token for lease in leases])

    async def end_overdue(self, queue: QueueName, overdue: Sequence[ExpiredLease]) -> int:
        """Tasks past their deadline: dead letters, committed under the finder's lease; returns how many.

        Those that storage cannot take now run out of that lease, and are found again.
        """
        await self.cancel([one.revoked for one in overdue if one.revoked is not None])
        entries = [
            (
                queue,
                FencedOutcome(
                    one.tenant,
                    one.task,
                    one.generation,
                    fence_of(one.token),
                    one.token,
                    "scheduler",
                    DeadLetter("the deadline passed", 0),
                ),
            )
            for one in overdue
        ]
        try:
            results = await self._commits.submit_many(entries)
        except (Overloaded, DependencyUnavailable) as error:
            log.debug("deadlines wait", extra={"queue": queue, "cause": str(error)})
            return 0
        ended = results.count(Committed.COMMITTED)
        self._tally.given_up[queue] += ended
        return ended

    def _count(self, leases: Sequence[Lease], fates: Sequence[Fate]) -> None:
        self._tally.outcomes.update(
            (lease.queue, fate.value) for lease, fate in zip(leases, fates, strict=True)
        )

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
        self._tally.given_up.update(lease.queue for lease, _, _ in given_up)
        for lease, reason, attempts in given_up:
            log.warning(
                "task given up",
                extra={"task": lease.task, "queue": lease.queue, "attempts": attempts, "reason": reason},
            )
        # When storage stays away the task is left under its lease: it expires, and is given up again.
        await self._commit_patiently(
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

    async def _commit_patiently(self, entries: list[tuple[QueueName, FencedOutcome]]) -> list[Committed]:
        """Tries again what storage could not take; others' outcomes do not wait for it meanwhile."""
        results = [Committed.UNAVAILABLE] * len(entries)
        waiting = list(range(len(entries)))
        deadline = time.monotonic() + self._patience
        delay = COMMIT_RETRY_SECONDS
        while True:
            try:
                answers = await self._commits.submit_many([entries[index] for index in waiting])
            except Overloaded:
                answers = [Committed.UNAVAILABLE] * len(waiting)
            except DependencyUnavailable:  # this process stops
                break
            for index, answer in zip(waiting, answers, strict=True):
                results[index] = answer
            waiting = [index for index in waiting if results[index] is Committed.UNAVAILABLE]
            if not waiting or time.monotonic() + delay > deadline:
                break
            await asyncio.sleep(delay)
            delay = min(COMMIT_RETRY_CAP_SECONDS, delay * 2)
        if waiting:
            log.warning("outcomes not committed", extra={"count": len(waiting)})
        return results

    async def _commit(self, batch: list[tuple[QueueName, FencedOutcome]]) -> list[Committed]:
        try:
            results, positions = await self._store.commit([outcome for _, outcome in batch])
        except StoreUnavailable as error:
            log.warning("storage is away", extra={"count": len(batch), "cause": str(error.__cause__)})
            return [Committed.UNAVAILABLE] * len(batch)
        await self._forget(batch, results)
        submissions = list(
            dict.fromkeys(
                outcome.task.partition("/")[0]
                for (_, outcome), result in zip(batch, results, strict=True)
                if result is Committed.COMMITTED
            )
        )
        if submissions:
            changed = Changed(submissions, positions)
            self._on_changed(changed)
            await self._bus.publish_changed(changed)
        return results

    async def _forget(
        self, batch: Sequence[tuple[QueueName, FencedOutcome]], results: Sequence[Committed]
    ) -> None:
        done: dict[QueueName, list[tuple[str, int]]] = defaultdict(list)
        own: set[LeaseToken] = set()
        for (queue, outcome), result in zip(batch, results, strict=True):
            if result is not Committed.UNAVAILABLE:
                done[queue].append((outcome.task, outcome.generation))
                own.add(outcome.token)
        for queue, tasks in done.items():
            try:
                _, tokens = await self._queue.remove(queue, tasks)
            except QueueUnavailable:
                # Delivered once more at worst; the fence then refuses the second grade.
                log.warning("finished tasks left in the queue", extra={"queue": queue, "count": len(tasks)})
                continue
            # Somebody else works on what was delivered twice.
            await self.cancel([token for token in tokens if token not in own])

    async def cancel(self, tokens: Sequence[LeaseToken]) -> None:
        """Tells whoever works under these leases, on any scheduler, to stop."""
        if tokens:
            self._on_cancelled(tokens)
            await self._bus.publish_cancelled(tokens)


def _fenced(lease: Lease, worker: str, outcome: Grade | DeadLetter) -> FencedOutcome:
    return FencedOutcome(
        lease.tenant, lease.task, lease.generation, lease.fence, lease.token, worker, outcome
    )


def _by_queue(leases: Sequence[Lease]) -> dict[QueueName, list[Lease]]:
    groups: dict[QueueName, list[Lease]] = defaultdict(list)
    for lease in leases:
        groups[lease.queue].append(lease)
    return groups
