"""The schema of the shards: brought up to date, and checked at start."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.pool import NullPool

from cinnabar_storage.adapters.sql.server import engine_of

log = logging.getLogger(__name__)

_LOCK_KEY = 0x63_69_6E_6E_61_62_61_72  # "cinnabar": advisory locks have numbers, not names
_LOCK_SECONDS = 300
_PAUSE_SECONDS = 0.2
_FAILURES = (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError)


class SchemaError(Exception):
    """The schema of a shard is not what the code needs, or Postgres does not answer."""


def _alembic() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def head() -> str:
    """The version of the schema that this code needs."""
    version = ScriptDirectory.from_config(_alembic()).get_current_head()
    if version is None:
        raise SchemaError("there are no migrations")
    return version


async def migrate(
    primary_urls: Sequence[str], *, connect_seconds: float, wait_seconds: float, to: str = "head"
) -> None:
    """Brings every shard to the version ``to``; returns at once for those that are there or further.

    Several processes may do this at once: they take turns. Raises SchemaError
    when a primary does not accept connections within ``wait_seconds``.
    """
    for shard, url in enumerate(primary_urls):
        deadline = asyncio.get_running_loop().time() + wait_seconds
        while True:
            try:
                await _version(url, connect_seconds)
                break
            except _FAILURES as error:
                if asyncio.get_running_loop().time() >= deadline:
                    raise SchemaError(f"shard {shard}: Postgres does not accept connections") from error
                await asyncio.sleep(_PAUSE_SECONDS)
        await _migrate(url, connect_seconds, to)
        log.info("schema is up to date", extra={"shard": shard, "version": head() if to == "head" else to})


async def _migrate(url: str, connect_seconds: float, to: str) -> None:
    # The lock lives on a connection of its own, outside of any transaction, so
    # that a migration may commit in steps or build an index concurrently.
    locks = engine_of(url, connect_seconds=connect_seconds, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    work = engine_of(url, connect_seconds=connect_seconds, poolclass=NullPool)
    async with locks.connect() as lock:
        await _locked(lock)
        async with work.connect() as connection:
            await connection.run_sync(_upgrade, to)
            await connection.commit()


async def _locked(lock: AsyncConnection) -> None:
    # Asked for again and again: one that waits inside of Postgres has a snapshot, for
    # the end of which an index that is built concurrently would wait in turn.
    deadline = asyncio.get_running_loop().time() + _LOCK_SECONDS
    while not (
        await lock.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": _LOCK_KEY})
    ).scalar_one():
        if asyncio.get_running_loop().time() >= deadline:
            raise SchemaError("another process has been migrating for too long")
        await asyncio.sleep(_PAUSE_SECONDS)


def _upgrade(connection: Connection, to: str) -> None:
    config = _alembic()
    config.attributes["connection"] = connection
    command.upgrade(config, to)


async def _version(url: str, connect_seconds: float) -> str | None:
    engine = engine_of(url, connect_seconds=connect_seconds, poolclass=NullPool)
    async with engine.connect() as connection:
        return await connection.run_sync(lambda sync: MigrationContext.configure(sync).get_current_revision())


async def require_head(
    shards: Sequence[Sequence[str]], *, connect_seconds: float, wait_seconds: float
) -> None:
    """Returns when the schema of every shard is that of the code or later; ``migrate`` may be at work.

    Versions are numbers of four digits. A later one serves this code too: a migration
    removes only what no release that may still run needs.

    ``shards``: the URLs of each, the primary's first. A shard whose primary is
    down is judged by its replicas, so that the others need not wait for it.
    Raises SchemaError, which says what to do.
    """
    deadline = asyncio.get_running_loop().time() + wait_seconds
    wanted = head()
    for shard, urls in enumerate(shards):
        while (problem := await _problem(urls, wanted, connect_seconds)) is not None:
            if asyncio.get_running_loop().time() >= deadline:
                raise SchemaError(f"shard {shard}: {problem}")
            await asyncio.sleep(_PAUSE_SECONDS)


async def _problem(urls: Sequence[str], wanted: str, connect_seconds: float) -> str | None:
    for url in urls:
        try:
            version = await _version(url, connect_seconds)
        except _FAILURES:
            continue
        if version is not None and version >= wanted:
            return None
        return (
            f"the schema is at version {version or 'none'} but must be at {wanted}: "
            "run `python -m cinnabar_storage migrate` of this release"
        )
    return "Postgres does not accept connections"
