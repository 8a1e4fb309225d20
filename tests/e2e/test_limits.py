"""Limits of the whole suite through Envoy: the shipped default, a changed policy, and Valkey away."""

import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
import pytest_asyncio
from google.protobuf.json_format import MessageToDict

from cinnabar.gateway.v1.assignment_service_pb2 import Assignment, CreateAssignmentRequest
from cinnabar.gateway.v1.assignment_service_pb2_grpc import AssignmentServiceStub
from cinnabar.gateway.v1.submission_service_pb2 import CreateSubmissionRequest, Submission
from cinnabar.gateway.v1.submission_service_pb2_grpc import SubmissionServiceStub
from cinnabar_common.channels import channel
from cinnabar_local.probes import NotReady, grpc_serving
from cinnabar_local.stack import Stack
from tests.support.gateway_world import COURSE, PARENT, answers, credential, items, refusal_of
from tests.support.waiting import until

PERIOD_SECONDS = 60.0
UNITS = 100
CHANGE_SECONDS = 5.0


@dataclass(slots=True, kw_only=True)
class Edge:
    """Calls of one tenant through Envoy."""

    stack: Stack
    tenant: str
    http: aiohttp.ClientSession
    connection: grpc.aio.Channel

    async def submit(
        self, user: str, path: str = f"/v1/{PARENT}/submissions"
    ) -> tuple[int, Mapping[str, str], Any]:
        """One POST of a student: status, headers, body."""
        body: dict[str, Any] = MessageToDict(Submission(answers=answers()[:3]))
        if path.endswith("submit"):
            body |= {"course": "net", "assignment": "a1"}
        headers = dict(credential("student", user, tenant=self.tenant))
        async with self.http.post(self.stack.addresses.http + path, json=body, headers=headers) as answer:
            return answer.status, answer.headers.copy(), await answer.json()

    async def until_refused(self, user: str, **options: str) -> tuple[int, Mapping[str, str], Any]:
        """Submits until a limit is reached; how many passed, and the refusal."""
        began, passed, uncharged = time.monotonic(), 0, 0
        while True:
            status, headers, body = await self.submit(user, **options)
            if status == 429:
                break
            assert status == 200, body
            passed += 1
            # On a machine that is too busy to answer in time Envoy does not wait for the limits.
            uncharged += "x-ratelimit-limit" not in headers
            most = UNITS + UNITS * (time.monotonic() - began) / PERIOD_SECONDS + uncharged
            assert passed <= most + 1
        assert passed >= UNITS
        return passed, headers, body

    async def until_refused_over_grpc(self, user: str) -> grpc.aio.AioRpcError:
        """The refusal of a student whose limit is used up; some units may have come back meanwhile."""
        stub, caller = SubmissionServiceStub(self.connection), credential("student", user, tenant=self.tenant)
        request = CreateSubmissionRequest(parent=PARENT, submission=Submission(answers=answers()[:3]))
        for _ in range(UNITS):
            try:
                await stub.CreateSubmission(request, metadata=caller)
            except grpc.aio.AioRpcError as error:
                return error
        raise AssertionError("never refused")


def replace_in(file: str, text: str) -> str:
    """Writes a policy; returns the one before."""
    before = Path(file).read_text("utf-8")
    Path(file).write_text(text, "utf-8")
    return before


@pytest_asyncio.fixture
async def edge(stack: Stack, tenant: str) -> AsyncGenerator[Edge]:
    """A tenant with one assignment."""
    async with AsyncExitStack() as exits:
        http = await exits.enter_async_context(aiohttp.ClientSession())
        connection = await exits.enter_async_context(channel(stack.addresses.envoy))
        await AssignmentServiceStub(connection).CreateAssignment(
            CreateAssignmentRequest(
                parent=COURSE, assignment=Assignment(items=items()[:3]), assignment_id="a1"
            ),
            metadata=credential("instructor", "prof", tenant=tenant),
        )
        yield Edge(stack=stack, tenant=tenant, http=http, connection=connection)


async def admission_serving(edge: Edge) -> bool:
    """Whether the schedulers say that they share the limits."""
    try:
        await grpc_serving(edge.stack.addresses.schedulers[0], service="admission")
    except NotReady:
        return False
    return True


@pytest.mark.parametrize("path", [f"/v1/{PARENT}/submissions", "/api/v1/grading/submit"])
async def test_the_default_is_a_hundred_single_submits_a_minute_per_user(edge: Edge, path: str) -> None:
    _, headers, body = await edge.until_refused("ann", path=path)
    assert (headers["x-ratelimit-limit"], headers["x-ratelimit-remaining"]) == ("100", "0")
    assert 1 <= int(headers["retry-after"]) <= int(headers["x-ratelimit-reset"]) <= 60
    assert (body["code"], body["details"][0]["reason"]) == (8, "RATE_LIMITED")
    assert body["details"][0]["metadata"] == {"level": "user-method", "limit": "100", "period_seconds": "60"}
    assert (await edge.submit("bob", path))[0] == 200


async def test_grpc_meets_the_same_limit(edge: Edge) -> None:
    await edge.until_refused("ann")
    refused = await edge.until_refused_over_grpc("ann")
    refusal = refusal_of(refused)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
    assert refusal.retry_after is not None
    assert 0 < refusal.retry_after <= 0.6


async def test_a_changed_policy_is_in_force_without_a_restart(edge: Edge) -> None:
    await edge.until_refused("ann")
    file = edge.stack.addresses.policy_file
    raised = f"[tenants.named.{edge.tenant}]\nlimits.method.CreateSubmission.units = 5000\n"
    before = replace_in(file, raised)
    try:

        async def lifted() -> bool:
            status, headers, _ = await edge.submit("ann")
            return (status, headers.get("x-ratelimit-limit")) == (200, "5000")

        await until(lifted, "the new limit is in force", seconds=CHANGE_SECONDS)
    finally:
        replace_in(file, before)

    async def back() -> bool:
        return (await edge.submit("ann"))[1].get("x-ratelimit-limit") == "100"

    await until(back, "the old limit is in force again", seconds=CHANGE_SECONDS)


async def test_without_valkey_limits_are_the_schedulers_own_until_it_is_back(edge: Edge) -> None:
    await edge.until_refused("ann")
    await edge.stack.stop("valkey")
    try:

        async def served() -> bool:
            status, headers, _ = await edge.submit("ann")
            return status == 200 and headers.get("x-ratelimit-limit") == "100"

        await until(served, "submissions are taken, under a limit of the scheduler's own")
        await edge.until_refused("bob")

        async def told() -> bool:
            return not await admission_serving(edge)

        await until(told, "health says so")
    finally:
        await edge.stack.start("valkey")

    async def recovered() -> bool:
        return await admission_serving(edge)

    await until(recovered, "health says that it is over")
    assert (await edge.submit("bob"))[0] == 200  # Valkey came back empty
