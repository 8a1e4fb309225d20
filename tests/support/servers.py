"""Real servers for tests: one Valkey and two Postgres shards a session, started when first asked for.

``valkey_url``            an empty database of Valkey for one test
``postgres_shards``       two shards (primary and streaming replica each) with an empty database for one test
``new_postgres_shards``   the same as a factory, for fixtures that share databases over a module
                          (tests.support.migrated has databases with the schema)
``valkey_cluster_url``    an empty Valkey Cluster of three primaries and three replicas for one test
``valkey_server``, ``valkey_cluster``, ``postgres_servers``   the servers, to kill, pause and restart
"""

import asyncio
import itertools
import shutil
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio
import redis.asyncio

from cinnabar_local import binaries, sql
from cinnabar_local.credentials import Credentials
from cinnabar_local.group import ProcessGroup, serving
from cinnabar_local.identity import unprivileged
from cinnabar_local.ports import Ports
from cinnabar_local.servers import PostgresShard, Valkey, postgres_shard
from cinnabar_local.servers.valkey import DATABASES
from tests.support.valkey_cluster import ValkeyCluster, valkey_cluster_serving

_SHARDS = 2
_REPLAY_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardUrls:
    """One shard as a test sees it; the URLs are ``postgresql://user:password@host:port/database``."""

    primary_url: str
    replica_urls: tuple[str, ...]

    @property
    def setting(self) -> str:
        """This shard's part of ``STORAGE_SHARDS``: ``primary|replica``; shards are joined by a comma."""
        return "|".join((self.primary_url, *self.replica_urls))

    @property
    def database(self) -> str:
        """The name of its database."""
        return self.primary_url.rpartition("/")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class ValkeyServer:
    """The session's Valkey; ``processes`` kills, pauses and restarts the process ``valkey``."""

    valkey: Valkey
    processes: ProcessGroup

    def url_of(self, database: int) -> str:
        """``redis://`` URL of one database."""
        return f"{self.valkey.url.rpartition('/')[0]}/{database}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresServers:
    """The session's shards; the processes are ``postgres-<n>`` and ``postgres-<n>-replica``."""

    shards: tuple[PostgresShard, ...]
    processes: ProcessGroup


NewPostgresShards = Callable[[], AbstractAsyncContextManager[list[ShardUrls]]]


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """A folder that an unprivileged user can reach as well, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="cinnabar-test-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest_asyncio.fixture(scope="session")
async def valkey_server(server_folder: Path) -> AsyncGenerator[ValkeyServer]:
    """One Valkey for the session."""
    valkey = Valkey(
        name="valkey",
        folder=server_folder / "valkey",
        port=Ports().of("valkey"),
        password=Credentials().redis,
    )
    async with serving(valkey.process(), logs=server_folder / "valkey-logs") as processes:
        yield ValkeyServer(valkey=valkey, processes=processes)


@pytest.fixture(scope="session")
def valkey_databases() -> Iterator[int]:
    """Numbers of databases, each given once (and again after as many as there are)."""
    return itertools.cycle(range(1, DATABASES))


@pytest_asyncio.fixture
async def valkey_url(valkey_server: ValkeyServer, valkey_databases: Iterator[int]) -> AsyncGenerator[str]:
    """URL of an empty Valkey database, for one test."""
    url = valkey_server.url_of(next(valkey_databases))
    yield url
    await valkey_server.processes.start("valkey")
    client = redis.asyncio.from_url(url)  # pyright: ignore[reportUnknownMemberType]
    try:
        await client.flushdb()  # pyright: ignore[reportUnknownMemberType]
    finally:
        await client.aclose()


@pytest_asyncio.fixture(scope="session")
async def valkey_cluster(server_folder: Path) -> AsyncGenerator[ValkeyCluster]:
    """One Valkey Cluster for the session."""
    async with valkey_cluster_serving(server_folder / "valkey-cluster") as cluster:
        yield cluster


@pytest_asyncio.fixture
async def valkey_cluster_url(valkey_cluster: ValkeyCluster) -> AsyncGenerator[str]:
    """URL of the cluster, empty and whole, for one test."""
    yield valkey_cluster.url
    await valkey_cluster.flush()


@pytest_asyncio.fixture(scope="session")
async def postgres_servers(server_folder: Path) -> AsyncGenerator[PostgresServers]:
    """Two shards for the session, each a primary and a streaming replica."""
    identity, ports, credentials = unprivileged(), Ports(), Credentials()
    programs = binaries.postgres_folder_for(identity, server_folder / "programs")
    shards = tuple(
        postgres_shard(
            number,
            folder=server_folder,
            ports=ports,
            programs=programs,
            credentials=credentials,
            identity=identity,
        )
        for number in range(_SHARDS)
    )
    specs = [spec for shard in shards for spec in shard.processes()]
    async with serving(*specs, logs=server_folder / "postgres-logs") as processes:
        yield PostgresServers(shards=shards, processes=processes)


@pytest_asyncio.fixture(scope="session")
async def new_postgres_shards(postgres_servers: PostgresServers) -> NewPostgresShards:
    """Makes shards with an empty database each, dropped at the end of the block."""

    @asynccontextmanager
    async def make() -> AsyncGenerator[list[ShardUrls]]:
        async with AsyncExitStack() as exits:
            yield [await exits.enter_async_context(_database(shard)) for shard in postgres_servers.shards]

    return make


@pytest_asyncio.fixture
async def postgres_shards(new_postgres_shards: NewPostgresShards) -> AsyncGenerator[list[ShardUrls]]:
    """Two shards with an empty database each, for one test."""
    async with new_postgres_shards() as shards:
        yield shards


@asynccontextmanager
async def _database(shard: PostgresShard) -> AsyncGenerator[ShardUrls]:
    name = f"test_{uuid4().hex}"
    async with sql.connected(shard.primary.superuser_url) as connection:
        await connection.execute(f"CREATE DATABASE {name} OWNER cinnabar")
        written = await connection.fetchval("SELECT pg_current_wal_lsn()::text")
    try:
        for replica in shard.replicas:
            await until_replayed(replica.superuser_url, written)
        yield ShardUrls(
            primary_url=shard.primary.url_of(name),
            replica_urls=tuple(replica.url_of(name) for replica in shard.replicas),
        )
    finally:
        async with sql.connected(shard.primary.superuser_url) as connection:
            await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


async def until_replayed(replica_url: str, position: object) -> None:
    """Waits until a replica has all up to ``position``, a number of the WAL as text."""
    query = "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn"
    async with asyncio.timeout(_REPLAY_SECONDS), sql.connected(replica_url) as connection:
        while not await connection.fetchval(query, position):  # noqa: ASYNC110 - only asking tells
            await asyncio.sleep(0.01)
