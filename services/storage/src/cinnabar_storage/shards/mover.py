"""Makes moves of buckets, and goes on where a mover died. How a bucket moves: see moves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager

from cinnabar_common.errors import DependencyUnavailable, SuiteError
from cinnabar_storage.shards.bucket_map import BucketSet, BucketState
from cinnabar_storage.shards.moves import Ledger, Move, MoveStep, MovingShard, Superseded

log = logging.getLogger(__name__)

_GROUP = 128
"""Buckets that are copied in one pass over the tables of their source."""
_CHANGES = 1000
_FEW_CHANGES = 100
_ROUNDS = 50
_FENCE_SECONDS = 0.4
"""A fence that lasts so long is given up: the bucket is caught up with again, and fenced later."""
_BUSY_SECONDS = 0.5
_REST = 0.5
"""After a piece of work the mover rests for this share of the time it took: callers come first."""


Hook = Callable[[Move], Awaitable[None]]
StepHook = Callable[[str, int], Awaitable[None]]


async def nothing(step: str, bucket: int) -> None:
    """The step hook of who does not want to know."""


class Mover:
    """Makes the moves of a ledger, one group after the other; of all processes one at a time does."""

    def __init__(
        self,
        ledger: Ledger,
        shards: Sequence[MovingShard],
        *,
        clean_seconds: float,
        arrived: Sequence[Hook] = (),
        leaving: Sequence[Hook] = (),
        at_step: StepHook = nothing,
    ) -> None:
        """``clean_seconds``: how long rows stay where they were after a move.

        ``arrived`` is called when a bucket is owned by its new shard, ``leaving``
        before its rows are removed from the old one, each at least once.
        ``at_step`` is called before each step with its name and its (first) bucket.
        """
        self._ledger = ledger
        self._shards = shards
        self._clean_seconds = clean_seconds
        self._arrived = arrived
        self._leaving = leaving
        self._at_step = at_step
        self._term = 0

    @asynccontextmanager
    async def running(self, poll_seconds: float) -> AsyncGenerator[None]:
        """Looks for moves inside of the block."""
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self._poll(poll_seconds), name="mover")
            try:
                yield
            finally:
                task.cancel()

    async def _poll(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                if not await self._ledger.moves():
                    continue
                async with self._ledger.alone() as alone:
                    if alone:
                        await self.run_once()
            except Superseded:
                log.info("another mover is at work")
            except SuiteError as error:
                log.warning("moving is interrupted", extra={"error": error.message})

    async def run_once(self) -> None:
        """Makes all moves that can be made now; there must be no other mover at work.

        Raises Superseded, DependencyUnavailable, Overloaded: the next run goes on from there.
        """
        self._term = await self._ledger.new_term()
        await self._take_over()
        while group := _next_group(await self._ledger.moves()):
            source, target = self._shards[group[0].from_shard], self._shards[group[0].to_shard]
            if await source.busy() or await target.busy():
                break
            stray = [move.bucket for move in group if not await _owned(move.bucket, source)]
            if stray:  # planned by a map that was old
                await self._ledger.done(stray)
                continue
            await self._copy(group, source, target)
            for move in group:
                await self._hand_over(move, source, target)
            await self._clean()
        await self._clean()

    async def _take_over(self) -> None:
        """Nothing stays fenced, and what was handed over is known to be."""
        for move in await self._ledger.moves():
            if move.step in (MoveStep.COPYING, MoveStep.FENCED):
                source, target = self._shards[move.from_shard], self._shards[move.to_shard]
                await target.expect([move.bucket], self._term)
                # From here on no other mover can make it arrive.
                if await _owned(move.bucket, target):
                    await self._finish(move, source)
                else:
                    await source.begin([move.bucket], self._term)
                    await self._ledger.advance([move.bucket], MoveStep.COPYING)

    async def _copy(self, group: Sequence[Move], source: MovingShard, target: MovingShard) -> None:
        buckets = BucketSet(move.bucket for move in group)
        numbers = buckets.numbers
        await self._at_step("begin", numbers[0])
        await self._ledger.advance(numbers, MoveStep.COPYING)
        await self._at_step("expect", numbers[0])
        await target.expect(numbers, self._term)
        await self._at_step("mark", numbers[0])
        await source.begin(numbers, self._term)
        log.info("copying buckets", extra={"buckets": len(numbers), "to_shard": group[0].to_shard})
        for table in source.tables:
            after = ""
            while row_ids := await source.page(table, buckets, after):
                await self._at_step("copy", numbers[0])
                await self._paced(self._carry(table, row_ids, source, target, numbers))
                after = row_ids[-1]
        for _ in range(_ROUNDS):
            if await self._catch_up(numbers, source, target, numbers) <= _FEW_CHANGES:
                return

    async def _paced(self, work: Awaitable[object]) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await work
        await asyncio.sleep(_REST * (loop.time() - began))

    async def _carry(
        self,
        table: str,
        row_ids: Sequence[str],
        source: MovingShard,
        target: MovingShard,
        buckets: Collection[int],
    ) -> None:
        rows = await source.rows(table, row_ids)
        await target.put(table, row_ids, rows, buckets, self._term)

    async def _catch_up(
        self,
        wanted: Collection[int],
        source: MovingShard,
        target: MovingShard,
        buckets: Collection[int],
    ) -> int:
        """Copies again what has a note; how many there were. ``buckets``: all that are INCOMING."""
        changes = await source.changes(wanted, _CHANGES)
        if not changes:
            return 0
        await self._at_step("catch-up", changes[0].bucket)
        for table in source.tables:
            row_ids = sorted({change.row_id for change in changes if change.table == table})
            if row_ids:
                await self._carry(table, row_ids, source, target, buckets)
        # After the rows: a note that is dropped is a row that is there.
        await source.drop_changes(changes)
        return len(changes)

    async def _hand_over(self, move: Move, source: MovingShard, target: MovingShard) -> None:
        bucket = [move.bucket]
        loop = asyncio.get_running_loop()
        # Before the fence, as all that can be: writers wait from there on.
        epoch = await self._ledger.new_epoch((await source.holdings(bucket))[move.bucket].epoch)
        for _ in range(_ROUNDS):
            while await self._catch_up(bucket, source, target, bucket) > _FEW_CHANGES:
                pass
            while await source.busy() or await target.busy():
                await asyncio.sleep(_BUSY_SECONDS)
                await self._catch_up(bucket, source, target, bucket)
            await self._at_step("fence", move.bucket)
            await self._ledger.advance(bucket, MoveStep.FENCED)
            began = loop.time()
            await source.fence(move.bucket, self._term)
            await self._at_step("last", move.bucket)
            while await self._catch_up(bucket, source, target, bucket):
                if loop.time() - began > _FENCE_SECONDS:
                    break
            else:
                break
            await source.begin(bucket, self._term)
        else:
            raise DependencyUnavailable("bucket")
        await self._at_step("accept", move.bucket)
        await target.accept(move.bucket, self._term, epoch)
        stalled = loop.time() - began
        await self._at_step("release", move.bucket)
        await self._finish(move, source)
        log.info(
            "bucket moved",
            extra={
                "bucket": move.bucket,
                "to_shard": move.to_shard,
                "epoch": epoch,
                "stalled_ms": round(stalled * 1000, 1),
            },
        )

    async def _finish(self, move: Move, source: MovingShard) -> None:
        await source.release(move.bucket, self._term)
        for hook in self._arrived:
            await hook(move)
        await self._ledger.advance([move.bucket], MoveStep.CLEANING)

    async def _clean(self) -> None:
        """Removes the rows of what has left, where it was."""
        left = [move for move in await self._ledger.moves() if move.step == MoveStep.CLEANING]
        if not left:
            return
        # Whoever reads by an old map is refused where a bucket is gone. This is for reads that began before.
        await self._at_step("rest", left[0].bucket)
        await asyncio.sleep(self._clean_seconds)
        for shard in dict.fromkeys(move.from_shard for move in left):
            gone = [move for move in left if move.from_shard == shard]
            buckets = BucketSet(move.bucket for move in gone)
            for move in gone:
                for hook in self._leaving:
                    await hook(move)
            source = self._shards[shard]
            for table in source.tables:
                after: str | None = ""
                while after is not None:
                    await self._at_step("wipe", buckets.numbers[0])
                    loop = asyncio.get_running_loop()
                    began = loop.time()
                    after = await source.wipe(table, buckets, after)
                    await asyncio.sleep(_REST * (loop.time() - began))
            await self._at_step("forget", buckets.numbers[0])
            await source.forget(buckets.numbers)
            await self._ledger.done(buckets.numbers)


async def _owned(bucket: int, shard: MovingShard) -> bool:
    found = (await shard.holdings([bucket])).get(bucket)
    return found is not None and found.state < BucketState.INCOMING


def _next_group(moves: Sequence[Move]) -> list[Move]:
    """The next moves from one shard to one other."""
    waiting = [move for move in moves if move.step in (MoveStep.PLANNED, MoveStep.COPYING)]
    # What has begun goes first: its writes leave notes.
    waiting.sort(key=lambda move: -move.step)
    return [move for move in waiting if move[1:3] == waiting[0][1:3]][:_GROUP] if waiting else []
