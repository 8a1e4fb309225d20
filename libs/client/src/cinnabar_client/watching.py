"""Following submissions until they are final."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from contextlib import aclosing

import grpc

from cinnabar.gateway.v1 import submission_service_pb2 as pb
from cinnabar.gateway.v1.submission_service_pb2_grpc import SubmissionServiceStub
from cinnabar_client.connection import Connection
from cinnabar_client.errors import ApiError, from_rpc
from cinnabar_client.patience import Trouble

FINAL = frozenset({pb.Submission.GRADED, pb.Submission.CANCELLED, pb.Submission.FAILED})
# A stream lives this long at most, so that one whose other end vanished is not waited for; then the next.
_STREAM_SECONDS = 60.0


async def watch(connection: Connection, name: str, *, patience: float) -> AsyncGenerator[pb.Submission]:
    """Each new state of a submission, the present one first, until a final one.

    Connects again by itself. Raises ApiError when refused for good, or when nothing can be had for
    ``patience`` seconds.
    """
    stub = SubmissionServiceStub(connection.channel)
    trouble = Trouble(patience)
    seen: pb.Submission | None = None
    while True:
        sent = connection.tokens.sent()
        call = stub.WatchSubmission(
            pb.WatchSubmissionRequest(name=name), timeout=_STREAM_SECONDS, metadata=connection.metadata(sent)
        )
        error = ApiError(grpc.StatusCode.UNAVAILABLE, "the watch ended early")
        try:
            async for response in call:
                trouble.forget()
                if response.submission == seen:
                    continue
                seen = response.submission
                yield seen
                if seen.state in FINAL:
                    return
        except grpc.aio.AioRpcError as failure:
            error = from_rpc(failure)
            connection.refused(sent, error)
        finally:
            call.cancel()
        pause = trouble.pause(error)
        if pause is None:
            raise error
        await asyncio.sleep(pause)


async def final_state(connection: Connection, name: str, *, patience: float) -> pb.Submission:
    """The submission once it is final. Raises ApiError as ``watch`` does."""
    async with aclosing(watch(connection, name, patience=patience)) as states:
        last = pb.Submission()
        async for state in states:
            last = state
        return last


async def final_states(
    connection: Connection,
    names: Iterable[str] | AsyncIterable[str],
    *,
    concurrency: int,
    patience: float,
) -> AsyncGenerator[pb.Submission]:
    """Each submission of ``names`` when it is final, in any order; ``concurrency`` are watched at once.

    Raises the first ApiError of any of them.
    """
    source = names if isinstance(names, AsyncIterable) else _each(names)
    watched: set[asyncio.Task[pb.Submission]] = set()
    upcoming: asyncio.Task[str | None] | None = _next(source_iterator := aiter(source))
    try:
        while upcoming is not None or watched:
            room = upcoming is not None and len(watched) < concurrency
            waited: set[asyncio.Task[pb.Submission] | asyncio.Task[str | None]] = {*watched}
            if upcoming is not None and room:
                waited.add(upcoming)
            done, _ = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if upcoming is not None and upcoming in done:
                name = upcoming.result()
                upcoming = None if name is None else _next(source_iterator)
                if name is not None:
                    watched.add(asyncio.create_task(final_state(connection, name, patience=patience)))
            for task in watched & done:
                watched.discard(task)
                yield task.result()
    finally:
        for task in watched:
            task.cancel()
        await asyncio.gather(*watched, return_exceptions=True)
        if upcoming is not None:
            upcoming.cancel()
            await asyncio.gather(upcoming, return_exceptions=True)


async def _each(names: Iterable[str]) -> AsyncIterator[str]:
    for name in names:
        yield name


def _next(iterator: AsyncIterator[str]) -> asyncio.Task[str | None]:
    async def step() -> str | None:
        return await anext(iterator, None)

    return asyncio.create_task(step(), name="next-name")
