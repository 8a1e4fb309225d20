"""What a caller learns of a refusal."""

import grpc
import pytest
from google.rpc import code_pb2, status_pb2

from cinnabar_client.errors import ApiError, from_status
from cinnabar_common.errors import (
    DependencyUnavailable,
    FieldViolation,
    InvalidRequest,
    Overloaded,
    ResourceNotFound,
    SuiteError,
)


def test_everything_that_the_service_says_arrives() -> None:
    error = from_status(
        InvalidRequest([FieldViolation("a", "one"), FieldViolation("b[1]", "two")]).to_status()
    )
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert error.violations == (FieldViolation("a", "one"), FieldViolation("b[1]", "two"))
    assert error.metadata == {"field": "a"}
    assert error.retry_after is None
    assert error.to_json()["violations"] == [{"field": "a", "rule": "one"}, {"field": "b[1]", "rule": "two"}]


def test_a_retry_has_its_time() -> None:
    error = from_status(Overloaded("q").to_status())
    assert error.retry_after == Overloaded.retry_seconds
    assert error.retryable


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (DependencyUnavailable("storage"), True),
        (ResourceNotFound("x"), False),
        (SuiteError(), False),  # a defect of the suite: the same call would meet it again
    ],
)
def test_what_may_be_tried_again(error: SuiteError, retryable: bool) -> None:
    assert from_status(error.to_status()).retryable is retryable


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED]
)
def test_a_broken_connection_may_be_tried_again(code: grpc.StatusCode) -> None:
    assert ApiError(code, "stream removed").retryable


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (code_pb2.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE"),
        (code_pb2.DEADLINE_EXCEEDED, "DEADLINE_PASSED"),
        (code_pb2.UNIMPLEMENTED, "METHOD_UNKNOWN"),
        (code_pb2.ABORTED, "ERROR_REASON_UNSPECIFIED"),
    ],
)
def test_a_bare_status_has_a_reason_too(code: int, reason: str) -> None:
    assert from_status(status_pb2.Status(code=code, message="m")).reason == reason
