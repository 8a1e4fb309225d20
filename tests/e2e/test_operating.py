"""Operating the real suite through Envoy, over REST, gRPC and the command line."""

import datetime as dt
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest_asyncio

from cinnabar.gateway.v1.operations_service_pb2 import Queue
from cinnabar.gateway.v1.submission_service_pb2 import Submission
from cinnabar.grader.v1.grade_pb2 import Answer
from cinnabar_client import ApiError, Client
from cinnabar_local.stack import Stack
from tests.support.client_cli import run
from tests.support.waiting import until

QUEUE = "numeric"
ANSWER = [Answer(item="size", number=Answer.Number(value=20, unit="byte"))]
ITEMS = {"items": [{"item": "size", "points": 1, "numeric": {"value": 20, "unit": "byte"}}]}
OTHER = {"items": [{"item": "name", "points": 1, "text": {"accepted": ["tcp"]}}]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """An operator's desk, and a student to try things with."""

    tenant: str
    address: str
    url: str
    operator: Client
    student: Client
    http: aiohttp.ClientSession
    numbers: str
    words: str

    @property
    def token(self) -> str:
        """The operator's."""
        return f"dev.{self.tenant}.operator.olga"

    async def rest(self, method: str, path: str, *, role: str = "operator", **body: Any) -> tuple[int, Any]:
        """Status and JSON of a call over REST."""
        headers = {"authorization": f"Bearer dev.{self.tenant}.{role}.ada"}
        options: dict[str, Any] = {"json": body} if method == "POST" else {"params": body}
        async with self.http.request(method, self.url + path, headers=headers, **options) as answer:
            return answer.status, json.loads(await answer.text())


@pytest_asyncio.fixture
async def desk(stack: Stack, tenant: str) -> AsyncGenerator[Desk]:
    """A desk whose queue runs again in the end."""
    address = stack.addresses.envoy

    def client(role: str) -> Client:
        return Client(address, token=f"dev.{tenant}.{role}.ada")

    async with (
        client("instructor") as teacher,
        client("operator") as operator,
        client("student") as student,
        aiohttp.ClientSession() as http,
    ):
        numbers = await teacher.create_assignment("ops", ITEMS, assignment_id="numbers")
        words = await teacher.create_assignment("ops", OTHER, assignment_id="words")
        yield Desk(
            tenant=tenant,
            address=address,
            url=stack.addresses.http,
            operator=operator,
            student=student,
            http=http,
            numbers=numbers.name,
            words=words.name,
        )
        await operator.resume_queue(QUEUE)


async def test_a_paused_queue_keeps_submissions_queued_until_it_is_resumed(desk: Desk) -> None:
    status, paused = await desk.rest("POST", f"/v1/queues/{QUEUE}:pause")
    assert (status, paused["queue"], paused["state"]) == (200, QUEUE, "PAUSED")
    waiting = await desk.student.submit(desk.numbers, ANSWER)
    beside = await desk.student.submit(desk.words, [Answer(item="name", text="tcp")])
    assert (await desk.student.wait_graded(beside.name)).state == Submission.GRADED

    async def is_ready() -> bool:
        return any(queue.queue == QUEUE and queue.ready for queue in await desk.operator.queues())

    await until(is_ready, "the task waits in the queue")
    assert (await desk.student.get_submission(waiting.name)).state == Submission.QUEUED
    status, listed = await desk.rest("GET", "/v1/queues")
    [queue] = [queue for queue in listed["queues"] if queue["queue"] == QUEUE]
    assert (status, queue["state"], queue.get("leased", "0")) == (200, "PAUSED", "0")
    assert (await desk.operator.resume_queue(QUEUE)).state == Queue.RUNNING
    assert (await desk.student.wait_graded(waiting.name)).state == Submission.GRADED


async def test_a_drained_queue_refuses_what_needs_it(desk: Desk) -> None:
    assert (await desk.operator.drain_queue(QUEUE)).state == Queue.DRAINING
    body = {"answers": [{"item": "size", "number": {"value": 20, "unit": "byte"}}]}
    in_a_row = 0

    async def refused() -> bool:
        nonlocal in_a_row
        status, answer = await desk.rest("POST", f"/v1/{desk.numbers}/submissions", role="student", **body)
        if status == 503:
            [info] = [one for one in answer["details"] if one["@type"].endswith("ErrorInfo")]
            assert (info["reason"], info["metadata"]) == ("QUEUE_DRAINING", {"queue": QUEUE})
            in_a_row += 1
        else:
            assert status == 200, answer
            in_a_row = 0
        return in_a_row >= 4  # both gateways have heard of it

    await until(refused, "every gateway hears of the drain")
    beside = await desk.student.submit(desk.words, [Answer(item="name", text="tcp")])
    assert (await desk.student.wait_graded(beside.name)).state == Submission.GRADED
    finals = [one async for one in desk.student.list_submissions(desk.numbers)]
    for one in finals:  # what came before the drain is graded all the same
        assert (await desk.student.wait_graded(one.name)).state == Submission.GRADED
    status, resumed = await desk.rest("POST", f"/v1/queues/{QUEUE}:resume")
    assert (status, resumed["state"]) == (200, "RUNNING")

    async def accepted() -> bool:
        try:
            await desk.student.submit(desk.numbers, ANSWER)
        except ApiError as error:
            if error.reason != "QUEUE_DRAINING":
                raise
            return False
        return True

    await until(accepted, "the gateways hear of the end of the drain")


async def test_an_unknown_queue_and_a_student_are_refused(desk: Desk) -> None:
    status, answer = await desk.rest("POST", "/v1/queues/nobody:drain")
    assert (status, answer["code"]) == (404, 5)
    status, answer = await desk.rest("POST", f"/v1/queues/{QUEUE}:pause", role="student")
    assert (status, answer["code"]) == (403, 7)
    status, answer = await desk.rest("GET", "/v1/conservation", role="student")
    assert status == 403


async def test_language_models_and_their_budgets_are_seen_by_operators(desk: Desk) -> None:
    status, models = await desk.rest("GET", "/v1/modelProviders")
    assert (status, [budget["scope"] for budget in models["budgets"]]) == (200, [""])
    status, answer = await desk.rest("GET", "/v1/modelProviders", role="student")
    assert (status, answer["details"][0]["reason"]) == (403, "ROLE_FORBIDDEN")
    async with desk.http.get(desk.url + "/health") as health:
        checks = {check["name"]: check["status"] for check in (await health.json())["checks"]}
    assert checks["ai_service"] == "healthy"


async def test_what_misses_its_deadline_is_found_by_filter_and_redriven(desk: Desk) -> None:
    await desk.operator.pause_queue(QUEUE)
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=1.5)
    late = await desk.student.submit(desk.numbers, ANSWER, grade_by=soon)
    assert (await desk.student.wait_graded(late.name)).state == Submission.FAILED
    status, listed = await desk.rest("GET", "/v1/deadLetters", queue=QUEUE, parent="courses/ops")
    [letter] = listed["deadLetters"]
    assert (status, letter["submission"], letter["item"]) == (200, late.name, "size")
    assert "deadline" in letter["reason"]
    assert (await desk.rest("GET", "/v1/deadLetters", parent=desk.words))[1].get("deadLetters", []) == []
    status, answer = await desk.rest("POST", "/v1/deadLetters:redrive", filter={"parent": desk.numbers})
    assert (status, answer["redriven"], answer.get("more", False)) == (200, 1, False)

    await desk.operator.resume_queue(QUEUE)

    async def graded() -> bool:
        return (await desk.student.get_submission(late.name)).state == Submission.GRADED

    await until(graded, "a deadline that has passed does not outlive a redrive")
    again = await run(desk.address, "ops", "redrive", f"{late.name}/none", "--json", token=desk.token)
    assert (again.code, again.document["redriven"]) == (1, 0)
    assert again.document["refused"][0]["error"]["reason"] == "RESOURCE_NOT_FOUND"


async def test_delayed_work_waits_for_its_time(desk: Desk) -> None:
    after = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=2)
    delayed = await desk.student.submit(desk.numbers, ANSWER, grade_after=after)
    assert delayed.grade_after.ToDatetime(dt.UTC) == after
    graded = await desk.student.wait_graded(delayed.name)
    assert graded.state == Submission.GRADED
    assert graded.update_time.ToDatetime(dt.UTC) >= after


async def test_conservation_holds_on_the_command_line(desk: Desk) -> None:
    accepted = await desk.student.submit(desk.numbers, ANSWER)
    await desk.student.wait_graded(accepted.name)
    ran = await run(desk.address, "ops", "conservation", "--wait", "30", "--json", token=desk.token)
    assert (ran.code, ran.document["holds"], ran.document["balanced"]) == (0, True, True), ran.document
    assert int(ran.document["graded"]) >= 1
    shown = await run(desk.address, "ops", "conservation", "--wait", "30", token=desk.token)
    assert (shown.code, "conserved" in shown.out) == (0, True)
