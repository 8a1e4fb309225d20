"""How calls leave this program: channel, credential, deadline, consistency token, errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from importlib.resources import files
from typing import TypeVar

import grpc

from cinnabar_client.errors import from_rpc
from cinnabar_client.patience import DEFAULT_PATIENCE_SECONDS, Trouble
from cinnabar_common.channels import target_of

CONSISTENCY_TOKEN = "cinnabar-consistency-token"
Q = TypeVar("Q")
A = TypeVar("A")
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
    """A channel, who calls, and what this caller has written so far.

    The consistency token is opaque: the last one received is sent with every call, and the answer's stands
    for everything that it did too, so a read shows all that this client has written one after the other.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        *,
        token: str,
        timeout: float,
        patience: float = DEFAULT_PATIENCE_SECONDS,
    ) -> None:
        self.channel = channel
        self.timeout = timeout
        self._patience = patience
        self._token = token
        self._consistency = ""

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What every call carries."""
        pairs: list[tuple[str, str]] = []
        if self._token:
            pairs.append(("authorization", f"Bearer {self._token}"))
        if self._consistency:
            pairs.append((CONSISTENCY_TOKEN, self._consistency))
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
            call = method(request, timeout=timeout or self.timeout, metadata=self.metadata())
            try:
                answer = await call
            except grpc.aio.AioRpcError as error:
                refusal = from_rpc(error)
                pause = trouble.pause(refusal) if refusal.not_begun else None
                if pause is None:
                    raise refusal from error
            else:
                self.remember(await call.initial_metadata())
                self.remember(await call.trailing_metadata())
                return answer
            await asyncio.sleep(pause)

    async def stream(self, method: grpc.aio.UnaryStreamMultiCallable[Q, A], request: Q) -> AsyncGenerator[A]:
        """The messages that ``method`` answers with; the next is waited for as long as a whole call.

        Raises ApiError; then what came before it is not all there is.
        """
        call = method(request, metadata=self.metadata())
        messages = aiter(call)
        try:
            while True:
                async with asyncio.timeout(self.timeout):
                    message = await anext(messages, None)
                if message is None:
                    return
                yield message
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error) from error
        finally:
            call.cancel()

    def remember(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Keeps the consistency token, if there is one."""
        for key, value in metadata:
            if key == CONSISTENCY_TOKEN and isinstance(value, str):
                self._consistency = value
