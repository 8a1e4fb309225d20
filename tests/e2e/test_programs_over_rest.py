"""Items of programs and of graders of somebody's own as JSON, through Envoy to the real suite."""

from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from cinnabar_local.stack import Stack

COURSE = "/v1/courses/programs"
ASSIGNMENT = f"{COURSE}/assignments/p1"
TEACHER = {"authorization": "Bearer dev.programs.instructor.grace"}
STUDENT = {"authorization": "Bearer dev.programs.student.ada"}
PROGRAM: dict[str, Any] = {
    "item": "double",
    "points": 2,
    "code": {
        "language": "PYTHON",
        "limits": {"cpuTime": "2s", "memoryBytes": "67108864", "processes": 8},
        "files": [{"path": "secret/data.txt", "content": "1 2 3"}],
        "tests": [
            {"test": "two", "points": 1, "call": {"call": "double(2)", "expected": "4"}},
            {"test": "odd", "points": 1, "hidden": True, "call": {"call": "double(3)", "expected": "6"}},
        ],
    },
}
POEM: dict[str, Any] = {
    "item": "poem",
    "points": 1,
    "custom": {"kind": "nobody-grades", "config": {"lines": [4, None]}},
}
FILES = [{"path": "main.py", "content": "def double(x):\n    return 2 * x  # \u202e纸😀\0\n"}]
ANSWERS = [{"item": "double", "code": {"files": FILES}}, {"item": "poem", "choice": {"options": ["rhyme"]}}]


def changed(item: dict[str, Any], **code: object) -> dict[str, Any]:
    return {**item, "code": {**item["code"], **code}}


@pytest_asyncio.fixture(scope="module")
async def http(stack: Stack) -> AsyncGenerator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(stack.addresses.http) as session:
        made = await session.post(
            f"{COURSE}/assignments?assignmentId=p1", json={"items": [PROGRAM, POEM]}, headers=TEACHER
        )
        assert made.status == 200, await made.text()
        yield session


@pytest.mark.parametrize(
    ("item", "field"),
    [
        (changed(PROGRAM, tests=[]), "code"),
        (changed(PROGRAM, language="COBOL"), "code.language"),
        (changed(PROGRAM, limits={"cpuTime": "900s"}), "code.limits.cpu_time"),
        (changed(PROGRAM, limits={"cpuTime": "soon"}), "code.limits.cpu_time"),
        (changed(PROGRAM, files=[{"path": "../x"}]), "code.files[0].path"),
        (POEM | {"custom": {"kind": "No Kind"}}, "custom.kind"),
        ({"item": "t", "points": 1, "text": {"pattern": "(a+)+$"}}, "text.pattern"),
        (
            {"item": "f", "points": 1, "freeText": {"references": ["x"], "llm": {"samples": 9}}},
            "free_text.llm.samples",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_items_that_cannot_work_are_refused(
    http: aiohttp.ClientSession, item: dict[str, Any], field: str
) -> None:
    answer = await http.post(f"{COURSE}/assignments", json={"items": [item]}, headers=TEACHER)
    assert answer.status == 400, await answer.text()
    error = await answer.text()
    assert f"assignment.items[0].{field}" in error


async def test_a_program_is_handed_in_and_read_back(http: aiohttp.ClientSession) -> None:
    answer = await http.post(f"{ASSIGNMENT}/submissions", json={"answers": ANSWERS}, headers=STUDENT)
    assert answer.status == 200, await answer.text()
    made = await answer.json()
    assert made["answers"] == ANSWERS
    read = await (await http.get(f"/v1/{made['name']}", headers=STUDENT)).json()
    assert read["answers"] == ANSWERS
    assert [result["item"] for result in read["results"]] == ["double", "poem"]
    assert read["results"][1]["state"] == "QUEUED"

    bad = [{"item": "double", "code": {"files": [*FILES, *FILES]}}, ANSWERS[1]]
    refused = await http.post(f"{ASSIGNMENT}/submissions", json={"answers": bad}, headers=STUDENT)
    assert refused.status == 400
    assert "submission.answers[0].code.files[1].path" in await refused.text()


async def test_students_read_the_items_without_what_is_not_for_them(http: aiohttp.ClientSession) -> None:
    shown = await (await http.get(ASSIGNMENT, headers=STUDENT)).json()
    program, poem = shown["items"]
    visible, hidden = program["code"]["tests"]
    assert (visible["call"]["call"], visible["call"]["expected"]) == ("double(2)", "4")
    assert (hidden["test"], hidden["points"], hidden["hidden"]) == ("odd", 1, True)
    assert "call" not in hidden
    assert not program["code"].get("files")
    assert poem["custom"]["kind"] == "nobody-grades"
    assert "config" not in poem["custom"]
    program, poem = (await (await http.get(ASSIGNMENT, headers=TEACHER)).json())["items"]
    assert program["code"]["files"] == PROGRAM["code"]["files"]
    assert program["code"]["limits"]["cpuTime"] == "2s"
    assert program["code"]["tests"][1]["call"]["expected"] == "6"
    assert poem["custom"]["config"] == POEM["custom"]["config"]
