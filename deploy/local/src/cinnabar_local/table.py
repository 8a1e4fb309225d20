"""The table of processes: what the suite consists of on one machine, for people, tests and measurements."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cinnabar_local import binaries, probes
from cinnabar_local.credentials import Credentials
from cinnabar_local.identity import Identity
from cinnabar_local.ports import HOST, Ports
from cinnabar_local.process import ProcessSpec, Step
from cinnabar_local.servers import Endpoint, Envoy, PostgresShard, SeaweedFS, Valkey, postgres_shard

PUBLIC_PORT = 8080  # where the command line of the client looks by default
Detour = Callable[[str, str, str], str]
"""``(caller, callee, address)``, names of rows and ``host:port``: where the caller is told the callee is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StackConfig:
    """How much of what.

    ``env`` adds settings: by service ("scheduler") for all its replicas, or by process ("scheduler-0").
    ``supervise`` starts again what dies unasked. ``envoy_port`` is taken where it is free. ``policy`` is
    the text of the schedulers' policy file, which may be changed while they run
    (``Addresses.policy_file``). Without ``services`` there are the data servers alone. ``detour`` is asked
    for each address that a service is given, so that something can stand in between. ``launchers`` has, by
    process, arguments of the interpreter that come before ``-m cinnabar_…``: a script that runs what follows.
    """

    data_dir: Path
    shards: int = 2
    storages: int = 1
    schedulers: int = 1
    gateways: int = 2
    graders: int = 2
    services: bool = True
    objects: bool = True
    supervise: bool = False
    envoy_port: int | None = None
    policy: str = ""
    detour: Detour | None = None
    launchers: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    env: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardAddress:
    """URLs of one shard, ``postgresql://user:password@host:port/cinnabar``."""

    primary_url: str
    replica_urls: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where everything listens: ``host:port`` where not said otherwise."""

    envoy: str
    envoy_admin: str
    gateways: tuple[str, ...]
    schedulers: tuple[str, ...]
    storages: tuple[str, ...]
    graders: tuple[str, ...]
    redis_url: str
    policy_file: str
    shards: tuple[ShardAddress, ...]
    s3_endpoint: str
    s3_access_key: str
    s3_secret_key: str
    metrics: tuple[str, ...] = ()
    """Of each scheduler, for Prometheus."""
    storage_metrics: tuple[str, ...] = ()
    """Of each storage."""

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Addresses":
        """As the state file has them."""
        values = dict(state)
        values["shards"] = tuple(ShardAddress(**shard) for shard in state["shards"])
        return cls(**values)

    @property
    def http(self) -> str:
        """Base URL for REST."""
        return f"http://{self.envoy}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceEnvironment:
    """The settings of the services, from the addresses of each other; the compose file has the same names."""

    shards: str
    redis_url: str
    storage_target: str
    scheduler_target: str
    policy_file: str
    token_key: str = field(repr=False)
    subject_key: str = field(repr=False)
    s3: Mapping[str, str] = field(repr=False)
    """Settings of storage; none where there are no files."""

    def of(self, service: str, listen: str, metrics_listen: str = "") -> dict[str, str]:
        """The environment of one replica of ``service``; some have an address for metrics."""
        match service:
            case "storage":
                return {
                    "STORAGE_LISTEN": listen,
                    "STORAGE_SHARDS": self.shards,
                    "STORAGE_REDIS_URL": self.redis_url,
                    "STORAGE_METRICS_LISTEN": metrics_listen,
                    "STORAGE_SUBJECT_KEY": self.subject_key,
                    **self.s3,
                }
            case "scheduler":
                return {
                    "SCHEDULER_LISTEN": listen,
                    "SCHEDULER_REDIS_URL": self.redis_url,
                    "SCHEDULER_STORAGE_TARGET": self.storage_target,
                    "SCHEDULER_POLICY_FILE": self.policy_file,
                    "SCHEDULER_METRICS_LISTEN": metrics_listen,
                }
            case "gateway":
                return {
                    "GATEWAY_LISTEN": listen,
                    "GATEWAY_STORAGE_TARGET": self.storage_target,
                    "GATEWAY_SCHEDULER_TARGET": self.scheduler_target,
                    "GATEWAY_AUTH": "development",
                    "GATEWAY_TOKEN_KEY": self.token_key,
                    "GATEWAY_DRAIN_SECONDS": "0",
                }
            case "grader":
                return {"GRADER_LISTEN": listen, "GRADER_SCHEDULER_TARGET": self.scheduler_target}
            case _:
                raise ValueError(f"no service is called {service!r}")


def service_command(service: str, *arguments: str) -> tuple[str, ...]:
    """How a service is started, from any interpreter that has it."""
    return ("-m", f"cinnabar_{service}", *arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The rows, in the order of their needs, and where they will listen."""

    rows: tuple[ProcessSpec, ...]
    addresses: Addresses


def build_table(
    config: StackConfig, *, folder: Path, ports: Ports, credentials: Credentials, identity: Identity | None
) -> Table:
    """The table for ``config`` with its data in ``folder``. Raises ProgramMissing, NoFreePort."""
    programs = binaries.postgres_folder_for(identity, folder / "programs")
    shards = tuple(
        postgres_shard(
            number,
            folder=folder,
            ports=ports,
            programs=programs,
            credentials=credentials,
            identity=identity,
        )
        for number in range(config.shards)
    )
    valkey = Valkey(
        name="valkey", folder=folder / "valkey", port=ports.of("valkey"), password=credentials.redis
    )
    objects = SeaweedFS(
        name="seaweedfs",
        folder=folder / "seaweedfs",
        ports=ports,
        access_key=credentials.s3_access_key,
        secret_key=credentials.s3_secret_key,
    )
    listen = {
        service: tuple(f"{HOST}:{ports.of(f'{service}-{number}')}" for number in range(count))
        for service, count in (
            ("storage", config.storages),
            ("scheduler", config.schedulers),
            ("gateway", config.gateways),
            ("grader", config.graders),
        )
    }
    metrics = {
        service: tuple(f"{HOST}:{ports.of(f'{name}-metrics')}" for name in _names(service, count))
        for service, count in (("storage", config.storages), ("scheduler", config.schedulers))
    }
    envoy = Envoy(
        name="envoy",
        folder=folder / "envoy",
        port=ports.of("envoy", preferred=config.envoy_port),
        admin_port=ports.of("envoy-admin"),
        gateways=tuple(Endpoint.parse(address) for address in listen["gateway"]),
        schedulers=tuple(Endpoint.parse(address) for address in listen["scheduler"]),
    )
    policy_file = folder / "policy.toml"
    policy_file.write_text(config.policy, "utf-8")
    rows = [row for shard in shards for row in shard.processes()]
    rows.append(valkey.process())
    if config.objects:
        rows.append(objects.process())
    if config.services:
        rows += _service_rows(
            *(config, shards, valkey, objects, listen, metrics, policy_file),
            credentials,
        )
        rows.append(envoy.process(needs=_names("gateway", config.gateways)))
    addresses = Addresses(
        envoy=f"{HOST}:{envoy.port}",
        envoy_admin=f"{HOST}:{envoy.admin_port}",
        gateways=listen["gateway"],
        schedulers=listen["scheduler"],
        storages=listen["storage"],
        graders=listen["grader"],
        redis_url=valkey.url,
        policy_file=str(policy_file),
        shards=tuple(
            ShardAddress(
                primary_url=shard.primary.url, replica_urls=tuple(replica.url for replica in shard.replicas)
            )
            for shard in shards
        ),
        s3_endpoint=objects.endpoint,
        s3_access_key=credentials.s3_access_key,
        s3_secret_key=credentials.s3_secret_key,
        metrics=metrics["scheduler"],
        storage_metrics=metrics["storage"],
    )
    return Table(rows=tuple(rows), addresses=addresses)


def _names(service: str, count: int) -> tuple[str, ...]:
    return tuple(f"{service}-{number}" for number in range(count))


def _service_rows(
    config: StackConfig,
    shards: tuple[PostgresShard, ...],
    valkey: Valkey,
    objects: SeaweedFS,
    listen: Mapping[str, tuple[str, ...]],
    metrics: Mapping[str, tuple[str, ...]],
    policy_file: Path,
    credentials: Credentials,
) -> list[ProcessSpec]:
    def environment(caller: str) -> ServiceEnvironment:
        def seen(callee: str, address: str) -> str:
            return address if config.detour is None else config.detour(caller, callee, address)

        def seen_url(callee: str, url: str) -> str:
            parts = urlsplit(url)
            credential, _, address = parts.netloc.rpartition("@")
            return parts._replace(netloc=f"{credential}@{seen(callee, address)}").geturl()

        def target(service: str) -> str:
            return ",".join(seen(f"{service}-{n}", address) for n, address in enumerate(listen[service]))

        def s3_settings() -> dict[str, str]:
            address = seen(objects.name, objects.endpoint.removeprefix("http://"))
            return {
                "STORAGE_S3_ENDPOINT": f"http://{address}",
                "STORAGE_S3_PUBLIC_ENDPOINT": objects.endpoint,
                "STORAGE_S3_ACCESS_KEY": objects.access_key,
                "STORAGE_S3_SECRET_KEY": objects.secret_key,
            }

        return ServiceEnvironment(
            shards=",".join(
                "|".join(seen_url(server.name, server.url) for server in (shard.primary, *shard.replicas))
                for shard in shards
            ),
            redis_url=seen_url(valkey.name, valkey.url),
            storage_target=target("storage"),
            scheduler_target=target("scheduler"),
            policy_file=str(policy_file),
            token_key=credentials.gateway_token_key,
            subject_key=credentials.storage_subject_key,
            s3=s3_settings() if config.objects else {},
        )

    storages, schedulers = _names("storage", config.storages), _names("scheduler", config.schedulers)
    # Each service would also come up before those that it calls, but then first waits out a reconnection.
    needs = {
        "storage": ("storage-migrate", *(replica.name for shard in shards for replica in shard.replicas)),
        "scheduler": (valkey.name, *storages),
        "gateway": (*storages, *schedulers),
        "grader": schedulers,
    }
    rows = [
        ProcessSpec(
            name="storage-migrate",
            command=(sys.executable, *service_command("storage", "migrate")),
            env=environment("storage-migrate").of("storage", listen["storage"][0])
            | dict(config.env.get("storage", {})),
            needs=tuple(shard.primary.name for shard in shards),
            one_shot=True,
            ready_seconds=120.0,
        )
    ]
    for service, addresses in listen.items():
        extra = config.env.get(service, {})
        for number, address in enumerate(addresses):
            name = f"{service}-{number}"
            rows.append(
                ProcessSpec(
                    name=name,
                    command=(sys.executable, *config.launchers.get(name, ()), *service_command(service)),
                    env=environment(name).of(
                        service, address, metrics[service][number] if service in metrics else ""
                    )
                    | dict(extra)
                    | dict(config.env.get(name, {})),
                    needs=needs[service],
                    ready=_serving(address),
                )
            )
    return rows


def _serving(address: str) -> Step:
    async def ready() -> None:
        await probes.grpc_serving(address)

    return ready
