"""Answers that are files, and results that are: fetched aside, put away before they are reported."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import pytest

from cinnabar.grader.v1.grade_pb2 import Answer
from cinnabar_grader import convert
from cinnabar_grader.answer_files import MAX_ARTIFACTS, NotText
from cinnabar_grader.free_text import Criterion, FreeTextItem
from cinnabar_grader.graders import (
    ANSWER,
    Artifact,
    CriterionScore,
    Failed,
    FailureCode,
    FileAnswer,
    Graded,
    Grader,
    LeaseToken,
    Outcome,
    Progress,
    Provenance,
    StoredArtifact,
    Task,
    Ungradable,
)
from cinnabar_grader.pipeline import Desk, Lane
from cinnabar_grader.rules.text import TextRule, text_grader
from cinnabar_grader.transfers import FILES_AT_ONCE
from tests.support.waiting import until

RULE = TextRule(points=2, accepted=["red ink"])


class Shelf:
    """Implements Files. A file is there once it is put; ``away`` says that nothing is."""

    def __init__(self) -> None:
        self.texts: dict[str, str | Exception] = {}
        self.asked: list[str] = []
        self.kept: list[Artifact] = []
        self.arrived = asyncio.Condition()
        self.away = False

    async def put(self, upload: str, text: str | Exception) -> None:
        async with self.arrived:
            self.texts[upload] = text
            self.arrived.notify_all()

    async def answer(self, token: LeaseToken, file: FileAnswer, *, archives: bool = False) -> str:
        self.asked.append(file.upload)
        async with self.arrived:
            await self.arrived.wait_for(lambda: file.upload in self.texts)
        text = self.texts[file.upload]
        if isinstance(text, Exception):
            raise text
        return text

    async def keep(self, token: LeaseToken, artifact: Artifact) -> StoredArtifact:
        if self.away:
            raise Ungradable(FailureCode.UNAVAILABLE, "no place")
        self.kept.append(artifact)
        return StoredArtifact(artifact.title, artifact.content_type, "up", len(artifact.content), b"s" * 32)


class Tray:
    """Tasks in, outcomes out."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self.tasks = list(tasks)
        self.outcomes: dict[str, Outcome] = {}

    def start(self, name: str, limit: int) -> list[Task]:
        batch, self.tasks = self.tasks[:limit], self.tasks[limit:]
        return batch

    def finished(self, outcomes: Iterable[Outcome]) -> None:
        self.outcomes.update((outcome.token, outcome) for outcome in outcomes)

    def progressed(self, progress: Progress) -> None:
        raise AssertionError("texts have no progress")

    async def until(self, *tokens: str) -> None:
        await until(lambda: self.outcomes.keys() == set(tokens), f"outcomes of {tokens}")


def task(token: str, upload: str = "", *, item: object = RULE, text: str = "red ink") -> Task:
    answer = FileAnswer(upload, 7, b"s" * 32) if upload else text
    return Task(LeaseToken(token), "text", item, answer)


@asynccontextmanager
async def working(tray: Tray, shelf: Shelf | None, grader: Grader | None = None) -> AsyncGenerator[Lane]:
    with ThreadPoolExecutor(1) as executor:
        desk = Desk(work=tray, reported=lambda: None, files=shelf)
        lane = Lane(grader or text_grader(), desk, executor)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(lane.run())
            yield lane
            running.cancel()


async def test_a_file_is_graded_as_the_text_that_it_holds() -> None:
    tray, shelf = Tray([task("right", "u1"), task("wrong", "u2")]), Shelf()
    await shelf.put("u1", " Red  ink")
    await shelf.put("u2", "blue ink")
    async with working(tray, shelf):
        await tray.until("right", "wrong")
    grades = tray.outcomes
    right, wrong = grades["right"], grades["wrong"]
    assert isinstance(right, Graded)
    assert isinstance(wrong, Graded)
    assert (right.score, wrong.score) == (2, 0)


async def test_a_file_that_does_not_come_holds_up_nobody_else() -> None:
    tray, shelf = Tray([task("slow", "u1"), task("text"), task("quick", "u2")]), Shelf()
    await shelf.put("u2", "red ink")
    async with working(tray, shelf) as lane:
        await tray.until("text", "quick")
        tray.tasks.append(task("later"))
        lane.wake()
        await tray.until("text", "quick", "later")
        await shelf.put("u1", "red ink")
        await tray.until("text", "quick", "later", "slow")


async def test_few_files_are_in_memory_at_once() -> None:
    count = FILES_AT_ONCE + 3
    tray, shelf = Tray([task(str(n), f"u{n}") for n in range(count)]), Shelf()
    async with working(tray, shelf):
        await until(lambda: len(shelf.asked) == FILES_AT_ONCE, "as many as there is room for")
        for n in range(count):
            await shelf.put(f"u{n}", "red ink")
        await tray.until(*map(str, range(count)))
    assert len(shelf.asked) == count


async def test_a_file_that_cannot_be_had_costs_the_student_nothing() -> None:
    tray, shelf = Tray([task("away", "u1")]), Shelf()
    await shelf.put("u1", Ungradable(FailureCode.UNAVAILABLE, "away"))
    async with working(tray, shelf):
        await tray.until("away")
    assert tray.outcomes["away"] == Failed(LeaseToken("away"), FailureCode.UNAVAILABLE, "away")


@pytest.mark.parametrize(
    ("item", "criteria"),
    [
        (RULE, {ANSWER: 2}),
        (FreeTextItem(points=3, references=["红墨水"]), {ANSWER: 3}),
        (
            FreeTextItem(
                points=3, references=["Ink."], criteria=[Criterion("a", "A", 1), Criterion("b", "B", 2)]
            ),
            {"a": 1, "b": 2},
        ),
    ],
)
async def test_a_file_that_is_no_text_is_graded_with_nothing(
    item: object, criteria: dict[str, float]
) -> None:
    tray, shelf = Tray([task("bytes", "u1", item=item)]), Shelf()
    await shelf.put("u1", NotText())
    async with working(tray, shelf):
        await tray.until("bytes")
    grade = tray.outcomes["bytes"]
    assert isinstance(grade, Graded)
    assert (grade.score, grade.max_score, list(grade.flags)) == (0, sum(criteria.values()), ["NOT_TEXT"])
    assert {part.criterion: part.max_score for part in grade.criteria} == criteria
    assert "UTF-8" in grade.feedback
    assert convert.report_of([grade]).report.outcomes[0].HasField("grade")


async def test_a_file_is_not_graded_where_there_are_none() -> None:
    tray = Tray([task("file", "u1")])
    async with working(tray, None):
        await tray.until("file")
    failed = tray.outcomes["file"]
    assert isinstance(failed, Failed)
    assert failed.code is FailureCode.INVALID_ARGUMENT


async def test_a_cancelled_task_is_not_fetched() -> None:
    gone = task("gone", "u1")
    gone.cancelled = True
    tray, shelf = Tray([gone, task("text")]), Shelf()
    async with working(tray, shelf):
        await tray.until("text")
    assert shelf.asked == []


class Chatty:
    """A grader that writes a log for every task."""

    name = "chatty"
    version = "1"
    queue = "text"
    batch_limit = 10

    def __init__(self, *artifacts: Artifact) -> None:
        self._artifacts = artifacts

    def blocking(self, batch: Sequence[Task]) -> bool:
        return False

    def grade(self, batch: Sequence[Task]) -> list[Outcome]:
        parts = [CriterionScore(ANSWER, 1, 1)]
        provenance = Provenance(self.name, self.version)
        return [
            Graded(one.token, 1, 1, parts, "", provenance, artifacts=list(self._artifacts)) for one in batch
        ]


LOG = Artifact("log", "text/plain", b"what happened")


async def test_artifacts_are_put_away_before_the_grade_is_reported() -> None:
    tray, shelf = Tray([task("a")]), Shelf()
    async with working(tray, shelf, Chatty(LOG)):
        await tray.until("a")
    assert shelf.kept == [LOG]
    [outcome] = convert.report_of([tray.outcomes["a"]]).report.outcomes
    [artifact] = outcome.grade.artifacts
    assert (artifact.upload, artifact.title, artifact.content_type) == ("up", "log", "text/plain")
    assert (artifact.size_bytes, artifact.sha256) == (13, b"s" * 32)


async def test_a_grade_whose_artifacts_have_no_place_is_tried_again() -> None:
    tray, shelf = Tray([task("a")]), Shelf()
    shelf.away = True
    async with working(tray, shelf, Chatty(LOG)):
        await tray.until("a")
    assert tray.outcomes["a"] == Failed(LeaseToken("a"), FailureCode.UNAVAILABLE, "no place")


@pytest.mark.parametrize(
    "artifacts",
    [
        [LOG] * (MAX_ARTIFACTS + 1),
        [Artifact("", "text/plain", b"x")],
        [Artifact("t" * 129, "text/plain", b"x")],
        [Artifact("empty", "text/plain", b"")],
    ],
)
async def test_artifacts_keep_to_the_rules(artifacts: list[Artifact]) -> None:
    tray, shelf = Tray([task("a")]), Shelf()
    async with working(tray, shelf, Chatty(*artifacts)):
        await tray.until("a")
    failed = tray.outcomes["a"]
    assert isinstance(failed, Failed)
    assert failed.code is FailureCode.INTERNAL
    assert shelf.kept == []


def test_a_file_is_known_by_its_answer() -> None:
    file = Answer.File(upload="u", content_type="text/plain", size_bytes=3, sha256=b"s" * 32)
    assert convert.answer_of(Answer(item="q", file=file)) == FileAnswer("u", 3, b"s" * 32)
