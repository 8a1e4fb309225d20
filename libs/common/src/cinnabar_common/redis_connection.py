"""Connections to Redis, one server or a cluster; the one place that meets the untyped parts of its client.

A cluster is ``redis+cluster://[[user]:password@]host:port,host:port``: some of its
nodes, the others are found through them.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, cast
from urllib.parse import unquote

import hiredis
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import Connection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

CLUSTER_SCHEME = "redis+cluster://"
# Each attempt asks the cluster anew who serves the slot.
CLUSTER_RETRIES = 3
# All that a call raises when the server, or the whole cluster, cannot be reached or says no.
REDIS_ERRORS = (RedisError, RedisClusterException, OSError)

_redis = cast("Any", Redis)
_cluster = cast("Any", RedisCluster)
_node = cast("Any", ClusterNode)
_pool = cast("Any", ConnectionPool)
_hiredis = cast("Any", hiredis)


class _Connection(Connection):
    """Packs commands in C: a batch has thousands of arguments, and packing was half the cost of a call."""

    def pack_command(self, *args: Any) -> list[bytes]:
        name, *rest = args
        # "SCRIPT LOAD" and the like are two words to the server.
        words = name.split() if isinstance(name, (str, bytes)) else [name]
        return [_hiredis.pack_command((*words, *rest))]

    async def send_packed_command(
        self, command: bytes | str | Iterable[bytes], check_health: bool = True
    ) -> None:
        """As the client's own, but for two errors of it.

        It waits with ``asyncio.wait_for``, which in Python 3.11 loses a cancellation
        that comes in the moment in which the wait ends (and costs a task for each
        command). And of a transport that was closed meanwhile, uvloop says
        RuntimeError where asyncio has an OSError.
        """
        if not self.is_connected:
            await self.connect_check_health(check_health=False)
        if check_health:
            await self.check_health()
        if isinstance(command, (str, bytes)):
            command = [command.encode() if isinstance(command, str) else command]
        try:
            async with asyncio.timeout(self.socket_timeout):
                await self._send_packed_command(command)
        except TimeoutError:
            await self.disconnect(nowait=True)
            raise RedisTimeoutError("Timeout writing to socket") from None
        except (OSError, RuntimeError) as error:
            await self.disconnect(nowait=True)
            raise RedisConnectionError(f"Error while writing to socket: {error}") from error
        except BaseException:
            await self.disconnect(nowait=True)  # half a command may be on its way
            raise


class _AnyNodeConnection(_Connection):
    """Goes to the next of the nodes with every attempt."""

    def __init__(self, *, nodes: Iterable[tuple[str, int]], **settings: Any) -> None:
        super().__init__(**settings)  # pyright: ignore[reportUnknownMemberType]
        self._nodes = nodes

    async def _connect(self) -> None:
        self.host, self.port = next(iter(self._nodes))
        await super()._connect()


def _parsed(url: str) -> tuple[dict[str, str], Sequence[tuple[str, int]]]:
    """Credentials and nodes of a cluster's URL. Raises ValueError."""
    credentials, _, addresses = url.removeprefix(CLUSTER_SCHEME).rpartition("@")
    user, _, password = credentials.partition(":")
    named = {"username": unquote(user), "password": unquote(password)}
    nodes: list[tuple[str, int]] = []
    for address in addresses.rstrip("/").split(","):
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal():
            raise ValueError(f"a node of a cluster must be host:port, not {address!r}")
        nodes.append((host, int(port)))
    return {name: value for name, value in named.items() if value}, nodes


def connect(url: str, *, timeout_seconds: float) -> Redis:
    """A pool of connections for commands.

    A connection that turns out to be dead is replaced at once, one time; other waiting is the caller's.
    The client of a cluster finds out by itself who serves a key; calls must keep to one hash tag.
    """
    if url.startswith(CLUSTER_SCHEME):
        credentials, nodes = _parsed(url)
        cluster = _cluster(
            startup_nodes=[_node(host, port) for host, port in nodes],
            require_full_coverage=False,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            retry=Retry(NoBackoff(), CLUSTER_RETRIES),
            **credentials,
        )
        cluster.connection_kwargs["connection_class"] = _Connection
        return cluster
    return _redis.from_url(
        url,
        connection_class=_Connection,  # overruled by a URL that calls for another, as rediss:// does
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
        retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
    )


def connect_listener(url: str, *, timeout_seconds: float) -> Redis:
    """For a subscription: silent as long as nothing happens, so reads have no timeout but a ping.

    Nothing is retried, so that no loss of a connection goes unnoticed. Nodes of a
    cluster pass messages on to each other: it listens at one of them, at the next
    when that is gone.
    """
    if url.startswith(CLUSTER_SCHEME):
        credentials, nodes = _parsed(url)
        pool = _pool(
            connection_class=_AnyNodeConnection,
            nodes=itertools.cycle(nodes),
            socket_timeout=None,
            socket_connect_timeout=timeout_seconds,
            health_check_interval=5,
            retry=Retry(NoBackoff(), 0),
            **credentials,
        )
        return _redis.from_pool(pool)
    return _redis.from_url(
        url,
        connection_class=_Connection,
        socket_timeout=None,
        socket_connect_timeout=timeout_seconds,
        health_check_interval=5,
        retry=Retry(NoBackoff(), 0),
    )


async def publish(redis: Redis, channel: str, payload: bytes) -> None:
    """PUBLISH."""
    await cast("Any", redis).publish(channel, payload)


async def subscribed(redis: Redis, *channels: str) -> AsyncIterator[tuple[str, bytes]]:
    """(channel, payload) of each message; the first item, ("", b""), says that listening works."""
    async with cast("Any", redis).pubsub(ignore_subscribe_messages=True) as subscription:
        await subscription.subscribe(*channels)
        yield "", b""
        async for message in subscription.listen():
            yield message["channel"].decode(), message["data"]
