"""What every call gets before its handler runs: identity, deadline, what it must see, a parsed request."""

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
from cinnabar_gateway.consistency import Carried, Positions, TokenKeys
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
    """Refuses calls without a credential or with a token that is not theirs, bounds them by their deadline.

    ``identify`` turns the value of ``authorization`` into an identity or raises
    CredentialInvalid; ``keys`` make and prove consistency tokens.
    """

    def __init__(self, identify: Callable[[str], Identity], keys: TokenKeys) -> None:
        self._identify = identify
        self._keys = keys

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if handler is None or method.startswith(_OPEN_PREFIXES):
            return handler
        caller: tuple[Identity, Carried] | SuiteError | None = None
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
                identity.enter(caller[0])
                consistency.enter(caller[1])
            if not unary:
                return await behavior(request, context)
            try:
                async with asyncio.timeout(deadlines.enter(context.time_remaining())):
                    response = await behavior(request, context)
                    if caller is not None:
                        await _fold(context, caller[1])
                    return response
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

    def _caller(self, details: grpc.HandlerCallDetails) -> tuple[Identity, Carried] | SuiteError:
        metadata = details.invocation_metadata
        values = metadata_values(metadata, "authorization")
        try:
            caller = self._identify(values[0] if len(values) == 1 else "")
            tokens = consistency.split(metadata_values(metadata, consistency.TOKEN_KEY))
            asked = self._keys.decode(caller.tenant, tokens) if tokens else ()
        except (CredentialInvalid, InvalidRequest) as error:
            return error
        return caller, Carried(self._keys, caller.tenant, asked, len(tokens))


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
    """What the consistency tokens of the call that is being served ask for together; they were proven."""
    return consistency.current().positions


async def send_positions(context: Context, positions: Positions) -> None:
    """Gives the caller a consistency token, in the initial and the trailing metadata; none for no positions.

    For every unary call that writes, once. The token also stands for those that the caller sent, so that
    it may forget them. REST sees the initial metadata only, as headers.
    """
    if positions:
        await _send(context, consistency.current(), positions)


async def _fold(context: Context, carried: Carried) -> None:
    """Whoever sent several tokens gets one for them, also from a call that wrote nothing."""
    if carried.tokens > 1 and not carried.answered:
        await _send(context, carried, ())


async def _send(context: Context, carried: Carried, positions: Positions) -> None:
    carried.answered = True
    metadata = ((consistency.TOKEN_KEY, carried.token(positions)),)
    context.set_trailing_metadata(metadata)
    await context.send_initial_metadata(metadata)
