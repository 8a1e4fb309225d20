"""A `ChatModel` behind any OpenAI-compatible endpoint, by the official client.

What comes back is data of a stranger: bounded in size, never decompressed, never followed elsewhere.
"""

from __future__ import annotations

import email.utils
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import httpx2
import openai
from openai.types.chat import ChatCompletion

from cinnabar_grader.llm.chat import (
    ASSISTANT,
    SYSTEM,
    ChatReply,
    ChatRequest,
    ProviderAway,
    ProviderBusy,
    ProviderRejects,
    ReplyUnreadable,
    Turn,
)

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam

MAX_RESPONSE_BYTES = 1024 * 1024
CONNECT_SECONDS = 5.0
"""How long a connection may take; the rest of the time is the caller's business."""
MAX_PATIENCE_SECONDS = 3600.0
"""The longest Retry-After that is taken for one."""
_BUSY, _REQUEST_TIMEOUT, _CONFLICT = 429, 408, 409


class TooLarge(httpx2.TransportError):
    """The body is larger than any reply."""


class OpenAiModel:
    """Implements `ChatModel`."""

    def __init__(self, client: openai.AsyncOpenAI, *, tokens_field: str, schema: bool) -> None:
        """``tokens_field`` names the limit of a reply; without ``schema`` any JSON is asked for."""
        self._client = client
        self._tokens_field = tokens_field
        self._schema = schema

    async def complete(self, request: ChatRequest) -> ChatReply:
        """See ChatModel."""
        try:
            completion = await self._client.chat.completions.create(
                model=request.model,
                messages=[_message(turn) for turn in request.turns],
                temperature=request.temperature,
                seed=request.seed,
                response_format=cast(
                    "Any", _form(request.schema) if self._schema else {"type": "json_object"}
                ),
                extra_body={self._tokens_field: request.max_output_tokens},
            )
        except openai.APIStatusError as error:
            raise _refusal(error) from None
        except openai.APIConnectionError as error:
            if isinstance(error.__cause__, TooLarge):
                raise ReplyUnreadable("too large, or encoded") from None
            raise ProviderAway(type(error.__cause__ or error).__name__) from None
        except TooLarge:
            raise ReplyUnreadable("too large, or encoded") from None
        except httpx2.TransportError as error:
            raise ProviderAway(type(error).__name__) from None
        except (openai.APIError, ValueError) as error:
            raise ReplyUnreadable(type(error).__name__) from None
        return _reply(completion)


@asynccontextmanager
async def openai_model(
    url: str, *, key: str, concurrency: int, tokens_field: str = "max_tokens", schema: bool = True
) -> AsyncGenerator[OpenAiModel]:
    """A model at the endpoint ``url`` (ends before "/chat/completions"), ``concurrency`` calls at once."""
    limits = httpx2.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    http = httpx2.AsyncClient(
        transport=_Bounded(httpx2.AsyncHTTPTransport(limits=limits)),
        timeout=httpx2.Timeout(None, connect=CONNECT_SECONDS),
        headers={"accept-encoding": "identity"},
        follow_redirects=False,
        trust_env=False,
    )
    client = openai.AsyncOpenAI(base_url=url, api_key=key or "none", max_retries=0, http_client=http)
    async with client:
        yield OpenAiModel(client, tokens_field=tokens_field, schema=schema)


class _Bounded(httpx2.AsyncBaseTransport):
    """Refuses bodies that are larger than `MAX_RESPONSE_BYTES`, or would be once decoded."""

    def __init__(self, inner: httpx2.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await self._inner.handle_async_request(request)
        if response.headers.get("content-encoding", "identity") != "identity":
            await response.aclose()
            raise TooLarge("the body is encoded")
        stream = cast("httpx2.AsyncByteStream", response.stream)
        return httpx2.Response(
            response.status_code,
            headers=response.headers,
            stream=_BoundedStream(stream),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        await self._inner.aclose()


class _BoundedStream(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._inner:
            size += len(chunk)
            if size > MAX_RESPONSE_BYTES:
                raise TooLarge("the body is too large")
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()


def _message(turn: Turn) -> ChatCompletionMessageParam:
    match turn.role:
        case r if r == SYSTEM:
            return {"role": "system", "content": turn.text}
        case r if r == ASSISTANT:
            return {"role": "assistant", "content": turn.text}
        case _:
            return {"role": "user", "content": turn.text}


def _form(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "grade", "strict": True, "schema": dict(schema)}}


def _reply(completion: object) -> ChatReply:
    """The reply; the client builds its objects without looking whether what came has their form."""
    if not isinstance(completion, ChatCompletion):
        raise ReplyUnreadable("no completion")
    try:
        choice = completion.choices[0]
        message, reason = choice.message, choice.finish_reason
        text, refusal = message.content or "", message.refusal
        usage = completion.usage
        read = int(usage.prompt_tokens) if usage else 0
        written = int(usage.completion_tokens) if usage else 0
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise ReplyUnreadable("no completion") from None
    if not isinstance(cast("object", text), str):
        raise ReplyUnreadable("no text")
    return ChatReply(
        text=text,
        input_tokens=read,
        output_tokens=written,
        refused=bool(refusal) or reason == "content_filter",
        truncated=reason == "length",
    )


def _refusal(error: openai.APIStatusError) -> Exception:
    status, patience = error.status_code, patience_of(error.response.headers)
    if status == _BUSY:
        return ProviderBusy(patience)
    if status >= 500 or status in (_REQUEST_TIMEOUT, _CONFLICT):
        return ProviderAway(f"status {status}", retry_after=patience)
    return ProviderRejects(status)


def patience_of(headers: Mapping[str, str]) -> float | None:
    """Seconds that "retry-after-ms" or "retry-after" (seconds, or a date) ask for; None for none."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        text = headers.get(name)
        if text is None:
            continue
        try:
            seconds = float(text) / unit
        except ValueError:
            moment = email.utils.parsedate_tz(text)
            if moment is None:
                continue
            seconds = email.utils.mktime_tz(moment) - time.time()
        if math.isfinite(seconds):
            return min(max(0.0, seconds), MAX_PATIENCE_SECONDS)
    return None
