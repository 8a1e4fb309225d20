"""An assignment, answers and a client against the gateway in memory."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from cinnabar.gateway.v1.submission_service_pb2 import CreateSubmissionRequest
from cinnabar.grader.v1.grade_pb2 import Answer
from cinnabar_client import Client, submission_request
from tests.support.client_gateway import MemoryGateway, served

QUIZ = {
    "assignment": "quiz",
    "display_name": "A quiz",
    "items": [
        {"item": "why", "points": 4, "prompt": "Why?", "free_text": {"references": ["because"]}},
        {"item": "bits", "points": 1, "prompt": "How many?", "numeric": {"value": 8, "unit": "bit"}},
    ],
}
NAME = "courses/net/assignments/quiz"


@dataclass(frozen=True)
class World:
    """A gateway with the quiz, and a client of it."""

    gateway: MemoryGateway
    client: Client
    address: str


@asynccontextmanager
async def world(*, timeout: float = 5.0, patience: float = 5.0) -> AsyncGenerator[World]:
    """The world for the length of a block."""
    gateway = MemoryGateway()
    async with (
        served(gateway) as address,
        Client(address, token="dev.t.instructor.ann", timeout=timeout, patience=patience) as client,
    ):
        await client.create_assignment("net", QUIZ)
        yield World(gateway, client, address)


def answers() -> list[Answer]:
    """Answers to the quiz."""
    return [
        Answer(item="why", text="because"),
        Answer(item="bits", number=Answer.Number(value=8, unit="bit")),
    ]


def requests(count: int) -> Iterator[CreateSubmissionRequest]:
    """``count`` submissions to the quiz."""
    for number in range(count):
        yield submission_request(NAME, answers(), author=f"s-{number}")
