"""Envoy at the edge: its configuration, one template for this machine and for containers, and its process."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

import jinja2
from google.protobuf.descriptor_pb2 import FileDescriptorSet, MethodDescriptorProto

from cinnabar_local import binaries, probes
from cinnabar_local.checkout import deploy_folder
from cinnabar_local.ports import HOST
from cinnabar_local.process import ProcessSpec

_PUBLIC_PACKAGE = "cinnabar.gateway.v1"
# Open to gRPC clients beside the public API; without HTTP annotations there is no REST for them.
_STANDARD_SERVICES = ("grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection")
_LOCAL_ORIGINS = (r"https?://(localhost|127\.0\.0\.1)(:[0-9]+)?",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Host (a name or an address) and port."""

    host: str
    port: int

    @classmethod
    def parse(cls, address: str) -> "Endpoint":
        """From ``host:port``. Raises ValueError."""
        host, _, port = address.rpartition(":")
        return cls(host=host, port=int(port))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a REST client gets for an answer that Envoy makes itself.

    ``status`` is the HTTP status to match by ``op``, or ``flags`` the response flags; ``code`` the code of
    google.rpc.Code in the JSON; ``answer`` another HTTP status to send instead.
    """

    code: int
    status: int = 0
    op: Literal["EQ", "GE"] = "EQ"
    flags: tuple[str, ...] = ()
    answer: int | None = None


# First match wins. Pairs as in google/rpc/code.proto, where a pair exists.
_REPLIES = (
    Reply(flags=("DT",), code=4, answer=504),
    Reply(status=400, code=3),
    Reply(status=401, code=16),
    Reply(status=403, code=7),
    Reply(status=404, code=5),
    Reply(status=405, code=12),
    Reply(status=408, code=4),
    Reply(status=413, code=8),
    Reply(status=429, code=8),
    Reply(status=431, code=8),
    Reply(status=500, code=13),
    Reply(status=501, code=12),
    Reply(status=504, code=4),
    Reply(status=502, op="GE", code=14),
    Reply(status=400, op="GE", code=3),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvoySettings:
    """What differs between this machine and containers.

    ``discovery`` is STATIC for addresses, STRICT_DNS for names. ``access_log`` is a file that gets one JSON
    object a request, without bodies; None for none.
    """

    listen: Endpoint
    admin: Endpoint
    gateways: tuple[Endpoint, ...]
    descriptors: str
    discovery: Literal["STATIC", "STRICT_DNS"] = "STATIC"
    origins: tuple[str, ...] = _LOCAL_ORIGINS
    access_log: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Method:
    service: str
    method: MethodDescriptorProto

    @property
    def path(self) -> str:
        return f"/{self.service}/{self.method.name}"

    @property
    def streams(self) -> bool:
        return self.method.client_streaming or self.method.server_streaming

    @property
    def reads(self) -> bool:
        """Standard read methods are safe to repeat; health says UNAVAILABLE as its answer."""
        return self.method.name.startswith(("Get", "List")) and self.method.name != "GetHealth"


def descriptor_file() -> Path:
    """The descriptor set of all protos, with those that they import."""
    return Path(str(resources.files("cinnabar") / "descriptors.binpb"))


def _public_methods() -> Iterator[_Method]:
    descriptors = FileDescriptorSet.FromString(descriptor_file().read_bytes())
    for file in descriptors.file:
        if file.package == _PUBLIC_PACKAGE:
            for service in file.service:
                for method in service.method:
                    yield _Method(service=f"{file.package}.{service.name}", method=method)


def render(settings: EnvoySettings) -> str:
    """The whole configuration as YAML. Services and methods are those of the descriptor set."""
    methods = list(_public_methods())
    services = sorted({method.service for method in methods})
    template = jinja2.Environment(
        loader=jinja2.FileSystemLoader(deploy_folder() / "envoy"),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # YAML, from values of our own
        keep_trailing_newline=True,
    ).get_template("envoy.yaml.j2")
    return template.render(
        banner="Rendered from envoy.yaml.j2; edit that.",
        listen=settings.listen,
        admin=settings.admin,
        gateways=settings.gateways,
        discovery=settings.discovery,
        descriptors=settings.descriptors,
        origins=settings.origins,
        access_log=settings.access_log,
        replies=[
            {"code": reply.code, "status": reply.status, "op": reply.op, "answer": reply.answer}
            | {"flags": json.dumps(reply.flags) if reply.flags else ""}
            for reply in _REPLIES
        ],
        services=services,
        streams=[method.path for method in methods if method.streams],
        reads=[method.path for method in methods if method.reads and not method.streams],
        prefixes=[f"/{service}/" for service in (*services, *_STANDARD_SERVICES)],
    )


def compose_settings() -> EnvoySettings:
    """The settings behind ``deploy/envoy/envoy.compose.yaml``."""
    return EnvoySettings(
        listen=Endpoint(host="0.0.0.0", port=8080),
        admin=Endpoint(host="127.0.0.1", port=9901),
        gateways=tuple(Endpoint(host=f"gateway-{number}", port=50051) for number in range(2)),
        descriptors="/etc/cinnabar/descriptors.binpb",
        discovery="STRICT_DNS",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Envoy:
    """One Envoy in front of ``gateways``, with one worker: the machine's cores are shared."""

    name: str
    folder: Path
    port: int
    admin_port: int
    gateways: tuple[Endpoint, ...]

    @property
    def admin_url(self) -> str:
        """``http://host:port`` of the admin interface."""
        return f"http://{HOST}:{self.admin_port}"

    def settings(self) -> EnvoySettings:
        """The settings of this Envoy."""
        return EnvoySettings(
            listen=Endpoint(host=HOST, port=self.port),
            admin=Endpoint(host=HOST, port=self.admin_port),
            gateways=self.gateways,
            descriptors=str(descriptor_file()),
        )

    def process(self, *, needs: tuple[str, ...] = ()) -> ProcessSpec:
        """Its row of the process table: ready when it has found a healthy gateway."""
        config_file = self.folder / "envoy.yaml"

        async def prepare() -> None:
            self.folder.mkdir(parents=True, exist_ok=True)
            config_file.write_text(render(self.settings()), "utf-8")

        async def ready() -> None:
            await probes.http_answers(f"{self.admin_url}/ready")
            await probes.envoy_sees_healthy(self.admin_url, "gateways")

        return ProcessSpec(
            name=self.name,
            command=(
                str(binaries.envoy()),
                *("--config-path", str(config_file), "--concurrency", "1", "--log-level", "warning"),
                *("--disable-hot-restart", "--drain-time-s", "1"),
            ),
            folder=self.folder,
            needs=needs,
            prepare=prepare,
            ready=ready,
        )
