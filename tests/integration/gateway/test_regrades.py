"""Regrades through the gateway, on real storage, scheduler and graders."""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping
from typing import Any, cast

import grpc
import pytest
import pytest_asyncio
from google.protobuf.timestamp_pb2 import Timestamp

from cinnabar.gateway.v1 import operations_service_pb2 as operations_pb
from cinnabar.gateway.v1 import submission_service_pb2 as submissions_pb
from cinnabar.gateway.v1.assignment_service_pb2 import (
    Assignment,
    CreateAssignmentRequest,
    UpdateAssignmentRequest,
)
from cinnabar.gateway.v1.regrade_service_pb2 import (
    CreateRegradeRequest,
    DiscardRegradeRequest,
    GetRegradeReportRequest,
    GetRegradeRequest,
    ListRegradesRequest,
    PromoteRegradeRequest,
    Regrade,
    RegradeReport,
)
from cinnabar.gateway.v1.submission_service_pb2 import ItemResult, Submission
from cinnabar.grader.v1.grade_pb2 import Answer
from cinnabar_common.channels import channel
from cinnabar_common.names import AssignmentName, RegradeName, bucket_of, new_id
from cinnabar_common.redis_connection import connect
from cinnabar_gateway.adapters.regrade_client import RegradeClient
from cinnabar_gateway.regrade_ports import NewRegrade, RegradeFilter, RegradeKey
from tests.support.client_cli import Ran, run
from tests.support.gateway_suite import PARENT, Real, create_request, real_gateway
from tests.support.gateway_world import (
    COURSE,
    INSTRUCTOR,
    OPERATOR,
    STUDENT,
    TENANT,
    credential,
    items,
    refusal_of,
)
from tests.support.servers import ShardUrls
from tests.support.storage_service import storage_on
from tests.support.waiting import until

STUDENTS = 30
ITEMS = 3
SECONDS = 30.0


@pytest_asyncio.fixture
async def real(migrated_shards: list[ShardUrls], valkey_url: str) -> AsyncGenerator[Real]:
    """A gateway that soon takes over what others left, with one assignment."""
    async with (
        storage_on(migrated_shards, regrade_claim_seconds=0.2) as storage,
        real_gateway(storage.address, valkey_url, regrade_poll_seconds=0.1) as made,
    ):
        await made.assignment()
        yield made


async def hand_in(real: Real) -> None:
    """One submission of each student; every third chooses both options that were right at first."""
    requests = [create_request(f"s{number}") for number in range(STUDENTS)]
    for request in requests[::3]:
        choice = Answer(item="pick", choice=Answer.Choice(options=["tcp", "udp"]))
        request.submission.answers[0].CopyFrom(choice)
    await real.submissions.BatchCreateSubmissions(
        submissions_pb.BatchCreateSubmissionsRequest(parent=PARENT, requests=requests), metadata=INSTRUCTOR
    )
    await until(lambda: settled(real), description="everything is graded", seconds=SECONDS)


async def listed(real: Real) -> dict[str, Submission]:
    """All submissions by author, from the primaries."""
    request = submissions_pb.ListSubmissionsRequest(parent=PARENT, page_size=1000)
    page = await real.submissions.ListSubmissions(request, metadata=INSTRUCTOR)
    return {one.author: one for one in page.submissions}


async def settled(real: Real) -> bool:
    found = await listed(real)
    return len(found) == STUDENTS and {one.state for one in found.values()} == {Submission.GRADED}


async def revise(real: Real) -> Assignment:
    """A revision in which only "tcp" is right, and the name is worth more and another one."""
    wanted = Assignment(name=PARENT, items=items()[:3])
    wanted.items[0].choice.correct[:] = ["tcp"]
    wanted.items[2].points = 2
    wanted.items[2].text.accepted[:] = ["handshake"]
    return await real.assignments.UpdateAssignment(
        UpdateAssignmentRequest(assignment=wanted), metadata=INSTRUCTOR
    )


async def regrade(real: Real, *, parent: str = PARENT, **fields: Any) -> Regrade:
    given: dict[str, Any] = {"reason": "a better key", **fields}
    regrade = Regrade(**given)
    request = CreateRegradeRequest(parent=parent, regrade=regrade)
    return await real.regrades.CreateRegrade(request, metadata=INSTRUCTOR)


async def reached(real: Real, name: str, state: Regrade.State.ValueType) -> Regrade:
    """The regrade once it is in that state."""

    async def now() -> Regrade:
        return await real.regrades.GetRegrade(GetRegradeRequest(name=name), metadata=INSTRUCTOR)

    async def there() -> bool:
        return (await now()).state == state

    await until(there, description=f"the regrade is {Regrade.State.Name(state)}", seconds=SECONDS)
    return await now()


async def balanced(real: Real, accepted: int, graded: int) -> None:
    """Waits for these counts, which are exact; that nothing is lost holds on the way there too."""

    async def exact() -> bool:
        counts = await real.operations.GetConservation(
            operations_pb.GetConservationRequest(), metadata=OPERATOR
        )
        total = counts.open + counts.dead_lettered + counts.cancelled + counts.graded
        assert counts.accepted == total
        return (counts.accepted, counts.graded) == (accepted, graded)

    await until(exact, description=f"{accepted} accepted, {graded} graded", seconds=SECONDS)


def expected(
    name: str, before: Mapping[str, Submission], after: Mapping[str, Submission], pass_share: float
) -> RegradeReport:
    """The report, from what everybody sees before and after: by another way than the product's."""
    report = RegradeReport(name=name)
    deltas: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    changes: list[tuple[float, str, str, RegradeReport.Change]] = []
    for author, old in before.items():
        for was, now in zip(old.results, after[author].results, strict=True):
            change = now.grade.score - was.grade.score
            points = now.grade.max_score
            report.compared += 1
            report.unchanged += change == 0
            report.raised += change > 0
            report.lowered += change < 0
            passed = [one.score / one.max_score >= pass_share for one in (was.grade, now.grade)]
            report.failed_to_passed += passed == [False, True]
            report.passed_to_failed += passed == [True, False]
            deltas[now.item, ""].append((change, change / points))
            for part in now.grade.criteria:
                [old_part] = [one for one in was.grade.criteria if one.criterion == part.criterion]
                moved = part.score - old_part.score
                deltas[now.item, part.criterion].append((moved, moved / part.max_score))
            if change:
                largest = RegradeReport.Change(
                    submission=old.name,
                    item=now.item,
                    old_score=was.grade.score,
                    new_score=now.grade.score,
                    max_score=points,
                )
                changes.append((abs(change / points), old.name, now.item, largest))
    for (item, criterion), moves in sorted(deltas.items()):
        histogram = [0] * 21
        for _, share in moves:
            histogram[round((max(-1.0, min(1.0, share)) + 1) * 10)] += 1
        report.deltas.add(
            item=item,
            criterion=criterion,
            compared=len(moves),
            mean_delta=sum(change for change, _ in moves) / len(moves),
            rms_delta=math.sqrt(sum(change**2 for change, _ in moves) / len(moves)),
            histogram=histogram,
        )
    report.largest.extend(
        change for *_, change in sorted(changes, key=lambda one: one[:3], reverse=True)[:20]
    )
    return report


async def test_a_shadow_is_compared_and_then_promoted(real: Real) -> None:
    async with real.scheduler(), real.grader():
        await hand_in(real)
        before = await listed(real)
        revision = await revise(real)
        shadow = await regrade(real, shadow=True, revision_id=revision.revision_id)
        assert (shadow.state, shadow.shadow, shadow.actor) == (Regrade.OPENING, True, "instructor/prof")
        ready = await reached(real, shadow.name, Regrade.READY)
        tasks = STUDENTS * ITEMS
        assert (ready.opened, ready.graded, ready.failed, ready.skipped) == (tasks, tasks, 0, 0)
        assert await listed(real) == before  # nobody sees anything of it
        await balanced(real, 2 * tasks, 2 * tasks)
        asked = GetRegradeReportRequest(name=shadow.name, pass_share=0.75)
        report = await real.regrades.GetRegradeReport(asked, metadata=INSTRUCTOR)
        promoted = await real.regrades.PromoteRegrade(
            PromoteRegradeRequest(name=shadow.name), metadata=INSTRUCTOR
        )
        assert promoted.state == Regrade.PROMOTING
        done = await reached(real, shadow.name, Regrade.PROMOTED)
        assert (done.promoted, done.overtaken) == (tasks, 0)

        async def visible() -> bool:
            found = await listed(real)
            return {result.generation for one in found.values() for result in one.results} == {3}

        await until(visible, description="the new grades count", seconds=SECONDS)
        after = await listed(real)
        assert {one.score for one in after.values()} == {1.0, 3.0}
        wanted = expected(shadow.name, before, after, 0.75)
        assert (wanted.raised, wanted.lowered, wanted.compared) == (20, 40, tasks)
        assert report == wanted
        again = await real.regrades.GetRegradeReport(asked, metadata=INSTRUCTOR)
        assert again == report  # what it changed is told after the promotion too
        await balanced(real, 2 * tasks, 2 * tasks)
        history = await real.submissions.ListGradings(
            submissions_pb.ListGradingsRequest(parent=before["s1"].name), metadata=INSTRUCTOR
        )
        kinds = [one.kind for one in history.gradings if one.item == "pick"]
        Kind = submissions_pb.Grading.Kind
        assert kinds == [Kind.GRADED, Kind.SHADOW, Kind.PROMOTED]
        [*_, last] = [one for one in history.gradings if one.item == "pick"]
        assert (last.regrade, last.revision_id, last.current) == (shadow.name, revision.revision_id, True)
        await at_the_command_line(real, shadow.name)


async def at_the_command_line(real: Real, promoted: str) -> None:
    """The same, as a person does it."""

    async def cinnabar(*arguments: str) -> Ran:
        return await run(real.address, "regrade", *arguments, token=f"dev.{TENANT}.instructor.prof")

    shown, reported, made, refused = await asyncio.gather(
        cinnabar("show", promoted),
        cinnabar("report", promoted, "--pass-share", "0.75"),
        cinnabar(
            *("create", "net/rules", "--shadow", "--author", "s1", "--item", "pick", "--score-below", "1"),
            *("--reason", "once more", "--json"),
        ),
        cinnabar("discard", promoted, "--json"),
    )
    assert (shown.code, "promoted shadow" in shown.out) == (0, True)
    assert (reported.code, "90 compared: 20 higher, 40 lower, 30 the same" in reported.out) == (0, True)
    assert (refused.code, refused.problem["reason"]) == (1, "STATE_FORBIDS")
    assert made.document["filter"] == {"authors": ["s1"], "items": ["pick"], "scoreBelow": 1}
    waited = await cinnabar("show", made.document["name"], "--wait", "--json")
    assert waited.document["state"] == "READY"
    discarded, listed = await asyncio.gather(
        cinnabar("discard", made.document["name"], "--json"), cinnabar("list", "net/rules", "--json")
    )
    assert discarded.document["state"] == "DISCARDED"
    assert [line["name"] for line in listed.lines] == [made.document["name"], promoted]


async def test_a_regrade_whose_gateway_died_is_finished_by_another(real: Real) -> None:
    async with real.scheduler(), real.grader():
        await hand_in(real)
        async with channel(real.storage_target) as storage:
            dead = RegradeClient(storage)
            name = RegradeName("net", "rules", new_id(bucket_of(TENANT, "course:net")))
            await dead.create(
                NewRegrade(
                    tenant=TENANT,
                    name=name,
                    filter=RegradeFilter(items=("pick", "name")),
                    revision_id="",
                    shadow=False,
                    reason="its gateway dies",
                    actor="instructor/prof",
                )
            )
            # What it opened here it never told the queue.
            await dead.advance(RegradeKey(TENANT, name.regrade), limit=10)
        opened = 2 * STUDENTS

        async def everything_opened() -> bool:
            found = await real.regrades.GetRegrade(GetRegradeRequest(name=str(name)), metadata=INSTRUCTOR)
            return found.opened == opened and found.state != Regrade.OPENING

        await until(everything_opened, description="another gateway went on", seconds=SECONDS)
        redis = cast("Any", connect(real.redis_url, timeout_seconds=5))
        await redis.flushdb()  # so that the rebuild comes now, and not the sweep later
        await redis.aclose()
        done = await reached(real, str(name), Regrade.DONE)
        assert (done.opened, done.graded, done.failed, done.skipped) == (opened, opened, 0, 0)
        await balanced(real, STUDENTS * ITEMS + opened, STUDENTS * ITEMS + opened)


async def test_one_and_many_while_people_watch_and_change_their_minds(real: Real) -> None:
    async with real.scheduler():
        async with real.grader():
            await hand_in(real)
        found = await listed(real)
        name = found["s1"].name
        request = submissions_pb.RegradeSubmissionRequest(name=name, items=["pick"], reason="he asked")
        opened = await real.submissions.RegradeSubmission(request, metadata=INSTRUCTOR)
        assert opened.state == Submission.GRADING
        pick, count, _ = opened.results
        assert (pick.state, pick.generation, count.state) == (ItemResult.REGRADING, 1, ItemResult.GRADED)
        assert opened.score == found["s1"].score
        assert opened.etag != found["s1"].etag
        many = await regrade(real, filter=Regrade.Filter(authors=["s1", "s2"]))
        grading = await reached(real, many.name, Regrade.GRADING)
        assert (grading.opened, grading.skipped) == (5, 1)
        discarded = await regrade(real, filter=Regrade.Filter(authors=["s3"]))
        await reached(real, discarded.name, Regrade.GRADING)
        given_up = await real.regrades.DiscardRegrade(
            DiscardRegradeRequest(name=discarded.name), metadata=INSTRUCTOR
        )
        assert given_up.state == Regrade.DISCARDED

        async def back() -> bool:
            read = submissions_pb.GetSubmissionRequest(name=found["s3"].name)
            return (await real.submissions.GetSubmission(read, metadata=STUDENT3)).state == Submission.GRADED

        await until(back, description="what was discarded is graded as before", seconds=SECONDS)
        for what, refused in {
            "no etag of now": real.submissions.RegradeSubmission(
                submissions_pb.RegradeSubmissionRequest(name=name, reason="x", etag='"old"'),
                metadata=INSTRUCTOR,
            ),
            "all open": real.submissions.RegradeSubmission(
                submissions_pb.RegradeSubmissionRequest(name=name, reason="x"), metadata=INSTRUCTOR
            ),
            "not ready": real.regrades.PromoteRegrade(
                PromoteRegradeRequest(name=many.name), metadata=INSTRUCTOR
            ),
            "discarded": real.regrades.PromoteRegrade(
                PromoteRegradeRequest(name=discarded.name), metadata=INSTRUCTOR
            ),
        }.items():
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await refused
            refusal = refusal_of(raised.value)
            reason = "ETAG_MISMATCH" if what == "no etag of now" else "STATE_FORBIDS"
            assert (what, refusal.reason) == (what, reason)
        watch = real.submissions.WatchSubmission(
            submissions_pb.WatchSubmissionRequest(name=name), metadata=INSTRUCTOR
        )
        async with real.grader(), asyncio.timeout(SECONDS):
            states = [response.submission async for response in watch]
        assert states[0].state == Submission.GRADING
        assert states[-1].state == Submission.GRADED
        assert [result.generation for result in states[-1].results] == [2, 2, 2]
        assert (await reached(real, many.name, Regrade.DONE)).graded == 5
        page = await real.regrades.ListRegrades(
            ListRegradesRequest(parent=PARENT, page_size=1), metadata=INSTRUCTOR
        )
        assert [one.name for one in page.regrades] == [discarded.name]
        rest = await real.regrades.ListRegrades(
            ListRegradesRequest(parent=PARENT, page_size=1, page_token=page.next_page_token),
            metadata=INSTRUCTOR,
        )
        assert [one.name for one in rest.regrades] == [many.name]
        await balanced(real, STUDENTS * ITEMS + 6 + 3, STUDENTS * ITEMS + 6)


STUDENT3 = credential("student", "s3")


async def test_bad_calls_are_told_what_is_wrong(real: Real) -> None:
    revision = (await revise(real)).revision_id
    other = AssignmentName("net", "other")
    await real.assignments.CreateAssignment(
        CreateAssignmentRequest(
            parent=COURSE, assignment=Assignment(items=items()[:3]), assignment_id=other.assignment
        ),
        metadata=INSTRUCTOR,
    )
    known = await regrade(real, shadow=True)
    elsewhere = known.name.replace("/rules/", "/other/")
    foreign = credential("instructor", "prof", tenant="elsewhere")
    long_ago = Timestamp(seconds=1_000_000_000)
    invalid: dict[str, dict[str, Any]] = {
        "regrade.reason": {"reason": ""},
        "regrade.filter.authors[0]": {"filter": Regrade.Filter(authors=["Not An Id"])},
        "regrade.filter.items": {"filter": Regrade.Filter(items=["q"] * 1001)},
        "regrade.filter.score_below": {"filter": Regrade.Filter(score_below=math.nan)},
        "regrade.filter.created_before": {
            "filter": Regrade.Filter(created_after=long_ago, created_before=long_ago)
        },
    }
    for field, fields in invalid.items():
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await regrade(real, **fields)
        assert refusal_of(raised.value).fields[0] == field
    for what, call in {
        "no such revision": regrade(real, revision_id="unknown"),
        "a revision of another assignment": regrade(real, parent=str(other), revision_id=revision),
        "no such assignment": regrade(real, parent=f"{COURSE}/assignments/nothing"),
        "no such regrade": real.regrades.GetRegrade(
            GetRegradeRequest(name=f"{PARENT}/regrades/nothing"), metadata=INSTRUCTOR
        ),
        "of another assignment": real.regrades.GetRegrade(
            GetRegradeRequest(name=elsewhere), metadata=INSTRUCTOR
        ),
        "of another tenant": real.regrades.GetRegrade(GetRegradeRequest(name=known.name), metadata=foreign),
        "promoted by another tenant": real.regrades.PromoteRegrade(
            PromoteRegradeRequest(name=known.name), metadata=foreign
        ),
        "report for another tenant": real.regrades.GetRegradeReport(
            GetRegradeReportRequest(name=known.name), metadata=foreign
        ),
    }.items():
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
        refusal = refusal_of(raised.value)
        assert (what, refusal.code, refusal.reason) == (
            what,
            grpc.StatusCode.NOT_FOUND,
            "RESOURCE_NOT_FOUND",
        )
    for role in (STUDENT, OPERATOR):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await real.regrades.GetRegrade(GetRegradeRequest(name=known.name), metadata=role)
        assert refusal_of(raised.value).reason == "ROLE_FORBIDDEN"
    asked = GetRegradeReportRequest(name=known.name, pass_share=1.5)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await real.regrades.GetRegradeReport(asked, metadata=INSTRUCTOR)
    assert refusal_of(raised.value).fields == ("pass_share",)
