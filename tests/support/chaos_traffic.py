"""Students and instructors who keep on handing in, over every way there is, while things break."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

from cinnabar.gateway.v1.assignment_service_pb2 import Assignment
from cinnabar.gateway.v1.submission_service_pb2 import (
    BatchCreateSubmissionsRequest,
    CreateSubmissionRequest,
    Submission,
)
from cinnabar.gateway.v1.submission_service_pb2_grpc import SubmissionServiceStub
from cinnabar_client import Client
from cinnabar_client.connection import Connection, open_channel
from cinnabar_client.errors import from_status
from cinnabar_client.patience import pause_seconds
from cinnabar_local.stack import Stack
from tests.support.chaos_homework import (
    ASSIGNMENT,
    COURSE,
    ITEMS,
    PARENT,
    PATIENCE_SECONDS,
    Homework,
    Load,
    Person,
)
from tests.support.chaos_ledger import Ledger
from tests.support.chaos_rest import RestClient

CALL_SECONDS = 15.0
BATCH, CHUNK = 12, 24


@asynccontextmanager
async def flowing(stack: Stack, *, seed: int, load: Load) -> AsyncGenerator[Ledger]:
    """Traffic for the length of the block; leaving it lets everybody finish what they began.

    The seed decides who repeats, cancels and watches, not how often anybody gets a turn.
    """
    ledger, stop = Ledger(), asyncio.Event()
    async with AsyncExitStack() as exits:
        people = [
            person
            for tenant in (f"chaos-{number}" for number in range(load.tenants))
            for person in await _tenant(exits, stack, tenant, ledger, seed, load)
        ]
        async with asyncio.TaskGroup() as group:
            for number, person in enumerate(people):
                group.create_task(person(stop), name=f"chaos client {number}")
            try:
                yield ledger
            finally:
                stop.set()


class Probe:
    """One student more, who tells when the suite grades again."""

    def __init__(self, client: Client, ledger: Ledger, *, seed: int) -> None:
        self._person = Person(ledger, "chaos-0", "probe", seed, Load())
        self._client = client
        self._student = _Student(self._person, client, client)

    async def graded(self) -> None:
        """Hands in one submission and returns when it is seen to be graded."""
        name = await self._student.submit(self._client, self._person.homework())
        if name is not None:
            await self._student.watch(name)


@asynccontextmanager
async def probing(stack: Stack, ledger: Ledger, *, seed: int) -> AsyncGenerator[Probe]:
    """A probe; the traffic must have begun, for its assignment to be there."""
    token = "dev.chaos-0.student.probe"
    async with Client(
        stack.addresses.envoy, token=token, timeout=CALL_SECONDS, patience=PATIENCE_SECONDS
    ) as client:
        yield Probe(client, ledger, seed=seed)


async def _tenant(
    exits: AsyncExitStack, stack: Stack, tenant: str, ledger: Ledger, seed: int, load: Load
) -> list[Callable[[asyncio.Event], Coroutine[None, None, None]]]:
    """The people of one tenant, connected; its assignment is there."""
    address = stack.addresses.envoy

    async def connected(token: str) -> Client:
        return await exits.enter_async_context(
            Client(address, token=token, timeout=CALL_SECONDS, patience=PATIENCE_SECONDS)
        )

    staff_token = f"dev.{tenant}.instructor.staff"
    staff = await connected(staff_token)
    await staff.create_assignment(COURSE, Assignment(items=ITEMS), assignment_id=ASSIGNMENT)
    channel = open_channel(address)
    exits.push_async_callback(channel.close)
    connection = Connection(channel, token=staff_token, timeout=CALL_SECONDS)
    people: list[Callable[[asyncio.Event], Coroutine[None, None, None]]] = []
    for number in range(load.students):
        name = f"student-{number}"
        token = f"dev.{tenant}.student.{name}"
        person = Person(ledger, tenant, name, seed, load)
        people.append(_Student(person, await connected(token), await connected(token)).run)
        rest_name = f"rest-{number}"
        rest = await exits.enter_async_context(
            RestClient(stack.addresses.http, token=f"dev.{tenant}.student.{rest_name}", timeout=CALL_SECONDS)
        )
        people.append(_RestStudent(Person(ledger, tenant, rest_name, seed, load), rest).run)
    people.append(_Batches(Person(ledger, tenant, "batch", seed, load), connection).run)
    people.append(_Streams(Person(ledger, tenant, "stream", seed, load), staff).run)
    people.append(_Reader(Person(ledger, tenant, "reader", seed, load), staff).run)
    return people


class _Student:
    """Hands in over gRPC; repeats, doubles, cancels and watches some of it."""

    def __init__(self, person: Person, client: Client, other: Client) -> None:
        self._person = person
        self._client = client
        self._other = other

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop``."""
        person = self._person
        async with asyncio.TaskGroup() as watchers:
            while not stop.is_set():
                homework = person.timed() if person.chance(0.06) else person.homework()
                if person.chance(0.05):
                    name, _ = await asyncio.gather(
                        self.submit(self._client, homework), self.submit(self._other, homework)
                    )
                else:
                    name = await self.submit(self._client, homework)
                if name is None:
                    continue
                if person.chance(0.08):
                    await self.submit(self._other, homework)
                if person.chance(0.06):
                    await self._cancel(name)
                if person.chance(0.1):
                    watchers.create_task(self.watch(name), name="chaos watcher")
                await person.rest(person.load.pause)

    async def submit(self, client: Client, homework: Homework) -> str | None:
        """Hands in until it is accepted; its name, None when it is refused."""
        message = homework.message
        accepted = await self._person.insist(
            "gRPC submit",
            lambda: client.submit(
                message.parent,
                message.submission.answers,
                author=message.submission.author,
                request_id=message.request_id,
                grade_after=homework.times.after,
                grade_by=homework.times.by,
            ),
            allowed=homework.times.refusals,
        )
        if accepted is None:
            return None
        if homework.times.by is not None:
            self._person.ledger.deadlines.add(accepted.name)
        self._person.ledger.accept("gRPC submit", homework.request, accepted.name, homework.score)
        return accepted.name

    async def _cancel(self, name: str) -> None:
        ledger = self._person.ledger
        cancelled = await self._person.insist(
            "cancel", lambda: self._client.cancel(name), allowed=("STATE_FORBIDS",)
        )
        if cancelled is not None:
            ledger.answered("cancel")
            ledger.cancelled.add(name)

    async def watch(self, name: str) -> None:
        """Watches until the final state and writes it down."""
        final = await self._person.insist("watch", lambda: self._final(name))
        if final is not None:
            self._person.ledger.answered("watch")
            self._person.ledger.seen_final[name] = (Submission.State.Name(final.state), final.score)

    async def _final(self, name: str) -> Submission:
        try:
            return await self._other.wait_graded(name, timeout=PATIENCE_SECONDS)
        except TimeoutError:
            self._person.ledger.forbid(f"watch: {name} was not final in {PATIENCE_SECONDS:g} s")
            return await self._other.get_submission(name)


class _RestStudent:
    """Hands in over REST, on the path of the resource and on the flat one in turn."""

    def __init__(self, person: Person, client: RestClient) -> None:
        self._person = person
        self._client = client

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop``."""
        person = self._person
        for flat in itertools.cycle((False, True)):
            if stop.is_set():
                return
            homework = person.homework()
            for _ in range(2 if person.chance(0.08) else 1):
                name = await person.insist("REST submit", self._submit(homework.message, flat=flat))
                if name is not None:
                    person.ledger.accept("REST submit", homework.request, name, homework.score)
            await person.rest(person.load.pause)

    def _submit(self, message: CreateSubmissionRequest, *, flat: bool) -> Callable[[], Awaitable[str]]:
        return lambda: self._client.submit(message, flat=flat)


class _Batches:
    """A course's answers handed in by its staff, some at a time."""

    def __init__(self, person: Person, connection: Connection) -> None:
        self._person = person
        self._connection = connection
        self._create = SubmissionServiceStub(connection.channel).BatchCreateSubmissions

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop``."""
        person = self._person
        while not stop.is_set():
            batch = person.classwork(BATCH)
            await self._submit(batch)
            if person.chance(0.1):
                await self._submit(batch)
            await person.rest(person.load.bulk_pause)

    async def _submit(self, batch: list[Homework]) -> None:
        began, open_ones = time.monotonic(), batch
        for attempt in itertools.count(1):
            request = BatchCreateSubmissionsRequest(
                parent=PARENT, requests=[homework.message for homework in open_ones]
            )
            answer = await self._person.insist("batch", self._call(request))
            if answer is None:
                return
            again: list[Homework] = []
            for homework, result in zip(open_ones, answer.results, strict=True):
                if result.HasField("submission"):
                    self._person.ledger.accept(
                        "batch", homework.request, result.submission.name, homework.score
                    )
                elif self._person.ledger.refuse("batch", from_status(result.error)):
                    again.append(homework)
            if not again:
                return
            if time.monotonic() - began > PATIENCE_SECONDS:
                self._person.ledger.forbid(f"batch: {len(again)} not within {PATIENCE_SECONDS:g} s")
                return
            open_ones = again
            await asyncio.sleep(pause_seconds(attempt, None))

    def _call(self, request: BatchCreateSubmissionsRequest):
        return lambda: self._connection.unary(self._create, request)


class _Streams:
    """A course's answers streamed in by its staff."""

    def __init__(self, person: Person, client: Client) -> None:
        self._person = person
        self._client = client

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop``."""
        person = self._person
        while not stop.is_set():
            await person.insist("stream", self._send(person.classwork(CHUNK)))
            await person.rest(person.load.bulk_pause)

    def _send(self, chunk: list[Homework]) -> Callable[[], Awaitable[None]]:
        async def send() -> None:
            settled = 0
            results = self._client.submit_many(_messages(chunk), batch=8, in_flight=2)
            async for result in results:
                homework = chunk[result.index]
                settled += 1
                if result.submission is not None:
                    self._person.ledger.accept(
                        "stream", homework.request, result.submission.name, homework.score
                    )
                elif result.error is not None:
                    self._person.ledger.forbid(f"stream: {result.error}")
            if settled != len(chunk):
                self._person.ledger.forbid(f"stream: {settled} of {len(chunk)} were settled")

        return send


def _messages(chunk: list[Homework]) -> Iterator[CreateSubmissionRequest]:
    return (homework.message for homework in chunk)


class _Reader:
    """Reads what was accepted a moment ago, and lists."""

    def __init__(self, person: Person, client: Client) -> None:
        self._person = person
        self._client = client

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop``."""
        person = self._person
        while not stop.is_set():
            mine = [
                name
                for request, name in itertools.islice(reversed(person.ledger.accepted.items()), 50)
                if request.tenant == person.tenant
            ]
            if mine:
                name = person.random.choice(mine)
                found = await person.insist("get", self._get(name))
                if found is not None:
                    person.ledger.answered("get")
                    if found.name != name or found.max_score != 3.0:
                        person.ledger.forbid(f"get: {name} was answered with {found.name}")
            if person.chance(0.1) and await person.insist("list", self._list) is not None:
                person.ledger.answered("list")
            await person.rest(person.load.pause)

    def _get(self, name: str) -> Callable[[], Awaitable[Submission]]:
        return lambda: self._client.get_submission(name)

    async def _list(self) -> int:
        count = 0
        pages = self._client.list_submissions(PARENT, author="student-0")
        async for _ in pages:
            count += 1
            if count == 100:
                break
        await pages.aclose()
        return count
