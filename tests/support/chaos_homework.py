"""Homework without end, and the people who are stubborn enough to hand it in."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from cinnabar.gateway.v1.submission_service_pb2 import CreateSubmissionRequest
from cinnabar.grader.v1.grade_pb2 import Answer
from cinnabar.grader.v1.item_pb2 import ChoiceSpec, Item, TextSpec
from cinnabar_client import ApiError, submission_request
from cinnabar_client.patience import pause_seconds
from tests.support.chaos_ledger import Ledger, Request

T = TypeVar("T")
COURSE, ASSIGNMENT = "chaos", "storm"
PARENT = f"courses/{COURSE}/assignments/{ASSIGNMENT}"
# In some answers, so that a log that repeats what a student wrote gives itself away.
MARKER = "mein-geheimnis-7341"
ITEMS = (
    Item(item="colour", points=1, text=TextSpec(accepted=["red"])),
    Item(
        item="pick",
        points=2,
        choice=ChoiceSpec(options=[ChoiceSpec.Option(id="a"), ChoiceSpec.Option(id="b")], correct=["a"]),
    ),
)
# How long a client goes on with one request; no outage is meant to last so long.
PATIENCE_SECONDS = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much traffic: pauses are seconds between requests of one client, with half of it at random."""

    tenants: int = 3
    students: int = 2
    pause: float = 0.12
    bulk_pause: float = 0.8


@dataclass(frozen=True, slots=True)
class Times:
    """Not to be graded before ``after``; given up at ``by``."""

    after: dt.datetime | None = None
    by: dt.datetime | None = None

    @property
    def refusals(self) -> tuple[str, ...]:
        """Reasons for which one that was never accepted is rightly refused: its time has passed."""
        return ("INVALID_REQUEST",) if self.after or self.by else ()


@dataclass(frozen=True, slots=True)
class Homework:
    """A submission before it is sent, and what it must earn."""

    request: Request
    message: CreateSubmissionRequest
    score: float
    times: Times = Times()


def _answers(number: int) -> tuple[list[Answer], float]:
    right = number % 3 != 0
    answers = [
        Answer(item="colour", text="red" if right else f"blue {MARKER}"),
        Answer(item="pick", choice=Answer.Choice(options=["a"])),
    ]
    return answers, 3.0 if right else 2.0


class Person:
    """What everybody has: a name, homework without end, and the stubbornness to hand it in."""

    def __init__(self, ledger: Ledger, tenant: str, name: str, seed: int, load: Load) -> None:
        self.ledger = ledger
        self.tenant = tenant
        self.name = name
        self.load = load
        self.random = random.Random(f"{seed}/{tenant}/{name}")
        self._numbers = itertools.count()

    def homework(self, *, author: str | None = None) -> Homework:
        """The next; its request id is never used for another."""
        number = next(self._numbers)
        answers, score = _answers(number)
        request = Request(self.tenant, author or self.name, f"{self.name}-{number}")
        message = submission_request(PARENT, answers, author=request.author, request_id=request.request_id)
        return Homework(request, message, score)

    def timed(self) -> Homework:
        """The next, not to be graded yet, or to be given up soon."""
        moment = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=self.random.uniform(1.0, 4.0))
        times = Times(after=moment) if self.chance(0.5) else Times(by=moment)
        return replace(self.homework(), times=times)

    def classwork(self, size: int) -> list[Homework]:
        """Homework of many authors, so of many shards."""
        return [self.homework(author=f"author-{self.random.randrange(400)}") for _ in range(size)]

    def chance(self, probability: float) -> bool:
        """Whether, this time."""
        return self.random.random() < probability

    async def rest(self, pause: float) -> None:
        """Nobody writes without a pause."""
        await asyncio.sleep(pause * self.random.uniform(0.5, 1.5))

    async def insist(
        self, how: str, call: Callable[[], Awaitable[T]], *, allowed: Sequence[str] = ()
    ) -> T | None:
        """Calls until it is answered with OK, as ApiError.retryable has it; None when it is refused."""
        began = time.monotonic()
        for attempt in itertools.count(1):
            try:
                answer = await call()
            except ApiError as error:
                if not self.ledger.refuse(how, error, allowed=allowed):
                    return None
                if time.monotonic() - began > PATIENCE_SECONDS:
                    self.ledger.forbid(f"{how}: not within {PATIENCE_SECONDS:g} s: {error.message}")
                    return None
                await asyncio.sleep(pause_seconds(attempt, error.retry_after))
            else:
                self.ledger.insisted(how, time.monotonic() - began)
                return answer
        raise AssertionError
