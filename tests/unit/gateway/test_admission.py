"""Idempotency keys and costs, as callers of a gateway meet them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from cinnabar.gateway.v1 import submission_service_pb2 as pb
from cinnabar.gateway.v1.assignment_service_pb2 import Assignment, UpdateAssignmentRequest
from cinnabar.gateway.v1.grading_service_pb2 import SubmitGradingRequest
from cinnabar_common.clock import SystemClock
from cinnabar_common.errors import DependencyUnavailable
from cinnabar_gateway.adapters.memory import MemoryStorage
from cinnabar_gateway.adapters.memory_admission import MemoryAdmissions
from cinnabar_gateway.admission import (
    Admission,
    AdmissionRequest,
    Result,
    Settlement,
    Verdict,
)
from cinnabar_gateway.records import Committed, Fate, NewSubmission, Reservation
from tests.support.gateway_world import (
    INSTRUCTOR,
    PARENT,
    STUDENT,
    Refusal,
    World,
    answers,
    create_request,
    items,
    refusal_in,
    refusal_of,
    world,
)
from tests.support.waiting import until

ABORTED, EXHAUSTED = grpc.StatusCode.ABORTED, grpc.StatusCode.RESOURCE_EXHAUSTED


class Gate(MemoryStorage):
    """Commits when it may, or says what it is told to say; counts the submissions that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()
        self.open.set()
        self.unreachable = False
        self.away = False
        self.given = 0

    async def create_submissions(self, new: Sequence[NewSubmission]) -> list[Committed]:
        """See SubmissionStore."""
        self.given += len(new)
        await self.open.wait()
        if self.away:
            raise DependencyUnavailable("storage")
        if self.unreachable:
            return [Committed(Fate.UNAVAILABLE, one.submission_id, ()) for one in new]
        return await super().create_submissions(new)


class Away(MemoryAdmissions):
    """Admissions that may be out of reach; counts how often they are asked."""

    def __init__(self) -> None:
        super().__init__()
        self.gone = True
        self.calls = 0

    async def admit(self, requests: Sequence[AdmissionRequest]) -> list[Verdict]:
        """See Admissions."""
        self.calls += 1
        if self.gone:
            raise DependencyUnavailable("scheduler")
        return await super().admit(requests)

    async def settle(self, ends: Sequence[Settlement]) -> None:
        """See Admissions."""
        if self.gone:
            raise DependencyUnavailable("scheduler")
        await super().settle(ends)


async def refused(gateway: World, request: pb.CreateSubmissionRequest) -> Refusal:
    """How a create is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await gateway.submissions.CreateSubmission(request, metadata=STUDENT)
    return refusal_of(raised.value)


async def settled(gateway: World, request: pb.CreateSubmissionRequest) -> None:
    """Waits until the answer of a request is known to admission."""
    await gateway.submissions.CreateSubmission(request, metadata=STUDENT)
    key = request.request_id

    async def answered() -> bool:
        asked = next(one for one in gateway.admissions.asked if one.key == key)
        return (await gateway.admissions.admit([asked]))[0].result is Result.REPLAY

    await until(answered, "the answer is settled")
    gateway.admissions.asked.clear()


async def test_single_creates_without_a_key_ask_nothing(gateway: World) -> None:
    await gateway.submission()
    request = SubmitGradingRequest(course="net", assignment="a1", answers=answers())
    made = await gateway.grading.SubmitGrading(request, metadata=STUDENT)
    assert made.idempotency_key
    assert gateway.admissions.asked == []
    again = await gateway.grading.SubmitGrading(
        request, metadata=(*STUDENT, ("idempotency-key", made.idempotency_key))
    )
    assert (again.submission, again.idempotency_key) == (made.submission, made.idempotency_key)
    assert [(one.method, one.cost, one.key) for one in gateway.admissions.asked] == [
        ("SubmitGrading", 0, made.idempotency_key)
    ]


async def test_a_repeated_request_is_answered_without_storage() -> None:
    storage = Gate()
    async with world(storage=storage) as gateway:
        await gateway.assignment()
        request = create_request(request_id="r")
        await settled(gateway, request)
        given = storage.given
        again = await gateway.submissions.CreateSubmission(request, metadata=STUDENT)
        assert (storage.given, len(storage.submissions)) == (given, 1)
        gateway.grade(again, "name")
        later = await gateway.submissions.CreateSubmission(request, metadata=STUDENT)
        assert (later.name, later.state) == (again.name, pb.Submission.State.GRADING)  # as it is now


async def test_a_key_with_another_content_is_refused_by_admission_alone() -> None:
    storage = Gate()
    async with world(storage=storage) as gateway:
        await gateway.assignment()
        await settled(gateway, create_request(request_id="r"))
        given = storage.given
        other = create_request(request_id="r")
        other.submission.answers[2].text = "something else"
        refusal = await refused(gateway, other)
        assert (refusal.reason, storage.given) == ("REQUEST_ID_REUSED", given)


async def test_an_equal_call_waits_for_the_first_and_gets_its_answer() -> None:
    storage = Gate()
    async with world(storage=storage) as gateway:
        await gateway.assignment()
        storage.open.clear()
        request = create_request(request_id="r")
        calls = [
            asyncio.ensure_future(gateway.submissions.CreateSubmission(request, metadata=STUDENT))
            for _ in range(20)
        ]
        await until(lambda: len(gateway.admissions.asked) > 20, "the others ask again")
        assert storage.given == 1
        storage.open.set()
        assert len({one.name for one in await asyncio.gather(*calls)}) == 1
        assert (storage.given, len(storage.submissions)) == (1, 1)


async def test_waiting_has_an_end_that_says_when_to_come_back() -> None:
    storage = Gate()
    async with world(storage=storage, admission_wait_seconds=0.05) as gateway:
        await gateway.assignment()
        storage.open.clear()
        request = create_request(request_id="r")
        first = asyncio.ensure_future(gateway.submissions.CreateSubmission(request, metadata=STUDENT))
        await until(lambda: storage.given == 1, "the first is being committed")
        refusal = await refused(gateway, request)
        assert (refusal.code, refusal.reason) == (ABORTED, "REQUEST_IN_PROGRESS")
        assert (refusal.metadata, refusal.retry_after) == ({"request_id": "r"}, 0.5)
        storage.open.set()
        assert (await first).name


async def test_a_caller_that_gives_up_leaves_an_answer_behind() -> None:
    storage = Gate()
    async with world(storage=storage) as gateway:
        await gateway.assignment()
        storage.open.clear()
        request = create_request(request_id="r")
        call = asyncio.ensure_future(gateway.submissions.CreateSubmission(request, metadata=STUDENT))
        await until(lambda: storage.given == 1, "it is being committed")
        call.cancel()
        storage.open.set()
        await settled(gateway, request)
        assert (storage.given, len(storage.submissions)) == (1, 1)


@pytest.mark.parametrize("way", ["told", "raised"])
async def test_what_is_not_known_frees_the_key(way: str) -> None:
    storage = Gate()
    async with world(storage=storage, admission_wait_seconds=0.05) as gateway:
        await gateway.assignment()
        storage.unreachable = way == "told"
        storage.away = way == "raised"
        assert (await refused(gateway, create_request(request_id="r"))).reason == "DEPENDENCY_UNAVAILABLE"
        storage.unreachable = storage.away = False

        async def accepted() -> bool:
            try:
                await gateway.submissions.CreateSubmission(create_request(request_id="r"), metadata=STUDENT)
            except grpc.aio.AioRpcError as error:
                return refusal_of(error).reason != "REQUEST_IN_PROGRESS"
            return True

        await until(accepted, "the key is free, long before its reservation runs out", seconds=5.0)


class Held(MemoryAdmissions):
    """Does not settle before it may."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()
        self.asked_to_settle = 0

    async def settle(self, ends: Sequence[Settlement]) -> None:
        """See Admissions."""
        self.asked_to_settle += 1
        await self.open.wait()
        await super().settle(ends)


async def test_what_is_being_settled_when_the_gateway_stops_is_settled_all_the_same() -> None:
    admissions = Held()
    admission = Admission(admissions, SystemClock())
    request = AdmissionRequest(
        tenant="t", user="u", method="CreateSubmission", cost=1, key="key", fingerprint=b"f"
    )
    verdict = (await admissions.admit([request]))[0]
    async with admission.running():
        admission.settle([Settlement(Reservation("t", "u", "key", verdict.reservation), b"name")])
        await until(lambda: admissions.asked_to_settle == 1, "it is being settled")
        admissions.open.set()
    assert (await admissions.admit([request]))[0].result is Result.REPLAY


async def test_what_was_not_even_tried_frees_its_key() -> None:
    storage = Gate()
    async with world(storage=storage, max_pending_bytes=1, admission_wait_seconds=0.5) as gateway:
        await gateway.assignment()
        storage.open.clear()
        first = asyncio.ensure_future(gateway.submission())
        await until(lambda: storage.given == 1, "one is being committed")
        refusal = await refused(gateway, create_request(request_id="r"))
        assert refusal.reason == "OVERLOADED"
        storage.open.set()
        await first
        await gateway.submissions.CreateSubmission(create_request(request_id="r"), metadata=STUDENT)


async def test_a_conflict_that_only_storage_knows_frees_the_key(gateway: World) -> None:
    await gateway.submissions.CreateSubmission(create_request(request_id="r"), metadata=STUDENT)
    gateway.admissions.forget()
    other = create_request(request_id="r")
    other.submission.answers[2].text = "something else"
    assert (await refused(gateway, other)).reason == "REQUEST_ID_REUSED"
    first = await gateway.submissions.CreateSubmission(create_request(request_id="r"), metadata=STUDENT)
    assert first.name


async def test_a_batch_pays_for_what_the_edge_has_not_charged(gateway: World) -> None:
    requests = [create_request(author=f"s{number}") for number in range(5)]
    bad = create_request(author="s9")
    del bad.submission.answers[0]
    batch = pb.BatchCreateSubmissionsRequest(parent=PARENT, requests=[*requests, bad])
    await gateway.submissions.BatchCreateSubmissions(batch, metadata=INSTRUCTOR)
    assert [(one.user, one.method, one.cost) for one in gateway.admissions.asked] == [
        ("prof", "BatchCreateSubmissions", 4)
    ]
    gateway.admissions.asked.clear()
    for request in requests[:3]:
        request.request_id = "r"
    batch = pb.BatchCreateSubmissionsRequest(parent=PARENT, requests=requests[:3])
    await gateway.submissions.BatchCreateSubmissions(batch, metadata=INSTRUCTOR)
    assert [one.cost for one in gateway.admissions.asked] == [0, 1, 1]
    assert len({one.key for one in gateway.admissions.asked}) == 3  # one request id, three authors


async def test_a_batch_that_does_not_fit_is_refused_as_a_whole(gateway: World) -> None:
    gateway.admissions.left["prof", "BatchCreateSubmissions"] = 3
    requests = [create_request(author=f"s{number}") for number in range(5)]
    batch = pb.BatchCreateSubmissionsRequest(parent=PARENT, requests=requests)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await gateway.submissions.BatchCreateSubmissions(batch, metadata=INSTRUCTOR)
    refusal = refusal_of(raised.value)
    assert (refusal.code, refusal.reason, refusal.retry_after) == (EXHAUSTED, "RATE_LIMITED", 60)
    assert refusal.metadata == {"level": "user-method", "limit": "3", "period_seconds": "60"}
    assert "costs 4" in refusal.message
    assert not gateway.storage.submissions
    batch = pb.BatchCreateSubmissionsRequest(parent=PARENT, requests=requests[:4])
    await gateway.submissions.BatchCreateSubmissions(batch, metadata=INSTRUCTOR)
    assert gateway.admissions.left["prof", "BatchCreateSubmissions"] == 0


async def test_a_stream_pays_for_each_item_and_is_told_item_by_item(gateway: World) -> None:
    gateway.admissions.left["prof", "StreamCreateSubmissions"] = 2
    call = gateway.submissions.StreamCreateSubmissions(metadata=INSTRUCTOR)
    keyed = [create_request(author=f"s{number}", request_id="r") for number in range(3)]
    await call.write(pb.StreamCreateSubmissionsRequest(batch_id=1, requests=keyed))
    answer = await call.read()
    assert isinstance(answer, pb.StreamCreateSubmissionsResponse)
    assert [one.WhichOneof("result") for one in answer.results] == ["submission", "submission", "error"]
    assert refusal_in(answer.results[2].error).reason == "RATE_LIMITED"
    await call.done_writing()
    assert [(one.method, one.cost) for one in gateway.admissions.asked] == [
        ("StreamCreateSubmissions", 1)
    ] * 3


async def test_a_request_id_that_stands_twice_in_a_batch_takes_effect_once(gateway: World) -> None:
    twice, other = create_request(author="s1", request_id="r"), create_request(author="s1", request_id="r")
    other.submission.answers[2].text = "something else"
    batch = pb.BatchCreateSubmissionsRequest(parent=PARENT, requests=[twice, twice, other])
    response = await gateway.submissions.BatchCreateSubmissions(batch, metadata=INSTRUCTOR)
    first, second, third = response.results
    assert first.submission.name == second.submission.name
    assert refusal_in(third.error).reason == "REQUEST_ID_REUSED"
    assert len(gateway.storage.submissions) == 1


async def test_without_a_scheduler_everything_goes_on_and_nobody_waits_for_it() -> None:
    away = Away()
    async with world(admissions=away) as gateway:
        await gateway.assignment()
        request = create_request(request_id="r")
        created = await asyncio.gather(
            *(gateway.submissions.CreateSubmission(request, metadata=STUDENT) for _ in range(30))
        )
        assert len({one.name for one in created}) == 1
        assert away.calls <= 3  # then it is known to be away
        away.gone = False

        async def asked() -> bool:
            await gateway.submissions.CreateSubmission(request, metadata=STUDENT)
            return bool(away.asked)

        await until(asked, "it is asked again")


def revise(**changes: object) -> UpdateAssignmentRequest:
    """The assignment with other items, or closed."""
    request = UpdateAssignmentRequest(assignment=Assignment(name=PARENT, items=items()))
    for name, value in changes.items():
        if name == "close_time":
            request.assignment.close_time.CopyFrom(Timestamp(seconds=1_000_000))
        else:
            request.assignment.items[0].item = str(value)
    return request


@pytest.mark.parametrize(
    ("change", "reason"), [({"close_time": True}, "STATE_FORBIDS"), ({"item": "other"}, "INVALID_REQUEST")]
)
@pytest.mark.parametrize("lost", [False, True])
async def test_what_was_accepted_is_answered_whatever_became_of_the_assignment(
    gateway: World, change: dict[str, object], reason: str, lost: bool
) -> None:
    request = create_request(request_id="r")
    first = await gateway.submissions.CreateSubmission(request, metadata=STUDENT)
    await gateway.assignments.UpdateAssignment(revise(**change), metadata=INSTRUCTOR)
    if lost:
        gateway.admissions.forget()
    again = await gateway.submissions.CreateSubmission(request, metadata=STUDENT)
    assert again.name == first.name
    other = create_request(request_id="r")
    other.submission.answers[2].text = "something else"
    assert (await refused(gateway, other)).reason == "REQUEST_ID_REUSED"
    assert (await refused(gateway, create_request(request_id="new"))).reason == reason
    assert (await refused(gateway, create_request())).reason == reason
    assert len(gateway.storage.submissions) == 1


async def test_a_batch_after_the_close_gives_the_first_answers_or_is_refused(gateway: World) -> None:
    known = create_request(author="s1", request_id="r")
    batch = pb.BatchCreateSubmissionsRequest(parent=PARENT, requests=[known])
    first = await gateway.submissions.BatchCreateSubmissions(batch, metadata=INSTRUCTOR)
    await gateway.assignments.UpdateAssignment(revise(close_time=True), metadata=INSTRUCTOR)
    late = create_request(author="s2", request_id="r")
    batch = pb.BatchCreateSubmissionsRequest(parent=PARENT, requests=[known, late])
    again = await gateway.submissions.BatchCreateSubmissions(batch, metadata=INSTRUCTOR)
    assert again.results[0].submission.name == first.results[0].submission.name
    assert refusal_in(again.results[1].error).reason == "STATE_FORBIDS"
    batch = pb.BatchCreateSubmissionsRequest(parent=PARENT, requests=[late])
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await gateway.submissions.BatchCreateSubmissions(batch, metadata=INSTRUCTOR)
    assert refusal_of(raised.value).reason == "STATE_FORBIDS"
