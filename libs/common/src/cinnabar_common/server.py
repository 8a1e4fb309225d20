"""How every service of the suite listens, starts and stops."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

import grpc
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from cinnabar_common.config import ConfigError, load
from cinnabar_common.health import HealthBoard
from cinnabar_common.interceptors import ErrorInterceptor
from cinnabar_common.logs import configure_logging

log = logging.getLogger(__name__)
C = TypeVar("C")
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
GRACE_SECONDS = 5.0

_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # A call may carry as many consistency tokens as its client had calls under way.
    ("grpc.max_metadata_size", 48 * 1024),
    ("grpc.absolute_max_metadata_size", 64 * 1024),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # Two processes on one port would each get half of the calls.
    ("grpc.so_reuseport", 0),
]


@asynccontextmanager
async def serving(
    listen: str,
    *,
    register: Callable[[grpc.aio.Server], None],
    services: Sequence[str],
    health: HealthBoard,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    grace_seconds: float = GRACE_SECONDS,
    drain_seconds: float = 0.0,
) -> AsyncGenerator[int]:
    """Serves on ``listen`` ("host:port", port 0 for a free one); yields the port.

    ``register`` adds the servicers, ``services`` are their full names for
    reflection. Health and reflection are added here. On exit the server says
    NOT_SERVING, takes calls for ``drain_seconds`` more, in which balancers look
    away, then gives those in flight ``grace_seconds`` to end. Without the drain a
    call that arrives just then may be answered with a bare CANCELLED by gRPC itself.
    """
    server = grpc.aio.server(interceptors=[ErrorInterceptor(), *interceptors], options=_OPTIONS)
    register(server)
    health_pb2_grpc.add_HealthServicer_to_server(health.servicer, server)
    health_name = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
    reflection.enable_server_reflection((*services, health_name, reflection.SERVICE_NAME), server)
    port = server.add_insecure_port(listen)
    await server.start()
    try:
        async with health.running():
            log.info("serving", extra={"listen": listen, "port": port})
            yield port
        await asyncio.sleep(drain_seconds)
    finally:
        await server.stop(grace_seconds)


def main(
    kind: type[C],
    prefix: str,
    running: Callable[[C], AbstractAsyncContextManager[object]],
    env: Mapping[str, str] | None = None,
) -> int:
    """Loads the config, runs the service until SIGTERM or SIGINT, and drains it.

    Returns the exit code: 0 after a drain, 2 for a bad configuration. A dead
    background task raises out of here and so ends the process.
    """
    configure_logging()
    try:
        config = load(kind, prefix=prefix, env=os.environ if env is None else env)
    except ConfigError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)  # noqa: T201  # before there is a service to log for
        return 2
    uvloop.run(_until_signal(running(config)))
    return 0


async def _until_signal(service: AbstractAsyncContextManager[object]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with service:
        await stop.wait()
        log.info("stopping")
    log.info("stopped")
