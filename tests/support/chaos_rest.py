"""A REST client with the errors of the client library."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import aiohttp
import grpc
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2

from cinnabar.gateway.v1.submission_service_pb2 import CreateSubmissionRequest
from cinnabar_client import ApiError
from cinnabar_client.errors import from_status
from cinnabar_common.names import AssignmentName

# The details of errors are found in the registry by their names: they must be loaded.
_KNOWN_DETAILS = (error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo, error_details_pb2.BadRequest)
# What a status without a body of the suite means: Envoy's own, or a proxy's.
_BARE = {
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


class RestClient:
    """JSON over HTTP/1.1 at ``base``, with keep-alive; every method raises ApiError."""

    def __init__(self, base: str, *, token: str, timeout: float) -> None:
        self._base = base
        self._headers = {"authorization": f"Bearer {token}"}
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._opened: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._opened = aiohttp.ClientSession(timeout=self._timeout, headers=self._headers)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._opened is not None:
            await self._opened.close()

    async def submit(self, request: CreateSubmissionRequest, *, flat: bool) -> str:
        """Hands in, on the flat path or on that of the resource; returns the name of the submission."""
        submission = json_format.MessageToDict(request.submission)
        if flat:
            name = AssignmentName.parse(request.parent)
            assert name is not None
            body = submission | {"course": name.course, "assignment": name.assignment}
            answer = await self._post("/api/v1/grading/submit", body, request.request_id)
            return str(answer["submission"])
        answer = await self._post(f"/v1/{request.parent}/submissions", submission, request.request_id)
        return str(answer["name"])

    async def _post(self, path: str, body: dict[str, Any], request_id: str) -> dict[str, Any]:
        assert self._opened is not None
        try:
            async with self._opened.post(
                self._base + path, json=body, headers={"idempotency-key": request_id}
            ) as answer:
                text = await answer.text()
                if answer.status == 200:
                    return await answer.json()
        except TimeoutError as error:
            raise ApiError(grpc.StatusCode.DEADLINE_EXCEEDED, "no answer in time") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ApiError(grpc.StatusCode.UNAVAILABLE, f"the connection broke: {error}") from error
        raise _refusal(answer.status, text)


def _refusal(status: int, text: str) -> ApiError:
    try:
        error = from_status(json_format.Parse(text, status_pb2.Status()))
    except json_format.ParseError:
        return ApiError(_BARE.get(status, grpc.StatusCode.UNKNOWN), f"HTTP {status}: {text[:200]}")
    if status == 200 or status < 400:
        return ApiError(grpc.StatusCode.UNKNOWN, f"HTTP {status} with an error: {text[:200]}")
    return error
