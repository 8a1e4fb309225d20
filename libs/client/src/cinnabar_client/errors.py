"""Refusals of the service, as the caller of this library sees them."""

from __future__ import annotations

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from cinnabar.type.v1.error_reason_pb2 import ErrorReason
from cinnabar_common.errors import DOMAIN, FieldViolation

_CODES = {code.value[0]: code for code in grpc.StatusCode}
# What a bare status means, when a proxy or the transport made it and so no ErrorInfo is there.
_BARE_REASONS = {
    grpc.StatusCode.UNAVAILABLE: ErrorReason.DEPENDENCY_UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: ErrorReason.DEADLINE_PASSED,
    grpc.StatusCode.UNIMPLEMENTED: ErrorReason.METHOD_UNKNOWN,
}
_RETRYABLE = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED}
)
# Refused before anything was done, and said so: every call may be repeated, whatever it does.
_NOT_BEGUN = frozenset(
    ErrorReason.Name(reason)
    for reason in (ErrorReason.RATE_LIMITED, ErrorReason.OVERLOADED, ErrorReason.REQUEST_IN_PROGRESS)
)
# A connection that breaks in the middle of a call shows as one of these, without ErrorInfo.
_TRANSPORT = frozenset({grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL})


class ApiError(Exception):
    """A call was refused or did not arrive.

    ``reason`` is the name of an ``ErrorReason``, "ERROR_REASON_UNSPECIFIED" when the suite gave none.
    ``violations`` are the broken rules of an INVALID_ARGUMENT, ``retry_after`` the seconds that the
    service asks to wait before a retry (None when it names none).
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        reason: str | None = None,
        violations: tuple[FieldViolation, ...] = (),
        metadata: dict[str, str] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason or ErrorReason.Name(
            _BARE_REASONS.get(code, ErrorReason.ERROR_REASON_UNSPECIFIED)
        )
        self.violations = violations
        self.metadata = metadata or {}
        self.retry_after = retry_after
        self._said_by_suite = reason is not None

    @property
    def retryable(self) -> bool:
        """Whether the same call may succeed later.

        For calls that may be repeated: reads, and creates with a request id.
        """
        return (
            self.code in _RETRYABLE or self.not_begun or (self.code in _TRANSPORT and not self._said_by_suite)
        )

    @property
    def not_begun(self) -> bool:
        """Whether the suite turned the call away before doing anything: RATE_LIMITED or OVERLOADED.

        Or, REQUEST_IN_PROGRESS, while the same request is worked on. Any such call may be repeated.
        """
        return self.reason in _NOT_BEGUN

    def to_json(self) -> dict[str, object]:
        """The error as one JSON object."""
        return {
            "code": self.code.name,
            "reason": self.reason,
            "message": self.message,
            "violations": [{"field": v.field, "rule": v.rule} for v in self.violations],
            "metadata": self.metadata,
            "retryAfterSeconds": self.retry_after,
        }


def from_status(status: status_pb2.Status) -> ApiError:
    """The error that a ``google.rpc.Status`` describes, with all its known details."""
    info, bad, retry = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.BadRequest(),
        error_details_pb2.RetryInfo(),
    )
    found = {type(message) for message in (info, bad, retry) if _unpack(status, message)}
    return ApiError(
        _CODES.get(status.code, grpc.StatusCode.UNKNOWN),
        status.message,
        reason=info.reason if info.domain == DOMAIN else None,
        violations=tuple(FieldViolation(v.field, v.description) for v in bad.field_violations),
        metadata=dict(info.metadata),
        retry_after=retry.retry_delay.ToTimedelta().total_seconds() if type(retry) in found else None,
    )


def from_rpc(error: grpc.aio.AioRpcError) -> ApiError:
    """The error that a failed call describes; a transport's own when the suite said nothing."""
    status = rpc_status.from_call(error)
    if status is not None:
        return from_status(status)
    retry_after = _retry_after(error)
    limited = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and retry_after is not None
    return ApiError(
        error.code(),
        error.details() or error.code().name,
        reason=ErrorReason.Name(ErrorReason.RATE_LIMITED) if limited else None,
        retry_after=retry_after,
    )


def _retry_after(error: grpc.aio.AioRpcError) -> float | None:
    """The header ``retry-after`` in seconds, with which a proxy refuses what passes a rate limit."""
    for metadata in (error.initial_metadata(), error.trailing_metadata()):
        for key, value in metadata or ():
            if key == "retry-after" and isinstance(value, str) and value.isdecimal():
                return float(value)
    return None


def detail_of(error: grpc.aio.AioRpcError, kind: Message) -> bool:
    """Fills ``kind`` from the details of a failed call; False when they hold no such message."""
    status = rpc_status.from_call(error)
    return status is not None and _unpack(status, kind)


def _unpack(status: status_pb2.Status, message: Message) -> bool:
    return any(detail.Unpack(message) for detail in status.details)
