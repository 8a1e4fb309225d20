"""A scripted OpenAI-compatible endpoint: says what a test wants, in every wrong way too."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from aiohttp import web

Script: TypeAlias = "Callable[[web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]"


def completion(
    content: str | None,
    *,
    finish: str = "stop",
    refusal: str | None = None,
    usage: tuple[int, int] = (100, 20),
) -> dict[str, Any]:
    """The body of a chat completion."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "scripted",
        "choices": [
            {
                "index": 0,
                "finish_reason": finish,
                "message": {"role": "assistant", "content": content, "refusal": refusal},
            }
        ],
        "usage": {
            "prompt_tokens": usage[0],
            "completion_tokens": usage[1],
            "total_tokens": sum(usage),
        },
    }


def graded(points: Mapping[str, float], *quotations: str, confidence: float = 1.0) -> str:
    """The JSON of a good reply: points by criterion, all with the same evidence."""
    parts = {
        criterion: {
            "points": earned,
            "evidence": list(quotations),
            "feedback": "As the rubric says.",
            "confidence": confidence,
        }
        for criterion, earned in points.items()
    }
    return json.dumps({"criteria": parts, "feedback": "Well done."})


@dataclass(slots=True)
class Endpoint:
    """An endpoint at ``url``. The scripts answer one request each, the last one all that follow."""

    url: str = ""
    scripts: list[Script] = field(default_factory=list[Script])
    requests: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    headers: list[Mapping[str, str]] = field(default_factory=list[Mapping[str, str]])
    at_once: int = 0
    most_at_once: int = 0

    def script(self, *scripts: Script) -> None:
        """From now on answers so, and has heard nothing yet."""
        self.scripts[:] = scripts
        self.requests.clear()
        self.headers.clear()
        self.most_at_once = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        script = self.scripts[0] if len(self.scripts) == 1 else self.scripts.pop(0)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return await script(request, body)
        finally:
            self.at_once -= 1


@asynccontextmanager
async def serving_endpoint() -> AsyncGenerator[Endpoint]:
    """An endpoint on loopback."""
    endpoint = Endpoint()
    app = web.Application(client_max_size=8 * 1024 * 1024)
    app.router.add_post("/v1/chat/completions", endpoint.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    endpoint.url = f"http://127.0.0.1:{port}/v1"
    try:
        yield endpoint
    finally:
        await runner.cleanup()


def says(content: str | None, **parts: Any) -> Script:
    """A completion with this content."""

    async def script(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        return web.json_response(completion(content, **parts))

    return script


def obeys(judgement: Callable[[dict[str, Any]], str]) -> Script:
    """A completion whose content depends on the request."""

    async def script(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        return web.json_response(completion(judgement(body)))

    return script


def fails(status: int, headers: Mapping[str, str] | None = None) -> Script:
    """An error."""

    async def script(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        error = {"error": {"message": "scripted", "type": "error", "code": None, "param": None}}
        return web.json_response(error, status=status, headers=headers)

    return script


def sends(body: bytes, content_type: str = "application/json", **headers: str) -> Script:
    """These bytes."""

    async def script(request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
        return web.Response(body=body, content_type=content_type, headers=headers)

    return script


async def hangs(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    """Never answers."""
    await asyncio.Event().wait()
    raise AssertionError("nobody waits for ever")


async def drips(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    """A good answer, a byte now and then."""
    response = web.StreamResponse(headers={"content-type": "application/json"})
    await response.prepare(request)
    for byte in json.dumps(completion(graded({"answer": 5}))).encode():
        await response.write(bytes([byte]))
        await asyncio.sleep(0.05)
    return response


async def floods(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    """A body without an end."""
    response = web.StreamResponse(headers={"content-type": "application/json"})
    await response.prepare(request)
    while True:
        await response.write(b" " * 65_536)


async def resets(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    """Breaks the connection off."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()
