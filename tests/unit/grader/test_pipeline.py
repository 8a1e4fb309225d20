"""One bad task, or one bad grader, harms nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from cinnabar_grader.graders import (
    BrokenItem,
    Failed,
    FailureCode,
    Graded,
    LeaseToken,
    NumberAnswer,
    Outcome,
    Progress,
    Task,
    Ungradable,
)
from cinnabar_grader.pipeline import Desk, Lane, graded
from cinnabar_grader.rules.choice import choice_grader
from cinnabar_grader.rules.judging import RuleGrader, Verdict
from cinnabar_grader.rules.numeric import NumericRule, numeric_grader
from cinnabar_grader.rules.text import TextRule, text_grader

TEXT = TextRule(points=1, accepted=["yes"])
NUMBER = NumericRule(points=1, value=1)


def task(name: str, item: object = TEXT, answer: object = "yes") -> Task:
    return Task(LeaseToken(name), "text", item, answer)  # pyright: ignore[reportArgumentType]


class Picky:
    """Breaks when a task of the batch is called bad; forgets those called lost."""

    name = queue = "text"
    version = "1"
    batch_limit = 3

    def __init__(self, *, blocks: bool = False) -> None:
        self._blocks = blocks

    def blocking(self, batch: Sequence[Task]) -> bool:
        return self._blocks

    def grade(self, batch: Sequence[Task]) -> list[Outcome]:
        if any(task.token.startswith("bad") for task in batch):
            raise RuntimeError("the student wrote: secret")
        return text_grader().grade([task for task in batch if not task.token.startswith("lost")])


class Away(Picky):
    """Cannot reach what it needs."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error
        self.calls = 0

    def grade(self, batch: Sequence[Task]) -> list[Outcome]:
        self.calls += 1
        raise self._error


@pytest.mark.parametrize(
    ("error", "code", "calls"),
    [
        (ConnectionRefusedError("10.0.0.1"), FailureCode.UNAVAILABLE, 1),
        (TimeoutError(), FailureCode.UNAVAILABLE, 1),
        (Ungradable(FailureCode.UNAVAILABLE, "the model is away"), FailureCode.UNAVAILABLE, 1),
        (Ungradable(FailureCode.FAILED_PRECONDITION, "no such test"), FailureCode.FAILED_PRECONDITION, 3),
        (KeyError("secret"), FailureCode.INTERNAL, 3),
    ],
)
def test_what_a_grader_raises_says_how_the_task_is_tried_again(
    error: Exception, code: FailureCode, calls: int
) -> None:
    grader = Away(error)
    outcomes = graded(grader, [task("a"), task("b")])
    assert [outcome.token for outcome in outcomes] == ["a", "b"]
    for outcome in outcomes:
        assert isinstance(outcome, Failed)
        assert outcome.code is code
        assert "secret" not in outcome.message
        assert "10.0.0.1" not in outcome.message
    assert grader.calls == calls


def test_cancelled_tasks_are_not_worked_on() -> None:
    class Cancelling(Picky):
        """Grades one task after the other; the last is cancelled meanwhile."""

        def grade(self, batch: Sequence[Task]) -> list[Outcome]:
            assert [one.token for one in batch] == ["a", "b"]
            batch[1].cancelled = True
            return super().grade(batch)

    tasks = [task("a"), task("gone"), task("b")]
    tasks[1].cancelled = True
    assert [outcome.token for outcome in graded(Cancelling(), tasks)] == ["a"]
    assert graded(Picky(), tasks[1:]) == []


@pytest.mark.parametrize("bad", ["bad", "lost"])
def test_a_bad_task_of_a_batch_fails_alone(bad: str, caplog: pytest.LogCaptureFixture) -> None:
    outcomes = graded(Picky(), [task("a"), task(bad), task("b")])
    results = {outcome.token: outcome for outcome in outcomes}
    assert len(outcomes) == 3
    assert isinstance(results[LeaseToken("a")], Graded)
    assert isinstance(results[LeaseToken("b")], Graded)
    failure = results[LeaseToken(bad)]
    assert isinstance(failure, Failed)
    assert failure.code is FailureCode.INTERNAL
    assert "secret" not in failure.message + caplog.text


class Exploding:
    """A rule with a defect."""

    points = 1.0
    slow = False

    def verdict(self, answer: str) -> Verdict:
        raise ZeroDivisionError(answer)


def test_a_rule_with_a_defect_fails_its_own_task() -> None:
    grader = RuleGrader("text", version="1", rule=Exploding, answer=str)
    outcomes = grader.grade([task("a", Exploding()), task("b", TEXT)])
    assert [type(outcome) for outcome in outcomes] == [Failed, Failed]
    first, second = outcomes
    assert isinstance(first, Failed)
    assert isinstance(second, Failed)
    assert first.code is FailureCode.INTERNAL
    assert first.message == "the grader of 'text' broke: ZeroDivisionError"
    assert second.code is FailureCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("item", "answer", "code", "words"),
    [
        (None, "yes", FailureCode.INTERNAL, "not sent"),
        (BrokenItem("no points"), "yes", FailureCode.FAILED_PRECONDITION, "no points"),
        (NUMBER, "yes", FailureCode.INVALID_ARGUMENT, "not one of the queue"),
        (TEXT, None, FailureCode.INVALID_ARGUMENT, "no answer"),
        (TEXT, NumberAnswer(1), FailureCode.INVALID_ARGUMENT, "type"),
        (TEXT, frozenset("a"), FailureCode.INVALID_ARGUMENT, "type"),
    ],
)
def test_malformed_tasks(item: object, answer: object, code: FailureCode, words: str) -> None:
    good, bad = text_grader().grade([task("good"), task("bad", item, answer)])
    assert isinstance(good, Graded)
    assert isinstance(bad, Failed)
    assert bad.code is code
    assert words in bad.message


def test_a_grade_says_who_made_it() -> None:
    (grade,) = numeric_grader().grade([task("a", NUMBER, NumberAnswer(1))])
    assert isinstance(grade, Graded)
    assert (grade.score, grade.max_score) == (1, 1)
    (criterion,) = grade.criteria
    assert (criterion.criterion, criterion.score, criterion.confidence) == ("answer", 1, 1)
    assert (grade.provenance.grader, grade.provenance.model, grade.provenance.fallback) == (
        "numeric",
        "",
        False,
    )
    assert grade.provenance.seconds > 0


def test_only_slow_rules_block() -> None:
    assert not choice_grader().blocking([task("a")])
    assert not text_grader().blocking([task("a"), task("b", None)])
    assert text_grader().blocking([task("a"), task("b", TextRule(points=1, pattern="x"))])
    assert text_grader().blocking([task("a"), task("b", answer="long " * 10_000)])


class Tray:
    """Tasks in, outcomes out."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self.tasks = list(tasks)
        self.outcomes: list[Outcome] = []
        self.batches: list[int] = []

    def start(self, name: str, limit: int) -> list[Task]:
        batch, self.tasks = self.tasks[:limit], self.tasks[limit:]
        if batch:
            self.batches.append(len(batch))
        return batch

    def finished(self, outcomes: Iterable[Outcome]) -> None:
        self.outcomes += outcomes

    def progressed(self, progress: Progress) -> None:
        raise AssertionError("batches have no progress")


@pytest.mark.parametrize("blocks", [False, True])
async def test_a_lane_works_in_batches_and_tells(blocks: bool) -> None:
    tray = Tray([task(str(number)) for number in range(7)])
    done = asyncio.Event()
    with ThreadPoolExecutor(1) as executor:
        lane = Lane(Picky(blocks=blocks), Desk(work=tray, reported=done.set), executor)
        assert await lane.run_once() == 3
        assert done.is_set()
        assert [outcome.token for outcome in tray.outcomes] == ["0", "1", "2"]
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            running = group.create_task(lane.run())
            while len(tray.outcomes) < 7:
                done.clear()
                await done.wait()
            tray.tasks.append(task("late"))
            lane.wake()
            while len(tray.outcomes) < 8:
                done.clear()
                await done.wait()
            running.cancel()
        assert await lane.run_once() == 0
    assert tray.batches == [3, 3, 1, 1]
