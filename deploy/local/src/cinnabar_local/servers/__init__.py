"""The servers that the suite stands on, each from a wheel, on ports and in a folder that the caller names."""

from cinnabar_local.servers.envoy import Endpoint, Envoy
from cinnabar_local.servers.postgres import PostgresPrimary, PostgresReplica, PostgresShard, postgres_shard
from cinnabar_local.servers.seaweedfs import SeaweedFS
from cinnabar_local.servers.valkey import Valkey

__all__ = [
    "Endpoint",
    "Envoy",
    "PostgresPrimary",
    "PostgresReplica",
    "PostgresShard",
    "SeaweedFS",
    "Valkey",
    "postgres_shard",
]
