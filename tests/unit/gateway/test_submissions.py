"""Handing in and reading back."""

import asyncio

import grpc
import pytest

from cinnabar.gateway.v1 import submission_service_pb2 as pb
from cinnabar.grader.v1.grade_pb2 import Answer
from cinnabar_gateway.consistency import TOKEN_KEY
from tests.support.gateway_world import (
    INSTRUCTOR,
    KEYS,
    OTHER_STUDENT,
    PARENT,
    STUDENT,
    TENANT,
    World,
    answers,
    as_created,
    create_request,
    credential,
    key_of,
    refusal_in,
    refusal_of,
)
from tests.support.waiting import until

State = pb.Submission.State
ItemState = pb.ItemResult.State


async def test_a_submission_is_committed_queued_and_read_back(gateway: World) -> None:
    created = await gateway.submission()
    assert created.state == State.QUEUED
    assert (created.author, created.max_score) == ("ann", 8)
    assert created.priority == pb.Submission.Priority.NORMAL
    assert list(created.answers) == answers()
    read = await gateway.submissions.GetSubmission(
        pb.GetSubmissionRequest(name=created.name), metadata=STUDENT
    )
    assert as_created(read) == created
    await until(lambda: len(gateway.queue.tasks) == 4, "the tasks are queued")
    queued = {task.queue: task for task in gateway.queue.tasks.values()}
    assert set(queued) == {"choice", "numeric", "text", "free-text"}
    assert queued["text"].item_key == f"{created.revision_id}/name"
    assert Answer.FromString(queued["text"].answer) == answers()[2]


async def test_output_only_fields_of_a_request_are_ignored(gateway: World) -> None:
    request = create_request()
    request.submission.name = "courses/x/assignments/y/submissions/z"
    request.submission.state = State.GRADED
    request.submission.score = 8
    request.submission.results.add(item="pick", state=ItemState.GRADED)
    created = await gateway.submissions.CreateSubmission(request, metadata=STUDENT)
    assert created.state == State.QUEUED
    assert created.score == 0
    assert [result.state for result in created.results] == [ItemState.QUEUED] * 4


async def test_results_come_in_the_order_of_the_answers_as_they_are_graded(gateway: World) -> None:
    request = create_request()
    request.submission.answers.reverse()
    created = await gateway.submissions.CreateSubmission(request, metadata=STUDENT)
    gateway.grade(created, "name", 1)
    read = await gateway.submissions.GetSubmission(
        pb.GetSubmissionRequest(name=created.name), metadata=INSTRUCTOR
    )
    assert [result.item for result in read.results] == ["explain", "name", "count", "pick"]
    assert read.state == State.GRADING
    assert (read.results[1].state, read.results[1].grade.feedback) == (ItemState.GRADED, "well")
    for item in ("pick", "count", "explain"):
        gateway.grade(created, item, 1.5)
    read = await gateway.submissions.GetSubmission(
        pb.GetSubmissionRequest(name=created.name), metadata=STUDENT
    )
    assert (read.state, read.score) == (State.GRADED, 5.5)


async def test_the_same_request_gives_the_first_answer(gateway: World) -> None:
    first = await gateway.submissions.CreateSubmission(create_request(request_id="r 1"), metadata=STUDENT)
    gateway.grade(first, "name")
    again = await gateway.submissions.CreateSubmission(
        create_request(), metadata=(*STUDENT, ("idempotency-key", "r 1"))
    )
    assert again.name == first.name
    assert again.state == State.GRADING
    assert len(gateway.storage.submissions) == 1
    other = await gateway.submissions.CreateSubmission(
        create_request(request_id="r 1"), metadata=OTHER_STUDENT
    )
    assert other.name != first.name


async def test_twenty_equal_requests_at_once_store_one(gateway: World) -> None:
    created = await asyncio.gather(
        *(
            gateway.submissions.CreateSubmission(create_request(request_id="r"), metadata=STUDENT)
            for _ in range(20)
        )
    )
    assert len({one.name for one in created}) == 1
    assert len(gateway.storage.submissions) == 1


async def test_a_request_id_with_another_body_is_refused(gateway: World) -> None:
    await gateway.submissions.CreateSubmission(create_request(request_id="r"), metadata=STUDENT)
    other = create_request(request_id="r")
    other.submission.answers[2].text = "something else"
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await gateway.submissions.CreateSubmission(other, metadata=STUDENT)
    refusal = refusal_of(raised.value)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "REQUEST_ID_REUSED")
    assert refusal.metadata == {"request_id": "r"}
    assert len(gateway.storage.submissions) == 1


async def test_a_write_gives_a_token_that_a_read_takes(gateway: World) -> None:
    call = gateway.submissions.CreateSubmission(create_request(), metadata=STUDENT)
    created = await call
    initial, trailing = dict(await call.initial_metadata()), dict(await call.trailing_metadata())
    token = str(initial[TOKEN_KEY])
    assert trailing[TOKEN_KEY] == token
    assert KEYS.decode(TENANT, [token])
    read = await gateway.submissions.GetSubmission(
        pb.GetSubmissionRequest(name=created.name), metadata=(*STUDENT, (TOKEN_KEY, token))
    )
    assert as_created(read) == created


async def test_a_batch_stores_the_good_ones_and_explains_the_bad(gateway: World) -> None:
    bad, foreign = create_request(author="cid"), create_request(author="dan", parent=PARENT + "x")
    del bad.submission.answers[1]
    batch = pb.BatchCreateSubmissionsRequest(
        parent=PARENT,
        requests=[create_request(author="ann", parent=""), bad, foreign, create_request(author="eve")],
    )
    response = await gateway.submissions.BatchCreateSubmissions(batch, metadata=INSTRUCTOR)
    assert [result.WhichOneof("result") for result in response.results] == [
        "submission",
        "error",
        "error",
        "submission",
    ]
    assert [response.results[index].submission.author for index in (0, 3)] == ["ann", "eve"]
    assert refusal_in(response.results[1].error).fields == ("submission.answers",)
    assert "count" in refusal_in(response.results[1].error).rules[0]
    assert refusal_in(response.results[2].error).fields == ("parent",)
    assert {one.author for one in gateway.storage.submissions.values()} == {"ann", "eve"}


async def test_a_batch_repeated_gives_the_first_answers(gateway: World) -> None:
    requests = [create_request(author=f"s{number}", request_id="r") for number in range(3)]
    batch = pb.BatchCreateSubmissionsRequest(parent=PARENT, requests=requests)
    first = await gateway.submissions.BatchCreateSubmissions(batch, metadata=INSTRUCTOR)
    assert await gateway.submissions.BatchCreateSubmissions(batch, metadata=INSTRUCTOR) == first
    assert len(gateway.storage.submissions) == 3


async def test_cancelling_stops_what_is_open_and_may_be_repeated(gateway: World) -> None:
    created = await gateway.submission()
    await until(lambda: len(gateway.queue.tasks) == 4, "the tasks are queued")
    gateway.grade(created, "name")
    request = pb.CancelSubmissionRequest(name=created.name)
    cancelled = await gateway.submissions.CancelSubmission(request, metadata=STUDENT)
    assert cancelled.state == State.CANCELLED
    assert [result.state for result in cancelled.results] == [
        ItemState.CANCELLED,
        ItemState.CANCELLED,
        ItemState.GRADED,
        ItemState.CANCELLED,
    ]
    assert {key[0].rpartition("/")[2] for key in gateway.queue.tasks} == {"name"}
    assert await gateway.submissions.CancelSubmission(request, metadata=STUDENT) == cancelled


async def test_what_is_graded_cannot_be_cancelled(gateway: World) -> None:
    created = await gateway.submission()
    for item in ("pick", "count", "name", "explain"):
        gateway.grade(created, item)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await gateway.submissions.CancelSubmission(
            pb.CancelSubmissionRequest(name=created.name), metadata=STUDENT
        )
    refusal = refusal_of(raised.value)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "STATE_FORBIDS")
    assert refusal.metadata == {"resource": created.name, "state": "GRADED"}


async def test_a_list_is_walked_page_by_page_newest_first(gateway: World) -> None:
    names = [(await gateway.submission(metadata=INSTRUCTOR, author=f"s{n}")).name for n in range(5)]
    request, seen = pb.ListSubmissionsRequest(parent=PARENT, page_size=2), list[str]()
    while True:
        page = await gateway.submissions.ListSubmissions(request, metadata=INSTRUCTOR)
        assert len(page.submissions) <= 2
        seen += [one.name for one in page.submissions]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert seen == names[::-1]


async def test_a_student_lists_only_their_own(gateway: World) -> None:
    mine = await gateway.submission()
    await gateway.submission(metadata=OTHER_STUDENT)
    page = await gateway.submissions.ListSubmissions(
        pb.ListSubmissionsRequest(parent=PARENT), metadata=STUDENT
    )
    assert [one.name for one in page.submissions] == [mine.name]
    filtered = await gateway.submissions.ListSubmissions(
        pb.ListSubmissionsRequest(parent=PARENT, author="bob"), metadata=INSTRUCTOR
    )
    assert [one.author for one in filtered.submissions] == ["bob"]


@pytest.mark.parametrize(
    "metadata",
    [OTHER_STUDENT, credential("instructor", "prof", tenant="elsewhere")],
    ids=["student", "tenant"],
)
async def test_a_foreign_submission_looks_like_none(
    gateway: World, metadata: tuple[tuple[str, str], ...]
) -> None:
    mine = await gateway.submission()
    nobody = mine.name.replace(key_of(mine).submission_id, "0" * 26 + "-000")
    refusals: list[str] = []
    for name in (mine.name, nobody):
        for call in (
            gateway.submissions.GetSubmission(pb.GetSubmissionRequest(name=name), metadata=metadata),
            gateway.submissions.CancelSubmission(pb.CancelSubmissionRequest(name=name), metadata=metadata),
            gateway.submissions.WatchSubmission(
                pb.WatchSubmissionRequest(name=name), metadata=metadata
            ).read(),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await call
            refusal = refusal_of(raised.value)
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND")
            refusals.append(refusal.message.replace(name, "it"))
    assert len(set(refusals)) == 1
