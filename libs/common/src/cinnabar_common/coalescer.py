"""Gathers single requests into batches where they meet a plural hop.

Whatever arrives while a batch is in flight makes the next batch. There is no
timer: an idle system adds no latency, a busy one amortizes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from cinnabar_common.errors import DependencyUnavailable, Overloaded, SuiteError

T = TypeVar("T")
R = TypeVar("R")


@dataclass(slots=True)
class _Entry(Generic[T, R]):
    items: Sequence[T]
    done: asyncio.Future[list[R]]


class Coalescer(Generic[T, R]):
    """Batches items for ``flush``; use inside ``async with coalescer.running()``.

    ``flush`` takes up to ``max_batch`` items (more only when one caller brings
    more) and returns one result per item, in order. ``lanes`` batches may be in
    flight at once; ``max_pending`` items may wait.
    """

    def __init__(
        self,
        flush: Callable[[list[T]], Awaitable[Sequence[R]]],
        *,
        name: str,
        max_batch: int = 1000,
        max_pending: int = 50_000,
        lanes: int = 1,
    ) -> None:
        self._flush = flush
        self._name = name
        self._max_batch = max_batch
        self._max_pending = max_pending
        self._lanes = lanes
        self._waiting: deque[_Entry[T, R]] = deque()
        self._pending = 0
        self._arrived = asyncio.Event()
        self._closed = False

    async def submit(self, item: T) -> R:
        """The result for one item. Raises as submit_many does."""
        return (await self.submit_many((item,)))[0]

    async def submit_many(self, items: Sequence[T]) -> list[R]:
        """One result per item, in order.

        Raises what the flush raised, Overloaded, or after the end of ``running`` DependencyUnavailable.
        """
        if not items:
            return []
        if self._closed:
            raise DependencyUnavailable(self._name)
        if self._pending and self._pending + len(items) > self._max_pending:
            raise Overloaded(self._name)
        entry = _Entry[T, R](items, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        self._pending += len(items)
        self._arrived.set()
        return await entry.done

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Coalescer[T, R]]:
        """Runs the lanes; on exit what still waits fails with DependencyUnavailable."""
        async with asyncio.TaskGroup() as group:
            lanes = [
                group.create_task(self._lane(), name=f"{self._name}-{lane}") for lane in range(self._lanes)
            ]
            try:
                yield self
            finally:
                self._closed = True
                for lane in lanes:
                    lane.cancel()
                while self._waiting:
                    self._fail(self._waiting.popleft(), DependencyUnavailable(self._name))

    async def _lane(self) -> None:
        while True:
            while not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            await self.run_once()

    async def run_once(self) -> int:
        """Flushes one batch of what waits; returns its size."""
        entries = self._take()
        batch = [item for entry in entries for item in entry.items]
        if not batch:
            return 0
        try:
            results = await self._flush(batch)
            if len(results) != len(batch):
                raise RuntimeError(f"{self._name}: {len(batch)} items but {len(results)} results")
        except asyncio.CancelledError:
            for entry in entries:
                self._fail(entry, DependencyUnavailable(self._name))
            raise
        except Exception as error:  # every caller gets it; the lane lives on
            for entry in entries:
                self._fail(entry, error)
            return len(batch)
        start = 0
        for entry in entries:
            stop = start + len(entry.items)
            if not entry.done.done():
                entry.done.set_result(list(results[start:stop]))
            start = stop
        return len(batch)

    def _take(self) -> list[_Entry[T, R]]:
        entries: list[_Entry[T, R]] = []
        size = 0
        while self._waiting and (not entries or size + len(self._waiting[0].items) <= self._max_batch):
            entry = self._waiting.popleft()
            self._pending -= len(entry.items)
            if entry.done.cancelled():  # the caller went away; nobody wants the work
                continue
            entries.append(entry)
            size += len(entry.items)
        return entries

    def _fail(self, entry: _Entry[T, R], error: Exception) -> None:
        if not entry.done.done():
            entry.done.set_exception(error if isinstance(error, SuiteError) else _unexpected(error))


def _unexpected(error: Exception) -> Exception:
    failure = SuiteError()
    failure.__cause__ = error
    return failure
