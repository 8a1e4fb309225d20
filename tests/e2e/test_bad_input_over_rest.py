"""Bad input as JSON through Envoy to the real suite: each its own error, and nothing stored."""

import json
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from cinnabar_local import sql
from cinnabar_local.stack import Stack

COURSE = "/v1/courses/badinput"
ASSIGNMENT = f"{COURSE}/assignments/quiz"
SUBMISSIONS = f"{ASSIGNMENT}/submissions"
TEACHER = {"authorization": "Bearer dev.rest.instructor.grace"}
STUDENT = {"authorization": "Bearer dev.rest.student.ada"}
ITEMS = [
    {"item": "name", "points": 1, "text": {"accepted": ["tcp"]}},
    {
        "item": "pick",
        "points": 1,
        "choice": {"options": [{"id": "a", "text": "A"}, {"id": "b", "text": "B"}], "correct": ["a"]},
    },
    {"item": "size", "points": 1, "numeric": {"value": 20, "absoluteTolerance": 0.5, "unit": "byte"}},
]
GOOD = [
    {"item": "name", "text": "tcp"},
    {"item": "pick", "choice": {"options": ["a"]}},
    {"item": "size", "number": {"value": 20, "unit": "byte"}},
]


@dataclass(frozen=True, slots=True)
class Row:
    """A bad request, and the status, reason and first field of its error."""

    name: str
    method: str
    path: str
    body: object
    status: int
    reason: str
    field: str = ""
    teaching: bool = False


def handing_in(name: str, field: str, **changes: object) -> Row:
    """A submission that is good but for ``changes``."""
    return Row(name, "POST", SUBMISSIONS, {"answers": GOOD} | changes, 400, "INVALID_REQUEST", field)


def rows() -> Iterator[Row]:
    unknown = f"{COURSE}/assignments/none"
    answers = "submission.answers"
    yield Row(
        "unknown assignment",
        "POST",
        f"{unknown}/submissions",
        {"answers": GOOD},
        404,
        "RESOURCE_NOT_FOUND",
    )
    yield Row("unknown assignment read", "GET", unknown, None, 404, "RESOURCE_NOT_FOUND")
    yield Row("unknown submission", "GET", f"{SUBMISSIONS}/none", None, 404, "RESOURCE_NOT_FOUND")
    yield Row(
        "unknown submission watched", "GET", f"{SUBMISSIONS}/none:watch", None, 404, "RESOURCE_NOT_FOUND"
    )
    yield Row("unknown path", "GET", "/v2/nothing", None, 404, "METHOD_UNKNOWN")
    yield handing_in("missing answer", answers, answers=GOOD[:2])
    yield handing_in(
        "wrong type", f"{answers}[0].number", answers=[{"item": "name", "number": {"value": 1}}, *GOOD[1:]]
    )
    yield handing_in("item twice", f"{answers}[1].item", answers=[GOOD[0], GOOD[0], GOOD[2]])
    yield handing_in(
        "answer too long",
        f"{answers}[0].text",
        answers=[{"item": "name", "text": "x" * (256 * 1024 + 1)}, *GOOD[1:]],
    )
    yield handing_in("unknown JSON field", "submission.anwsers", anwsers=[])
    yield handing_in(
        "unknown JSON field deep inside",
        f"{answers}[0].txet",
        answers=[{"item": "name", "txet": "tcp"}, *GOOD[1:]],
    )
    yield Row(
        "malformed name", "GET", "/v1/courses/BAD/assignments/quiz", None, 400, "INVALID_REQUEST", "name"
    )
    yield Row(
        "negative page size", "GET", f"{SUBMISSIONS}?pageSize=-1", None, 400, "INVALID_REQUEST", "page_size"
    )
    yield Row(
        "malformed page token",
        "GET",
        f"{SUBMISSIONS}?pageToken=abc",
        None,
        400,
        "PAGE_TOKEN_INVALID",
        "page_token",
    )
    yield Row(
        "field mask of an unknown field",
        "PATCH",
        f"{ASSIGNMENT}?updateMask=colour",
        {"displayName": "x"},
        400,
        "INVALID_REQUEST",
        "update_mask",
    )
    nobody = f"{SUBMISSIONS}/none"
    good = {"item": "name", "score": 1, "reason": "why"}
    for name, changes, status, reason, field in (
        ("unknown", {}, 404, "RESOURCE_NOT_FOUND", ""),
        ("without a reason", {"reason": ""}, 400, "INVALID_REQUEST", "reason"),
        ("negative", {"score": -1}, 400, "INVALID_REQUEST", "score"),
        ("no number", {"score": "NaN"}, 400, "INVALID_REQUEST", "score"),
        ("unknown JSON", {"points": 1}, 400, "INVALID_REQUEST", "points"),
    ):
        path, body = f"{nobody}:overrideGrade", good | changes
        yield Row(f"override: {name}", "POST", path, body, status, reason, field, teaching=True)
    for part in ("gradings", "auditEvents"):
        yield Row(
            f"{part} of nobody", "GET", f"{nobody}/{part}", None, 404, "RESOURCE_NOT_FOUND", teaching=True
        )
        path = f"{nobody}/{part}?pageToken=abc"
        yield Row(f"{part}: token", "GET", path, None, 400, "PAGE_TOKEN_INVALID", "page_token", teaching=True)
    regrades = f"{ASSIGNMENT}/regrades"
    for name, body, status, reason, field in (
        ("without a reason", {"shadow": True}, 400, "INVALID_REQUEST", "regrade.reason"),
        ("no such revision", {"reason": "x", "revisionId": "none"}, 404, "RESOURCE_NOT_FOUND", ""),
        (
            "bad share",
            {"reason": "x", "filter": {"scoreBelow": 2}},
            400,
            "INVALID_REQUEST",
            "regrade.filter.score_below",
        ),
    ):
        yield Row(f"regrade: {name}", "POST", regrades, body, status, reason, field, teaching=True)
    for verb in ("promote", "discard"):
        path = f"{regrades}/none:{verb}"
        yield Row(f"{verb} no regrade", "POST", path, {}, 404, "RESOURCE_NOT_FOUND", teaching=True)
    yield Row("report by a student", "GET", f"{regrades}/none:report", None, 403, "ROLE_FORBIDDEN")
    yield Row(
        "regrade by a student", "POST", f"{SUBMISSIONS}/x:regrade", {"reason": "x"}, 403, "ROLE_FORBIDDEN"
    )
    yield Row("verification by a student", "POST", "/v1/audit:verify", {}, 403, "ROLE_FORBIDDEN")
    yield from uploads()
    yield Row("invalid UTF-8", "POST", SUBMISSIONS, b'{"author": "\xff"}', 400, "INVALID_REQUEST")
    yield Row("truncated body", "POST", SUBMISSIONS, b'{"answers": [{"item"', 400, "INVALID_REQUEST")
    yield Row("not JSON", "POST", SUBMISSIONS, b"answers=1", 400, "INVALID_REQUEST")


def uploads() -> Iterator[Row]:
    announced = {
        "item": "name",
        "contentType": "text/plain",
        "sizeBytes": "3",
        "sha256": "c3Nz" * 10 + "c3M=",
    }
    for field, changes in (
        ("upload.item", {"item": "pick"}),
        ("upload.content_type", {"contentType": "text"}),
        ("upload.size_bytes", {"sizeBytes": str(16 * 1024 * 1024 + 1)}),
        ("upload.sha256", {"sha256": "c3Nz"}),
        ("upload.siseBytes", {"siseBytes": "3"}),
    ):
        body = announced | changes
        yield Row(f"bad {field}", "POST", f"{ASSIGNMENT}/uploads", body, 400, "INVALID_REQUEST", field)
    path = f"{COURSE}/assignments/none/uploads"
    yield Row("upload to no assignment", "POST", path, announced, 404, "RESOURCE_NOT_FOUND")
    for number, upload in enumerate(("uploads/x", f"{ASSIGNMENT[4:]}/uploads/x")):
        answers = [{"item": "name", "file": {"upload": upload}}, *GOOD[1:]]
        yield handing_in(f"no upload {number}", "submission.answers[0].file.upload", answers=answers)
    path = f"{ASSIGNMENT}/uploads/x:download"
    yield Row("download of nothing", "POST", path, {}, 404, "RESOURCE_NOT_FOUND")


ROWS = [*rows()]


@pytest_asyncio.fixture(scope="module")
async def http(stack: Stack) -> AsyncGenerator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(stack.addresses.http, headers=TEACHER) as session:
        made = await session.post(
            f"{COURSE}/assignments?assignmentId=quiz", json={"displayName": "Bad input", "items": ITEMS}
        )
        assert made.status == 200, await made.text()
        yield session


async def stored(stack: Stack) -> int:
    """Rows of this test's tenant in all shards."""
    count = 0
    for shard in stack.addresses.shards:
        async with sql.connected(shard.primary_url) as connection:
            for table in ("submissions", "assignment_revisions", "regrades"):
                rows = await connection.fetchval(f"SELECT count(*) FROM {table} WHERE tenant = 'rest'")
                count += int(str(rows))
    return count


async def answer_of(
    http: aiohttp.ClientSession, method: str, path: str, body: object, **headers: str
) -> tuple[int, dict[str, Any]]:
    content = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
    caller = STUDENT if method in ("POST", "GET") else {}
    headers = {"content-type": "application/json"} | caller | headers
    async with http.request(method, path, data=content, headers=headers) as response:
        return response.status, json.loads((await response.text()).splitlines()[0])


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
async def test_bad_input_is_explained_as_json(stack: Stack, http: aiohttp.ClientSession, row: Row) -> None:
    before = await stored(stack)
    status, error = await answer_of(http, row.method, row.path, row.body, **(TEACHER if row.teaching else {}))
    # An error in a stream of objects stands under "error", as the transcoder writes it.
    details = error["details"]
    info = next(detail for detail in details if detail["@type"].endswith("ErrorInfo"))
    assert (status, info["reason"], info["domain"]) == (row.status, row.reason, "cinnabar.dev")
    assert error["message"]
    if row.field:
        violations = next(detail for detail in details if detail["@type"].endswith("BadRequest"))
        assert row.field in [violation["field"] for violation in violations["fieldViolations"]]
        assert all(violation["description"] for violation in violations["fieldViolations"])
    assert await stored(stack) == before


async def test_the_good_items_of_a_batch_go_through(stack: Stack, http: aiohttp.ClientSession) -> None:
    before = await stored(stack)
    batch = [{"submission": {"answers": GOOD}}, {"submission": {"answers": GOOD[:1]}}]
    status, answer = await answer_of(http, "POST", f"{SUBMISSIONS}:batchCreate", {"requests": batch})
    good, bad = answer["results"]
    assert status == 200
    assert good["submission"]["name"].startswith("courses/badinput/assignments/quiz/submissions/")
    assert bad["error"]["code"] == 3
    assert await stored(stack) == before + 1


async def test_a_reused_request_id_with_another_body_is_refused(
    stack: Stack, http: aiohttp.ClientSession
) -> None:
    key = {"Idempotency-Key": "once"}
    first = await answer_of(http, "POST", SUBMISSIONS, {"answers": GOOD}, **key)
    before = await stored(stack)
    again = await answer_of(http, "POST", SUBMISSIONS, {"answers": GOOD}, **key)
    other = [{"item": "name", "text": "udp"}, *GOOD[1:]]
    status, error = await answer_of(http, "POST", SUBMISSIONS, {"answers": other}, **key)
    assert (first[0], again[0], again[1]["name"]) == (200, 200, first[1]["name"])
    assert (status, error["details"][0]["reason"]) == (400, "REQUEST_ID_REUSED")
    assert await stored(stack) == before


async def test_without_a_credential_nothing_is_told(http: aiohttp.ClientSession) -> None:
    async with http.get(ASSIGNMENT, headers={"authorization": "Bearer nonsense"}) as response:
        error = json.loads(await response.text())
    assert (response.status, error["details"][0]["reason"]) == (401, "CREDENTIAL_INVALID")


async def test_the_documents_own_path(http: aiohttp.ClientSession) -> None:
    body = {"course": "badinput", "assignment": "quiz", "answers": GOOD}
    first = await answer_of(http, "POST", "/api/v1/grading/submit", body, **{"Idempotency-Key": "flat"})
    again = await answer_of(http, "POST", "/api/v1/grading/submit", body, **{"Idempotency-Key": "flat"})
    made = await answer_of(http, "POST", "/api/v1/grading/submit", body)
    assert (again[0], again[1]["submission"]) == (200, first[1]["submission"])
    assert first[1]["idempotencyKey"] == again[1]["idempotencyKey"] == "flat"
    assert made[1]["idempotencyKey"] not in ("", "flat")
    assert made[1]["submission"] != first[1]["submission"]


async def test_health_is_open_to_everybody(http: aiohttp.ClientSession) -> None:
    async with http.get("/health", headers={"authorization": ""}) as response:
        report = json.loads(await response.text())
    assert (response.status, report["status"]) == (200, "healthy")
    assert {check["name"] for check in report["checks"]} >= {"storage", "scheduler"}
    assert report["timestamp"]
