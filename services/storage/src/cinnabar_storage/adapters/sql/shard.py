"""One shard on Postgres: a primary, its replicas, and the watch that knows how far each is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from copy import copy
from functools import partial
from typing import TypeVar

from cinnabar_common.clock import SystemClock
from cinnabar_common.errors import DependencyUnavailable, Overloaded, SuiteError
from cinnabar_storage.adapters.sql import assignments as sql_assignments
from cinnabar_storage.adapters.sql import buckets as sql_buckets
from cinnabar_storage.adapters.sql import operations as sql_operations
from cinnabar_storage.adapters.sql import reviews as sql_reviews
from cinnabar_storage.adapters.sql import seals as sql_seals
from cinnabar_storage.adapters.sql import statistics as sql_statistics
from cinnabar_storage.adapters.sql import uploads as sql_uploads
from cinnabar_storage.adapters.sql import waiting_reviews as sql_waiting_reviews
from cinnabar_storage.adapters.sql import writes as sql_writes
from cinnabar_storage.adapters.sql.erasures import SqlErasures
from cinnabar_storage.adapters.sql.follower import Work, sql_step
from cinnabar_storage.adapters.sql.models import SqlModels
from cinnabar_storage.adapters.sql.reads import SqlCopy, count_tasks
from cinnabar_storage.adapters.sql.regrades import SqlRegrades
from cinnabar_storage.adapters.sql.server import DEPENDENCY, Driver, Server, flushed, replayed
from cinnabar_storage.adapters.sql.statistics import SqlStatistics
from cinnabar_storage.adapters.sql.turns import Turns
from cinnabar_storage.adapters.sql.uploads import SqlUploads
from cinnabar_storage.config import StorageConfig
from cinnabar_storage.ports import NO_FLOOR, Copy
from cinnabar_storage.records import (
    ANYWHERE,
    Assignment,
    CommitResult,
    Created,
    Lsn,
    NewRevision,
    NewSubmission,
    OpenTask,
    Outcome,
    Place,
    QueueControl,
    RedriveResult,
    ReplicaState,
    SubmissionKey,
    Task,
    TaskCounts,
    TaskKey,
)
from cinnabar_storage.reviewing.records import Overridden, Override
from cinnabar_storage.reviewing.waiting_records import Acceptance, Accepted
from cinnabar_storage.shards.bucket_map import BucketsElsewhere, BucketSet, Claims
from cinnabar_storage.shards.replicas import Rotation
from cinnabar_storage.trail.audit import SealLink, SealPage
from cinnabar_storage.trail.followers import Follower, following

log = logging.getLogger(__name__)
T = TypeVar("T")
_RECHECK_SECONDS = 0.004
_PEOPLE_AT_ONCE = 2
_PEOPLE_WAITING = 1000

FOLLOWERS: dict[str, tuple[Work, int]] = {
    sql_seals.FOLLOWER: (sql_seals.seal, sql_seals.EVENTS_PER_SEAL),
    sql_statistics.FOLLOWER: (sql_statistics.count, sql_statistics.EVENTS_PER_STEP),
}
"""Who follows the audit of a shard: by name, the work and with how many rows at most in one step."""


class SqlShard(SqlUploads, SqlStatistics, SqlErasures):
    """Implements ports.Shard; made by :func:`sql_shard`."""

    def __init__(
        self,
        index: int,
        primary: Server,
        replicas: Sequence[Server],
        watch: ReplicaWatch,
        counting: Sequence[Server],
        *,
        position_wait_seconds: float,
    ) -> None:
        self._name = f"shard-{index}"
        self._server = primary
        self.regrades = SqlRegrades(primary)
        self.models = SqlModels(primary)
        self._replicas = tuple(replicas)
        self._floor = NO_FLOOR
        self._watch = watch
        self._counting = counting
        self._position_wait_seconds = position_wait_seconds
        # People wait for each other's locks, on connections that graders' outcomes need too.
        self._people = Turns(
            f"storage.{self._name}.overrides", at_once=_PEOPLE_AT_ONCE, max_waiting=_PEOPLE_WAITING
        )

    def holding(self, buckets: BucketSet, version: int = 0, floor: Lsn = NO_FLOOR) -> SqlShard:
        view = copy(self)
        view._floor = floor
        view._server = self._server.holding(buckets, version)
        view.regrades = SqlRegrades(view._server)
        view.models = SqlModels(view._server)
        view._replicas = tuple(replica.holding(buckets) for replica in self._replicas)
        view._counting = [server.holding(buckets) for server in self._counting]
        return view

    async def claims(self) -> Claims:
        # On a connection of its own: a busy shard must not hold up the map.
        return await self._watch.ask(sql_buckets.claims)

    def _primary(self, *, fenced: bool) -> SqlCopy:
        rotation = self._watch.rotation
        return SqlCopy(self._server, authoritative=True, shows=lambda: rotation.primary_shows, fenced=fenced)

    def _replica(self, number: int) -> SqlCopy:
        shows = partial(self._watch.rotation.replica_shows, number)
        return SqlCopy(self._replicas[number], authoritative=False, shows=shows)

    async def read(self, work: Callable[[Copy], Awaitable[T]], *, min_lsn: Lsn) -> T:
        min_lsn = max(min_lsn, self._floor)
        replica = self._watch.rotation.choose(min_lsn)
        if replica is None and min_lsn:
            replica = await self._catch_up(min_lsn)
        if replica is not None:
            try:
                return await work(self._replica(replica))
            except BucketsElsewhere:
                log.debug("replica does not know of a bucket", extra={"shard": self._name})
            except DependencyUnavailable:
                self._watch.lost(replica)
            except Overloaded:
                log.debug("replica is busy, reading the primary", extra={"shard": self._name})
        return await work(self._primary(fenced=True))

    async def _catch_up(self, min_lsn: Lsn) -> int | None:
        """A replica that reaches ``min_lsn`` within a moment. What the watch knows is a little old."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._position_wait_seconds
        while self._watch.rotation.fit():
            await self._watch.look_now(deadline - loop.time())
            replica = self._watch.rotation.choose(min_lsn)
            if replica is not None or loop.time() + _RECHECK_SECONDS >= deadline:
                return replica
            await asyncio.sleep(_RECHECK_SECONDS)
        return None

    async def read_primary(self, work: Callable[[Copy], Awaitable[T]]) -> T:
        return await work(self._primary(fenced=False))

    async def create_submissions(self, rows: Sequence[NewSubmission]) -> tuple[list[Created], Lsn]:
        return await sql_uploads.create_submissions(self._server, rows)

    async def commit_outcomes(self, outcomes: Sequence[Outcome]) -> tuple[list[CommitResult], Lsn]:
        return await sql_writes.commit_outcomes(self._server, outcomes)

    async def cancel_submissions(self, keys: Sequence[SubmissionKey], actor: str) -> tuple[list[Task], Lsn]:
        return await sql_operations.cancel_submissions(self._server, keys, actor)

    async def redrive_tasks(
        self, tenant: str, keys: Sequence[TaskKey], actor: str, place: Place = ANYWHERE
    ) -> tuple[list[tuple[RedriveResult, OpenTask | None]], Lsn]:
        return await sql_operations.redrive_tasks(self._server, tenant, keys, actor, place)

    async def count_tasks(self) -> TaskCounts:
        replica = self._watch.rotation.choose(self._floor)
        if replica is not None:
            try:
                return await count_tasks(self._counting[1 + replica])
            except DependencyUnavailable:
                # Not lost for others: a count that takes too long, or a bucket that
                # has not arrived there yet, says nothing of short reads.
                log.debug("replica does not count, asking the primary", extra={"shard": self._name})
        return await count_tasks(self._counting[0])

    async def set_queue_control(self, control: QueueControl) -> None:
        await sql_operations.set_queue_control(self._server, control)

    async def override_grade(self, override: Override) -> tuple[Overridden, Lsn]:
        async with self._people.turn():
            return await sql_reviews.override_grade(self._server, override)

    async def accept_review(self, acceptance: Acceptance) -> tuple[Accepted, Lsn]:
        async with self._people.turn():
            return await sql_waiting_reviews.accept_review(self._server, acceptance)

    async def check_seals(self, after: SealLink) -> SealPage:
        # The primary's, which alone knows what is unsealed; on the connection for what takes its time.
        return await sql_seals.check_seals(self._counting[0], after)

    async def create_assignment(self, revision: NewRevision) -> tuple[Assignment, Lsn]:
        return await sql_assignments.create_assignment(self._server, revision)

    async def update_assignment(
        self, revision: NewRevision, expected_revision_id: str
    ) -> tuple[Assignment, Lsn]:
        return await sql_assignments.update_assignment(self._server, revision, expected_revision_id)

    def replicas(self) -> list[ReplicaState]:
        return self._watch.rotation.states()

    async def check(self) -> None:
        await self._watch.check_primary()


class ReplicaWatch:
    """Asks the servers of one shard how far their logs are, each on a connection kept for that."""

    def __init__(
        self, index: int, primary: Server, replicas: Sequence[Server], rotation: Rotation, poll_seconds: float
    ) -> None:
        self.rotation = rotation
        self._name = f"shard-{index}"
        self._primary = primary
        self._replicas = replicas
        self._poll_seconds = poll_seconds
        self._primary_up = True
        self._fit: set[int] = set()
        self._looking: asyncio.Task[None] | None = None
        self._group = asyncio.TaskGroup()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[ReplicaWatch]:
        """Watches inside of the block; the first look is done when it is entered."""
        await asyncio.gather(self.look_at_primary(), *map(self.look_at, range(len(self._replicas))))
        async with self._group:
            # A task for each server: one that hangs must not hide the others.
            tasks = [
                self._group.create_task(self._loop(look), name=f"{self._name}-watch")
                for look in (
                    self.look_at_primary,
                    *(lambda index=index: self.look_at(index) for index in range(len(self._replicas))),
                )
            ]
            try:
                yield self
            finally:
                for task in (*tasks, self._looking):
                    if task is not None:
                        task.cancel()

    async def look_at_primary(self) -> None:
        """One look; a primary that does not answer says nothing about its replicas."""
        try:
            self.rotation.saw_primary(await self._primary.run(flushed))
        except SuiteError as error:
            if self._primary_up:
                log.warning("primary lost", extra={"shard": self._name}, exc_info=error)
            self._primary_up = False
        else:
            if not self._primary_up:
                log.info("primary found", extra={"shard": self._name})
            self._primary_up = True

    async def look_at(self, index: int) -> None:
        """One look; a replica that does not answer is out of the rotation."""
        try:
            self.rotation.saw_replica(index, await self._replicas[index].run(replayed))
        except SuiteError:
            self.rotation.lost(index)
        self._tell()

    def lost(self, index: int) -> None:
        """A read failed there: out until it answers again."""
        self.rotation.lost(index)
        self._tell()

    async def look_now(self, timeout: float) -> None:
        """Looks at all replicas that are fit, for at most ``timeout``; concurrent calls share one look."""
        if self._looking is None or self._looking.done():
            self._looking = self._group.create_task(self._look_at_fit(), name=f"{self._name}-look")
        await asyncio.wait([self._looking], timeout=max(0.0, timeout))

    async def _look_at_fit(self) -> None:
        await asyncio.gather(*map(self.look_at, self.rotation.fit()))

    async def check_primary(self) -> None:
        """Returns when the primary answers and takes writes. Raises DependencyUnavailable, Overloaded."""
        if not await self._primary.run(_takes_writes):
            raise DependencyUnavailable(DEPENDENCY)

    async def ask(self, work: Callable[[Driver], Awaitable[T]]) -> T:
        """The answer of the primary or, when it does not answer, of a replica that does.

        Raises DependencyUnavailable, Overloaded.
        """
        try:
            return await self._primary.run(work)
        except DependencyUnavailable:
            replica = self.rotation.choose(Lsn(0))
            if replica is None:
                raise
            return await self._replicas[replica].run(work)

    async def _loop(self, look: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(self._poll_seconds)
            await look()

    def _tell(self) -> None:
        fit = set(self.rotation.fit())
        for index in sorted(fit ^ self._fit):
            log.info(
                "replica in rotation" if index in fit else "replica out of rotation",
                extra={"shard": self._name, "replica": index},
            )
        self._fit = fit


async def _takes_writes(driver: Driver) -> bool:
    # Read only too: a primary that was demoted, or that its operator has put to rest.
    return await driver.fetchval(
        "SELECT NOT pg_is_in_recovery() AND current_setting('default_transaction_read_only') = 'off'"
    )


@asynccontextmanager
async def sql_shard(index: int, urls: Sequence[str], config: StorageConfig) -> AsyncGenerator[SqlShard]:
    """A shard that is watched for the length of the block. ``urls``: the primary's, then the replicas'."""

    def server(
        url: str,
        name: str,
        pool_size: int,
        statement_seconds: float,
        wait_seconds: float | None = None,
        *,
        scans: bool = False,
    ) -> Server:
        return Server(
            url,
            name=name,
            pool_size=pool_size,
            pool_wait_seconds=wait_seconds or config.pool_wait_seconds,
            connect_seconds=config.connect_seconds,
            statement_seconds=statement_seconds,
        )

    names = [f"shard-{index}", *(f"shard-{index}.replica-{replica}" for replica in range(len(urls) - 1))]
    async with AsyncExitStack() as exits:
        primary = server(urls[0], names[0], config.pool_size, config.statement_seconds)
        replicas = [
            server(url, name, config.replica_pool_size, config.replica_statement_seconds)
            for url, name in zip(urls[1:], names[1:], strict=True)
        ]
        # The watch has connections of its own: a busy pool must not look like a dead server.
        watched = [
            server(url, f"{name}.watch", 1, config.replica_statement_seconds)
            for url, name in zip(urls, names, strict=True)
        ]
        # So does counting, which takes its time: one at once, the next waits for it.
        counting = [
            server(url, f"{name}.count", 1, config.count_seconds, config.count_seconds)
            for url, name in zip(urls, names, strict=True)
        ]
        # And followers of the audit, one step at once.
        followed = server(
            *(urls[0], f"{names[0]}.follow", 1, config.follow_seconds),
            wait_seconds=len(FOLLOWERS) * config.follow_seconds,
        )
        for opened in (primary, *replicas, *watched, *counting, followed):
            await exits.enter_async_context(opened)
        rotation = Rotation(
            len(replicas), max_lag_seconds=config.replica_max_lag_seconds, clock=SystemClock()
        )
        watch = ReplicaWatch(index, watched[0], watched[1:], rotation, config.replica_poll_seconds)
        await exits.enter_async_context(watch.running())
        followers = [
            Follower(
                f"{names[0]}.{name}",
                sql_step(followed, name, work, limit=limit),
                poll_seconds=config.follow_poll_seconds,
            )
            for name, (work, limit) in FOLLOWERS.items()
        ]
        await exits.enter_async_context(following(followers))
        yield SqlShard(
            *(index, primary, replicas, watch, counting),
            position_wait_seconds=config.position_wait_seconds,
        )
