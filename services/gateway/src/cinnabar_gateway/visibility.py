"""What a student does not see of an assignment and of grades.

Of an assignment nothing that gives an answer away: correct answers, references, what earns points, graded
examples, what a language model or a grader of somebody's own is told, files that lie beside the program,
checkers and scripts, and of hidden tests all but id, title and points. Of results the words about hidden
tests: their verdict and points are shown.
"""

from __future__ import annotations

from collections.abc import Iterable

from cinnabar.gateway.v1.assignment_service_pb2 import Assignment
from cinnabar.grader.v1.grade_pb2 import Grade, TestResult
from cinnabar.grader.v1.item_pb2 import CodeSpec, FreeTextSpec


def strip_answers(assignment: Assignment) -> None:
    """Takes out of an assignment what a student does not see."""
    for item in assignment.items:
        match item.WhichOneof("grader"):
            case "choice":
                item.choice.ClearField("correct")
            case "numeric":
                for field in ("value", "absolute_tolerance", "relative_tolerance"):
                    item.numeric.ClearField(field)
            case "text":
                item.text.ClearField("accepted")
                item.text.ClearField("pattern")
            case "free_text":
                item.free_text.ClearField("references")
                item.free_text.ClearField("examples")
                if item.free_text.HasField("llm"):
                    item.free_text.llm.ClearField("instructions")
                _strip_criteria(item.free_text.criteria)
            case "code":
                _strip_code(item.code)
            case "custom":
                item.custom.ClearField("config")
                _strip_criteria(item.custom.criteria)
            case None:
                pass


def _strip_criteria(criteria: Iterable[FreeTextSpec.Criterion]) -> None:
    for criterion in criteria:
        criterion.ClearField("description")  # what earns the points is the answer


def _strip_code(code: CodeSpec) -> None:
    code.ClearField("files")
    if code.HasField("script"):
        code.script.ClearField("files")
        code.script.ClearField("command")
    for test in code.tests:
        if test.hidden:
            for form in ("stdio", "call"):
                test.ClearField(form)
        elif test.stdio.checker.HasField("program"):  # reading sets nothing
            test.stdio.checker.program.ClearField("source")


def strip_grade(grade: Grade) -> None:
    """Takes out of a grade what a student does not see."""
    hidden = strip_tests(grade.tests)
    if hidden:
        for criterion in grade.criteria:
            if criterion.criterion in hidden:
                criterion.ClearField("feedback")
                criterion.ClearField("evidence")


def strip_tests(tests: Iterable[TestResult]) -> set[str]:
    """Takes out of the results of tests what a student does not see; returns the ids of hidden ones."""
    hidden: set[str] = set()
    for test in tests:
        if test.hidden:
            hidden.add(test.test)
            test.ClearField("message")
            test.ClearField("output")
    return hidden
