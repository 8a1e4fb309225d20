"""Callers of storage that never stop, and remember what they were told.

Each caller creates submissions, commits grades, cancels, reads what it wrote
(with the position it was given) and lists. Whatever storage answers must hold
afterwards, and nothing else may be there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

from cinnabar.storage.v1 import records_pb2
from cinnabar.storage.v1 import storage_service_pb2 as pb
from cinnabar.type.v1.position_pb2 import Position
from cinnabar_common.names import bucket_of
from tests.support.storage_records import ASSIGNMENT, COURSE, graded, key, new_submission
from tests.support.storage_service import Storage

_BATCH = 6
_COMMITTED = (pb.CommitOutcomesResponse.COMMITTED, pb.CommitOutcomesResponse.ALREADY_GRADED)
_AWAY = pb.CreateSubmissionsResponse.Result.UNAVAILABLE
_STORED = (pb.CreateSubmissionsResponse.Result.CREATED, pb.CreateSubmissionsResponse.Result.DUPLICATE)


def authors_of(buckets: Sequence[int], tenant: str, each: int = 1) -> list[str]:
    """So many authors of each of these buckets."""
    found: dict[int, list[str]] = {bucket: [] for bucket in buckets}
    for number in count():
        author = f"author-{number}"
        some = found.get(bucket_of(tenant, author))
        if some is not None and len(some) < each:
            some.append(author)
            if all(len(one) == each for one in found.values()):
                return [author for bucket in buckets for author in found[bucket]]
    raise AssertionError


@dataclass
class Traffic:
    """Callers on one storage service, all of one tenant."""

    storage: Storage
    tenant: str
    authors: list[str]
    stored: dict[str, pb.NewSubmission] = field(default_factory=dict[str, pb.NewSubmission])
    graded: set[str] = field(default_factory=set[str])
    cancelled: set[str] = field(default_factory=set[str])
    listings: int = 0
    longest_write_seconds: float = 0.0
    _latest: dict[int, Position] = field(default_factory=dict[int, Position])

    async def one_round(self, caller: int, turn: int) -> None:
        """Everything once. Raises AssertionError when an answer cannot be true."""
        authors = [self.authors[(caller + turn * _BATCH + n) % len(self.authors)] for n in range(_BATCH)]
        rows = [new_submission(tenant=self.tenant, author=author) for author in authors]
        positions = await self._create(rows)
        await self._must_show(rows, positions, records_pb2.TaskRecord.OPEN)
        request = pb.CommitOutcomesRequest(outcomes=[graded(row, fence=turn + 1) for row in rows[1:]])
        began = time.perf_counter()
        committed = await self.storage.writer.CommitOutcomes(request)
        # A mover that was killed may leave a fence for longer than a call waits.
        while pb.CommitOutcomesResponse.UNAVAILABLE in committed.results:
            committed = await self.storage.writer.CommitOutcomes(request)
        self._took(began)
        assert all(result in _COMMITTED for result in committed.results), committed.results
        self.graded.update(row.submission_id for row in rows[1:])
        await self._must_show(rows[1:], [*positions, *committed.positions], None)
        cancel = pb.CancelSubmissionsRequest(submissions=[key(rows[0])], actor="somebody")
        cancelled = await self.storage.writer.CancelSubmissions(cancel)
        while cancelled.unavailable:
            cancelled = await self.storage.writer.CancelSubmissions(cancel)
        self.cancelled.add(rows[0].submission_id)
        await self._must_show(rows[:1], cancelled.positions, records_pb2.TaskRecord.CANCELLED)

    async def fill(self, each: int) -> None:
        """So many graded submissions of each author, in one call."""
        rows = [new_submission(tenant=self.tenant, author=author) for author in self.authors * each]
        await self._create(rows)
        request = pb.CommitOutcomesRequest(outcomes=map(graded, rows))
        committed = await self.storage.writer.CommitOutcomes(request)
        assert set(committed.results) == {pb.CommitOutcomesResponse.COMMITTED}
        self.graded.update(row.submission_id for row in rows)

    def _took(self, began: float) -> None:
        self.longest_write_seconds = max(self.longest_write_seconds, time.perf_counter() - began)

    async def _create(self, rows: Sequence[pb.NewSubmission]) -> list[Position]:
        began = time.perf_counter()
        request = pb.CreateSubmissionsRequest(submissions=rows)
        created = await self.storage.writer.CreateSubmissions(request)
        while any(result.status == _AWAY for result in created.results):
            created = await self.storage.writer.CreateSubmissions(request)
        self._took(began)
        assert all(result.status in _STORED for result in created.results), created.results
        self.stored.update((row.submission_id, row) for row in rows)
        for position in created.positions:
            if position.lsn > self._latest.get(position.shard, Position()).lsn:
                self._latest[position.shard] = position
        return list(created.positions)

    async def _must_show(
        self,
        rows: Sequence[pb.NewSubmission],
        positions: Sequence[Position],
        state: records_pb2.TaskRecord.State.ValueType | None,
    ) -> None:
        """Read with positions, all of them are there and their task is in ``state``; None: graded."""
        request = pb.GetSubmissionsRequest(submissions=map(key, rows), min_positions=positions)
        found = {
            one.submission_id: one for one in (await self.storage.reader.GetSubmissions(request)).submissions
        }
        assert set(found) == {row.submission_id for row in rows}
        for one in found.values():
            states = [task.state for task in one.tasks]
            assert (states, len(one.grades)) == (([], 1) if state is None else ([state], 0))

    async def list_all(self) -> None:
        """Every submission that was stored before is in the list, and each is there once."""
        known = set(self.stored)
        positions = list(self._latest.values())
        seen: list[str] = []
        before = ""
        while True:
            page = await self.storage.reader.ListSubmissions(
                pb.ListSubmissionsRequest(
                    tenant=self.tenant,
                    course=COURSE,
                    assignment=ASSIGNMENT,
                    before=before,
                    limit=500,
                    min_positions=positions,
                )
            )
            assert not page.unreachable
            seen += [one.submission_id for one in page.submissions]
            if not page.more:
                break
            before = seen[-1]
        assert len(seen) == len(set(seen))
        lost = known - set(seen)
        assert not lost, (len(lost), len(known), sorted({one[-3:] for one in lost}))
        self.listings += 1

    @asynccontextmanager
    async def running(self, callers: int) -> AsyncGenerator[Traffic]:
        """So many callers inside of the block, and one who lists."""
        stop = asyncio.Event()
        written = asyncio.Event()

        async def call(caller: int) -> None:
            for turn in count():
                if stop.is_set():
                    return
                await self.one_round(caller, turn)
                if turn % 2:
                    written.set()

        async def look() -> None:
            # Not in a circle: to list all rows is dear, and would leave little for who writes and moves.
            while not stop.is_set():
                written.clear()
                await self.list_all()
                await written.wait()

        async with asyncio.TaskGroup() as group:
            for caller in range(callers):
                group.create_task(call(caller))
            group.create_task(look())
            try:
                yield self
            finally:
                stop.set()
                written.set()
