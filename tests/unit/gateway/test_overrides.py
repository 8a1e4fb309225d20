"""Grades by people, the history of grades, and the audit, as callers see them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from cinnabar.gateway.v1 import operations_service_pb2 as operations_pb
from cinnabar.gateway.v1 import submission_service_pb2 as pb
from cinnabar_common.errors import DependencyUnavailable
from cinnabar_gateway.adapters.memory import MemoryQueue
from cinnabar_gateway.records import CancelledTask
from tests.support.gateway_world import (
    INSTRUCTOR,
    OPERATOR,
    OTHER_STUDENT,
    PARENT,
    STUDENT,
    Metadata,
    World,
    credential,
    refusal_of,
    token_from,
    world,
)
from tests.support.waiting import until

State, ItemState = pb.Submission.State, pb.ItemResult.State
Kind = pb.Grading.Kind
COLLEAGUE = credential("instructor", "zoe")


def request(
    submission: pb.Submission, item: str = "explain", *, score: float = 3.5, etag: str = ""
) -> pb.OverrideGradeRequest:
    return pb.OverrideGradeRequest(
        name=submission.name, item=item, score=score, feedback="Well argued.", reason="Second look", etag=etag
    )


async def read(gateway: World, submission: pb.Submission, metadata: Metadata = STUDENT) -> pb.Submission:
    return await gateway.submissions.GetSubmission(
        pb.GetSubmissionRequest(name=submission.name), metadata=metadata
    )


async def test_a_person_grades_an_item_that_waits(gateway: World) -> None:
    created = await gateway.submission()
    await until(lambda: len(gateway.queue.tasks) == 4, "the tasks are queued")
    call = gateway.submissions.OverrideGrade(request(created), metadata=INSTRUCTOR)
    after = await call
    assert await token_from(call)
    result = after.results[3]
    assert (result.item, result.state, result.generation) == ("explain", ItemState.GRADED, 1)
    assert result.overridden
    assert (result.grade.score, result.grade.max_score) == (3.5, 4)
    assert result.grade.feedback == "Well argued."
    [part] = result.grade.criteria
    assert (part.criterion, part.score, part.max_score) == ("override", 3.5, 4)
    assert (part.provenance.grader, part.provenance.version) == ("person", "1")
    assert (after.state, after.score) == (State.GRADING, 3.5)
    # Nobody need grade it any more; the others wait on.
    assert {task.queue for task in gateway.queue.tasks.values()} == {"choice", "numeric", "text"}
    seen = await read(gateway, created)
    assert seen.results[3] == result, "the student sees who graded it"
    assert not seen.results[2].overridden


async def test_over_a_grade_it_opens_the_next_generation_and_both_stay_readable(gateway: World) -> None:
    created = await gateway.submission()
    gateway.grade(created, "explain", 1)
    after = await gateway.submissions.OverrideGrade(request(created), metadata=INSTRUCTOR)
    assert (after.results[3].generation, after.score) == (2, 3.5)
    listing = pb.ListGradingsRequest(parent=created.name, page_size=1)
    shown: list[pb.Grading] = []
    while True:
        page = await gateway.submissions.ListGradings(listing, metadata=INSTRUCTOR)
        shown += page.gradings
        if not page.next_page_token:
            break
        listing.page_token = page.next_page_token
    assert [(one.generation, one.kind, one.current, one.actor, one.reason) for one in shown] == [
        (1, Kind.GRADED, False, "worker", ""),
        (2, Kind.OVERRIDDEN, True, "instructor/prof", "Second look"),
    ]
    assert {one.revision_id for one in shown} == {created.revision_id}
    assert shown[1].grade == after.results[3].grade
    mine = await gateway.submissions.ListGradings(
        pb.ListGradingsRequest(parent=created.name), metadata=STUDENT
    )
    assert [(one.generation, one.current, one.actor, one.reason) for one in mine.gradings] == [
        (1, False, "", ""),
        (2, True, "", ""),
    ]
    audit = pb.ListAuditEventsRequest(parent=created.name)
    events = (await gateway.submissions.ListAuditEvents(audit, metadata=INSTRUCTOR)).events
    assert [(one.action, one.actor, one.item, one.generation, one.detail) for one in events] == [
        ("grade", "worker", "explain", 1, ""),
        ("override", "instructor/prof", "explain", 2, "score 1 -> 3.5; Second look"),
    ]


async def test_an_etag_guards_against_what_was_not_read(gateway: World) -> None:
    created = await gateway.submission()
    assert not created.etag
    etag = (await read(gateway, created)).etag
    assert etag.startswith('"')
    assert (await read(gateway, created, INSTRUCTOR)).etag == etag
    gateway.grade(created, "name", 1)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await gateway.submissions.OverrideGrade(request(created, etag=etag), metadata=INSTRUCTOR)
    refused = refusal_of(raised.value)
    assert (refused.code, refused.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    assert refused.metadata == {"resource": created.name}
    fresh = (await read(gateway, created)).etag
    good = request(created, etag=fresh)
    after = await gateway.submissions.OverrideGrade(good, metadata=INSTRUCTOR)
    assert after.etag not in ("", etag, fresh)
    # Repeated, it was done already; by somebody else it is another override.
    assert await gateway.submissions.OverrideGrade(good, metadata=INSTRUCTOR) == after
    with pytest.raises(grpc.aio.AioRpcError):
        await gateway.submissions.OverrideGrade(good, metadata=COLLEAGUE)


async def test_points_are_those_of_the_revision_that_graded(gateway: World) -> None:
    created = await gateway.submission()
    for score in (0, 4):
        await gateway.submissions.OverrideGrade(request(created, score=score), metadata=INSTRUCTOR)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await gateway.submissions.OverrideGrade(request(created, score=4.01), metadata=INSTRUCTOR)
    assert refusal_of(raised.value).fields == ("score",)
    assert refusal_of(raised.value).rules == ("must be 0 to 4",)


async def test_watchers_see_it_and_a_queue_that_is_away_does_not_matter() -> None:
    class Broken(MemoryQueue):
        async def cancel(self, tasks: Sequence[CancelledTask]) -> None:
            raise DependencyUnavailable("scheduler")

    async with world(queue=Broken(), watch_reread_seconds=0.05) as gateway:
        await gateway.assignment()
        created = await gateway.submission()
        watch = gateway.submissions.WatchSubmission(
            pb.WatchSubmissionRequest(name=created.name), metadata=STUDENT
        )
        first = await watch.read()
        assert isinstance(first, pb.WatchSubmissionResponse)
        assert not first.submission.results[3].overridden
        await gateway.submissions.OverrideGrade(request(created), metadata=INSTRUCTOR)
        async with asyncio.timeout(10):
            second = await watch.read()
        assert isinstance(second, pb.WatchSubmissionResponse)
        assert second.submission.results[3].overridden
        watch.cancel()


async def test_the_scheduler_is_told_also_when_nothing_waited(gateway: World) -> None:
    told: list[CancelledTask] = []

    class Listening(MemoryQueue):
        async def cancel(self, tasks: Sequence[CancelledTask]) -> None:
            told.extend(tasks)

    async with world(queue=Listening()) as own:
        await own.assignment()
        created = await own.submission()
        own.grade(created, "explain", 1)
        await own.submissions.OverrideGrade(request(created), metadata=INSTRUCTOR)
        submission_id = created.name.rpartition("/")[2]
        assert told == [CancelledTask(f"{submission_id}/explain", "free-text")]


async def test_the_audit_is_verified_by_operators(gateway: World) -> None:
    answer = await gateway.operations.VerifyAudit(operations_pb.VerifyAuditRequest(), metadata=OPERATOR)
    assert (list(answer.breaks), list(answer.heads)) == ([], [b""])


@dataclass(frozen=True, slots=True)
class Row:
    """A bad call, and its code, reason and fields. NAME stands for the submission's name."""

    name: str
    method: str
    request: Message
    reason: str = "INVALID_REQUEST"
    fields: tuple[str, ...] = ()
    metadata: Metadata = field(default=INSTRUCTOR)


NAME = f"{PARENT}/submissions/NAME"
UNKNOWN = f"{PARENT}/submissions/01jd0000000000000000000000-000"
Override = pb.OverrideGradeRequest


def overrides() -> Iterator[Row]:
    good: dict[str, Any] = {"name": NAME, "item": "explain", "score": 1.0, "reason": "why"}
    for name, changes, fields in (
        ("nothing", {"name": "", "item": "", "reason": ""}, ("name", "item", "reason")),
        ("no name", {"name": "courses/net"}, ("name",)),
        ("no id", {"item": "No Id"}, ("item",)),
        ("no item of it", {"item": "other"}, ("item",)),
        ("negative", {"score": -0.5}, ("score",)),
        ("not a number", {"score": float("nan")}, ("score",)),
        ("endless", {"score": float("inf")}, ("score",)),
        ("too many points", {"score": 4.5}, ("score",)),
        ("long feedback", {"feedback": "ö" * 8193}, ("feedback",)),
        ("long reason", {"reason": "x" * 1001}, ("reason",)),
        ("long etag", {"etag": "x" * 129}, ("etag",)),
        ("NUL", {"feedback": "a\0", "reason": "b\0", "etag": "c\0"}, ("feedback", "reason", "etag")),
        ("several", {"score": -1.0, "reason": "", "item": "É"}, ("reason", "item", "score")),
    ):
        bad: dict[str, Any] = {**good, **changes}
        yield Row(f"override: {name}", "OverrideGrade", Override(**bad), fields=fields)
    elsewhere: dict[str, Any] = {**good, "name": NAME.replace("/a1/", "/a2/")}
    unknown: dict[str, Any] = {**good, "name": UNKNOWN}
    yield Row("unknown", "OverrideGrade", Override(**unknown), "RESOURCE_NOT_FOUND")
    yield Row("elsewhere", "OverrideGrade", Override(**elsewhere), "RESOURCE_NOT_FOUND")
    foreign = credential("instructor", "prof", tenant="other")
    yield Row("foreign", "OverrideGrade", Override(**good), "RESOURCE_NOT_FOUND", metadata=foreign)
    for metadata in (STUDENT, OPERATOR):
        yield Row(
            f"by {metadata[0][1]}", "OverrideGrade", Override(**good), "ROLE_FORBIDDEN", metadata=metadata
        )


def listings() -> Iterator[Row]:
    for method, kind in (
        ("ListGradings", pb.ListGradingsRequest),
        ("ListAuditEvents", pb.ListAuditEventsRequest),
    ):
        yield Row(f"{method} no parent", method, kind(), fields=("parent",))
        yield Row(f"{method} bad parent", method, kind(parent=PARENT), fields=("parent",))
        yield Row(f"{method} page size", method, kind(parent=NAME, page_size=-1), fields=("page_size",))
        yield Row(
            f"{method} token",
            method,
            kind(parent=NAME, page_token="AAAA"),
            "PAGE_TOKEN_INVALID",
            ("page_token",),
        )
        yield Row(f"{method} unknown", method, kind(parent=UNKNOWN), "RESOURCE_NOT_FOUND")
    mine = pb.ListGradingsRequest(parent=NAME)
    yield Row("of another student", "ListGradings", mine, "RESOURCE_NOT_FOUND", metadata=OTHER_STUDENT)
    for metadata in (STUDENT, OPERATOR):
        audit = pb.ListAuditEventsRequest(parent=NAME)
        yield Row(f"audit by {metadata[0][1]}", "ListAuditEvents", audit, "ROLE_FORBIDDEN", metadata=metadata)


@pytest.mark.parametrize("row", [*overrides(), *listings()], ids=lambda row: row.name)
async def test_bad_input_is_named_and_changes_nothing(gateway: World, row: Row) -> None:
    created = await gateway.submission()
    before = await read(gateway, created)
    field = "name" if isinstance(row.request, Override) else "parent"
    named = type(row.request).FromString(row.request.SerializeToString())
    setattr(named, field, getattr(row.request, field).replace("NAME", created.name.rpartition("/")[2]))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await getattr(gateway.submissions, row.method)(named, metadata=row.metadata)
    refused = refusal_of(raised.value)
    assert refused.reason == row.reason
    if row.fields:
        assert refused.fields == row.fields
    assert await read(gateway, created) == before


async def test_only_operators_verify(gateway: World) -> None:
    for metadata in (STUDENT, INSTRUCTOR):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await gateway.operations.VerifyAudit(operations_pb.VerifyAuditRequest(), metadata=metadata)
        assert refusal_of(raised.value).reason == "ROLE_FORBIDDEN"


async def test_a_page_token_is_of_no_use_to_others(gateway: World) -> None:
    created = await gateway.submission()
    for item in ("name", "explain"):
        gateway.grade(created, item, 1)
    listing = pb.ListGradingsRequest(parent=created.name, page_size=1)
    token = (await gateway.submissions.ListGradings(listing, metadata=INSTRUCTOR)).next_page_token
    assert token
    for parent, metadata in ((created.name, STUDENT), ((await gateway.submission()).name, INSTRUCTOR)):
        stolen = pb.ListGradingsRequest(parent=parent, page_size=1, page_token=token)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await gateway.submissions.ListGradings(stolen, metadata=metadata)
        assert refusal_of(raised.value).reason == "PAGE_TOKEN_INVALID"
