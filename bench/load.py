"""What the measurements submit, and how they count what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import grpc

from cinnabar.gateway.v1 import assignment_service_pb2 as assignments
from cinnabar.gateway.v1 import submission_service_pb2 as submissions
from cinnabar.gateway.v1.assignment_service_pb2_grpc import AssignmentServiceStub
from cinnabar.grader.v1.grade_pb2 import Answer
from cinnabar.grader.v1.item_pb2 import Item, TextSpec
from cinnabar_local import sql
from cinnabar_local.stack import Stack

TOKEN = "dev.bench.instructor.load"
METADATA = (("authorization", f"Bearer {TOKEN}"),)
ANSWER = "a" * 512  # bytes; that of the peers
# One caller makes all the load. The limits are asked and counted as always, but reached by nobody.
POLICY = """
[tenants.default.limits]
tenant.units = 1_000_000_000
user.units = 1_000_000_000
method.CreateSubmission.units = 1_000_000_000
method.SubmitGrading.units = 1_000_000_000
"""
AUTHORS = 997  # a prime, so that batches spread over the buckets


@asynccontextmanager
async def channel(address: str) -> AsyncGenerator[grpc.aio.Channel]:
    """A channel of its own, as another client would have."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 64 << 20)]
    async with grpc.aio.insecure_channel(address, options=options) as opened:
        yield opened


async def create_assignment(through: grpc.aio.Channel, name: str) -> str:
    """An assignment with one exact-match item; returns its resource name."""
    item = Item(item="q1", prompt="Say it.", points=1, text=TextSpec(accepted=[ANSWER]))
    request = assignments.CreateAssignmentRequest(
        parent="courses/bench", assignment_id=name, assignment=assignments.Assignment(items=[item])
    )
    try:
        created = await AssignmentServiceStub(through).CreateAssignment(
            request, metadata=METADATA, timeout=10
        )
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
            raise
        return f"courses/bench/assignments/{name}"
    return created.name


def submission(parent: str, number: int) -> submissions.CreateSubmissionRequest:
    """A submission of one 512-byte answer."""
    return submissions.CreateSubmissionRequest(
        parent=parent,
        submission=submissions.Submission(
            author=f"student-{number % AUTHORS}", answers=[Answer(item="q1", text=ANSWER)]
        ),
    )


def batches(parent: str, count: int, size: int) -> Iterator[submissions.StreamCreateSubmissionsRequest]:
    """Messages of ``size`` submissions that together have ``count``."""
    for start in range(0, count, size):
        yield submissions.StreamCreateSubmissionsRequest(
            batch_id=start,
            requests=[submission(parent, number) for number in range(start, min(count, start + size))],
        )


class Ledger:
    """Counts rows in Postgres, where "done" is."""

    def __init__(self, shards: Sequence[sql.Connection]) -> None:
        self._shards = shards

    @classmethod
    @asynccontextmanager
    async def of(cls, stack: Stack) -> AsyncGenerator[Ledger]:
        """Connected to the primaries of a stack."""
        async with AsyncExitStack() as exits:
            yield cls(
                [
                    await exits.enter_async_context(sql.connected(shard.primary_url))
                    for shard in stack.addresses.shards
                ]
            )

    async def open_tasks(self) -> int:
        """Accepted and not graded yet. The table holds little else, so the count is cheap."""
        return await self._count("SELECT count(*) FROM tasks WHERE state = 1")

    async def grades(self) -> int:
        """Grades committed so far."""
        return await self._count("SELECT count(*) FROM grades")

    async def until_graded(self, *, seconds: float) -> None:
        """Returns when no task is open. TimeoutError after ``seconds``."""
        async with asyncio.timeout(seconds):
            while await self.open_tasks():  # noqa: ASYNC110  # what is waited for is in Postgres
                await asyncio.sleep(0.05)

    async def _count(self, statement: str) -> int:
        return sum([int(str(await shard.fetchval(statement))) for shard in self._shards])
