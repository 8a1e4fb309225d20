"""Walks over the open tasks of the truth, a page ahead of whoever reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable

from cinnabar_scheduler.ports import OpenTasks, Store, StoreUnavailable
from cinnabar_scheduler.tasks import Task

PAGE = 2000
# Answers of any size come with a page: one that storage could not send is asked for in smaller parts.
SMALLEST_PAGE = 10
# Shards that are read at a time; each holds at most two pages in memory.
SHARDS_AT_A_TIME = 4


async def each_shard(shards: Iterable[int], work: Callable[[int], Awaitable[int]]) -> int:
    """Runs ``work`` for every shard, some at a time; returns the sum. The first error ends all of it."""
    slots = asyncio.Semaphore(SHARDS_AT_A_TIME)

    async def one(shard: int) -> int:
        async with slots:
            return await work(shard)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(shard), name=f"shard-{shard}") for shard in shards]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return sum(task.result() for task in tasks)


async def open_pages(store: Store, shard: int, epoch: int = 0) -> AsyncGenerator[list[Task]]:
    """The open tasks of a shard in pages; the next one is on its way while the caller has this one.

    With those that had come to it by ``epoch`` (see Store.arrivals). Close it
    (``contextlib.aclosing``) when it is not read to the end. Raises StoreUnavailable.
    """
    coming = asyncio.create_task(_page(store, shard, None, PAGE, epoch), name=f"open-tasks-{shard}")
    try:
        while True:
            page, size = await coming
            if page.cursor is None:
                yield page.tasks
                return
            coming = asyncio.create_task(
                _page(store, shard, page.cursor, size, epoch), name=f"open-tasks-{shard}"
            )
            yield page.tasks
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)


async def _page(
    store: Store, shard: int, after: tuple[str, str] | None, size: int, epoch: int
) -> tuple[OpenTasks, int]:
    """A page, and the size that storage could send."""
    while True:
        try:
            return await store.open_tasks(shard, after, size, epoch), size
        except StoreUnavailable:
            if size == SMALLEST_PAGE:
                raise
            size = max(SMALLEST_PAGE, size // 4)
