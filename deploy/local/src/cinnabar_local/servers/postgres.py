"""Postgres: a primary, and a replica that streams from it."""

import asyncio
import shutil
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from cinnabar_local import probes, sql
from cinnabar_local.credentials import Credentials, write_private
from cinnabar_local.identity import Identity
from cinnabar_local.ports import HOST, Ports
from cinnabar_local.process import ProcessSpec, StartFailed, inherited_environment

DATABASE = "cinnabar"
# For a machine with 2 cores that it shares with everything else; the compose file uses the same.
SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
    "wal_compression": "on",
    "jit": "off",
    "max_connections": "100",
    "hot_standby": "on",
    "wal_level": "replica",
    "max_wal_senders": "8",
    "max_replication_slots": "8",
    # How soon a replica comes back to a primary that was restarted.
    "wal_retrieve_retry_interval": "250ms",
    # A replica that stays away loses its slot (and is rebuilt) rather than fill the primary's disk.
    "max_slot_wal_keep_size": "1GB",
    "log_line_prefix": "%m [%p] %q%u@%d ",
}
_ACCESS = """\
# type  database     user        address       method
host    all          all         127.0.0.1/32  scram-sha-256
host    replication  replicator  127.0.0.1/32  scram-sha-256
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Server:
    """What primary and replica have in common; ``folder`` must lie where ``identity`` can reach it."""

    name: str
    folder: Path
    port: int
    programs: Path
    credentials: Credentials
    identity: Identity | None = None

    @property
    def url(self) -> str:
        """URL of the database for its owner, the role ``cinnabar``."""
        return self.url_of(DATABASE)

    @property
    def superuser_url(self) -> str:
        """URL of the database ``postgres`` for the superuser."""
        return f"postgresql://postgres:{self.credentials.postgres_superuser}@{HOST}:{self.port}/postgres"

    def url_of(self, database: str) -> str:
        """URL of any database of the server for the role ``cinnabar``."""
        return f"postgresql://cinnabar:{self.credentials.postgres_cinnabar}@{HOST}:{self.port}/{database}"

    @property
    def slot(self) -> str:
        """The replication slot, named after the replica."""
        return self.name.replace("-", "_")

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _command(self, *settings: str) -> tuple[str, ...]:
        options = [f"{name}={value}" for name, value in SETTINGS.items()]
        # No Unix socket: everybody uses TCP, and the path of a socket may not be longer than 107 bytes.
        options += [f"listen_addresses={HOST}", "unix_socket_directories=", *settings]
        flags = [argument for option in options for argument in ("-c", option)]
        return (str(self.programs / "postgres"), "-D", str(self._data), "-p", str(self.port), *flags)

    def _own_folder(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.identity is not None:
            self.identity.own(self.folder)
        self.folder.chmod(0o700)

    def _write_owned(self, file: Path, text: str) -> None:
        write_private(file, text)
        if self.identity is not None:
            self.identity.own(file)

    async def _run(self, program: str, *arguments: str) -> None:
        process = await asyncio.create_subprocess_exec(
            str(self.programs / program),
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=self.folder,
            env=inherited_environment() | {"PGPASSFILE": str(self.folder / "pgpass")},
            user=None if self.identity is None else self.identity.uid,
            group=None if self.identity is None else self.identity.gid,
            extra_groups=None if self.identity is None else [],
        )
        try:
            output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            raise StartFailed(f"{self.name}: {program} failed:\n{output.decode(errors='replace')}")

    def _clear_stale_lock(self) -> None:
        """Remove the lock file of a server that is gone; its process id may be somebody else's by now."""
        lock = self._data / "postmaster.pid"
        with suppress(FileNotFoundError, ValueError, IndexError):
            holder = int(lock.read_text("utf-8").split()[0])
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if str(self._data) in psutil.Process(holder).cmdline():
                    return
            lock.unlink()

    def _discard(self, folder: Path) -> None:
        if folder.exists():
            shutil.rmtree(folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresPrimary(_Server):
    """A primary with the database ``cinnabar``, its owner of that name and a slot for each of ``slots``."""

    slots: tuple[str, ...] = ()

    def process(self) -> ProcessSpec:
        """Its row of the process table."""

        async def ready() -> None:
            await probes.postgres_answers(self.superuser_url)

        return ProcessSpec(
            name=self.name,
            command=self._command(f"hba_file={self.folder / 'hba.conf'}"),
            identity=self.identity,
            folder=self.folder.parent,
            prepare=self._prepare,
            ready=ready,
            settle=self._settle,
            stop_signal=signal.SIGINT,  # "fast": does not wait for its clients to leave
            runner_died_signal=signal.SIGQUIT,  # "immediate": ends its backends, recovers at the next start
        )

    async def _prepare(self) -> None:
        self._own_folder()
        self._write_owned(self.folder / "hba.conf", _ACCESS)
        self._clear_stale_lock()
        if self._data.exists():
            return
        partial = self.folder / "data.partial"
        self._discard(partial)
        password = self.folder / "password"
        self._write_owned(password, self.credentials.postgres_superuser)
        try:
            await self._run(
                "initdb",
                *("-D", str(partial), "-U", "postgres", f"--pwfile={password}"),
                *("--auth=scram-sha-256", "--encoding=UTF8", "--no-instructions"),
                *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            )
        finally:
            password.unlink()
        partial.rename(self._data)

    async def _settle(self) -> None:
        async with sql.connected(self.superuser_url) as connection:
            for role, option, password in (
                ("cinnabar", "LOGIN", self.credentials.postgres_cinnabar),
                ("replicator", "LOGIN REPLICATION", self.credentials.postgres_replicator),
            ):
                if not await connection.fetchval("SELECT count(*) FROM pg_roles WHERE rolname = $1", role):
                    await connection.execute(f"CREATE ROLE {role} {option} PASSWORD '{password}'")
            await connection.execute("GRANT pg_monitor TO cinnabar")
            if not await connection.fetchval("SELECT count(*) FROM pg_database WHERE datname = $1", DATABASE):
                await connection.execute(f"CREATE DATABASE {DATABASE} OWNER cinnabar")
            for slot in self.slots:
                await _ensure_slot(connection, slot)


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresReplica(_Server):
    """A hot standby of ``primary``: copied from it at first, and again when it fell too far behind."""

    primary: PostgresPrimary

    def process(self) -> ProcessSpec:
        """Its row of the process table."""

        async def ready() -> None:
            await probes.postgres_answers(self.superuser_url)

        source = (
            f"primary_conninfo=host={HOST} port={self.primary.port} user=replicator"
            f" passfile='{self.folder / 'pgpass'}' application_name={self.name}"
        )
        return ProcessSpec(
            name=self.name,
            command=self._command(
                f"hba_file={self.folder / 'hba.conf'}", source, f"primary_slot_name={self.slot}"
            ),
            needs=(self.primary.name,),
            identity=self.identity,
            folder=self.folder.parent,
            prepare=self._prepare,
            ready=ready,
            stop_signal=signal.SIGINT,
            runner_died_signal=signal.SIGQUIT,
        )

    async def _prepare(self) -> None:
        self._own_folder()
        self._write_owned(self.folder / "hba.conf", _ACCESS)
        password = self.credentials.postgres_replicator
        self._write_owned(self.folder / "pgpass", f"{HOST}:*:*:replicator:{password}\n")
        self._clear_stale_lock()
        if self._data.exists() and not await self._has_lost_its_slot():
            return
        partial = self.folder / "data.partial"
        self._discard(partial)
        await self._run(
            "pg_basebackup",
            *("-D", str(partial), "-h", HOST, "-p", str(self.primary.port), "-U", "replicator", "-w"),
            *("--wal-method=stream", f"--slot={self.slot}", "--checkpoint=fast"),
        )
        (partial / "standby.signal").touch()
        if self.identity is not None:
            self.identity.own(partial / "standby.signal")
        self._discard(self._data)
        partial.rename(self._data)

    async def _has_lost_its_slot(self) -> bool:
        """Whether the primary no longer holds the WAL that this replica needs."""
        try:
            async with sql.connected(self.primary.superuser_url) as connection:
                state = await connection.fetchval(
                    "SELECT wal_status FROM pg_replication_slots WHERE slot_name = $1", self.slot
                )
                if state == "lost":
                    await connection.execute("SELECT pg_drop_replication_slot($1)", self.slot)
                    await _ensure_slot(connection, self.slot)
                return state == "lost"
        except sql.Unreachable:
            return False


async def _ensure_slot(connection: sql.Connection, slot: str) -> None:
    if not await connection.fetchval("SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1", slot):
        await connection.execute("SELECT pg_create_physical_replication_slot($1, true)", slot)


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresShard:
    """A primary and its replicas."""

    primary: PostgresPrimary
    replicas: tuple[PostgresReplica, ...]

    def setting_of(self, database: str = DATABASE) -> str:
        """The URLs of one database of this shard, as ``STORAGE_SHARDS`` wants them: ``primary|replica|…``."""
        return "|".join(server.url_of(database) for server in (self.primary, *self.replicas))

    def processes(self) -> tuple[ProcessSpec, ...]:
        """Their rows of the process table."""
        return tuple(server.process() for server in (self.primary, *self.replicas))


def postgres_shard(
    number: int,
    *,
    folder: Path,
    ports: Ports,
    programs: Path,
    credentials: Credentials,
    identity: Identity | None,
) -> PostgresShard:
    """Shard ``number``: ``postgres-<number>`` and its ``postgres-<number>-replica``, in folders so named."""
    name = f"postgres-{number}"
    replica = f"{name}-replica"
    primary = PostgresPrimary(
        name=name,
        folder=folder / name,
        port=ports.of(name),
        programs=programs,
        credentials=credentials,
        identity=identity,
        slots=(replica.replace("-", "_"),),
    )
    standby = PostgresReplica(
        name=replica,
        folder=folder / replica,
        port=ports.of(replica),
        programs=programs,
        credentials=credentials,
        identity=identity,
        primary=primary,
    )
    return PostgresShard(primary=primary, replicas=(standby,))
