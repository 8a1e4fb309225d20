"""Graders made of a function: what it is given, and what becomes of what it says."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from google.protobuf.struct_pb2 import Struct

from cinnabar.grader.v1.item_pb2 import CustomSpec, FreeTextSpec, Item
from cinnabar_grader.convert import compile_item
from cinnabar_grader.graders import CodeAnswer, FailureCode, Graded, LeaseToken, Task, Ungradable
from cinnabar_grader.sdk import FunctionGrader, Given, NumberAnswer, Part, Score, Unable

CONFIG = Struct()
CONFIG.update({"words": 4, "names": ["a", "b"], "deep": {"yes": True}})
PLAIN = compile_item(Item(item="q", points=2, prompt="Say.", custom=CustomSpec(kind="count", config=CONFIG)))
RUBRIC = compile_item(
    Item(
        item="q",
        points=3,
        custom=CustomSpec(
            kind="count",
            criteria=[
                FreeTextSpec.Criterion(criterion="form", description="It is well formed.", points=1),
                FreeTextSpec.Criterion(criterion="content", description="It is right.", points=2),
            ],
        ),
    )
)


def task(answer: object = "two words", item: object = PLAIN) -> Task:
    return Task(LeaseToken("1-x"), "custom-count", item, answer, attempt=2)  # pyright: ignore[reportArgumentType]


async def graded(function: Callable[[Given], Score | Awaitable[Score]], work: Task) -> Graded:
    outcome = await FunctionGrader("count", function, version="7").grade(work, lambda progress: None)
    assert isinstance(outcome, Graded)
    return outcome


async def test_a_function_is_given_the_answer_and_the_item() -> None:
    seen: list[Given] = []

    def grade(given: Given) -> Score:
        seen.append(given)
        return Score(given.points / 2, "half", flags=["SHORT"], needs_review=True, model="m")

    outcome = await graded(grade, task())
    given = seen[0]
    assert (given.text, given.points, given.prompt, given.attempt) == ("two words", 2, "Say.", 2)
    assert given.config == {"words": 4.0, "names": ["a", "b"], "deep": {"yes": True}}
    assert (outcome.score, outcome.max_score, outcome.feedback) == (1, 2, "half")
    assert (outcome.needs_review, list(outcome.flags)) == (True, ["SHORT"])
    assert [(part.criterion, part.score, part.max_score) for part in outcome.criteria] == [("answer", 1, 2)]
    made_by = outcome.provenance
    assert (made_by.grader, made_by.version, made_by.model) == ("count", "7", "m")


@pytest.mark.parametrize(
    ("answer", "text", "options", "number", "files"),
    [
        ("words", "words", frozenset[str](), None, {}),
        (frozenset({"a"}), "", frozenset({"a"}), None, {}),
        (NumberAnswer(1.5, "m"), "", frozenset[str](), NumberAnswer(1.5, "m"), {}),
        (CodeAnswer({"main.py": "1"}), "", frozenset[str](), None, {"main.py": "1"}),
        (None, "", frozenset[str](), None, {}),
    ],
)
async def test_every_form_of_answer_has_its_view(
    answer: object, text: str, options: frozenset[str], number: NumberAnswer | None, files: dict[str, str]
) -> None:
    def grade(given: Given) -> Score:
        assert (given.text, given.options, given.number, given.files) == (text, options, number, files)
        return Score(0)

    assert (await graded(grade, task(answer))).score == 0


async def test_a_rubric_wants_all_of_its_parts() -> None:
    def whole(given: Given) -> Score:
        assert given.criteria == {"form": 1, "content": 2}
        return Score(2.5, parts={"content": Part(1.5, "nearly", 0.5), "form": Part(1)})

    outcome = await graded(whole, task(item=RUBRIC))
    assert [(part.criterion, part.score, part.max_score, part.confidence) for part in outcome.criteria] == [
        ("form", 1, 1, 1.0),
        ("content", 1.5, 2, 0.5),
    ]
    with pytest.raises(ValueError, match="criteria"):
        await graded(lambda given: Score(1, parts={"form": Part(1)}), task(item=RUBRIC))


@pytest.mark.parametrize("score", [-0.1, 2.1, float("nan")])
async def test_a_score_out_of_range_is_a_defect(score: float) -> None:
    with pytest.raises(ValueError, match="within 0"):
        await graded(lambda given: Score(score), task())


@pytest.mark.parametrize(
    ("retry", "code"), [(True, FailureCode.UNAVAILABLE), (False, FailureCode.FAILED_PRECONDITION)]
)
async def test_who_is_unable_says_whether_a_retry_helps(retry: bool, code: FailureCode) -> None:
    def unable(given: Given) -> Score:
        raise Unable("the dictionary is away", retry=retry)

    with pytest.raises(Ungradable) as caught:
        await graded(unable, task())
    assert (caught.value.code, caught.value.message) == (code, "the dictionary is away")


async def test_coroutines_run_at_once_and_other_functions_in_threads() -> None:
    together = asyncio.Barrier(2)

    async def waits(given: Given) -> Score:
        await together.wait()
        return Score(1)

    async with asyncio.timeout(5):
        first, second = await asyncio.gather(graded(waits, task()), graded(waits, task()))
    assert (first.score, second.score) == (1, 1)

    loop = asyncio.get_running_loop()

    def blocks(given: Given) -> Score:
        return asyncio.run_coroutine_threadsafe(asyncio.sleep(0, Score(2)), loop).result(5)

    assert (await graded(blocks, task())).score == 2  # it would wait for itself on the event loop


async def test_an_item_of_another_kind_is_refused() -> None:
    with pytest.raises(Ungradable) as caught:
        await graded(lambda given: Score(0), task(item=None))
    assert caught.value.code is FailureCode.INTERNAL
