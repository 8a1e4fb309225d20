"""The client's way past the suite, against a store of objects that misbehaves."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from aiohttp import web

from cinnabar_client import ApiError
from tests.support.client_cli import run
from tests.support.client_fixtures import NAME, world


class Objects:
    """A store of objects: answers ``status``, keeps what it takes, gives ``gives``."""

    def __init__(self) -> None:
        self.status = 204
        self.taken: list[tuple[list[tuple[str, str]], bytes, str]] = []
        self.gives = b""

    async def take(self, request: web.Request) -> web.Response:
        form = await request.post()
        file = form["file"]
        assert isinstance(file, web.FileField)
        fields = [(name, value) for name, value in form.items() if isinstance(value, str)]
        assert [*form][-1] == "file"
        self.taken.append((fields, file.file.read(), file.content_type))
        return web.Response(status=self.status)

    async def give(self, request: web.Request) -> web.Response:
        return web.Response(body=self.gives)


@asynccontextmanager
async def objects_serving(objects: Objects) -> AsyncGenerator[str]:
    """The store on a port of its own; its address."""
    app = web.Application()
    app.router.add_post("/bucket", objects.take)
    app.router.add_get("/bucket/k", objects.give)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}/bucket"
    finally:
        await runner.cleanup()


async def test_a_file_goes_up_as_a_form_and_comes_down_by_a_link() -> None:
    objects = Objects()
    async with world() as w, objects_serving(objects) as address:
        w.gateway.objects = address
        made = await w.client.upload(NAME, "why", b"essay", content_type="text/markdown")
        assert made.sha256 == hashlib.sha256(b"essay").digest()
        assert objects.taken == [([("key", "k")], b"essay", "application/octet-stream")]
        objects.gives = b"essay"
        assert await w.client.download(made.name) == b"essay"
        for wrong in (b"ESSAY", b"essay and more", b"essa"):
            objects.gives = wrong
            with pytest.raises(ApiError, match="not the one that was announced"):
                await w.client.download(made.name)


async def test_what_the_store_of_objects_refuses_is_no_success() -> None:
    objects = Objects()
    async with world() as w, objects_serving(objects) as address:
        w.gateway.objects = address
        for status, code in (
            (403, grpc.StatusCode.FAILED_PRECONDITION),
            (503, grpc.StatusCode.UNAVAILABLE),
        ):
            objects.status = status
            with pytest.raises(ApiError) as refused:
                await w.client.upload(NAME, "why", b"essay")
            assert refused.value.code is code
            assert address not in str(refused.value)


async def test_a_store_of_objects_that_is_away_is_said_to_be() -> None:
    async with world() as w:
        with pytest.raises(ApiError) as refused:
            await w.client.upload(NAME, "why", b"essay")
        assert refused.value.reason == "DEPENDENCY_UNAVAILABLE"
        assert refused.value.metadata == {"dependency": "objects"}
        with pytest.raises(ApiError) as unknown:
            await w.client.download(f"{NAME}/uploads/none")
        assert unknown.value.reason == "RESOURCE_NOT_FOUND"


async def test_the_command_line_says_what_is_wrong_with_a_file(tmp_path: Path) -> None:
    async with world() as w:
        target = NAME.replace("courses/", "").replace("assignments/", "")
        missing = str(tmp_path / "missing")
        ran = await run(w, "submit", target, "--answer-file", f"why={missing}")
        assert (ran.code, "cannot be read" in ran.err) == (2, True)
