"""The tree of errors that a caller may see, and how they travel.

A service raises a subclass of :class:`SuiteError`; one interceptor renders it
as a ``google.rpc.Status``. A client of another service turns the status back
into an error with :func:`from_rpc_error`. The docstring of a class is its
message; words in braces come from the metadata.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from cinnabar.type.v1.error_reason_pb2 import ErrorReason

DOMAIN = "cinnabar.dev"
DEFAULT_RETRY_SECONDS = 0.5
_REASONS = frozenset(ErrorReason.keys())


class SuiteError(Exception):
    """internal error"""

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL
    reason: ClassVar[ErrorReason.ValueType] = ErrorReason.INTERNAL_ERROR
    retry_seconds: ClassVar[float | None] = None

    def __init__(self, message: str | None = None, /, **metadata: str) -> None:
        self.metadata = metadata
        self.message = message if message is not None else _template(type(self)).format_map(metadata)
        super().__init__(self.message)

    def to_status(self) -> status_pb2.Status:
        """The error as it travels: code, message, ErrorInfo and what the code calls for."""
        status = status_pb2.Status(code=self.status_code.value[0], message=self.message)
        status.details.add().Pack(
            error_details_pb2.ErrorInfo(
                reason=ErrorReason.Name(self.error_reason), domain=DOMAIN, metadata=self.metadata
            )
        )
        if self.retry_after is not None:
            delay = Duration()
            delay.FromNanoseconds(int(self.retry_after * 1e9))
            status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
        for detail in self._details():
            status.details.add().Pack(detail)
        return status

    @property
    def status_code(self) -> grpc.StatusCode:
        """Code of this very error; that of the class unless it came from afar."""
        return self.code

    @property
    def error_reason(self) -> ErrorReason.ValueType:
        """Reason of this very error; that of the class unless it came from afar."""
        return self.reason

    @property
    def retry_after(self) -> float | None:
        """Seconds after which a retry makes sense; None when it never does."""
        return self.retry_seconds

    def _details(
        self,
    ) -> Iterable[
        error_details_pb2.BadRequest | error_details_pb2.PreconditionFailure | error_details_pb2.QuotaFailure
    ]:
        return ()


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One broken rule of a request: the field's path and the rule in words."""

    field: str
    rule: str

    def under(self, prefix: str) -> FieldViolation:
        """The same violation seen from a message that holds this one at ``prefix``."""
        return FieldViolation(f"{prefix}.{self.field}" if self.field else prefix, self.rule)


class InvalidRequest(SuiteError):
    """the request breaks a rule"""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = ErrorReason.INVALID_REQUEST

    def __init__(self, violations: Sequence[FieldViolation]) -> None:
        first = violations[0]
        more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
        super().__init__(f"{first.field}: {first.rule}{more}", field=first.field)
        self.violations = tuple(violations)

    def _details(self) -> Iterable[error_details_pb2.BadRequest]:
        yield error_details_pb2.BadRequest(
            field_violations=[
                error_details_pb2.BadRequest.FieldViolation(
                    field=violation.field,
                    description=violation.rule,
                    reason=ErrorReason.Name(self.reason),
                )
                for violation in self.violations
            ]
        )


class PageTokenInvalid(InvalidRequest):
    """the page token was not made by this call with these parameters"""

    reason = ErrorReason.PAGE_TOKEN_INVALID

    def __init__(self) -> None:
        super().__init__([FieldViolation("page_token", "was not made by this call with these parameters")])


class ConsistencyTokenInvalid(InvalidRequest):
    """the consistency token was not made by this suite for this tenant"""

    reason = ErrorReason.CONSISTENCY_TOKEN_INVALID

    def __init__(self, field: str) -> None:
        super().__init__([FieldViolation(field, "was not made by this suite for this tenant")])


class CredentialInvalid(SuiteError):
    """the credential is missing or not valid"""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = ErrorReason.CREDENTIAL_INVALID


class RoleForbidden(SuiteError):
    """the role {role} may not do {action}"""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = ErrorReason.ROLE_FORBIDDEN

    def __init__(self, *, role: str, action: str) -> None:
        super().__init__(role=role, action=action)


class ResourceNotFound(SuiteError):
    """{resource} does not exist"""

    code = grpc.StatusCode.NOT_FOUND
    reason = ErrorReason.RESOURCE_NOT_FOUND

    def __init__(self, resource: str) -> None:
        super().__init__(resource=resource)


class ResourceExists(SuiteError):
    """{resource} exists already"""

    code = grpc.StatusCode.ALREADY_EXISTS
    reason = ErrorReason.RESOURCE_EXISTS

    def __init__(self, resource: str) -> None:
        super().__init__(resource=resource)


class EtagMismatch(SuiteError):
    """{resource} was changed by somebody else: read it again"""

    code = grpc.StatusCode.ABORTED
    reason = ErrorReason.ETAG_MISMATCH

    def __init__(self, resource: str) -> None:
        super().__init__(resource=resource)


class _PreconditionError(SuiteError):
    code = grpc.StatusCode.FAILED_PRECONDITION

    def _details(self) -> Iterable[error_details_pb2.PreconditionFailure]:
        subject = next(iter(self.metadata.values()), "")
        yield error_details_pb2.PreconditionFailure(
            violations=[
                error_details_pb2.PreconditionFailure.Violation(
                    type=ErrorReason.Name(self.error_reason), subject=subject, description=self.message
                )
            ]
        )


class RequestIdReused(_PreconditionError):
    """the request id {request_id} was used before with other content"""

    reason = ErrorReason.REQUEST_ID_REUSED

    def __init__(self, request_id: str) -> None:
        super().__init__(request_id=request_id)


class StateForbids(_PreconditionError):
    """{resource} is {state}"""

    reason = ErrorReason.STATE_FORBIDS

    def __init__(self, resource: str, state: str) -> None:
        super().__init__(resource=resource, state=state)


_NOT_READY = {
    "object": "nothing was uploaded",
    "expire_time": "its time is over",
    "item": "it was announced for another item",
    "submission": "a submission refers to it already",
}


class UploadNotReady(_PreconditionError):
    """the upload {upload} cannot be used"""

    reason = ErrorReason.UPLOAD_NOT_READY

    def __init__(self, upload: str, rule: str) -> None:
        """``rule``: object, size, sha256, content_type, expire_time, item or submission."""
        why = _NOT_READY.get(rule, f"its {rule} is not as announced")
        super().__init__(f"the upload {upload} cannot be used: {why}", upload=upload, rule=rule)


class WorkerProtocolViolation(_PreconditionError):
    """the worker broke the protocol: {rule}"""

    reason = ErrorReason.WORKER_PROTOCOL_VIOLATION

    def __init__(self, rule: str) -> None:
        super().__init__(rule=rule)


class Overloaded(SuiteError):
    """the queue {queue} is full: try again later"""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = ErrorReason.OVERLOADED
    retry_seconds = DEFAULT_RETRY_SECONDS

    def __init__(self, queue: str) -> None:
        super().__init__(queue=queue)

    def _details(self) -> Iterable[error_details_pb2.QuotaFailure]:
        yield error_details_pb2.QuotaFailure(
            violations=[
                error_details_pb2.QuotaFailure.Violation(
                    subject=self.metadata["queue"], description=self.message
                )
            ]
        )


class RateLimited(SuiteError):
    """the {level} limit of {limit} in {period_seconds} s is used up: try again later"""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = ErrorReason.RATE_LIMITED

    def __init__(
        self, *, level: str, limit: int, period_seconds: float, retry_seconds: float, cost: int = 1
    ) -> None:
        """``cost`` in units of the limit; one above the limit never fits, which the message says."""
        metadata = {"level": level, "limit": str(limit), "period_seconds": f"{period_seconds:g}"}
        message = None
        if cost > limit:
            message = (
                f"the call costs {cost}, more than the {level} limit of {limit} in {period_seconds:g} s: "
                "send less at once"
            )
        super().__init__(message, **metadata)
        self._retry_after = retry_seconds

    @property
    def retry_after(self) -> float | None:
        return self._retry_after

    def _details(self) -> Iterable[error_details_pb2.QuotaFailure]:
        yield error_details_pb2.QuotaFailure(
            violations=[
                error_details_pb2.QuotaFailure.Violation(
                    subject=self.metadata["level"], description=self.message
                )
            ]
        )


class RequestInProgress(SuiteError):
    """the request id {request_id} is being worked on: repeat the call to get its answer"""

    code = grpc.StatusCode.ABORTED
    reason = ErrorReason.REQUEST_IN_PROGRESS
    retry_seconds = DEFAULT_RETRY_SECONDS

    def __init__(self, request_id: str) -> None:
        super().__init__(request_id=request_id)


class DependencyUnavailable(SuiteError):
    """{dependency} cannot be reached now: try again later"""

    code = grpc.StatusCode.UNAVAILABLE
    reason = ErrorReason.DEPENDENCY_UNAVAILABLE
    retry_seconds = DEFAULT_RETRY_SECONDS

    def __init__(self, dependency: str) -> None:
        super().__init__(dependency=dependency)


class QueueDraining(SuiteError):
    """the queue {queue} is being drained and takes nothing new: try again later"""

    code = grpc.StatusCode.UNAVAILABLE
    reason = ErrorReason.QUEUE_DRAINING
    retry_seconds = 5.0  # a drain takes an operator's time, not a network's

    def __init__(self, queue: str) -> None:
        super().__init__(queue=queue)


class DeadlinePassed(SuiteError):
    """the deadline passed before the answer was known"""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = ErrorReason.DEADLINE_PASSED


class RemoteError(SuiteError):
    """An error of another service, passed on as it is."""

    def __init__(
        self,
        code: grpc.StatusCode,
        reason: ErrorReason.ValueType,
        message: str,
        metadata: dict[str, str],
        *,
        retry_seconds: float | None = None,
    ) -> None:
        """``retry_seconds`` as the other service said; None when it did not."""
        super().__init__(message, **metadata)
        self._code = code
        self._reason = reason
        self._retry_after = retry_seconds

    @property
    def status_code(self) -> grpc.StatusCode:
        return self._code

    @property
    def error_reason(self) -> ErrorReason.ValueType:
        return self._reason

    @property
    def retry_after(self) -> float | None:
        if self._retry_after is not None:
            return self._retry_after
        retryable = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
        return DEFAULT_RETRY_SECONDS if self._code in retryable else None


def from_rpc_error(error: grpc.aio.AioRpcError, dependency: str) -> SuiteError:
    """What a failed call to ``dependency`` means to our own caller.

    An error with our ErrorInfo is passed on; everything that says "not now"
    becomes :class:`DependencyUnavailable`; the rest is a defect of ours.
    """
    status = rpc_status.from_call(error)
    if status is not None:
        for detail in status.details:
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info) and info.domain == DOMAIN and info.reason in _REASONS:
                return RemoteError(
                    error.code(),
                    ErrorReason.Value(info.reason),
                    status.message,
                    dict(info.metadata),
                    retry_seconds=_retry_seconds(status),
                )
    match error.code():
        case (
            grpc.StatusCode.UNAVAILABLE
            | grpc.StatusCode.DEADLINE_EXCEEDED
            | grpc.StatusCode.CANCELLED
            | grpc.StatusCode.RESOURCE_EXHAUSTED
        ):
            return DependencyUnavailable(dependency)
        case _:
            return SuiteError()


def _retry_seconds(status: status_pb2.Status) -> float | None:
    retry = error_details_pb2.RetryInfo()
    for detail in status.details:
        if detail.Unpack(retry):
            return retry.retry_delay.ToMicroseconds() / 1e6
    return None


def retryable(code: int) -> bool:
    """Whether a status code invites a retry: UNAVAILABLE or RESOURCE_EXHAUSTED."""
    return code in (code_pb2.UNAVAILABLE, code_pb2.RESOURCE_EXHAUSTED)


def _template(kind: type[SuiteError]) -> str:
    return (kind.__doc__ or "internal error").strip().splitlines()[0]
