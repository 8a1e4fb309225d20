"""What a worker believes about its stream: credits, leases, outcomes. No I/O, no clock.

Events come in as method calls; what must be said to the scheduler comes out of
`WorkerSession.take`, which the writer asks whenever it can write. What piled up
in the meantime goes out together: that is how reports are batched.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from cinnabar_grader.graders import LeaseToken, Outcome, Progress, Released, Task

log = logging.getLogger(__name__)

MAX_REPORT = 1000
"""Outcomes of one report; a limit of the protocol."""
MAX_PROGRESS = 64
"""Tasks of which is told at a time how far they are; the rest waits for the next time."""
UNRECEIPTED_LIMIT = 4
"""Leases of a queue that may exist at all, in multiples of its credits; the rest waits for receipts."""
GRANT_FRACTION = 8
"""Credits are granted again when at least one in so many is missing: few messages, no dry queue."""


@dataclass(slots=True, frozen=True)
class Grant:
    """More credits for a queue."""

    queue: str
    credits: int


@dataclass(slots=True, frozen=True)
class Report:
    """Outcomes, at most `MAX_REPORT`."""

    outcomes: Sequence[Outcome]


@dataclass(slots=True, frozen=True)
class Heartbeat:
    """Every lease that is held; also without any it says that the worker lives."""

    tokens: Sequence[LeaseToken]


@dataclass(slots=True, frozen=True)
class Close:
    """Nothing more will be said: half-close."""


Message: TypeAlias = "Grant | Report | Progress | Heartbeat | Close"


class LeaseState(Enum):
    """Where a lease is, on this side."""

    WAITING = 1
    RUNNING = 2
    FINISHED = 3
    REPORTED = 4


@dataclass(slots=True)
class _Lease:
    queue: _Queue
    state: LeaseState
    task: Task


@dataclass(slots=True)
class _Queue:
    wanted: int
    opened: bool = False
    open: int = 0
    """Credits granted and not yet spent, as far as is known here."""
    unreported: int = 0
    held: int = 0
    waiting: deque[Task] = field(default_factory=deque[Task])


class WorkerSession:
    """One stream, from its welcome to its end.

    A lease is WAITING when it arrives, RUNNING once `start` gave it out, FINISHED when its outcome
    is here, REPORTED when that was said, and gone at its receipt. A cancelled lease is gone at once,
    whatever comes of it later is dropped. So no token is reported twice.

    A credit is granted again when an outcome is reported, not when it is receipted: work goes on
    while the scheduler commits. All leases of a queue together stay below `UNRECEIPTED_LIMIT` times
    its credits, so a scheduler that commits slowly gets its tasks taken slowly.

    `throttle` lets fewer tasks be taken ahead while this process has too much to do. Credits that
    are granted stay; they are just not granted again.
    """

    def __init__(self, wanted: Mapping[str, int]) -> None:
        """``wanted``: for each queue, how many tasks to take ahead."""
        self._queues = {queue: _Queue(credits) for queue, credits in wanted.items()}
        self._held: dict[LeaseToken, _Lease] = {}
        self._finished: deque[Outcome] = deque()
        self._strays: deque[Outcome] = deque()
        self._progress: dict[LeaseToken, Progress] = {}
        self._share = 1.0
        self._welcomed = False
        self._max_credits = 0
        self._beating = False
        self._telling = False
        self._draining = False
        self._closed = False

    @property
    def held(self) -> int:
        """Leases that have no receipt yet."""
        return len(self._held)

    @property
    def tokens(self) -> list[LeaseToken]:
        """Of all leases that have no receipt yet."""
        return list(self._held)

    def held_of(self, name: str) -> int:
        """Leases of one queue that have no receipt yet."""
        return self._queues[name].held if name in self._queues else 0

    @property
    def closed(self) -> bool:
        """Whether `Close` was said."""
        return self._closed

    @property
    def draining(self) -> bool:
        """Whether no new work is wanted."""
        return self._draining

    def welcomed(self, *, max_credits: int) -> None:
        """The scheduler accepted the hello; at most ``max_credits`` may be open per queue (0: any)."""
        self._welcomed = True
        self._max_credits = max_credits

    def want(self, name: str, credits: int) -> None:
        """From now on take so many tasks of a queue ahead; unknown queues are ignored.

        Credits that are granted stay; they are just not granted again.
        """
        if name in self._queues:
            self._queues[name].wanted = credits

    def open(self, name: str) -> None:
        """The grader of this queue is ready; unknown queues are ignored."""
        if name in self._queues:
            self._queues[name].opened = True

    def throttle(self, share: float) -> None:
        """From now on take only this share (0 to 1) of the wanted credits, but at least one."""
        self._share = share

    def leased(self, tasks: Iterable[Task]) -> set[str]:
        """Takes tasks in; returns the queues that now have work waiting."""
        busy: set[str] = set()
        if self._closed:
            return busy
        for task in tasks:
            queue = self._queues.get(task.queue)
            if queue is None or task.token in self._held:
                log.warning("lease not understood", extra={"lease": task.token, "queue": task.queue})
                if queue is None:
                    self._strays.append(Released(task.token))
                continue
            queue.open = max(0, queue.open - 1)
            queue.unreported += 1
            queue.held += 1
            if self._draining:
                self._held[task.token] = _Lease(queue, LeaseState.FINISHED, task)
                self._finished.append(Released(task.token))
            else:
                self._held[task.token] = _Lease(queue, LeaseState.WAITING, task)
                queue.waiting.append(task)
                busy.add(task.queue)
        return busy

    def start(self, name: str, limit: int) -> list[Task]:
        """Up to ``limit`` waiting tasks of a queue, oldest first; they are running from now on."""
        queue = self._queues[name]
        batch: list[Task] = []
        while queue.waiting and len(batch) < limit:
            task = queue.waiting.popleft()
            lease = self._held.get(task.token)
            if lease is not None and lease.state is LeaseState.WAITING:
                lease.state = LeaseState.RUNNING
                batch.append(task)
        return batch

    def finished(self, outcomes: Iterable[Outcome]) -> None:
        """Takes outcomes of running tasks; those of leases that are gone are dropped."""
        for outcome in outcomes:
            lease = self._held.get(outcome.token)
            if lease is not None and lease.state is LeaseState.RUNNING:
                lease.state = LeaseState.FINISHED
                self._finished.append(outcome)

    def progressed(self, progress: Progress) -> None:
        """Takes what is finished of a running task; only the newest of a task is told, and not at once."""
        lease = self._held.get(progress.token)
        if lease is not None and lease.state is LeaseState.RUNNING:
            self._progress[progress.token] = progress

    @property
    def progressing(self) -> bool:
        """Whether there is progress to be told."""
        return bool(self._progress)

    def tell(self) -> None:
        """It is time to tell progress."""
        self._telling = True

    def receipted(self, tokens: Iterable[LeaseToken]) -> None:
        """These outcomes are dealt with."""
        self._forget(tokens)

    def cancelled(self, tokens: Iterable[LeaseToken]) -> None:
        """These leases are gone; nothing is to be reported of them, and their work may stop."""
        for token in tokens:
            lease = self._held.get(token)
            if lease is not None:
                lease.task.cancelled = True
                self._forget((token,))

    def beat(self) -> None:
        """It is time for a heartbeat."""
        self._beating = True

    def drain(self) -> None:
        """No more work: hand back what has not begun, finish the rest, then close."""
        self._draining = True
        for queue in self._queues.values():
            while queue.waiting:
                task = queue.waiting.popleft()
                lease = self._held.get(task.token)
                if lease is not None and lease.state is LeaseState.WAITING:
                    lease.state = LeaseState.FINISHED
                    self._finished.append(Released(task.token))

    def hand_back(self) -> None:
        """Hand back what runs too; its outcomes are dropped from now on."""
        self.drain()
        for token, lease in self._held.items():
            if lease.state is LeaseState.RUNNING:
                lease.state = LeaseState.FINISHED
                lease.task.cancelled = True
                self._finished.append(Released(token))

    def abandon(self) -> None:
        """Close now; the scheduler puts what a closing stream holds back into the queue."""
        self.drain()
        self._forget(list(self._held))
        self._finished.clear()
        self._strays.clear()

    def take(self) -> list[Message]:
        """What is to be said now, in order; empty when there is nothing."""
        if not self._welcomed or self._closed:
            return []
        messages: list[Message] = []
        if outcomes := self._reportable():
            messages.append(Report(outcomes))
        if self._telling:
            messages += self._tellable()
        self._telling = False
        if self._beating:
            messages.append(Heartbeat(list(self._held)))
        self._beating = False
        if not self._draining:
            messages += self._grants()
        elif not self._held and not self._strays:
            self._closed = True
            messages.append(Close())
        return messages

    def _reportable(self) -> list[Outcome]:
        outcomes: list[Outcome] = []
        while self._strays and len(outcomes) < MAX_REPORT:
            outcomes.append(self._strays.popleft())
        while self._finished and len(outcomes) < MAX_REPORT:
            outcome = self._finished.popleft()
            lease = self._held.get(outcome.token)
            if lease is not None and lease.state is LeaseState.FINISHED:
                lease.state = LeaseState.REPORTED
                lease.queue.unreported -= 1
                outcomes.append(outcome)
        return outcomes

    def _tellable(self) -> list[Message]:
        """Progress of tasks that still run, the first MAX_PROGRESS."""
        messages: list[Message] = []
        for token in list(self._progress):
            lease = self._held.get(token)
            if len(messages) == MAX_PROGRESS:
                break
            progress = self._progress.pop(token)
            if lease is not None and lease.state is LeaseState.RUNNING:
                messages.append(progress)
        return messages

    def _grants(self) -> Iterable[Grant]:
        for name, queue in self._queues.items():
            if not queue.opened:
                continue
            wanted = min(queue.wanted, self._max_credits or queue.wanted)
            wanted = max(1, int(wanted * self._share))
            missing = min(
                wanted - queue.open - queue.unreported,
                wanted * UNRECEIPTED_LIMIT - queue.open - queue.held,
            )
            if missing >= max(1, wanted // GRANT_FRACTION):
                queue.open += missing
                yield Grant(name, missing)

    def _forget(self, tokens: Iterable[LeaseToken]) -> None:
        for token in tokens:
            lease = self._held.pop(token, None)
            if lease is not None:
                lease.queue.held -= 1
                if lease.state is not LeaseState.REPORTED:
                    lease.queue.unreported -= 1
