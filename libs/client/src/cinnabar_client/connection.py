"""How calls leave this program: channel, credential, deadline, consistency token, errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from importlib.resources import files
from typing import TypeVar

import grpc

from cinnabar.type.v1.error_reason_pb2 import ErrorReason
from cinnabar_client.consistency import CONSISTENCY_TOKEN, Sent, Tokens
from cinnabar_client.errors import ApiError, from_rpc
from cinnabar_client.patience import DEFAULT_PATIENCE_SECONDS, Trouble
from cinnabar_common.channels import target_of

Q = TypeVar("Q")
A = TypeVar("A")
MAX_CALLS = 100
"""Calls of one client that run at once; more wait for their turn, which bounds the tokens there are."""
TOKEN_INVALID = ErrorReason.Name(ErrorReason.CONSISTENCY_TOKEN_INVALID)
_MAX_MESSAGE_BYTES = 64 * 1024 * 1024  # what the services allow


def open_channel(address: str) -> grpc.aio.Channel:
    """A channel to "host:port" with the package's retry policy (``service_config.json``)."""
    policy = (files("cinnabar_client") / "service_config.json").read_text("utf-8")
    return grpc.aio.insecure_channel(
        target_of(address),
        options=[
            ("grpc.service_config", policy),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.keepalive_time_ms", 20_000),
            ("grpc.keepalive_timeout_ms", 5_000),
            ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
        ],
    )


class Connection:
    """A channel, who calls, and what this caller has written so far."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        *,
        token: str,
        timeout: float,
        patience: float = DEFAULT_PATIENCE_SECONDS,
        tokens: Tokens | None = None,
    ) -> None:
        self.channel = channel
        self.timeout = timeout
        self._patience = patience
        self._token = token
        self.tokens = tokens or Tokens()
        self._turn = asyncio.Semaphore(MAX_CALLS)

    def metadata(self, sent: Sent | None = None) -> tuple[tuple[str, str], ...]:
        """What every call carries: with the tokens that it is to give ``answered`` to, or those of now."""
        pairs: list[tuple[str, str]] = []
        if self._token:
            pairs.append(("authorization", f"Bearer {self._token}"))
        if tokens := (sent or self.tokens.sent()).value:
            pairs.append((CONSISTENCY_TOKEN, tokens))
        return tuple(pairs)

    async def unary(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Q, A], request: Q, *, timeout: float | None = None
    ) -> A:
        """Calls ``method``, each time under a deadline. Raises ApiError.

        A call that was turned away before it did anything (``ApiError.not_begun``) is made again when the
        service says, within the patience; one that may have had an effect never is, here.
        """
        trouble = Trouble(self._patience)
        while True:
            try:
                async with self._turn:
                    return await self._once(method, request, timeout or self.timeout)
            except grpc.aio.AioRpcError as error:
                refusal = from_rpc(error)
                pause = trouble.pause(refusal) if refusal.not_begun else None
                if pause is None:
                    raise refusal from error
            await asyncio.sleep(pause)

    async def _once(self, method: grpc.aio.UnaryUnaryMultiCallable[Q, A], request: Q, timeout: float) -> A:
        sent = self.tokens.sent()
        call = method(request, timeout=timeout, metadata=self.metadata(sent))
        try:
            answer = await call
        except grpc.aio.AioRpcError as error:
            self.refused(sent, from_rpc(error))
            raise
        sent.answered(token_in(await call.trailing_metadata()) or token_in(await call.initial_metadata()))
        return answer

    def refused(self, sent: Sent, error: ApiError) -> None:
        """A call failed: what it carried is dropped when that is why."""
        if error.reason == TOKEN_INVALID:
            sent.refused()

    async def stream(self, method: grpc.aio.UnaryStreamMultiCallable[Q, A], request: Q) -> AsyncGenerator[A]:
        """The messages that ``method`` answers with; the next is waited for as long as a whole call.

        Raises ApiError; then what came before it is not all there is.
        """
        sent = self.tokens.sent()
        call = method(request, metadata=self.metadata(sent))
        messages = aiter(call)
        try:
            while True:
                async with asyncio.timeout(self.timeout):
                    message = await anext(messages, None)
                if message is None:
                    return
                yield message
        except grpc.aio.AioRpcError as error:
            refusal = from_rpc(error)
            self.refused(sent, refusal)
            raise refusal from error
        finally:
            call.cancel()


def token_in(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """The consistency token of an answer; "" for none."""
    return next((value for key, value in metadata if key == CONSISTENCY_TOKEN and isinstance(value, str)), "")
