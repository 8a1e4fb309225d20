"""Bad input of operators, and bad times of submissions: named field by field, and nothing done."""

from collections.abc import Iterator
from dataclasses import dataclass

import grpc
import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from cinnabar.gateway.v1 import operations_service_pb2 as pb
from cinnabar.gateway.v1.submission_service_pb2 import CreateSubmissionRequest
from cinnabar_gateway.records import QueueState
from tests.support.gateway_world import (
    OPERATOR,
    PARENT,
    STUDENT,
    Metadata,
    World,
    create_request,
    refusal_of,
)

NOT_A_TIME = Timestamp(seconds=10**12)
BAD_NANOS = Timestamp(seconds=1, nanos=-1)
DAY = 86_400
Filter = pb.ListDeadLettersRequest
LETTERS, REDRIVE = "operations.ListDeadLetters", "operations.RedriveDeadLetters"


@dataclass(frozen=True, slots=True)
class Row:
    """A bad call, and the fields it must be told about."""

    name: str
    method: str
    request: Message
    fields: tuple[str, ...]
    metadata: Metadata = OPERATOR


def filters() -> Iterator[tuple[str, Filter, tuple[str, ...]]]:
    yield "queue", Filter(queue="Free_Text"), ("queue",)
    for parent in ("net", "courses/NET", "courses/net/assignments", PARENT + "/submissions/s"):
        yield f"parent {parent}", Filter(parent=parent), ("parent",)
    yield "long reason", Filter(reason="x" * 257), ("reason",)
    yield "NUL in a reason", Filter(reason="a\0b"), ("reason",)
    yield "no time", Filter(given_up_after=NOT_A_TIME), ("given_up_after",)
    yield "bad nanoseconds", Filter(given_up_before=BAD_NANOS), ("given_up_before",)
    empty = Filter(given_up_after=Timestamp(seconds=9), given_up_before=Timestamp(seconds=9))
    yield "empty span", empty, ("given_up_before",)
    yield "all at once", Filter(queue="A", parent="b", reason="\n"), ("queue", "parent", "reason")


def rows() -> Iterator[Row]:
    for verb in ("Pause", "Resume", "Drain"):
        request: type[Message] = getattr(pb, f"{verb}QueueRequest")
        for name, queue in (("nothing", ""), ("upper case", "Text"), ("a path", "a/b"), ("long", "x" * 64)):
            yield Row(f"{verb} {name}", f"operations.{verb}Queue", request(queue=queue), ("queue",))
    for name, wanted, fields in filters():
        yield Row(f"list by {name}", LETTERS, wanted, fields)
        redrive = pb.RedriveDeadLettersRequest(filter=wanted)
        yield Row(f"redrive by {name}", REDRIVE, redrive, tuple(f"filter.{field}" for field in fields))
    task = pb.RedriveDeadLettersRequest.Task(submission=f"{PARENT}/submissions/s", item="q")
    both = pb.RedriveDeadLettersRequest(tasks=[task], filter=Filter())
    yield Row("redrive of tasks and a filter", REDRIVE, both, ("tasks", "filter"))
    paged = pb.RedriveDeadLettersRequest(filter=Filter(page_size=5, page_token="x"))
    yield Row("redrive of a page", REDRIVE, paged, ("filter.page_size", "filter.page_token"))
    many = pb.RedriveDeadLettersRequest(tasks=[task] * 1001)
    yield Row("redrive of too many", REDRIVE, many, ("tasks",))


ROWS = list(rows())


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
async def test_bad_operator_input_is_explained_and_changes_nothing(gateway: World, row: Row) -> None:
    gateway.queue.states["text"] = QueueState.RUNNING
    service, _, method = row.method.partition(".")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await getattr(getattr(gateway, service), method)(row.request, metadata=row.metadata)
    refusal = refusal_of(raised.value)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert refusal.fields == row.fields
    assert all(refusal.rules)
    assert gateway.queue.states == {"text": QueueState.RUNNING}


@pytest.mark.parametrize(
    ("after", "by", "fields", "words"),
    [
        (-61.0, None, ("grade_after",), "future"),
        (None, -61.0, ("grade_by",), "future"),
        (-120.0, -61.0, ("grade_after", "grade_by"), "future"),
        (400 * DAY + 60.0, None, ("grade_after",), "400 days"),
        (None, 400 * DAY + 60.0, ("grade_by",), "400 days"),
        (3600.0, 3600.0, ("grade_by",), "after grade_after"),
        (3600.0, 1800.0, ("grade_by",), "after grade_after"),
        (NOT_A_TIME, None, ("grade_after",), "a time"),
        (None, BAD_NANOS, ("grade_by",), "a time"),
        (BAD_NANOS, -1000.0, ("grade_after",), "a time"),
    ],
)
async def test_bad_times_are_explained(
    gateway: World,
    after: float | Timestamp | None,
    by: float | Timestamp | None,
    fields: tuple[str, ...],
    words: str,
) -> None:
    request = timed(create_request(), after, by)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await gateway.submissions.CreateSubmission(request, metadata=STUDENT)
    refusal = refusal_of(raised.value)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert refusal.fields == tuple(f"submission.{field}" for field in fields)
    assert words in " ".join(refusal.rules)
    assert not gateway.storage.submissions


def timed(
    request: CreateSubmissionRequest, after: float | Timestamp | None, by: float | Timestamp | None
) -> CreateSubmissionRequest:
    """The request with times: seconds from now (one now for both), or as they are."""
    now = Timestamp()
    now.GetCurrentTime()
    for target, moment in ((request.submission.grade_after, after), (request.submission.grade_by, by)):
        if isinstance(moment, Timestamp):
            target.CopyFrom(moment)
        elif moment is not None:
            target.FromMilliseconds(now.ToMilliseconds() + int(moment * 1000))
    return request


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("PauseQueue", pb.PauseQueueRequest(queue="text")),
        ("ResumeQueue", pb.ResumeQueueRequest(queue="text")),
        ("DrainQueue", pb.DrainQueueRequest(queue="text")),
        ("GetConservation", pb.GetConservationRequest()),
        ("ListQueues", pb.ListQueuesRequest()),
        ("ListDeadLetters", pb.ListDeadLettersRequest()),
        ("RedriveDeadLetters", pb.RedriveDeadLettersRequest(filter=Filter())),
    ],
)
async def test_only_operators_operate(gateway: World, method: str, request_: Message) -> None:
    gateway.queue.states["text"] = QueueState.RUNNING
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await getattr(gateway.operations, method)(request_, metadata=STUDENT)
    refusal = refusal_of(raised.value)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_FORBIDDEN")
    assert gateway.queue.states == {"text": QueueState.RUNNING}


async def test_a_page_token_belongs_to_its_filter(gateway: World) -> None:
    for _ in range(2):
        created = await gateway.submission()
        gateway.storage.dead_letter(
            next(key for key in gateway.storage.submissions if created.name.endswith(key.submission_id)),
            "explain",
            reason="broken",
            attempts=1,
        )
    first = await gateway.operations.ListDeadLetters(Filter(page_size=1, reason="broken"), metadata=OPERATOR)
    token = first.next_page_token
    again = Filter(page_size=1, reason="broken", page_token=token)
    assert len((await gateway.operations.ListDeadLetters(again, metadata=OPERATOR)).dead_letters) == 1
    for other in (
        Filter(page_token=token),
        Filter(page_token=token, reason="broke"),
        Filter(page_token=token, reason="broken", queue="free-text"),
        Filter(page_token=token, reason="broken", parent="courses/net"),
        Filter(page_token=token, reason="broken", given_up_after=Timestamp(seconds=1)),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await gateway.operations.ListDeadLetters(other, metadata=OPERATOR)
        assert refusal_of(raised.value).reason == "PAGE_TOKEN_INVALID"
