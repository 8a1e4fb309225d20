"""A real Valkey Cluster for tests: three primaries, each with a replica."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from cinnabar_local import binaries, probes
from cinnabar_local.credentials import Credentials, write_private
from cinnabar_local.group import ProcessGroup, serving
from cinnabar_local.ports import HOST, Ports
from cinnabar_local.process import ProcessSpec

PRIMARIES = 3
NODES = 2 * PRIMARIES
SLOTS = 16_384
NODE_TIMEOUT_MS = 1_000
READY_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ValkeyCluster:
    """The cluster; ``processes`` kills, pauses and restarts the nodes ``valkey-0`` to ``valkey-5``."""

    ports: tuple[int, ...]
    password: str
    processes: ProcessGroup

    @property
    def url(self) -> str:
        """``redis+cluster://`` URL with all nodes."""
        return f"redis+cluster://:{self.password}@" + ",".join(f"{HOST}:{port}" for port in self.ports)

    def node(self, number: int) -> Any:
        """A client of one node."""
        return cast("Any", Redis)(host=HOST, port=self.ports[number], password=self.password)

    async def primaries(self) -> set[int]:
        """Numbers of the nodes that are primaries now, by their own word; the dead are left out."""
        found: set[int] = set()
        for number in range(NODES):
            client = self.node(number)
            try:
                if (await client.info("replication"))["role"] == "master":
                    found.add(number)
            except (RedisError, OSError):
                continue
            finally:
                await client.aclose()
        return found

    async def primary_of(self, key: str) -> int:
        """Number of the primary that serves a key."""
        alive = min(await self.primaries())
        client = self.node(alive)
        try:
            slot = await client.execute_command("CLUSTER KEYSLOT", key)
            for first, last, primary, *_ in await client.execute_command("CLUSTER SLOTS"):
                if first <= slot <= last:
                    return self.ports.index(primary[1])
        finally:
            await client.aclose()
        raise AssertionError(f"nobody serves slot {slot}")

    async def until_whole(self) -> None:
        """Waits until every node says that the cluster works, with as many replicas as primaries."""
        async with asyncio.timeout(READY_SECONDS):
            for number in range(NODES):
                client = self.node(number)
                try:
                    while not await _whole(client):  # noqa: ASYNC110 - only asking tells
                        await asyncio.sleep(0.02)
                finally:
                    await client.aclose()

    async def flush(self) -> None:
        """Empties all primaries."""
        for number in await self.primaries():
            client = self.node(number)
            await client.flushall()
            await client.aclose()


async def _whole(client: Any) -> bool:
    try:
        info = await client.execute_command("CLUSTER INFO")
        replication = await client.info("replication")
    except (RedisError, OSError):
        return False
    text = cast("dict[str, str]", info)
    linked = (
        replication["connected_slaves"] == 1
        if replication["role"] == "master"
        else replication["master_link_status"] == "up"
    )
    return text["cluster_state"] == "ok" and bool(linked)


@asynccontextmanager
async def valkey_cluster_serving(folder: Path) -> AsyncGenerator[ValkeyCluster]:
    """Starts the nodes and makes them one cluster."""
    numbers, password = Ports(), Credentials().redis
    ports = tuple(numbers.of(f"valkey-{number}") for number in range(NODES))
    buses = [numbers.of(f"valkey-{number}-bus") for number in range(NODES)]
    specs = [
        _process(folder / f"node-{n}", n, port, bus, password)
        for n, (port, bus) in enumerate(zip(ports, buses, strict=True))
    ]
    async with serving(*specs, logs=folder / "logs") as processes:
        cluster = ValkeyCluster(ports=ports, password=password, processes=processes)
        await _form(cluster, buses)
        yield cluster


async def _form(cluster: ValkeyCluster, buses: list[int]) -> None:
    clients = [cluster.node(number) for number in range(NODES)]
    try:
        bounds = [SLOTS * number // PRIMARIES for number in range(PRIMARIES + 1)]
        for number, client in enumerate(clients):
            await client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
            if number < PRIMARIES:
                first, last = bounds[number], bounds[number + 1] - 1
                await client.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
        # Everybody meets everybody: gossip would take seconds.
        for client, own in zip(clients, cluster.ports, strict=True):
            for port, bus in zip(cluster.ports, buses, strict=True):
                if port != own:
                    await client.execute_command("CLUSTER MEET", HOST, port, bus)
        names = [(await client.execute_command("CLUSTER MYID")).decode() for client in clients]
        for number in range(PRIMARIES, NODES):
            async with asyncio.timeout(READY_SECONDS):
                while not await _follow(clients[number], names[number - PRIMARIES]):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        await cluster.until_whole()
    finally:
        for client in clients:
            await client.aclose()


async def _follow(client: Any, primary: str) -> bool:
    try:
        await client.execute_command("CLUSTER REPLICATE", primary)
    except ResponseError:  # has not heard of it yet
        return False
    return True


def _process(folder: Path, number: int, port: int, bus: int, password: str) -> ProcessSpec:
    folder.mkdir(parents=True, exist_ok=True)
    config_file = folder / "valkey.conf"
    lines = (
        f"bind {HOST}",
        f"port {port}",
        f"requirepass {password}",
        f"primaryauth {password}",
        f'dir "{folder}"',
        'save ""',
        "appendonly no",
        "cluster-enabled yes",
        f"cluster-port {bus}",
        f"cluster-node-timeout {NODE_TIMEOUT_MS}",
        "cluster-require-full-coverage no",
        "repl-diskless-sync-delay 0",
        "repl-ping-replica-period 1",
    )

    async def prepare() -> None:
        write_private(config_file, "\n".join(lines) + "\n")

    async def ready() -> None:
        await probes.redis_answers(f"redis://:{password}@{HOST}:{port}/0")

    return ProcessSpec(
        name=f"valkey-{number}",
        command=(str(binaries.valkey_server()), str(config_file)),
        folder=folder,
        prepare=prepare,
        ready=ready,
    )
