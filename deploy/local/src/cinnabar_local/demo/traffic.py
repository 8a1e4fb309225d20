"""The demo's clients: hand in over gRPC and REST, and watch until everything is graded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from uuid import uuid4

import aiohttp
import grpc
from google.protobuf.json_format import MessageToDict

from cinnabar.gateway.v1.assignment_service_pb2 import Assignment
from cinnabar.gateway.v1.submission_service_pb2 import CreateSubmissionRequest, Submission
from cinnabar_client import ApiError, Client, persist
from cinnabar_client.patience import pause_seconds
from cinnabar_client.progress import Counts
from cinnabar_common.names import AssignmentName
from cinnabar_local.demo.homework import HandIn, Homework

REST_EVERY = 10  # one in so many goes over REST
_REST_CLIENTS = 8
_REST_SECONDS = 10.0
_RETRY_STATUSES = frozenset({408, 409, 429, 500, 502, 503, 504})  # 409: the first attempt still runs
_WATCHES = 64
_ACCEPTED_WAITING = 10_000


@dataclass(slots=True)
class Handed:
    """An accepted submission; ``seen`` (s since 1970) and ``final`` once a watcher saw it final."""

    hand_in: HandIn
    name: str
    seen: float = 0.0
    final: Submission | None = None

    @property
    def latency(self) -> float:
        """Seconds from its acceptance (the service's create time) to the moment a watcher saw it final."""
        assert self.final is not None
        return self.seen - self.final.create_time.ToNanoseconds() / 1e9


@dataclass(slots=True)
class Traffic:
    """What happened."""

    handed: dict[str, Handed] = field(default_factory=dict[str, Handed])
    refused: list[ApiError] = field(default_factory=list[ApiError])
    over_rest: int = 0
    seconds: float = 0.0

    @property
    def graded(self) -> list[Handed]:
        """Those that are graded."""
        return [h for h in self.handed.values() if h.final and h.final.state == Submission.GRADED]


async def create_assignments(client: Client, homework: Homework, *, patience: float) -> None:
    """Creates all assignments, four at once. One that is there is from a try whose answer was lost."""
    gate = asyncio.Semaphore(4)

    async def create(name: AssignmentName, resource: Assignment) -> None:
        async with gate:
            try:
                await persist(
                    lambda: client.create_assignment(name.course, resource, assignment_id=name.assignment),
                    patience=patience,
                )
            except ApiError as error:
                if error.code is not grpc.StatusCode.ALREADY_EXISTS:
                    raise

    async with asyncio.TaskGroup() as group:
        for name, resource in homework.assignments.items():
            group.create_task(create(name, resource))


class HandingIn:
    """Hands in everything and follows it to the end."""

    def __init__(self, client: Client, *, base_url: str, token: str, patience: float, counts: Counts) -> None:
        self._client = client
        self._base_url = base_url
        self._token = token
        self._patience = patience
        self._counts = counts
        self._accepted: asyncio.Queue[str | None] = asyncio.Queue(maxsize=_ACCEPTED_WAITING)
        self.traffic = Traffic()

    async def run(self, hand_ins: Sequence[HandIn]) -> Traffic:
        """Returns when all that was accepted is final.

        Cancel it to give up; ``traffic`` says how far it came.
        """
        began = time.time()
        rest = [h for index, h in enumerate(hand_ins) if index % REST_EVERY == 0]
        streamed = [h for index, h in enumerate(hand_ins) if index % REST_EVERY != 0]
        async with asyncio.TaskGroup() as group:
            group.create_task(self._hand_in(rest, streamed), name="demo-hand-in")
            group.create_task(self._follow(), name="demo-follow")
        self.traffic.seconds = max((h.seen for h in self.traffic.handed.values()), default=began) - began
        return self.traffic

    async def _hand_in(self, rest: Sequence[HandIn], streamed: Sequence[HandIn]) -> None:
        waiting = list(reversed(rest))
        session = aiohttp.ClientSession(
            base_url=self._base_url, timeout=aiohttp.ClientTimeout(total=_REST_SECONDS)
        )
        async with session, asyncio.TaskGroup() as group:
            group.create_task(self._stream(streamed), name="demo-stream")
            for _ in range(_REST_CLIENTS):
                group.create_task(self._post_all(session, waiting), name="demo-rest")
        await self._accepted.put(None)

    async def _stream(self, hand_ins: Sequence[HandIn]) -> None:
        async with aclosing(self._client.submit_many([h.request for h in hand_ins])) as results:
            async for result in results:
                if result.submission is not None:
                    await self._accept(hand_ins[result.index], result.submission.name)
                elif result.error is not None:
                    self.traffic.refused.append(result.error)

    async def _post_all(self, session: aiohttp.ClientSession, waiting: list[HandIn]) -> None:
        while waiting:
            hand_in = waiting.pop()
            try:
                name = await self._post(session, hand_in.request)
            except ApiError as error:
                self.traffic.refused.append(error)
            else:
                self.traffic.over_rest += 1
                await self._accept(hand_in, name)

    async def _post(self, session: aiohttp.ClientSession, request: CreateSubmissionRequest) -> str:
        """POSTs a submission until it is accepted, under one idempotency key; its name."""
        path, body = f"/v1/{request.parent}/submissions", MessageToDict(request.submission)
        student = _student_token(self._token, request.submission.author)
        headers = {"idempotency-key": uuid4().hex, "authorization": f"Bearer {student}"}
        give_up = time.monotonic() + self._patience
        attempt = 0
        while True:
            attempt += 1
            try:
                async with session.post(path, json=body, headers=headers) as reply:
                    if reply.status == 200:
                        return str((await reply.json())["name"])
                    problem = f"REST answered {reply.status}: {(await reply.text())[:300]}"
                    final = reply.status not in _RETRY_STATUSES
            except (aiohttp.ClientError, TimeoutError) as error:
                problem, final = f"REST: {type(error).__name__} {error}", False
            if final or time.monotonic() > give_up:
                raise ApiError(grpc.StatusCode.UNKNOWN, problem)
            await asyncio.sleep(pause_seconds(attempt, None))

    async def _accept(self, hand_in: HandIn, name: str) -> None:
        self.traffic.handed[name] = Handed(hand_in, name)
        self._counts.advance("accepted")
        await self._accepted.put(name)

    async def _follow(self) -> None:
        finals = self._client.wait_all_graded(self._names(), concurrency=_WATCHES)
        async with aclosing(finals):
            async for final in finals:
                handed = self.traffic.handed[final.name]
                handed.seen, handed.final = time.time(), final
                if final.state == Submission.GRADED:
                    self._counts.advance("graded")

    async def _names(self) -> AsyncIterator[str]:
        while (name := await self._accepted.get()) is not None:
            yield name


def _student_token(token: str, author: str) -> str:
    """The credential of a student in the tenant of ``token``: single submits are limited per user."""
    return ".".join(("dev", token.split(".")[1], "student", author))
