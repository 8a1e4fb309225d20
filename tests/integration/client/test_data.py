"""Grades as a file, with the client and the command line, against a real gateway in memory."""

import json
import os
from pathlib import Path

import pytest

from cinnabar_client import Client
from cinnabar_common.errors import DependencyUnavailable
from cinnabar_gateway import exports
from cinnabar_gateway.adapters.memory import MemoryStorage
from cinnabar_gateway.records import SubmissionPage
from tests.support.client_cli import run
from tests.support.gateway_world import INSTRUCTOR, PARENT, World, world

TOKEN = "dev.uni.instructor.prof"


def address(gateway: World) -> str:
    return f"127.0.0.1:{gateway.gateway.port}"


async def test_grades_are_exported() -> None:
    async with world() as w, Client(address(w), token=TOKEN) as client:
        await w.assignment()
        names = [(await w.submission(author=author, metadata=INSTRUCTOR)).name for author in ("a", "b", "a")]
        parts = [part async for part in client.export_grades(PARENT, latest_only=True)]
        assert b"".join(parts).count(b"courses/net/") == 2
        ran = await run(address(w), "export", "net/a1", "--format", "gradescope", token=TOKEN)
        assert [json.loads(line)["submission"] for line in ran.out.splitlines()] == names[::-1]


class Breaking(MemoryStorage):
    """Gives one page of one submission, then no more."""

    async def list_submissions(self, *args: object, **options: object) -> SubmissionPage:
        """See SubmissionStore."""
        if options["before"]:
            raise DependencyUnavailable("storage")
        return await super().list_submissions(*args, **options)  # pyright: ignore[reportArgumentType]


async def test_a_file_is_complete_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "_PAGE", 1)
    async with world(storage=Breaking()) as w:
        await w.assignment()
        await w.submission(author="a", metadata=INSTRUCTOR)
        file = tmp_path / "grades.csv"
        whole = await run(address(w), "export", "net/a1", "-o", str(file), token=TOKEN)
        assert (whole.code, whole.out, file.read_text("utf-8").count("\n")) == (0, "", 2)
        file.unlink()
        await w.submission(author="b", metadata=INSTRUCTOR)
        broken = await run(address(w), "export", "net/a1", "-o", str(file), token=TOKEN)
        assert (broken.code, "DEPENDENCY_UNAVAILABLE" in broken.err) == (1, True)
        assert os.listdir(tmp_path) == []
        piped = await run(address(w), "export", "net/a1", token=TOKEN)
        assert (piped.code, "INCOMPLETE" in piped.out.splitlines()[-1]) == (1, True)


async def test_grades_are_shown_in_numbers() -> None:
    async with world() as w, Client(address(w), token=TOKEN) as client:
        await w.assignment()
        for author, score in (("a", 1.0), ("b", 4.0)):
            w.grade(await w.submission(author=author, metadata=INSTRUCTOR), "explain", score)
        found = await client.statistics(PARENT)
        assert [(one.item, one.scores.mean, one.scores.standard_deviation) for one in found.items] == [
            ("explain", 2.5, 1.5)
        ]
        shown = await run(address(w), "statistics", "net/a1", token=TOKEN)
        assert (shown.code, "explain" in shown.out, "2.5" in shown.out) == (0, True, True)


async def test_a_student_is_erased() -> None:
    operator = "dev.uni.operator.root"
    async with world() as w:
        await w.assignment()
        await w.submission(author="ann", metadata=INSTRUCTOR)
        await w.submission(author="bob", metadata=INSTRUCTOR)
        asked = ("ops", "erase", "ann", "--reason", "left", "--json")
        unsure = await run(address(w), *asked, token=operator)
        assert (unsure.code, len(w.storage.submissions)) == (130, 2)
        done = await run(address(w), *asked, "--yes", "--wait", "5", token=operator)
        assert (done.code, done.document["state"], done.document["submissions"]) == (0, "ERASED", "1")
        assert [one.author for one in w.storage.submissions.values()] == ["bob"]
        proof = await run(address(w), "ops", "erasure", done.document["name"], token=operator)
        assert (proof.code, "left" in proof.out, "ann" in proof.out) == (0, True, False)
