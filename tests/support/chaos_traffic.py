"""Submissions that keep flowing while things break, and the account of what became of them."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import grpc

from cinnabar.gateway.v1.assignment_service_pb2 import Assignment, CreateAssignmentRequest
from cinnabar.gateway.v1.assignment_service_pb2_grpc import AssignmentServiceStub
from cinnabar.gateway.v1.submission_service_pb2 import CreateSubmissionRequest, Submission
from cinnabar.gateway.v1.submission_service_pb2_grpc import SubmissionServiceStub
from cinnabar.grader.v1.grade_pb2 import Answer
from cinnabar.grader.v1.item_pb2 import ChoiceSpec, Item, TextSpec
from cinnabar_local import sql
from cinnabar_local.stack import Stack

METADATA = (("authorization", "Bearer dev.chaos.instructor.oracle"),)
ITEMS = (
    Item(item="colour", points=1, text=TextSpec(accepted=["red"])),
    Item(
        item="pick",
        points=2,
        choice=ChoiceSpec(options=[ChoiceSpec.Option(id="a"), ChoiceSpec.Option(id="b")], correct=["a"]),
    ),
)
RETRYABLE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED}
CALL_SECONDS = 20.0
RETRY_SECONDS = 0.05


@dataclass(slots=True)
class Traffic:
    """What clients saw: ids accepted, statuses met, the longest time between two acceptances."""

    accepted: set[str] = field(default_factory=set[str])
    statuses: Counter[str] = field(default_factory=Counter[str])
    forbidden: list[str] = field(default_factory=list[str])
    longest_stall: float = 0.0
    _last: float = field(default_factory=time.monotonic)

    def accept(self, name: str) -> None:
        """An OK answer."""
        now = time.monotonic()
        self.longest_stall = max(self.longest_stall, now - self._last)
        self._last = now
        self.accepted.add(name.rpartition("/")[2])

    def refuse(self, error: grpc.aio.AioRpcError) -> None:
        """Any other answer."""
        self.statuses[error.code().name] += 1
        if error.code() not in RETRYABLE:
            self.forbidden.append(f"{error.code().name}: {error.details()}")


@asynccontextmanager
async def flowing(stack: Stack, *, clients: int = 6) -> AsyncGenerator[Traffic]:
    """Submissions of two items each through Envoy, from ``clients`` clients, for the length of the block.

    Each repeats a submission, under one request id, until it is accepted; leaving the block lets the last
    ones finish.
    """
    traffic = Traffic()
    numbers = itertools.count()
    stop = asyncio.Event()
    async with AsyncExitStack() as exits:
        channel = await exits.enter_async_context(grpc.aio.insecure_channel(stack.addresses.envoy))
        parent = await _create_assignment(channel)
        create = SubmissionServiceStub(channel).CreateSubmission

        async def client() -> None:
            while not stop.is_set():
                number = next(numbers)
                request = CreateSubmissionRequest(
                    parent=parent,
                    request_id=f"chaos-{number}",
                    submission=Submission(
                        author=f"student-{number % 101}",
                        answers=[
                            Answer(item="colour", text="red" if number % 2 else "blue"),
                            Answer(item="pick", choice=Answer.Choice(options=["a"])),
                        ],
                    ),
                )
                while True:
                    try:
                        answer = await create(request, metadata=METADATA, timeout=CALL_SECONDS)
                    except grpc.aio.AioRpcError as error:
                        traffic.refuse(error)
                        if error.code() not in RETRYABLE:
                            break
                        await asyncio.sleep(RETRY_SECONDS)
                    else:
                        traffic.accept(answer.name)
                        break

        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(client())
            try:
                yield traffic
            finally:
                stop.set()


async def _create_assignment(channel: grpc.aio.Channel) -> str:
    created = await AssignmentServiceStub(channel).CreateAssignment(
        CreateAssignmentRequest(
            parent="courses/chaos", assignment_id="storm", assignment=Assignment(items=ITEMS)
        ),
        metadata=METADATA,
        timeout=CALL_SECONDS,
    )
    return created.name


@dataclass(frozen=True, slots=True)
class Account:
    """What Postgres says, over all shards."""

    submissions: frozenset[str]
    open_tasks: int
    given_up: int
    grades: Counter[str]

    @property
    def graded_more_than_once(self) -> list[str]:
        """Tasks with more than one grade row."""
        return [task for task, count in self.grades.items() if count > 1]


async def account(stack: Stack) -> Account:
    """Counts rows in the primaries."""
    submissions: set[str] = set()
    grades: Counter[str] = Counter()
    open_tasks = given_up = 0
    for shard in stack.addresses.shards:
        async with sql.connected(shard.primary_url) as connection:
            submissions |= await _strings(connection, "SELECT submission_id FROM submissions")
            for task in await _list(connection, "SELECT submission_id || '/' || item_id FROM grades"):
                grades[task] += 1
            open_tasks += int(str(await connection.fetchval("SELECT count(*) FROM tasks WHERE state = 1")))
            given_up += int(str(await connection.fetchval("SELECT count(*) FROM tasks WHERE state <> 1")))
    return Account(frozenset(submissions), open_tasks, given_up, grades)


async def _list(connection: sql.Connection, statement: str) -> list[str]:
    joined = await connection.fetchval(f"SELECT string_agg(value, ' ') FROM ({statement}) AS rows (value)")
    return str(joined).split() if joined is not None else []


async def _strings(connection: sql.Connection, statement: str) -> set[str]:
    return set(await _list(connection, statement))
