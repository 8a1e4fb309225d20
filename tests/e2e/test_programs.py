"""Programs on their whole way through Envoy: handed in, run in the sandbox, watched, read by students."""

from __future__ import annotations

import io
import zipfile
from contextlib import aclosing

import pytest_asyncio

from cinnabar.gateway.v1.submission_service_pb2 import Submission
from cinnabar.grader.v1 import grade_pb2
from cinnabar.grader.v1.grade_pb2 import Answer
from cinnabar.grader.v1.item_pb2 import SourceFile
from cinnabar_client import Client
from cinnabar_local.stack import Stack

V = grade_pb2.TestResult
QUIZ: dict[str, object] = {
    "display_name": "Programs",
    "items": [
        {
            "item": "square",
            "points": 4,
            "code": {
                "language": "PYTHON",
                "limits": {"cpu_time": "2s"},
                "tests": [
                    {"test": "one", "points": 1, "call": {"call": "square(1)", "expected": "1"}},
                    {"test": "two", "points": 1, "call": {"call": "square(2)", "expected": "4"}},
                    {
                        "test": "secret",
                        "points": 1,
                        "hidden": True,
                        "call": {"call": "square(7)", "expected": "49"},
                    },
                    {
                        "test": "prints",
                        "points": 1,
                        "stdio": {"input": "3", "expected_output": "9", "checker": {"exact": {}}},
                    },
                ],
            },
        }
    ],
}
GOOD = "def square(n): return n * n\nif __name__ == '__main__': print(square(int(input())))\n"
WRONG = "def square(n):\n    print('trying', n)\n    return 2 * n\n"
LOOPING = "def square(n):\n    while n == 7: pass\n    return n * n\nprint(9)\n"


@pytest_asyncio.fixture
async def parent(stack: Stack, tenant: str) -> str:
    """An assignment of a function to write."""
    async with Client(stack.addresses.envoy, token=f"dev.{tenant}.instructor.grace") as teacher:
        return (await teacher.create_assignment("code", QUIZ, assignment_id="functions")).name


def verdicts(graded: Submission) -> list[int]:
    assert graded.state == Submission.GRADED
    return [test.verdict for test in graded.results[0].grade.tests]


async def test_programs_are_graded_test_by_test(stack: Stack, tenant: str, parent: str) -> None:
    async with (
        Client(stack.addresses.envoy, token=f"dev.{tenant}.student.ada") as student,
        Client(stack.addresses.envoy, token=f"dev.{tenant}.instructor.grace") as teacher,
    ):
        good = await student.submit(parent, [Answer(item="square", text=GOOD)])
        wrong = await student.submit(
            parent,
            [Answer(item="square", code=Answer.Code(files=[SourceFile(path="main.py", content=WRONG)]))],
        )
        graded = await student.wait_graded(good.name)
        assert (graded.score, verdicts(graded)) == (4, [V.ACCEPTED] * 4)

        graded = await student.wait_graded(wrong.name)
        assert verdicts(graded) == [V.WRONG_ANSWER, V.ACCEPTED, V.WRONG_ANSWER, V.WRONG_ANSWER]
        assert (graded.score, graded.max_score) == (1, 4)
        first, _, secret, _ = graded.results[0].grade.tests
        assert (first.message, first.output) == ("square(1) gave 2, expected was 1.", "trying 1\n")
        assert (secret.hidden, secret.message, secret.output) == (True, "", "")
        said = [(test.message, test.output, test.title) for test in graded.results[0].grade.tests]
        said += [(part.feedback, "", "") for part in graded.results[0].grade.criteria]
        assert "49" not in f"{said}{graded.results[0].grade.feedback}"
        seen = await teacher.get_submission(wrong.name)
        assert seen.results[0].grade.tests[2].message == "square(7) gave 14, expected was 49."


async def test_a_watcher_sees_finished_tests_while_others_run(stack: Stack, tenant: str, parent: str) -> None:
    async with Client(stack.addresses.envoy, token=f"dev.{tenant}.student.ada") as student:
        made = await student.submit(parent, [Answer(item="square", text=LOOPING)])
        async with aclosing(student.watch(made.name)) as states:
            seen = [state async for state in states]
    assert verdicts(seen[-1]) == [V.ACCEPTED, V.ACCEPTED, V.TIME_LIMIT, V.ACCEPTED]
    assert seen[-1].score == 3
    underway = [state.results[0].progress for state in seen[:-1] if state.results[0].progress]
    assert underway
    assert all(test.verdict == V.ACCEPTED for test in underway[0])


async def test_a_zip_archive_is_handed_in(stack: Stack, tenant: str, parent: str) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("homework/main.py", "from powers import square\nprint(square(int(input())))")
        archive.writestr("homework/powers.py", "def square(n): return n**2")
    async with Client(stack.addresses.envoy, token=f"dev.{tenant}.student.ada") as student:
        file = await student.upload(parent, "square", content.getvalue(), content_type="application/zip")
        made = await student.submit(parent, [Answer(item="square", file=Answer.File(upload=file.name))])
        graded = await student.wait_graded(made.name)
    # It reads its input whenever it is loaded, and calls have none.
    assert verdicts(graded) == [V.RUNTIME_ERROR] * 3 + [V.ACCEPTED]
