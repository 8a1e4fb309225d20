"""What Envoy has to know of the public API: methods, HTTP bindings, fields, all out of the descriptor set."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, cast

from google.api import annotations_pb2
from google.api.http_pb2 import HttpRule
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)

_PUBLIC_PACKAGE = "cinnabar.gateway.v1"


def descriptor_file() -> Path:
    """The descriptor set of all protos, with those that they import."""
    return Path(str(resources.files("cinnabar") / "descriptors.binpb"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A method of the public API."""

    service: str
    descriptor: MethodDescriptorProto

    @property
    def path(self) -> str:
        """Its path in gRPC."""
        return f"/{self.service}/{self.descriptor.name}"

    @property
    def streams(self) -> bool:
        """Whether either side sends more than one message."""
        return self.descriptor.client_streaming or self.descriptor.server_streaming

    @property
    def reads(self) -> bool:
        """Whether it may be repeated freely: a standard read; health says UNAVAILABLE as its answer."""
        name = self.descriptor.name
        return not self.streams and name.startswith(("Get", "List")) and name != "GetHealth"


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """An HTTP method and path with a body: a Lua pattern, and the full name of the body's message.

    ``prefix`` is the path of that message in the request, "submission." or empty.
    """

    http_method: str
    pattern: str
    message: str
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class PublicApi:
    """The services of ``cinnabar.gateway.v1``."""

    methods: tuple[Method, ...]
    _messages: Mapping[str, DescriptorProto] = field(repr=False)

    @property
    def services(self) -> list[str]:
        """Full names."""
        return sorted({method.service for method in self.methods})

    def bindings(self) -> Iterator[Binding]:
        """Those with a JSON body that is read as a whole; a stream's is not, or it would not be one."""
        for method in self.methods:
            rule = cast("HttpRule", cast("Any", method.descriptor.options).Extensions[annotations_pb2.http])
            if method.descriptor.client_streaming or not rule.body:
                continue
            request = method.descriptor.input_type.removeprefix(".")
            fields = {each.name: each for each in self._messages[request].field}
            message = request if rule.body == "*" else fields[rule.body].type_name.removeprefix(".")
            prefix = "" if rule.body == "*" else f"{rule.body}."
            for http_method in ("post", "put", "patch"):
                if template := str(getattr(rule, http_method)):
                    yield Binding(
                        http_method=http_method.upper(),
                        pattern=_lua_pattern(template),
                        message=message,
                        prefix=prefix,
                    )

    def fields_of_messages(self) -> dict[str, dict[str, str | bool]]:
        """For each message that a body can hold: its field names, as JSON and as proto, to what they hold.

        That is the name of a message, or False for a scalar and for a message with a JSON form of its own.
        """
        found: dict[str, dict[str, str | bool]] = {}
        pending = [binding.message for binding in self.bindings()]
        while pending:
            name = pending.pop()
            if name in found:
                continue
            found[name] = {}
            for each in self._messages[name].field:
                inner = self._inner(each)
                found[name][each.name] = found[name][each.json_name] = inner or False
                if inner:
                    pending.append(inner)
        return found

    def _inner(self, each: FieldDescriptorProto) -> str | None:
        name = each.type_name.removeprefix(".")
        if each.type != FieldDescriptorProto.TYPE_MESSAGE or name.startswith("google."):
            return None
        # The keys of a map are data, not field names.
        return None if self._messages[name].options.map_entry else name


def public_api() -> PublicApi:
    """Read from the descriptor set."""
    descriptors = FileDescriptorSet.FromString(descriptor_file().read_bytes())
    messages: dict[str, DescriptorProto] = {}
    methods: list[Method] = []
    for file in descriptors.file:
        for message in file.message_type:
            messages.update(_with_nested(f"{file.package}.{message.name}", message))
        if file.package == _PUBLIC_PACKAGE:
            methods += [
                Method(service=f"{file.package}.{service.name}", descriptor=method)
                for service in file.service
                for method in service.method
            ]
    return PublicApi(tuple(methods), messages)


def _with_nested(name: str, message: DescriptorProto) -> Iterator[tuple[str, DescriptorProto]]:
    yield name, message
    for nested in message.nested_type:
        yield from _with_nested(f"{name}.{nested.name}", nested)


def _lua_pattern(template: str) -> str:
    """``/v1/{parent=courses/*}/assignments`` as a Lua pattern for the whole path."""
    plain = re.sub(r"\{[^=}]+\}", "*", template)
    plain = re.sub(r"\{[^=}]+=([^}]*)\}", r"\1", plain)
    escaped = re.sub(r"([^A-Za-z0-9/*])", r"%\1", plain)
    return "^" + escaped.replace("*", "[^/]+") + "$"
