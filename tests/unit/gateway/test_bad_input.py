"""Every kind of bad input: its own clear error, and nothing stored."""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from cinnabar.gateway.v1 import assignment_service_pb2 as assignments_pb
from cinnabar.gateway.v1 import grading_service_pb2 as grading_pb
from cinnabar.gateway.v1 import operations_service_pb2 as operations_pb
from cinnabar.gateway.v1 import submission_service_pb2 as pb
from cinnabar.grader.v1.grade_pb2 import Answer
from cinnabar_common import pagination
from cinnabar_gateway.consistency import TOKEN_KEY
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
    items,
    refusal_of,
)

INVALID = grpc.StatusCode.INVALID_ARGUMENT
LONG = "x" * (256 * 1024 + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A bad call and what it must be told."""

    name: str
    method: str
    request: Message
    fields: tuple[str, ...] = ()
    words: str = ""
    metadata: Metadata = STUDENT
    code: grpc.StatusCode = INVALID
    reason: str = "INVALID_REQUEST"
    details: dict[str, str] = field(default_factory=dict[str, str])


def handing_in(
    name: str,
    change: Callable[[pb.CreateSubmissionRequest], object],
    *fields: str,
    words: str = "",
    reason: str = "INVALID_REQUEST",
    metadata: Metadata = STUDENT,
) -> Row:
    """A submission spoilt by ``change``."""
    request = create_request()
    change(request)
    return Row(
        name=name,
        method="submissions.CreateSubmission",
        request=request,
        fields=fields,
        words=words,
        reason=reason,
        metadata=metadata,
    )


def answering(name: str, index: int, answer: Answer, *fields: str, words: str = "") -> Row:
    """A submission with one answer replaced."""
    return handing_in(name, lambda it: it.submission.answers[index].CopyFrom(answer), *fields, words=words)


A = "submission.answers"
NUMBER, CHOICE = Answer.Number, Answer.Choice


def submission_rows() -> Iterator[Row]:
    yield handing_in("no parent", lambda it: it.ClearField("parent"), "parent", words="required")
    yield handing_in("malformed parent", lambda it: setattr(it, "parent", "courses/net"), "parent")
    yield handing_in(
        "upper case in a name", lambda it: setattr(it, "parent", "courses/NET/assignments/a1"), "parent"
    )
    yield handing_in("no submission", lambda it: it.ClearField("submission"), "submission", words="required")
    yield handing_in("no answers", lambda it: it.submission.ClearField("answers"), A, words="required")
    yield handing_in("missing answer", lambda it: it.submission.answers.pop(), A, words="explain")
    yield handing_in(
        "item twice",
        lambda it: it.submission.answers[3].CopyFrom(answers()[2]),
        f"{A}[3].item",
        A,
        words="twice",
    )
    yield answering("unknown item", 1, Answer(item="other", text=""), f"{A}[1].item", A, words="not an item")
    yield answering("answer without item", 0, Answer(text="x"), f"{A}[0].item", A, words="required")
    yield answering("wrong type", 0, Answer(item="pick", text="tcp"), f"{A}[0].text", words="choice")
    yield answering(
        "wrong type too", 2, Answer(item="name", number=NUMBER(value=1)), f"{A}[2].number", words="text"
    )
    yield answering("no value", 1, Answer(item="count"), f"{A}[1]", words="number")
    yield answering("text too long", 2, Answer(item="name", text=LONG), f"{A}[2].text", words="262144 bytes")
    yield answering(
        "text too long in bytes", 3, Answer(item="explain", text="纸" * 90_000), f"{A}[3].text", words="UTF-8"
    )
    for value in (float("nan"), float("inf"), float("-inf")):
        bad = Answer(item="count", number=NUMBER(value=value))
        yield answering(f"number {value}", 1, bad, f"{A}[1].number.value", words="finite")
    long_unit = Answer(item="count", number=NUMBER(value=1, unit="m" * 65))
    yield answering("unit too long", 1, long_unit, f"{A}[1].number.unit", words="64")
    yield answering(
        "unknown option",
        0,
        Answer(item="pick", choice=CHOICE(options=["tcp", "http"])),
        f"{A}[0].choice.options[1]",
    )
    yield answering(
        "option twice",
        0,
        Answer(item="pick", choice=CHOICE(options=["tcp", "tcp"])),
        f"{A}[0].choice.options[1]",
        words="twice",
    )
    for name, request_id in (("too long", "r" * 129), ("not printable", "a\nb"), ("not ASCII", "é")):
        yield handing_in(
            f"request id {name}", lambda it, r=request_id: setattr(it, "request_id", r), "request_id"
        )
    yield handing_in(
        "header too long",
        lambda it: None,
        "idempotency-key",
        metadata=(*STUDENT, ("idempotency-key", "r" * 129)),
    )
    yield handing_in(
        "header and field differ",
        lambda it: setattr(it, "request_id", "a"),
        "request_id",
        words="same",
        metadata=(*STUDENT, ("idempotency-key", "b")),
    )
    yield handing_in(
        "no author", lambda it: None, "submission.author", words="instructor", metadata=INSTRUCTOR
    )
    yield handing_in(
        "malformed author",
        lambda it: setattr(it.submission, "author", "Ann B"),
        "submission.author",
        metadata=INSTRUCTOR,
    )
    yield handing_in(
        "unknown priority", lambda it: setattr(it.submission, "priority", 9), "submission.priority"
    )
    yield handing_in(
        "token of somebody else",
        lambda it: None,
        TOKEN_KEY,
        reason="CONSISTENCY_TOKEN_INVALID",
        metadata=(*STUDENT, (TOKEN_KEY, "bm9uc2Vuc2U")),
    )
    yield handing_in(
        "many at once",
        lambda it: (it.submission.answers.pop(), setattr(it, "request_id", "\n")),
        "request_id",
        A,
    )
    yield Row(
        name="unknown assignment",
        method="submissions.CreateSubmission",
        request=create_request(parent="courses/net/assignments/none"),
        code=grpc.StatusCode.NOT_FOUND,
        reason="RESOURCE_NOT_FOUND",
        details={"resource": "courses/net/assignments/none"},
    )
    for name, change, action in (
        ("another author", {"author": "bob"}, "submissions.create_for_another"),
        ("high priority", {"priority": pb.Submission.Priority.HIGH}, "submissions.create_with_high_priority"),
    ):
        request = create_request()
        request.submission.MergeFrom(pb.Submission(**change))  # pyright: ignore[reportArgumentType]
        yield Row(
            name=f"student with {name}",
            method="submissions.CreateSubmission",
            request=request,
            code=grpc.StatusCode.PERMISSION_DENIED,
            reason="ROLE_FORBIDDEN",
            details={"role": "student", "action": action},
        )


def batch_rows() -> Iterator[Row]:
    method = "submissions.BatchCreateSubmissions"
    batch = pb.BatchCreateSubmissionsRequest
    yield Row(
        name="empty batch",
        method=method,
        request=batch(parent=PARENT),
        fields=("requests",),
        words="required",
    )
    too_many = batch(parent=PARENT, requests=[pb.CreateSubmissionRequest()] * 1001)
    yield Row(name="batch too large", method=method, request=too_many, fields=("requests",), words="1000")
    yield Row(
        name="batch without parent",
        method=method,
        request=batch(requests=[create_request()]),
        fields=("parent",),
        words="required",
    )
    yield Row(
        name="batch with malformed parent",
        method=method,
        request=batch(parent="a1", requests=[create_request()]),
        fields=("parent",),
    )
    yield Row(
        name="batch with a key",
        method=method,
        request=batch(parent=PARENT, requests=[create_request()]),
        metadata=(*STUDENT, ("idempotency-key", "k")),
        fields=("idempotency-key",),
        words="request_id",
    )
    yield Row(
        name="batch of an unknown assignment",
        method=method,
        request=batch(parent=PARENT + "x", requests=[create_request(parent="")]),
        code=grpc.StatusCode.NOT_FOUND,
        reason="RESOURCE_NOT_FOUND",
        details={"resource": PARENT + "x"},
    )


def paging_rows(
    method: str, make: Callable[..., Message], parent: dict[str, str], *, metadata: Metadata = STUDENT
) -> Iterator[Row]:
    yield Row(
        name=f"{method} negative page size",
        method=method,
        request=make(page_size=-1, **parent),
        fields=("page_size",),
        metadata=metadata,
    )
    for name, token in (("garbage", "%%%"), ("of another list", pagination.encode_token("x", "another"))):
        yield Row(
            name=f"{method} token {name}",
            method=method,
            request=make(page_token=token, **parent),
            fields=("page_token",),
            reason="PAGE_TOKEN_INVALID",
            metadata=metadata,
        )
    if parent:
        yield Row(
            name=f"{method} malformed parent",
            method=method,
            request=make(parent="x"),
            fields=("parent",),
            metadata=metadata,
        )


def reading_rows() -> Iterator[Row]:
    for method, request in (
        ("submissions.GetSubmission", pb.GetSubmissionRequest),
        ("submissions.WatchSubmission", pb.WatchSubmissionRequest),
        ("submissions.CancelSubmission", pb.CancelSubmissionRequest),
        ("assignments.GetAssignment", assignments_pb.GetAssignmentRequest),
    ):
        yield Row(name=f"{method} without name", method=method, request=request(), fields=("name",))
        malformed = request(name="courses/net/submissions/s")
        yield Row(name=f"{method} malformed", method=method, request=malformed, fields=("name",))
    yield from paging_rows("submissions.ListSubmissions", pb.ListSubmissionsRequest, {"parent": PARENT})
    yield from paging_rows(
        "assignments.ListAssignments", assignments_pb.ListAssignmentsRequest, {"parent": COURSE}
    )
    yield from paging_rows(
        "operations.ListDeadLetters", operations_pb.ListDeadLettersRequest, {}, metadata=OPERATOR
    )
    yield Row(
        name="list of an unknown assignment",
        method="submissions.ListSubmissions",
        request=pb.ListSubmissionsRequest(parent=PARENT + "x"),
        code=grpc.StatusCode.NOT_FOUND,
        reason="RESOURCE_NOT_FOUND",
        details={"resource": PARENT + "x"},
    )
    yield Row(
        name="list of a malformed author",
        method="submissions.ListSubmissions",
        request=pb.ListSubmissionsRequest(parent=PARENT, author="Ann!"),
        fields=("author",),
    )
    yield Row(
        name="redrive of malformed tasks",
        method="operations.RedriveDeadLetters",
        request=operations_pb.RedriveDeadLettersRequest(
            tasks=[{"submission": "s", "item": "i"}, {"item": "I!"}]  # pyright: ignore[reportArgumentType]
        ),
        fields=("tasks[1].submission", "tasks[0].submission", "tasks[1].item"),
        metadata=OPERATOR,
    )
    yield Row(
        name="redrive of nothing",
        method="operations.RedriveDeadLetters",
        request=operations_pb.RedriveDeadLettersRequest(),
        fields=("tasks", "filter"),
        metadata=OPERATOR,
    )


def update_rows() -> Iterator[Row]:
    def row(title: str, paths: list[str], *fields: str, **content: object) -> Row:
        assignment = assignments_pb.Assignment(**({"name": PARENT} | content))  # pyright: ignore[reportArgumentType]
        return Row(
            name=f"update: {title}",
            method="assignments.UpdateAssignment",
            request=assignments_pb.UpdateAssignmentRequest(
                assignment=assignment, update_mask=FieldMask(paths=paths)
            ),
            fields=fields,
            metadata=INSTRUCTOR,
        )

    yield row("unknown path", ["display_name", "points"], "update_mask", display_name="x")
    yield row("path into a list", ["items.prompt"], "update_mask", items=items())
    yield row("output only path", ["revision_id"], "update_mask")
    yield row("star and more", ["*", "items"], "update_mask", items=items())
    yield row("nothing", [], "update_mask")
    yield row("no items", ["items"], "assignment.items")
    yield row("bad name", ["display_name"], "assignment.name", name="a1", display_name="x")
    yield row("long display name", ["display_name"], "assignment.display_name", display_name="x" * 201)


def grading_rows() -> Iterator[Row]:
    def row(name: str, *fields: str, metadata: Metadata = STUDENT, **changes: object) -> Row:
        content = {"course": "net", "assignment": "a1", "answers": answers()} | changes
        return Row(
            name=f"flat: {name}",
            method="grading.SubmitGrading",
            request=grading_pb.SubmitGradingRequest(**content),  # pyright: ignore[reportArgumentType]
            fields=fields,
            metadata=metadata,
        )

    yield row("no course", "course", course="")
    yield row("malformed ids", "course", "assignment", course="A", assignment="a/1")
    yield row("no answers", "answers", answers=[])
    yield row("missing answer", "answers", answers=answers()[:3])
    yield row("unknown item", "answers[0].item", "answers", answers=[Answer(item="x"), *answers()[1:]])
    yield row("no author", "author", metadata=INSTRUCTOR)
    yield row("bad key", "idempotency-key", metadata=(*STUDENT, ("idempotency-key", "k" * 129)))


ROWS = [*submission_rows(), *batch_rows(), *reading_rows(), *update_rows(), *grading_rows()]


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
async def test_bad_input_is_explained_and_changes_nothing(gateway: World, row: Row) -> None:
    before = dict(gateway.storage.assignments)
    service, _, method = row.method.partition(".")
    call = getattr(getattr(gateway, service), method)(row.request, metadata=row.metadata)
    answer: Awaitable[object] = call.read() if method == "WatchSubmission" else call
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await answer
    refusal = refusal_of(raised.value)
    assert (refusal.code, refusal.reason, refusal.fields) == (row.code, row.reason, row.fields)
    assert row.words in " ".join(refusal.rules)
    assert all(refusal.rules)
    expected = {"field": row.fields[0]} if row.fields else row.details
    assert refusal.metadata == expected
    assert not gateway.storage.submissions
    assert not gateway.queue.tasks
    assert gateway.storage.assignments == before


def test_the_names_of_the_rows_are_distinct() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)


def raw(gateway: World, method: str) -> "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]":
    """A method that takes bytes as they are."""
    return gateway.channel.unary_unary(f"/cinnabar.gateway.v1.SubmissionService/{method}")


@pytest.mark.parametrize(
    "body",
    [b"\x0a\x0bcourses/\xff\xfe\xfd", create_request().SerializeToString()[:-7]],
    ids=["invalid UTF-8", "truncated"],
)
async def test_bytes_that_are_no_message_are_explained(gateway: World, body: bytes) -> None:
    call = raw(gateway, "CreateSubmission")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call(body, metadata=STUDENT)
    refusal = refusal_of(raised.value)
    assert (refusal.code, refusal.reason) == (INVALID, "INVALID_REQUEST")
    assert "well-formed" in refusal.rules[0]
    assert not gateway.storage.submissions


async def test_bytes_that_are_no_message_end_a_stream(gateway: World) -> None:
    method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = gateway.channel.stream_stream(
        "/cinnabar.gateway.v1.SubmissionService/StreamCreateSubmissions"
    )
    call = method(metadata=STUDENT)
    await call.write(b"\xff\xff")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call.read()
    assert refusal_of(raised.value).reason == "INVALID_REQUEST"


async def test_an_unknown_method_is_unimplemented(gateway: World) -> None:
    call = raw(gateway, "EatSubmission")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call(b"", metadata=STUDENT)
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
