"""Items that programs, language models and graders of somebody's own grade, and answers to them."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct

from cinnabar.grader.v1.grade_pb2 import Answer, CriterionScore, Grade, TestResult
from cinnabar.grader.v1.item_pb2 import (
    CallTest,
    Checker,
    CodeLimits,
    CodeSpec,
    CodeTest,
    CustomSpec,
    FreeTextSpec,
    GradedExample,
    Item,
    LlmSpec,
    ScriptTest,
    SourceFile,
    StdioTest,
)


def code_item() -> Item:
    """A program in Python with tests of every form, some of them hidden."""
    return Item(
        item="search",
        prompt="Find the place of a number.",
        points=4,
        code=CodeSpec(
            language=CodeSpec.Language.PYTHON,
            files=[SourceFile(path="data/numbers.txt", content="secret numbers")],
            limits=CodeLimits(cpu_time=Duration(seconds=2), memory_bytes=64 << 20, processes=8),
            preamble="import math\n",
            tests=[
                CodeTest(
                    test="call",
                    title="In the middle",
                    points=1,
                    call=CallTest(call="search(5, (1, 5, 9))", expected="1", tolerance=1e-6),
                ),
                CodeTest(
                    test="hidden-call",
                    title="A corner",
                    points=1,
                    hidden=True,
                    call=CallTest(call="search(secret_corner)", expected="'secret value'"),
                ),
                CodeTest(
                    test="stdio",
                    points=1,
                    stdio=StdioTest(
                        input="3\n",
                        expected_output="seen by all\n",
                        checker=Checker(program=Checker.Program(source="secret_checker()")),
                    ),
                ),
                CodeTest(
                    test="hidden-stdio",
                    points=1,
                    hidden=True,
                    stdio=StdioTest(
                        input="secret input",
                        arguments=["--secret"],
                        expected_output="secret output",
                        checker=Checker(numbers=Checker.Numbers(absolute_tolerance=0.5)),
                    ),
                ),
            ],
        ),
    )


def script_item() -> Item:
    """A program in C++ that a script of the instructor's tests."""
    return Item(
        item="script",
        points=2,
        code=CodeSpec(
            language=CodeSpec.Language.CPP,
            script=ScriptTest(
                files=[SourceFile(path="run_tests.py", content="secret_tests()")],
                command=["python3", "run_tests.py", "--secret"],
                form=ScriptTest.Form.PRAIRIELEARN,
            ),
        ),
    )


def llm_item() -> Item:
    """A free text for a language model."""
    return Item(
        item="essay",
        points=3,
        free_text=FreeTextSpec(
            references=["A secret reference."],
            criteria=[
                FreeTextSpec.Criterion(criterion="what", description="secret what", points=1),
                FreeTextSpec.Criterion(criterion="why", description="secret why", points=2),
            ],
            llm=LlmSpec(
                model="tutor",
                instructions="secret instructions",
                samples=3,
                review_below=0.5,
                upgrade_fallbacks=True,
            ),
            examples=[GradedExample(answer="A secret example.", score=1.5)],
        ),
    )


def custom_item() -> Item:
    """An item for a grader that is not part of the suite."""
    config = Struct()
    config.update({"secret": ["depth", 3]})
    return Item(item="poem", points=1, custom=CustomSpec(kind="verse", config=config))


def code_items() -> list[Item]:
    """One of each: search, script, essay, poem."""
    return [code_item(), script_item(), llm_item(), custom_item()]


def code_answers() -> list[Answer]:
    """A good answer to each of ``code_items``."""
    program = "def search(x, seq):\n    return sum(1 for one in seq if one < x)\n"
    return [
        Answer(item="search", code=Answer.Code(files=[SourceFile(path="main.py", content=program)])),
        Answer(item="script", text="int main() { return 0; }"),
        Answer(item="essay", text="Because of the window."),
        Answer(item="poem", text="Roses are red."),
    ]


def code_grade() -> Grade:
    """A grade with a hidden test, whose words are secret."""
    return Grade(
        score=1,
        max_score=4,
        feedback="1 of 2 tests passed.",
        criteria=[
            CriterionScore(criterion="call", score=1, max_score=1, feedback="As expected."),
            CriterionScore(
                criterion="hidden-call", max_score=1, feedback="not the secret", evidence=["secret output"]
            ),
        ],
        tests=[
            TestResult(
                test="call", verdict=TestResult.ACCEPTED, score=1, max_score=1, message="fine", output="seen"
            ),
            TestResult(
                test="hidden-call",
                title="A corner",
                verdict=TestResult.WRONG_ANSWER,
                max_score=1,
                hidden=True,
                message="secret message",
                output="secret output",
            ),
        ],
    )
