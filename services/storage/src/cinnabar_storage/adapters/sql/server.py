"""One Postgres server: its connections, and what their failures mean. Driver exceptions end here."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from copy import copy
from typing import Any, Protocol, TypeVar, cast

import asyncpg
from sqlalchemy.engine import make_url
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from cinnabar_common.errors import (
    DependencyUnavailable,
    FieldViolation,
    InvalidRequest,
    Overloaded,
    SuiteError,
)
from cinnabar_storage.records import Lsn
from cinnabar_storage.shards.bucket_map import ALL_BUCKETS, BucketsElsewhere, BucketSet

T = TypeVar("T")
DEPENDENCY = "postgres"
_ATTEMPTS = 5
_MOST_LOST = 3  # a server that crashed leaves a pool of dead connections, and not all show it at once
_FIRST_PAUSE_SECONDS = 0.005

# SQLSTATE classes and codes, from Postgres' appendix "Error Codes".
# Serialization failure, deadlock, lock not available in the time that was set for it.
_TRY_AGAIN = ("40001", "40P01", "55P03")
_GONE = (
    "08",  # connection exceptions
    "53",  # out of connections, memory or disk
    "57",  # shut down, crashed, starting, cancelled by a time limit
    "58",  # input or output error
    "25006",  # read only: no longer the primary
)
_BAD_TEXT = "22021"  # U+0000, which Postgres cannot keep
_NOT_OWNED = "CB001"  # our own, raised by the guard: the detail has the buckets


class Driver(Protocol):
    """The part of asyncpg's connection that is used; asyncpg itself has no types."""

    async def fetch(self, query: str, *args: object) -> list[Sequence[Any]]:
        """All rows."""
        ...

    async def fetchrow(self, query: str, *args: object) -> Sequence[Any] | None:
        """The first row."""
        ...

    async def fetchval(self, query: str, *args: object) -> Any:
        """The first column of the first row."""
        ...

    def transaction(self) -> AbstractAsyncContextManager[object]:
        """Statements inside of the block are one transaction, rolled back when it raises."""
        ...

    def is_in_transaction(self) -> bool:
        """Whether a transaction is open."""
        ...

    def is_closed(self) -> bool:
        """Whether the connection is known to be dead."""
        ...


class UniqueViolation(Exception):
    """A row with this key exists."""


class _ConnectionLost(Exception):
    """The connection died under a statement; whether it was executed is not known."""


class _TryAgain(Exception):
    """The statement lost against a concurrent one and did nothing."""


# States 1 and 2 are owned and open, 3 is owned and fenced.
_OWNED = "SELECT count(*) FROM buckets WHERE bucket = ANY($1::smallint[]) AND state <= $2"
_NOT_OWNED_OF = """
SELECT array_agg(k) FROM unnest($1::smallint[]) AS k
WHERE NOT EXISTS (SELECT FROM buckets b WHERE b.bucket = k AND b.state <= $2)
"""
_ROUTED_BY = "SELECT set_config('cinnabar.map', $1, false)"
# Every statement has its index. A plan that scans is made from statistics of when the table was
# smaller, and costs more with every row until somebody analyzes it. And what lies in memory or on
# flash is read at any place for nearly the same price.
_BY_INDEX = {"enable_seqscan": "off", "random_page_cost": "1.1"}


class Server:
    """Connections to one server, bounded; ``async with server`` closes them at the end.

    `run` gives every statement its own transaction, `transact` all of them one;
    `read` is `run` for what changes nothing. Of a server that is `holding`
    buckets, the last two see to it that these are owned there, and `run` does
    when an error comes of it; what else a write reports because it found no
    row, it must first confirm by `require`.

    Connections go back to the pool without a rollback; one that is left inside
    of a transaction does not go back.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        pool_size: int,
        pool_wait_seconds: float,
        connect_seconds: float,
        statement_seconds: float,
        scans: bool = False,
    ) -> None:
        """``scans``: statements may read whole tables, as counting does."""
        self.name = name
        self._held: BucketSet | None = None
        self._version = 0
        self._pool_size = pool_size
        self._statement_seconds = statement_seconds
        self._engine = engine_of(
            url,
            connect_seconds=connect_seconds,
            settings={
                # Batches are planned for what they are: the plan for "an array"
                # made while a table was empty would scan it when it is large.
                "plan_cache_mode": "force_custom_plan",
                "jit": "off",
                "statement_timeout": str(int(statement_seconds * 1000)),
                **({} if scans else _BY_INDEX),
            },
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=pool_wait_seconds,
            pool_use_lifo=True,
            pool_reset_on_return=None,
        )

    async def __aenter__(self) -> Server:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._engine.dispose()

    def holding(self, buckets: BucketSet, version: int = 0) -> Server:
        """The same connections, for these buckets; ``version``: see ShardMap."""
        view = copy(self)
        view._held = buckets
        view._version = version
        return view

    @property
    def buckets(self) -> BucketSet:
        """The buckets that it is asked for."""
        return ALL_BUCKETS if self._held is None else self._held

    async def require(self, driver: Driver, *, fenced: bool = False) -> None:
        """Returns when all buckets that it is asked for are owned here; also fenced ones with ``fenced``.

        Raises BucketsElsewhere.
        """
        if self._held is None:
            return
        worst = 3 if fenced else 2
        numbers = self._held.numbers
        if await driver.fetchval(_OWNED, numbers, worst) < len(numbers):
            missing = await driver.fetchval(_NOT_OWNED_OF, numbers, worst)
            raise BucketsElsewhere(missing or numbers)

    async def run(self, work: Callable[[Driver], Awaitable[T]]) -> T:
        """Runs ``work``, which must be safe to repeat, on a connection of its own.

        Raises:
            DependencyUnavailable: the server cannot be reached or does not answer in time.
            Overloaded: no connection came free in time.
            InvalidRequest: a text contains U+0000.
            UniqueViolation: see there.
            BucketsElsewhere: a row that was written is of a bucket that is not owned here, or fenced.
        """

        async def routed(driver: Driver) -> T:
            try:
                return await work(driver)
            except SuiteError:
                # "It does not exist" is true only where it would exist.
                await self.require(driver)
                raise

        return await self._run(work if self._held is None else routed, self._version)

    async def read(self, work: Callable[[Driver], Awaitable[T]], *, fenced: bool = True) -> T:
        """As `run`. What was read is as of some time at which all buckets were owned here.

        Of a replica that has replayed their arrival, that is: see ShardMap.floor.

        Without ``fenced``, it was also not out of date when it was read.
        """

        async def owned(driver: Driver) -> T:
            found = await work(driver)
            await self.require(driver, fenced=fenced)
            return found

        return await self._run(work if self._held is None else owned)

    async def _run(self, work: Callable[[Driver], Awaitable[T]], version: int | None = None) -> T:
        lost = 0
        for attempt in range(_ATTEMPTS):
            try:
                return await self._run_once(work, version)
            except _TryAgain:
                # Full jitter: those who collided must not collide again.
                await asyncio.sleep(random.uniform(0, _FIRST_PAUSE_SECONDS * 4**attempt))
            except _ConnectionLost as error:
                lost += 1
                if lost > _MOST_LOST:
                    raise DependencyUnavailable(DEPENDENCY) from error
        raise DependencyUnavailable(DEPENDENCY)

    async def transact(self, work: Callable[[Driver], Awaitable[T]]) -> T:
        """Runs ``work`` in one transaction (READ COMMITTED). Raises what `run` does.

        It must be safe to repeat: when the connection dies during the commit, the
        first run may have been committed.
        """

        async def inside(driver: Driver) -> T:
            async with driver.transaction():
                done = await work(driver)
                await self.require(driver)
                return done

        return await self.run(inside)

    @asynccontextmanager
    async def alone(self, lock: int) -> AsyncGenerator[bool]:
        """Whether no other process is inside of such a block, by an advisory lock of this number.

        It keeps a connection all the while. One that dies gives the lock away: what is
        done inside must bear company. Raises what `run` does, but tries once.
        """
        async with self._connection() as (driver, _):
            try:
                held: bool = await driver.fetchval("SELECT pg_try_advisory_lock($1)", lock)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
                raise DependencyUnavailable(DEPENDENCY) from error
            try:
                yield held
            finally:
                if held:
                    try:
                        await driver.fetchval("SELECT pg_advisory_unlock($1)", lock)
                    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
                        raise DependencyUnavailable(DEPENDENCY) from error

    async def _run_once(self, work: Callable[[Driver], Awaitable[T]], version: int | None) -> T:
        async with self._connection() as (driver, notes):
            try:
                async with asyncio.timeout(self._statement_seconds):
                    if version is not None and notes.get(_ROUTED_BY, 0) != version:
                        await driver.fetchval(_ROUTED_BY, str(version))
                        notes[_ROUTED_BY] = version
                    return await work(driver)
            except asyncpg.InternalClientError as error:
                # The server said farewell while the connection was idle, and the end of it is not read yet.
                raise _ConnectionLost from error
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
                raise _meaning(error, closed=driver.is_closed()) from error

    @asynccontextmanager
    async def _connection(self) -> AsyncGenerator[tuple[Driver, dict[Any, Any]]]:
        for _ in range(self._pool_size + 1):
            try:
                pooled = await self._engine.raw_connection()
            except PoolTimeout as error:
                raise Overloaded(f"storage.{self.name}") from error
            except Exception as error:  # refused, starting up, wrong password: no connection is no connection
                raise DependencyUnavailable(DEPENDENCY) from error
            driver = cast("Driver", pooled.driver_connection)
            if not driver.is_closed():
                break
            # Died in the pool: a server that restarts closes all connections at once.
            pooled.invalidate()
        else:
            raise DependencyUnavailable(DEPENDENCY)
        try:
            yield driver, pooled.info
        except BucketsElsewhere:  # the connection is well
            raise
        except (_ConnectionLost, DependencyUnavailable, TimeoutError) as error:
            pooled.invalidate()
            if isinstance(error, TimeoutError):
                raise DependencyUnavailable(DEPENDENCY) from error
            raise
        finally:
            # Cancelled twice, it may not have come to the rollback.
            if not driver.is_closed() and driver.is_in_transaction():
                pooled.invalidate()
            pooled.close()


def _meaning(error: Exception, *, closed: bool) -> Exception:
    state = cast("str", getattr(error, "sqlstate", None) or "")
    if state in _TRY_AGAIN:
        return _TryAgain()
    if closed or state.startswith("08") or state in ("57P01", "57P02"):
        return _ConnectionLost()
    if isinstance(error, TimeoutError) or state.startswith(_GONE):
        return DependencyUnavailable(DEPENDENCY)
    if isinstance(error, asyncpg.UniqueViolationError):
        return UniqueViolation()
    if state == _NOT_OWNED:
        return BucketsElsewhere(map(int, cast("str", getattr(error, "detail", "")).split(",")))
    if state == _BAD_TEXT:
        return InvalidRequest([FieldViolation("", "texts must not contain U+0000")])
    if isinstance(error, OSError):
        return _ConnectionLost()
    return SuiteError()


def engine_of(
    url: str, *, connect_seconds: float, settings: dict[str, str] | None = None, **pool: Any
) -> AsyncEngine:
    """An engine on asyncpg for a ``postgresql://`` URL."""
    return create_async_engine(
        make_url(url).set(drivername="postgresql+asyncpg"),
        connect_args={
            "timeout": connect_seconds,
            "server_settings": {"application_name": "cinnabar-storage", **(settings or {})},
        },
        **pool,
    )


_FLUSHED = "SELECT (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint"
_REPLAYED = "SELECT (coalesce(pg_last_wal_replay_lsn(), '0/0'::pg_lsn) - '0/0'::pg_lsn)::bigint"


async def flushed(driver: Driver) -> Lsn:
    """How far the primary's log is on disk: at or after every commit that was answered."""
    return Lsn(await driver.fetchval(_FLUSHED))


async def replayed(driver: Driver) -> Lsn:
    """How far the replica has replayed; what was committed before that is visible there."""
    return Lsn(await driver.fetchval(_REPLAYED))
