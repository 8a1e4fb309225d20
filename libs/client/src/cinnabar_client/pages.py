"""Lists that come in pages, of which parts may be missing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import grpc

from cinnabar.type.v1.error_reason_pb2 import ErrorReason
from cinnabar_client.errors import ApiError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a list: ``token`` asks for the next, and is empty at the end."""

    resources: Sequence[T]
    token: str
    unreachable: Sequence[str] = ()


async def pages(page: Callable[[str], Awaitable[Page[T]]]) -> AsyncGenerator[T]:
    """Everything on the pages that ``page`` gives for their tokens.

    When something was missing from any of them, ApiError is raised at the end: UNAVAILABLE, with what it
    was as ``metadata["unreachable"]``.
    """
    missing: set[str] = set()
    token = ""
    while True:
        given = await page(token)
        missing.update(given.unreachable)
        for resource in given.resources:
            yield resource
        token = given.token
        if not token:
            break
    if missing:
        names = ", ".join(sorted(missing))
        raise ApiError(
            grpc.StatusCode.UNAVAILABLE,
            f"{names} cannot be reached now: what is there is missing from the list",
            reason=ErrorReason.Name(ErrorReason.DEPENDENCY_UNAVAILABLE),
            metadata={"unreachable": names},
        )
