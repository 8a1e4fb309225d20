"""Grades as a file over REST: Envoy streams what the gateway writes."""

import json
from collections.abc import AsyncGenerator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from cinnabar_common.errors import DependencyUnavailable
from cinnabar_common.names import AssignmentName
from cinnabar_gateway import exports
from cinnabar_gateway.adapters.memory import MemoryStorage
from cinnabar_gateway.consistency import Positions
from cinnabar_gateway.records import SubmissionPage
from cinnabar_local.group import serving
from cinnabar_local.ports import Ports
from cinnabar_local.servers import Endpoint, Envoy
from tests.support.gateway_world import INSTRUCTOR, PARENT, World, world

TEACHER = {"authorization": "Bearer dev.uni.instructor.prof"}


class Storage(MemoryStorage):
    """Loses a shard after the first page when it is told to."""

    breaks = False

    async def list_submissions(
        self,
        tenant: str,
        parent: AssignmentName,
        *,
        author: str,
        before: str,
        limit: int,
        min_positions: Positions,
    ) -> SubmissionPage:
        """See SubmissionStore."""
        if before and self.breaks:
            raise DependencyUnavailable("shard-1")
        return await super().list_submissions(
            tenant, parent, author=author, before=before, limit=limit, min_positions=min_positions
        )


@pytest_asyncio.fixture(scope="module")
async def storage() -> Storage:
    return Storage()


@pytest_asyncio.fixture(scope="module")
async def gateway(storage: Storage) -> AsyncGenerator[World]:
    """A gateway with an assignment and three submissions."""
    async with world(storage=storage) as made:
        await made.assignment()
        for author in ("ann", "bob", "cay"):
            await made.submission(author=author, metadata=INSTRUCTOR)
        yield made


@pytest_asyncio.fixture(scope="module")
async def http(
    gateway: World, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[aiohttp.ClientSession]:
    """Envoy before it."""
    folder: Path = tmp_path_factory.mktemp("export")
    ports = Ports()
    envoy = Envoy(
        name="envoy",
        folder=folder / "envoy",
        port=ports.of("envoy"),
        admin_port=ports.of("admin"),
        gateways=(Endpoint(host="127.0.0.1", port=gateway.gateway.port),),
    )
    async with (
        serving(envoy.process(), logs=folder / "logs"),
        aiohttp.ClientSession(f"http://127.0.0.1:{envoy.port}", headers=TEACHER) as session,
    ):
        yield session


async def test_the_body_is_the_file(http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "_PAGE", 1)
    async with http.get(f"/v1/{PARENT}:export") as answer:
        text = await answer.text()
    assert (answer.status, answer.headers["content-type"]) == (
        200,
        "text/csv; charset=utf-8; header=present",
    )
    assert answer.headers["content-disposition"] == 'attachment; filename="net-a1.csv"'
    assert [line.split(",")[0] for line in text.split("\r\n")] == ["student", "cay", "bob", "ann", ""]


async def test_a_line_of_json_for_each(http: aiohttp.ClientSession) -> None:
    async with http.get(f"/v1/{PARENT}:export?format=GRADESCOPE&latestOnly=true") as answer:
        text = await answer.text()
    assert (answer.status, answer.headers["content-type"]) == (200, "application/x-ndjson")
    assert [json.loads(line)["student"] for line in text.splitlines()] == ["cay", "bob", "ann"]


async def test_a_refusal_is_json(http: aiohttp.ClientSession) -> None:
    async with http.get(f"/v1/{PARENT}-not:export") as answer:
        body = await answer.text()
    assert answer.status == 404
    assert "RESOURCE_NOT_FOUND" in body


async def test_a_file_that_breaks_off_says_so(
    storage: Storage, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "_PAGE", 1)
    monkeypatch.setattr(storage, "breaks", True)
    async with http.get(f"/v1/{PARENT}:export") as answer:
        lines = (await answer.text()).splitlines()
    # The status was sent with the first part, and Envoy ends the body as if all were well.
    assert (answer.status, len(lines), lines[1].split(",")[0]) == (200, 3, "cay")
    assert lines[-1].startswith("INCOMPLETE: this file is not complete: shard-1")
