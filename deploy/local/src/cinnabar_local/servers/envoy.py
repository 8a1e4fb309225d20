"""Envoy at the edge: its configuration, one template for this machine and for containers, and its process."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Literal

import jinja2

from cinnabar.type.v1.error_reason_pb2 import ErrorReason
from cinnabar_local import binaries, probes
from cinnabar_local.checkout import deploy_folder
from cinnabar_local.ports import HOST
from cinnabar_local.process import ProcessSpec
from cinnabar_local.servers.bindings import PublicApi, descriptor_file, public_api

# Open to gRPC clients beside the public API; without HTTP annotations there is no REST for them.
_STANDARD_SERVICES = ("grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection")
_UNLIMITED = ("/grpc.health.v1.Health/", "/cinnabar.gateway.v1.OperationsService/GetHealth")
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
    """What a REST client gets for an answer that Envoy makes itself: an error like those of the gateway.

    ``status`` is the HTTP status to match by ``op``; ``flags`` the response flags, or ``metadata_key`` the
    key in the Lua filter's metadata, to match instead. ``code`` is of google.rpc.Code, ``reason`` and
    ``metadata`` are the ErrorInfo's, ``answer`` is another HTTP status to send. ``culprit`` is the field that
    a BadRequest names; ``retry`` is the RetryInfo's delay, as JSON has it.
    """

    code: int
    reason: ErrorReason.ValueType
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    status: int = 0
    op: Literal["EQ", "GE"] = "EQ"
    flags: tuple[str, ...] = ()
    metadata_key: str = ""
    answer: int | None = None
    culprit: str = ""
    retry: str = ""

    @property
    def details(self) -> list[dict[str, object]]:
        """The typed details, as JSON."""
        reason = ErrorReason.Name(self.reason)
        details: list[dict[str, object]] = [
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": reason,
                "domain": "cinnabar.dev",
                "metadata": dict(self.metadata) | ({"field": self.culprit} if self.culprit else {}),
            }
        ]
        if self.culprit:
            violation = {"field": self.culprit, "description": "%LOCAL_REPLY_BODY%", "reason": reason}
            details.append(
                {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [violation]}
            )
        if self.retry:
            details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": self.retry})
        return details


def _told(key: str) -> str:
    """What the rate limit service says of a refusal."""
    return f"%DYNAMIC_METADATA(envoy.filters.http.ratelimit:{key})%"


_UNKNOWN_FIELD = "unknown_field"
# First match wins. Pairs of status and code as in google/rpc/code.proto, where there is such a pair.
_REPLIES = (
    Reply(
        metadata_key=_UNKNOWN_FIELD,
        code=3,
        reason=ErrorReason.INVALID_REQUEST,
        culprit=f"%DYNAMIC_METADATA(envoy.filters.http.lua:{_UNKNOWN_FIELD})%",
    ),
    Reply(
        flags=("RL",),
        code=8,
        reason=ErrorReason.RATE_LIMITED,
        metadata={key: _told(key) for key in ("level", "limit", "period_seconds")},
        retry=_told("retry_delay"),
    ),
    Reply(flags=("DT",), code=4, reason=ErrorReason.DEADLINE_PASSED, answer=504),
    Reply(status=400, code=3, reason=ErrorReason.INVALID_REQUEST, culprit="request"),
    Reply(status=404, code=5, reason=ErrorReason.METHOD_UNKNOWN),
    Reply(status=405, code=12, reason=ErrorReason.METHOD_UNKNOWN),
    Reply(status=408, code=4, reason=ErrorReason.DEADLINE_PASSED),
    Reply(status=413, code=3, reason=ErrorReason.INVALID_REQUEST, culprit="body"),
    Reply(status=431, code=3, reason=ErrorReason.INVALID_REQUEST, culprit="headers"),
    Reply(status=429, code=8, reason=ErrorReason.OVERLOADED, metadata={"queue": "edge"}),
    Reply(status=500, code=13, reason=ErrorReason.INTERNAL_ERROR),
    Reply(status=504, code=4, reason=ErrorReason.DEADLINE_PASSED),
    Reply(
        status=501,
        op="GE",
        code=14,
        reason=ErrorReason.DEPENDENCY_UNAVAILABLE,
        metadata={"dependency": "gateway"},
        retry="1s",
    ),
    Reply(status=400, op="GE", code=3, reason=ErrorReason.INVALID_REQUEST, culprit="request"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvoySettings:
    """What differs between this machine and containers.

    ``discovery`` is STATIC for addresses, DNS for names. ``access_log`` is a file that gets one JSON
    object a request, without bodies; None for none. A call waits for its limits as long as
    ``rate_limit_seconds``, then goes on without.
    """

    listen: Endpoint
    admin: Endpoint
    gateways: tuple[Endpoint, ...]
    schedulers: tuple[Endpoint, ...]
    descriptors: str
    rate_limit_seconds: float = 0.2
    discovery: Literal["STATIC", "DNS"] = "STATIC"
    origins: tuple[str, ...] = _LOCAL_ORIGINS
    access_log: str | None = None


def render(settings: EnvoySettings) -> str:
    """The whole configuration as YAML. Services, methods and messages are those of the descriptor set."""
    api = public_api()
    templates = deploy_folder() / "envoy"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # YAML, from values of our own
        keep_trailing_newline=True,
    )
    return environment.get_template("envoy.yaml.j2").render(
        settings=settings,
        replies=_REPLIES,
        services=api.services,
        streams=[method.path for method in api.methods if method.streams],
        reads=[method.path for method in api.methods if method.reads],
        unlimited=_UNLIMITED,
        identity=(templates / "identity.lua").read_text("utf-8"),
        prefixes=[f"/{service}/" for service in (*api.services, *_STANDARD_SERVICES)],
        unknown_fields=_lua_tables(api) + (templates / "unknown_fields.lua").read_text("utf-8"),
    )


def _lua_tables(api: PublicApi) -> str:
    """The generated part of the Lua filter."""
    lines = ["local MESSAGES = {"]
    for message, fields in sorted(api.fields_of_messages().items()):
        entries = ", ".join(f'["{name}"] = {json.dumps(inner)}' for name, inner in sorted(fields.items()))
        lines.append(f'  ["{message}"] = {{{entries}}},')
    lines += ["}", "local BINDINGS = {"]
    bindings = sorted(api.bindings(), key=lambda binding: binding.http_method)
    for http_method, group in groupby(bindings, key=lambda binding: binding.http_method):
        lines.append(f"  {http_method} = {{")
        lines += [
            f'    {{"{binding.pattern}", "{binding.message}", "{binding.prefix}"}},' for binding in group
        ]
        lines.append("  },")
    return "\n".join([*lines, "}", ""])


def compose_settings() -> EnvoySettings:
    """The settings behind ``deploy/envoy/envoy.compose.yaml``."""
    return EnvoySettings(
        listen=Endpoint(host="0.0.0.0", port=8080),
        admin=Endpoint(host="127.0.0.1", port=9901),
        gateways=tuple(Endpoint(host=f"gateway-{number}", port=50051) for number in range(2)),
        schedulers=(Endpoint(host="scheduler-0", port=50051),),
        descriptors="/etc/cinnabar/descriptors.binpb",
        discovery="DNS",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Envoy:
    """One Envoy in front of ``gateways``, with one worker: the machine's cores are shared.

    ``schedulers`` are asked for the limits; without one there are none.
    """

    name: str
    folder: Path
    port: int
    admin_port: int
    gateways: tuple[Endpoint, ...]
    schedulers: tuple[Endpoint, ...] = ()

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
            schedulers=self.schedulers,
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
