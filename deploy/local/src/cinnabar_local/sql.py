"""The few statements that the runner itself sends to Postgres."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol, cast

import asyncpg


class Connection(Protocol):
    """The part of asyncpg's connection that is used here; asyncpg itself has no types."""

    async def execute(self, query: str, *args: object) -> str:
        """Run a statement."""
        ...

    async def fetchval(self, query: str, *args: object) -> object:
        """The first column of the first row, None when there is none."""
        ...

    async def fetch(self, query: str, *args: object) -> Sequence[Sequence[Any]]:
        """All rows."""
        ...

    async def close(self, *, timeout: float | None = None) -> None:
        """Say good-bye to the server."""
        ...


class Unreachable(ConnectionError):
    """Postgres does not accept a connection, or refused the statement."""


_connect = cast("Callable[..., Awaitable[Connection]]", cast("Any", asyncpg).connect)
_errors = cast(
    "tuple[type[Exception], ...]", (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)
)


@asynccontextmanager
async def connected(url: str, *, timeout: float = 10.0) -> AsyncGenerator[Connection]:
    """A connection for the length of a block. Raises Unreachable, also for errors inside the block."""
    try:
        connection = await _connect(url, timeout=timeout)
        try:
            yield connection
        finally:
            await connection.close(timeout=timeout)
    except _errors as error:
        raise Unreachable(str(error) or type(error).__name__) from error
