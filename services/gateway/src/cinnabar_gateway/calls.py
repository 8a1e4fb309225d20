"""What every call gets before its handler runs: an identity, a deadline, a request that parsed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, cast

import grpc
from google.protobuf.message import DecodeError

from cinnabar_common.errors import (
    CredentialInvalid,
    DeadlinePassed,
    FieldViolation,
    InvalidRequest,
    SuiteError,
)
from cinnabar_common.interceptors import Continuation
from cinnabar_gateway import consistency, deadlines, identity
from cinnabar_gateway.consistency import Positions
from cinnabar_gateway.identity import Identity

Context = grpc.aio.ServicerContext[Any, Any]
_OPEN_PREFIXES = ("/grpc.",)  # health and reflection
_OPEN_METHODS = frozenset({"/cinnabar.gateway.v1.OperationsService/GetHealth"})


class Malformed:
    """Stands for a request whose bytes are not a message of the method."""


def well_formed(request: object) -> None:
    """Raises InvalidRequest for a request that did not parse."""
    if isinstance(request, Malformed):
        raise InvalidRequest([FieldViolation("", "is not a well-formed message")])


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Refuses calls without a credential, bounds them by their deadline.

    ``identify`` turns the value of ``authorization`` into an identity or raises
    CredentialInvalid.
    """

    def __init__(self, identify: Callable[[str], Identity]) -> None:
        self._identify = identify

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if handler is None or method.startswith(_OPEN_PREFIXES):
            return handler
        caller: Identity | SuiteError | None = None
        if method not in _OPEN_METHODS:
            caller = self._caller(handler_call_details)
        arity = "_".join(
            "stream" if streams else "unary"
            for streams in (handler.request_streaming, handler.response_streaming)
        )
        behavior: Callable[[Any, Context], Awaitable[Any]] = getattr(handler, arity)
        unary = arity == "unary_unary"

        async def entered(request: Any, context: Context) -> Any:
            if isinstance(caller, SuiteError):
                raise caller
            well_formed(request)
            if caller is not None:
                identity.enter(caller)
            seconds = deadlines.enter(context.time_remaining()) if unary else None
            if seconds is None:
                return await behavior(request, context)
            try:
                async with asyncio.timeout(seconds):
                    return await behavior(request, context)
            except TimeoutError as error:
                raise DeadlinePassed from error

        parse = handler.request_deserializer

        def lenient(raw: bytes) -> object:
            try:
                return parse(raw) if parse is not None else raw
            except DecodeError:
                return Malformed()

        replace: Callable[..., grpc.RpcMethodHandler[Any, Any]] = getattr(handler, "_replace")  # noqa: B009
        return replace(**{arity: entered, "request_deserializer": lenient})

    def _caller(self, details: grpc.HandlerCallDetails) -> Identity | SuiteError:
        values = metadata_values(details.invocation_metadata, "authorization")
        try:
            return self._identify(values[0] if len(values) == 1 else "")
        except CredentialInvalid as error:
            return error


def metadata_values(metadata: object, key: str) -> list[str]:
    """All values of a key, in order, as text."""
    pairs = cast("Iterable[tuple[str, str | bytes]]", metadata or ())
    values = [value for name, value in pairs if name == key]
    return [value if isinstance(value, str) else value.decode("latin-1") for value in values]


def metadata_value(context: Context, key: str) -> str:
    """The value of a key in the caller's metadata; "" for none. InvalidRequest for several."""
    values = metadata_values(context.invocation_metadata(), key)
    if len(set(values)) > 1:
        raise InvalidRequest([FieldViolation(key, "must be there once")])
    return values[0] if values else ""


def min_positions(context: Context) -> Positions:
    """What the caller's consistency token asks for. InvalidRequest."""
    return consistency.decode_token(metadata_value(context, consistency.TOKEN_KEY))


async def send_positions(context: Context, positions: Positions) -> None:
    """Gives the caller a consistency token, in the initial and the trailing metadata.

    It also stands for what the caller's own token stood for, so that keeping the last one is
    enough. REST sees the initial metadata only, as headers. InvalidRequest for a malformed token
    of the caller: look at it with ``min_positions`` before writing anything.
    """
    if positions:
        positions = consistency.merged(positions, min_positions(context))
        metadata = ((consistency.TOKEN_KEY, consistency.encode_token(positions)),)
        context.set_trailing_metadata(metadata)
        await context.send_initial_metadata(metadata)
