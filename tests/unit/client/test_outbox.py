"""Which submissions wait, are in flight, or wait for a retry: by hand-made time."""

import grpc

from cinnabar.gateway.v1.submission_service_pb2 import (
    CreateSubmissionRequest,
    CreateSubmissionResult,
    StreamCreateSubmissionsRequest,
    StreamCreateSubmissionsResponse,
    Submission,
)
from cinnabar.grader.v1.grade_pb2 import Answer
from cinnabar_client.errors import ApiError
from cinnabar_client.submitting import Entry, Outbox, SubmitResult
from cinnabar_common.errors import DEFAULT_RETRY_SECONDS, FieldViolation, InvalidRequest, Overloaded

PATIENCE = 10.0


def outbox(count: int, *, batch: int = 2, in_flight: int = 2, size: int = 0) -> Outbox:
    box = Outbox(batch=batch, in_flight=in_flight, patience=PATIENCE)
    for index in range(count):
        answers = [Answer(item="q", text="x" * size)]
        request = CreateSubmissionRequest(request_id=str(index), submission=Submission(answers=answers))
        box.put(Entry(index, request))
    return box


def sent(message: StreamCreateSubmissionsRequest | None) -> list[str]:
    assert message is not None
    return [request.request_id for request in message.requests]


def accepted(message: StreamCreateSubmissionsRequest) -> StreamCreateSubmissionsResponse:
    results = [CreateSubmissionResult(submission=Submission(name=r.request_id)) for r in message.requests]
    return StreamCreateSubmissionsResponse(batch_id=message.batch_id, results=results)


def refused(
    message: StreamCreateSubmissionsRequest, error: InvalidRequest | Overloaded
) -> StreamCreateSubmissionsResponse:
    results = [CreateSubmissionResult(error=error.to_status()) for _ in message.requests]
    return StreamCreateSubmissionsResponse(batch_id=message.batch_id, results=results)


def test_a_full_window_waits_for_an_acknowledgement() -> None:
    box = outbox(5)
    first, second = box.take(0.0), box.take(0.0)
    assert (sent(first), sent(second)) == (["0", "1"], ["2", "3"])
    assert box.take(0.0) is None
    assert first is not None
    assert [result.index for result in box.acknowledged(accepted(first), 0.1)] == [0, 1]
    assert sent(box.take(0.1)) == ["4"]


def test_a_message_is_bounded_in_bytes_too() -> None:
    box = outbox(3, batch=100, size=3 * 1024 * 1024)
    assert sent(box.take(0.0)) == ["0"]
    assert sent(box.take(0.0)) == ["1"]


def test_the_source_is_asked_for_one_window_at_a_time() -> None:
    assert outbox(3).wants_more
    assert not outbox(4).wants_more


def test_a_refusal_for_good_is_a_result() -> None:
    box = outbox(1)
    message = box.take(0.0)
    assert message is not None
    (result,) = box.acknowledged(refused(message, InvalidRequest([FieldViolation("a.b", "is bad")])), 0.0)
    assert result.error is not None
    assert (result.error.reason, result.error.violations[0].field) == ("INVALID_REQUEST", "a.b")
    assert box.empty


def test_a_refusal_that_may_pass_waits_as_long_as_the_service_asks() -> None:
    box = outbox(1)
    message = box.take(0.0)
    assert message is not None
    assert box.acknowledged(refused(message, Overloaded("q")), 1.0) == []
    due = box.next_retry()
    assert due is not None
    assert due >= 1.0 + DEFAULT_RETRY_SECONDS
    assert box.take(1.0) is None
    assert sent(box.take(due)) == ["0"]


def test_what_was_in_flight_on_a_lost_stream_is_sent_again_with_its_request_id() -> None:
    box = outbox(3)
    assert len(sent(box.take(0.0)) + sent(box.take(0.0))) == 3
    assert box.lost(ApiError(grpc.StatusCode.UNAVAILABLE, "gone"), 1.0) == []
    assert sorted(sent(box.take(5.0)) + sent(box.take(5.0))) == ["0", "1", "2"]


def test_patience_ends() -> None:
    box = outbox(1)
    gone = ApiError(grpc.StatusCode.UNAVAILABLE, "gone")
    now = 0.0
    settled: list[SubmitResult] = []
    while box.take(now) is not None:
        settled = box.lost(gone, now)
        if settled:
            break
        due = box.next_retry()
        assert due is not None
        now = due
    assert now <= PATIENCE
    assert [result.error for result in settled] == [gone]
    assert box.empty


def test_an_acknowledgement_that_does_not_fit_is_not_believed() -> None:
    box = outbox(2)
    message = box.take(0.0)
    assert message is not None
    assert box.acknowledged(StreamCreateSubmissionsResponse(batch_id=message.batch_id), 0.0) == []
    assert sorted(sent(box.take(100.0))) == ["0", "1"]


def test_a_message_is_overdue_after_its_limit() -> None:
    box = outbox(1)
    box.take(0.0)
    assert not box.overdue(10.0, 10.0)
    assert box.overdue(10.1, 10.0)
