"""A file on its whole way, as students send it: announced over REST, sent to S3, handed in, graded, read."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from cinnabar_client import ApiError, Client
from cinnabar_local.stack import Stack
from tests.support.client_cli import run

QUIZ = {
    "display_name": "Essays",
    "items": [
        {"item": "name", "points": 1, "text": {"accepted": ["red ink"]}},
        {"item": "why", "points": 4, "free_text": {"references": ["Examiners marked papers with red ink."]}},
    ],
}
NAME = b"Red  ink\n"
WHY = "朱砂是一种红色的颜料。 Examiners marked papers with red ink. ".encode() * 6_000
WAIT_SECONDS = 60.0


@pytest_asyncio.fixture
async def parent(stack: Stack, tenant: str) -> str:
    """An assignment of two items that are answered with text."""
    async with Client(stack.addresses.envoy, token=f"dev.{tenant}.instructor.grace") as teacher:
        return (await teacher.create_assignment("ink", QUIZ, assignment_id="essays")).name


@pytest_asyncio.fixture
async def rest(stack: Stack, tenant: str) -> AsyncGenerator[aiohttp.ClientSession]:
    """A student's HTTP client."""
    headers = {"authorization": f"Bearer dev.{tenant}.student.ada"}
    async with aiohttp.ClientSession(stack.addresses.http, headers=headers) as session:
        yield session


async def announced(rest: aiohttp.ClientSession, parent: str, item: str, content: bytes) -> dict[str, Any]:
    upload = {
        "item": item,
        "contentType": "text/plain",
        "sizeBytes": str(len(content)),
        "sha256": base64.b64encode(hashlib.sha256(content).digest()).decode(),
    }
    async with rest.post(f"/v1/{parent}/uploads", json=upload) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


async def sent(upload: dict[str, Any], content: bytes) -> int:
    """What S3 says to the form."""
    form = aiohttp.FormData()
    for field in upload["fields"]:
        form.add_field(field["name"], field["value"])
    form.add_field("file", content, filename="answer.txt", content_type="text/plain")
    async with aiohttp.ClientSession() as s3, s3.post(upload["url"], data=form) as answer:
        return answer.status


async def test_a_file_goes_past_the_suite_and_is_graded(
    stack: Stack, rest: aiohttp.ClientSession, parent: str, tenant: str
) -> None:
    name, why = await announced(rest, parent, "name", NAME), await announced(rest, parent, "why", WHY)
    assert str(name["url"]).startswith(stack.addresses.s3_endpoint)
    assert await sent(name, NAME.upper()) == 400  # another file
    body = {
        "answers": [
            {"item": "name", "file": {"upload": name["name"]}},
            {"item": "why", "file": {"upload": why["name"]}},
        ]
    }
    async with rest.post(f"/v1/{parent}/submissions", json=body) as answer:
        assert answer.status == 400
        info = next(d for d in (await answer.json())["details"] if d["@type"].endswith("ErrorInfo"))
        assert (info["reason"], info["metadata"]["rule"]) == ("UPLOAD_NOT_READY", "object")
    assert await sent(name, NAME) == 204
    assert await sent(why, WHY) == 204
    headers = {"idempotency-key": "once"}
    async with rest.post(f"/v1/{parent}/submissions", json=body, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        submission = await answer.json()
    assert submission["answers"][1]["file"]["sizeBytes"] == str(len(WHY))
    async with rest.post(f"/v1/{parent}/submissions", json=body, headers=headers) as answer:
        assert (await answer.json())["name"] == submission["name"]
    async with Client(stack.addresses.envoy, token=f"dev.{tenant}.student.ada") as student:
        graded = await student.wait_graded(submission["name"], timeout=WAIT_SECONDS)
        assert graded.results[0].grade.score == 1
        assert graded.results[1].grade.score > 2
        assert await student.download(why["name"]) == WHY
    async with rest.post(f"/v1/{why['name']}:download", json={}) as answer:
        link = await answer.json()
    assert str(link["url"]).startswith(stack.addresses.s3_endpoint)
    async with aiohttp.ClientSession() as s3, s3.get(link["url"]) as answer:
        assert await answer.read() == WHY
        assert answer.headers["content-disposition"] == "attachment"


async def test_the_command_line_uploads_hands_in_and_reads(
    stack: Stack, parent: str, tenant: str, tmp_path: Path
) -> None:
    essay = tmp_path / "essay.md"
    essay.write_bytes(b"Examiners marked papers with red ink.")
    address, token = stack.addresses.envoy, f"dev.{tenant}.student.bob"
    target = parent.replace("courses/", "").replace("assignments/", "")
    ran = await run(
        *(address, "submit", target, "--answer", "name=red ink", "--answer-file", f"why={essay}"),
        *("--wait", "--json"),
        token=token,
    )
    assert ran.code == 0, ran.err
    file = next(answer["file"] for answer in ran.document["answers"] if answer["item"] == "why")
    assert file["contentType"] == "text/markdown"
    copy = tmp_path / "copy"
    ran = await run(address, "download", file["upload"], "--output", str(copy), token=token)
    assert (ran.code, copy.read_bytes()) == (0, essay.read_bytes())
    ran = await run(address, "upload", target, "why", str(essay), "--json", token=token)
    assert ran.code == 0, ran.err
    assert ran.document["name"].startswith(f"{parent}/uploads/")
    assert "fields" not in ran.document
    async with Client(address, token=f"dev.{tenant}.student.eve") as other:
        with pytest.raises(ApiError) as refused:
            await other.download(file["upload"])
    assert refused.value.reason == "RESOURCE_NOT_FOUND"
    ran = await run(address, "submit", target, "--answer-file", "nowhere=x", token=token)
    assert ran.code == 2


async def test_no_log_has_a_form_or_a_link(
    rest: aiohttp.ClientSession, parent: str, server_folder: Path
) -> None:
    upload = await announced(rest, parent, "name", NAME)
    assert await sent(upload, NAME) == 204
    fields = {field["name"]: field["value"] for field in upload["fields"]}
    secrets = [fields["x-amz-signature"].encode(), fields["policy"].encode(), b"X-Amz-Signature"]
    texts = await asyncio.to_thread(_logs, server_folder / "suite")
    assert "storage-0.log" in texts
    assert not [name for name, text in texts.items() if any(secret in text for secret in secrets)]


def _logs(folder: Path) -> dict[str, bytes]:
    """What the services of the suite wrote; S3 itself may tell what it was asked."""
    paths = [path for path in folder.glob("**/*.log") if not path.name.startswith("seaweedfs")]
    return {path.name: path.read_bytes() for path in paths}
