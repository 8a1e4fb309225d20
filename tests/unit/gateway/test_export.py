"""Exports of grades: what is in the file, and that it is never a part that looks like the whole."""

import csv
import io
import json
from collections.abc import AsyncGenerator
from dataclasses import replace

import grpc
import pytest
from google.api.httpbody_pb2 import HttpBody

from cinnabar.gateway.v1 import assignment_service_pb2 as pb
from cinnabar.grader.v1.grade_pb2 import CriterionScore, Grade, Provenance
from cinnabar_common.names import AssignmentName
from cinnabar_gateway import exports
from cinnabar_gateway.adapters.memory import MemoryStorage
from cinnabar_gateway.consistency import Positions
from cinnabar_gateway.records import SubmissionPage
from tests.support.gateway_code import code_answers, code_grade, code_item
from tests.support.gateway_world import (
    COURSE,
    INSTRUCTOR,
    OPERATOR,
    PARENT,
    STUDENT,
    Metadata,
    World,
    answers,
    create_request,
    credential,
    items,
    key_of,
    refusal_of,
    world,
)

CSV, GRADESCOPE = pb.ExportGradesRequest.CSV, pb.ExportGradesRequest.GRADESCOPE


async def export(
    gateway: World, *, metadata: Metadata = INSTRUCTOR, name: str = PARENT, **fields: object
) -> str:
    """The whole file."""
    request = pb.ExportGradesRequest(name=name, **fields)  # pyright: ignore[reportArgumentType]
    call = gateway.assignments.ExportGrades(request, metadata=metadata)
    return b"".join([part.data async for part in call]).decode()


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


async def test_a_line_for_each_submission(gateway: World) -> None:
    first = await gateway.submission(author="ann", metadata=INSTRUCTOR)
    second = await gateway.submission(author="bob", metadata=INSTRUCTOR)
    for item, score in (("pick", 2.0), ("count", 0.5), ("name", 0.1), ("explain", 0.2)):
        gateway.grade(first, item, score)
    gateway.grade(second, "name", 1.0)
    text = await export(gateway)
    lines = text.split("\r\n")
    assert lines[0] == (
        "student,submission,state,score,points,pick score,pick points,count score,count points,"
        "name score,name points,explain score,explain points"
    )
    assert lines[1] == f"bob,{second.name},GRADING,1,11,,2,,1,1,4,,4"
    assert lines[2] == f"ann,{first.name},GRADED,2.8,16,2,4,0.5,4,0.1,4,0.2,4"
    assert lines[3:] == [""]


async def test_only_the_newest_of_each_student(gateway: World) -> None:
    for author in ("ann", "bob", "ann"):
        made = await gateway.submission(author=author, metadata=INSTRUCTOR)
    rows = table(await export(gateway, latest_only=True))
    assert [row["student"] for row in rows] == ["ann", "bob"]
    assert rows[0]["submission"] == made.name
    assert len(table(await export(gateway))) == 3


async def test_pages_follow_each_other(gateway: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "_PAGE", 2)
    made = [(await gateway.submission(author=f"s{n % 3}", metadata=INSTRUCTOR)).name for n in range(7)]
    assert [row["submission"] for row in table(await export(gateway))] == made[::-1]
    assert [row["student"] for row in table(await export(gateway, latest_only=True))] == ["s0", "s2", "s1"]


async def test_items_of_all_revisions_are_columns(gateway: World) -> None:
    old = await gateway.submission(author="ann", metadata=INSTRUCTOR)
    gateway.grade(old, "explain", 3.0)
    changed = pb.Assignment(name=PARENT, items=[items()[2], items()[0]])
    await gateway.assignments.UpdateAssignment(
        pb.UpdateAssignmentRequest(assignment=changed), metadata=INSTRUCTOR
    )
    [row] = table(await export(gateway))
    assert [column for column in row if column.endswith(" points")] == [
        *("name points", "pick points", "count points", "explain points")
    ]
    assert (row["explain score"], row["score"]) == ("3", "3")


async def test_what_a_spreadsheet_would_compute_is_text(gateway: World) -> None:
    dashed = credential("student", "-1-2")
    made = await gateway.submission(metadata=dashed)
    [row] = table(await export(gateway))
    assert (row["student"], row["submission"]) == ("'-1-2", made.name)


async def test_gradescope_gets_what_its_autograder_writes(gateway: World) -> None:
    made = await gateway.submission(author="ann", metadata=INSTRUCTOR)
    criteria = [
        CriterionScore(
            criterion="window", score=1.5, max_score=1.5, feedback="named",
            provenance=Provenance(grader="semantic", version="3", model="m", fallback=True),
        ),
        CriterionScore(criterion="flight", max_score=2.5, provenance=Provenance(grader="semantic")),
    ]  # fmt: skip
    grade = Grade(
        score=1.5,
        max_score=4,
        criteria=criteria,
        feedback='Good, "but"…\nshort',
        needs_review=True,
        flags=["X"],
    )
    gateway.storage.grade(key_of(made), "explain", score=1.5, grade=grade.SerializeToString())
    gateway.grade(made, "pick", 4.0)
    text = await export(gateway, format=GRADESCOPE)
    [line] = text.splitlines()
    parsed = json.loads(line)
    assert (parsed["submission"], parsed["student"]) == (made.name, "ann")
    results = parsed["results"]
    assert results["score"] == 5.5
    assert results["extra_data"] == {"state": "GRADING", "revision_id": made.revision_id}
    assert results["output"] == "Not all of it is graded: GRADING."
    pick, count, name, explain = results["tests"]
    assert (pick["name"], pick["number"], pick["score"], pick["max_score"]) == ("pick", "1", 4.0, 4.0)
    assert (pick["status"], pick["output"], pick["visibility"]) == ("passed", "well", "visible")
    assert count == {
        "name": "count", "number": "2", "max_score": 1.0, "visibility": "visible",
        "output": "Not graded: QUEUED.",
    }  # fmt: skip
    assert "score" not in name
    assert explain["status"] == "failed"
    assert explain["output"] == 'Good, "but"…\nshort\nwindow: named'
    assert explain["extra_data"]["needs_review"] is True
    assert explain["extra_data"]["flags"] == ["X"]
    assert explain["extra_data"]["criteria"][0] == {
        "criterion": "window", "score": 1.5, "max_score": 1.5,
        "grader": "semantic", "version": "3", "model": "m", "fallback": True,
    }  # fmt: skip


async def test_an_assignment_without_submissions_is_a_header(gateway: World) -> None:
    assert (await export(gateway)).count("\r\n") == 1
    assert await export(gateway, format=GRADESCOPE) == ""


@pytest.mark.parametrize("metadata", [STUDENT, OPERATOR])
async def test_only_instructors_export(gateway: World, metadata: Metadata) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await export(gateway, metadata=metadata)
    assert refusal_of(raised.value).reason == "ROLE_FORBIDDEN"


async def test_what_does_not_exist_and_what_is_foreign_look_alike(gateway: World) -> None:
    foreign = credential("instructor", "prof", tenant="other")
    for name, metadata in ((f"{PARENT}-not", INSTRUCTOR), (PARENT, foreign)):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await export(gateway, name=name, metadata=metadata)
        refusal = refusal_of(raised.value)
        assert (refusal.reason, refusal.metadata) == ("RESOURCE_NOT_FOUND", {"resource": name})


async def test_bad_fields_are_named(gateway: World) -> None:
    for fields, field in (({"name": "a1"}, "name"), ({"format": 9}, "format")):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await export(gateway, **fields)  # pyright: ignore[reportArgumentType]
        assert refusal_of(raised.value).fields == (field,)


class BreakingStorage(MemoryStorage):
    """A shard is lost after the first page."""

    async def list_submissions(
        self,
        tenant: str,
        parent: AssignmentName,
        *,
        author: str,
        before: str,
        limit: int,
        min_positions: Positions,
    ) -> SubmissionPage:
        """See SubmissionStore."""
        page = await super().list_submissions(
            tenant, parent, author=author, before=before, limit=limit, min_positions=min_positions
        )
        return replace(page, submissions=(), unreachable=(1,)) if before else page


@pytest.fixture
async def breaking(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[World]:
    """A gateway whose second page cannot be read."""
    monkeypatch.setattr(exports, "_PAGE", 1)
    async with world(storage=BreakingStorage()) as made:
        await made.assignment()
        for author in ("ann", "bob"):
            await made.submission(author=author, metadata=INSTRUCTOR)
        yield made


@pytest.mark.parametrize("form", [CSV, GRADESCOPE])
async def test_a_file_that_breaks_off_says_so_twice(
    breaking: World, form: pb.ExportGradesRequest.Format.ValueType
) -> None:
    """By the status of the call, and by the last line of what was received."""
    call = breaking.assignments.ExportGrades(
        pb.ExportGradesRequest(name=PARENT, format=form), metadata=INSTRUCTOR
    )
    received: list[bytes] = []

    async def read() -> None:
        while isinstance(part := await call.read(), HttpBody):
            received.append(part.data)

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await read()
    assert refusal_of(raised.value).reason == "DEPENDENCY_UNAVAILABLE"
    lines = b"".join(received).decode().splitlines()
    assert "bob" in lines[-2]
    assert "INCOMPLETE: this file is not complete: shards/1" in lines[-1]


async def test_tests_of_programs_are_tests_and_hidden_ones_stay_hidden() -> None:
    async with world() as gateway:
        spec = pb.Assignment(items=[code_item(), items()[0]])
        await gateway.assignments.CreateAssignment(
            pb.CreateAssignmentRequest(parent=COURSE, assignment=spec, assignment_id="a1"),
            metadata=INSTRUCTOR,
        )
        request = create_request(author="ann")
        request.submission.ClearField("answers")
        request.submission.answers.extend([code_answers()[0], answers()[0]])
        made = await gateway.submissions.CreateSubmission(request, metadata=INSTRUCTOR)
        grade = code_grade().SerializeToString()
        gateway.storage.grade(key_of(made), "search", score=1, grade=grade)
        results = json.loads(await export(gateway, format=GRADESCOPE))["results"]
        assert results["score"] == 1
        assert results["output"].endswith("search: 1 of 2 tests passed.")
        assert [(one["number"], one["name"], one["visibility"]) for one in results["tests"]] == [
            ("1.1", "search: call", "visible"),
            ("1.2", "search: A corner", "hidden"),
            ("2", "pick", "visible"),
        ]
        seen, hidden, _ = results["tests"]
        assert (seen["score"], seen["max_score"], seen["status"], seen["output"]) == (
            1,
            1,
            "passed",
            "fine\nseen",
        )
        assert (hidden["score"], hidden["status"], hidden["extra_data"]["verdict"]) == (
            0,
            "failed",
            "WRONG_ANSWER",
        )
        shown = json.dumps({**results, "tests": [one for one in results["tests"] if one is not hidden]})
        assert "secret" not in shown
        [row] = table(await export(gateway))
        assert (row["search score"], row["search points"]) == ("1", "4")
