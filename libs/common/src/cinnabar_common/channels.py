"""Channels to other services of the suite."""

from __future__ import annotations

import json

import grpc

# Values in ms and bytes; names from grpc's channel arguments.
_OPTIONS: list[tuple[str, int | str]] = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    # How long one attempt may take (not how long to wait before the next): a server that is there but busy
    # has this long to say hello.
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.max_send_message_length", 64 * 1024 * 1024),
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
]


def target_of(addresses: str) -> str:
    """A gRPC target for "host:port[,host:port…]"; several IPv4 addresses share the load.

    Names of hosts must come alone (DNS gives their addresses).
    """
    if "," in addresses or addresses[:1].isdigit():
        return f"ipv4:{addresses}"
    return addresses


def channel(addresses: str) -> grpc.aio.Channel:
    """An insecure channel that reconnects within about a second and spreads its calls."""
    return grpc.aio.insecure_channel(target_of(addresses), options=_OPTIONS)
