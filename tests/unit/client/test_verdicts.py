"""Tests, progress and provenance as a person reads them."""

from google.protobuf.duration_pb2 import Duration
from rich.console import Console, RenderableType

from cinnabar.gateway.v1.submission_service_pb2 import ItemResult, Submission
from cinnabar.grader.v1 import grade_pb2
from cinnabar_client import render
from tests.support.gateway_code import code_answers, code_grade, code_item, llm_item

Result = grade_pb2.TestResult


def printed(shown: RenderableType) -> str:
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        console.print(shown)
    return console.export_text()


def graded() -> grade_pb2.Grade:
    grade = code_grade()
    made_by = grade_pb2.Provenance(grader="code", version="1")
    for criterion in grade.criteria:
        criterion.provenance.CopyFrom(made_by)
    grade.tests.append(
        Result(
            test="crash",
            verdict=Result.RUNTIME_ERROR,
            signal="SIGSEGV",
            max_score=2,
            cpu_time=Duration(nanos=120_000_000),
            wall_time=Duration(seconds=1, nanos=500_000_000),
            memory_bytes=5 << 20,
        )
    )
    return grade


def test_each_test_has_its_verdict_points_time_and_memory() -> None:
    result = ItemResult(item="search", state=ItemResult.GRADED, grade=graded())
    text = printed(render.item_result(result, code_answers()[0], code_item()))
    for words in (
        *("main.py (", "accepted", "wrong answer hidden", "runtime error (SIGSEGV)", "1 / 1", "0 / 2"),
        *("120 ms of 1.50 s", "5.0 MiB", "A corner", "fine", "code 1", "1 of 2 tests passed."),
    ):
        assert words in text, words
    assert "criterion" not in text  # the table of tests says more


def test_progress_is_shown_until_the_grade_is_there() -> None:
    result = ItemResult(item="search", state=ItemResult.QUEUED, progress=code_grade().tests)
    submission = Submission(name="s", results=[result])
    assert "search: 2 tests finished, 1 accepted" in render.submission_line(submission).plain
    text = printed(render.submission(submission))
    assert "no grade yet" in text
    assert "wrong answer hidden" in text


def test_a_score_says_who_made_it_from_what_and_instead_of_whom() -> None:
    grade = grade_pb2.Grade(
        score=1,
        max_score=3,
        criteria=[
            grade_pb2.CriterionScore(
                criterion="what",
                score=1,
                max_score=1,
                evidence=["the window"],
                provenance=grade_pb2.Provenance(
                    grader="llm", version="2", model="tutor", input_tokens=90, output_tokens=7
                ),
            ),
            grade_pb2.CriterionScore(
                criterion="why",
                max_score=2,
                provenance=grade_pb2.Provenance(
                    grader="semantic", version="3", shared=True, fallback=True, fallback_reason="BREAKER_OPEN"
                ),
            ),
        ],
    )
    result = ItemResult(item="essay", state=ItemResult.GRADED, grade=grade)
    text = " ".join(printed(render.item_result(result, item=llm_item())).replace("│", " ").split())
    for words in ("“the window”", "llm 2, tutor, 90 + 7 tokens", "shared with", "BREAKER_OPEN", "stood in"):
        assert words in text, words
