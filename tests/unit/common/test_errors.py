"""Errors as they travel: through statuses, real calls, and back."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from cinnabar.type.v1.error_reason_pb2 import ErrorReason
from cinnabar_common import errors
from cinnabar_common.errors import DOMAIN, FieldViolation, RemoteError, SuiteError, from_rpc_error
from cinnabar_common.interceptors import ErrorInterceptor

Code = grpc.StatusCode
KINDS: dict[str, tuple[SuiteError, grpc.StatusCode, str, dict[str, str], set[str]]] = {
    "SuiteError": (SuiteError(), Code.INTERNAL, "INTERNAL_ERROR", {}, set()),
    "InvalidRequest": (
        errors.InvalidRequest([FieldViolation("a.b", "must be good"), FieldViolation("c", "too long")]),
        Code.INVALID_ARGUMENT,
        "INVALID_REQUEST",
        {"field": "a.b"},
        {"BadRequest"},
    ),
    "PageTokenInvalid": (
        errors.PageTokenInvalid(),
        Code.INVALID_ARGUMENT,
        "PAGE_TOKEN_INVALID",
        {"field": "page_token"},
        {"BadRequest"},
    ),
    "ConsistencyTokenInvalid": (
        errors.ConsistencyTokenInvalid("cinnabar-consistency-token"),
        Code.INVALID_ARGUMENT,
        "CONSISTENCY_TOKEN_INVALID",
        {"field": "cinnabar-consistency-token"},
        {"BadRequest"},
    ),
    "UploadNotReady": (
        errors.UploadNotReady("courses/a/assignments/b/uploads/u", "size"),
        Code.FAILED_PRECONDITION,
        "UPLOAD_NOT_READY",
        {"upload": "courses/a/assignments/b/uploads/u", "rule": "size"},
        {"PreconditionFailure"},
    ),
    "CredentialInvalid": (
        errors.CredentialInvalid(),
        Code.UNAUTHENTICATED,
        "CREDENTIAL_INVALID",
        {},
        set(),
    ),
    "RoleForbidden": (
        errors.RoleForbidden(role="student", action="x.create"),
        Code.PERMISSION_DENIED,
        "ROLE_FORBIDDEN",
        {"role": "student", "action": "x.create"},
        set(),
    ),
    "ResourceNotFound": (
        errors.ResourceNotFound("courses/a"),
        Code.NOT_FOUND,
        "RESOURCE_NOT_FOUND",
        {"resource": "courses/a"},
        set(),
    ),
    "ResourceExists": (
        errors.ResourceExists("courses/a"),
        Code.ALREADY_EXISTS,
        "RESOURCE_EXISTS",
        {"resource": "courses/a"},
        set(),
    ),
    "EtagMismatch": (
        errors.EtagMismatch("courses/a"),
        Code.ABORTED,
        "ETAG_MISMATCH",
        {"resource": "courses/a"},
        set(),
    ),
    "RequestIdReused": (
        errors.RequestIdReused("r1"),
        Code.FAILED_PRECONDITION,
        "REQUEST_ID_REUSED",
        {"request_id": "r1"},
        {"PreconditionFailure"},
    ),
    "StateForbids": (
        errors.StateForbids("courses/a", "GRADED"),
        Code.FAILED_PRECONDITION,
        "STATE_FORBIDS",
        {"resource": "courses/a", "state": "GRADED"},
        {"PreconditionFailure"},
    ),
    "WorkerProtocolViolation": (
        errors.WorkerProtocolViolation("hello first"),
        Code.FAILED_PRECONDITION,
        "WORKER_PROTOCOL_VIOLATION",
        {"rule": "hello first"},
        {"PreconditionFailure"},
    ),
    "Overloaded": (
        errors.Overloaded("commits"),
        Code.RESOURCE_EXHAUSTED,
        "OVERLOADED",
        {"queue": "commits"},
        {"RetryInfo", "QuotaFailure"},
    ),
    "RateLimited": (
        errors.RateLimited(level="user", limit=100, period_seconds=60.0, retry_seconds=0.6),
        Code.RESOURCE_EXHAUSTED,
        "RATE_LIMITED",
        {"level": "user", "limit": "100", "period_seconds": "60"},
        {"RetryInfo", "QuotaFailure"},
    ),
    "RequestInProgress": (
        errors.RequestInProgress("r1"),
        Code.ABORTED,
        "REQUEST_IN_PROGRESS",
        {"request_id": "r1"},
        {"RetryInfo"},
    ),
    "DependencyUnavailable": (
        errors.DependencyUnavailable("redis"),
        Code.UNAVAILABLE,
        "DEPENDENCY_UNAVAILABLE",
        {"dependency": "redis"},
        {"RetryInfo"},
    ),
    "QueueDraining": (
        errors.QueueDraining("text"),
        Code.UNAVAILABLE,
        "QUEUE_DRAINING",
        {"queue": "text"},
        {"RetryInfo"},
    ),
    "DeadlinePassed": (errors.DeadlinePassed(), Code.DEADLINE_EXCEEDED, "DEADLINE_PASSED", {}, set()),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_status_says_all_that_the_error_knows(name: str) -> None:
    error, code, reason, metadata, details = KINDS[name]
    status = error.to_status()
    assert (status.code, status.message) == (code.value[0], error.message)
    assert all(
        value in status.message for key, value in metadata.items() if name != "PageTokenInvalid" or key
    )
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.domain, info.reason, dict(info.metadata)) == (DOMAIN, reason, metadata)
    assert {detail.TypeName().rpartition(".")[2] for detail in status.details[1:]} == details


def test_every_class_of_error_is_in_the_table() -> None:
    classes = {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, SuiteError) and not name.startswith("_")
    }
    assert classes - {"RemoteError"} == set(KINDS)


def test_all_violations_are_told() -> None:
    status = KINDS["InvalidRequest"][0].to_status()
    bad = error_details_pb2.BadRequest()
    assert status.details[1].Unpack(bad)
    assert [(one.field, one.description) for one in bad.field_violations] == [
        ("a.b", "must be good"),
        ("c", "too long"),
    ]
    assert status.message.endswith("(and 1 more)")
    assert FieldViolation("x", "r").under("m[0]") == FieldViolation("m[0].x", "r")
    assert FieldViolation("", "r").under("m[0]") == FieldViolation("m[0]", "r")


class Raising(grpc.GenericRpcHandler):
    """Four methods, one of each arity, that raise what the test says."""

    def __init__(self, make: Callable[[], BaseException]) -> None:
        async def behavior(request: Any, context: Any) -> None:
            raise make()

        self._handlers: dict[str, Any] = {
            "/t/unary_unary": grpc.unary_unary_rpc_method_handler(behavior),
            "/t/unary_stream": grpc.unary_stream_rpc_method_handler(behavior),
            "/t/stream_unary": grpc.stream_unary_rpc_method_handler(behavior),
            "/t/stream_stream": grpc.stream_stream_rpc_method_handler(behavior),
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return self._handlers.get(str(handler_call_details.method))


@asynccontextmanager
async def raising(make: Callable[[], BaseException]) -> AsyncGenerator[grpc.aio.Channel]:
    server = grpc.aio.server(interceptors=[ErrorInterceptor()])
    server.add_generic_rpc_handlers((Raising(make),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(None)


async def call(channel: grpc.aio.Channel, arity: str) -> None:
    method: Any = getattr(channel, arity)(f"/t/{arity}")
    match arity:
        case "unary_unary":
            await method(b"", timeout=5)
        case "unary_stream":
            await method(b"", timeout=5).read()
        case "stream_unary":
            streaming = method(timeout=5)
            await streaming.done_writing()
            await streaming
        case _:
            await method(timeout=5).read()


async def called(channel: grpc.aio.Channel, arity: str) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call(channel, arity)
    return raised.value


ARITIES = ["unary_unary", "unary_stream", "stream_unary", "stream_stream"]


@pytest.mark.parametrize("arity", ARITIES)
async def test_an_error_goes_through_a_call_and_back(arity: str) -> None:
    for error, code, reason, metadata, _ in KINDS.values():
        async with raising(lambda error=error: error) as channel:
            again = from_rpc_error(await called(channel, arity), "storage")
        assert isinstance(again, RemoteError)
        assert (again.status_code, ErrorReason.Name(again.error_reason)) == (code, reason)
        assert (again.message, again.metadata) == (error.message, metadata)
        assert again.retry_after == error.retry_after


@pytest.mark.parametrize("arity", ARITIES)
async def test_what_is_unknown_is_hidden_and_groups_of_one_are_opened(arity: str) -> None:
    secret = "SELECT secret FROM answers"
    known = errors.ResourceNotFound("courses/a")
    cases: list[tuple[BaseException, Code]] = [
        (RuntimeError(secret), Code.INTERNAL),
        (ExceptionGroup("g", [ExceptionGroup("g", [known])]), Code.NOT_FOUND),
        (ExceptionGroup("g", [known, RuntimeError(secret)]), Code.INTERNAL),
        (ExceptionGroup("g", [RuntimeError(secret)]), Code.INTERNAL),
    ]
    for error, code in cases:
        async with raising(lambda error=error: error) as channel:
            seen = await called(channel, arity)
        assert seen.code() is code
        assert secret not in repr(seen)
        assert rpc_status.from_call(seen) is not None


async def test_a_method_that_does_not_exist() -> None:
    async with raising(RuntimeError) as channel:
        method = cast("Any", channel).unary_unary("/t/unknown")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await method(b"", timeout=5)
    assert raised.value.code() is Code.UNIMPLEMENTED


async def test_a_server_that_is_not_there_is_a_dependency_that_is_away() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        error = from_rpc_error(await called(channel, "unary_unary"), "storage")
    assert isinstance(error, errors.DependencyUnavailable)
    assert error.metadata == {"dependency": "storage"}


@pytest.mark.parametrize("code", [Code.INTERNAL, Code.UNKNOWN, Code.NOT_FOUND, Code.UNIMPLEMENTED])
async def test_a_foreign_error_is_a_defect_of_ours(code: Code) -> None:
    foreign = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), "foreign")
    error = from_rpc_error(foreign, "storage")
    assert type(error) is SuiteError
    assert "foreign" not in error.message
