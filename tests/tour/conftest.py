"""Who takes part in the tour: a teacher, a student and an operator of one tenant."""

from collections.abc import AsyncGenerator

import pytest_asyncio

from cinnabar.gateway.v1.assignment_service_pb2 import Assignment
from cinnabar_client import Client
from cinnabar_local.stack import Stack

QUIZ = {
    "display_name": "Networks: a first quiz",
    "items": [
        {
            "item": "protocol",
            "points": 1,
            "prompt": "Which protocol delivers in order?",
            "choice": {"options": [{"id": "tcp"}, {"id": "udp"}], "correct": ["tcp"]},
        },
        {
            "item": "delay",
            "points": 2,
            "prompt": "How long does a signal take through 1,000 km of fibre?",
            "numeric": {
                "value": 5,
                "relative_tolerance": 0.02,
                "unit": "ms",
                "accepted_units": [{"unit": "s", "factor": 1000}],
            },
        },
        {
            "item": "dns",
            "points": 4,
            "prompt": "What does DNS do?",
            "free_text": {
                "references": ["DNS translates the name of a host into the IP address of a server."]
            },
        },
    ],
}


@pytest_asyncio.fixture
async def teacher(stack: Stack, tenant: str) -> AsyncGenerator[Client]:
    """A teacher's client."""
    async with Client(stack.addresses.envoy, token=f"dev.{tenant}.instructor.grace") as client:
        yield client


@pytest_asyncio.fixture
async def student(stack: Stack, tenant: str) -> AsyncGenerator[Client]:
    """A student's client."""
    async with Client(stack.addresses.envoy, token=f"dev.{tenant}.student.ada") as client:
        yield client


@pytest_asyncio.fixture
async def operator(stack: Stack, tenant: str) -> AsyncGenerator[Client]:
    """An operator's client."""
    async with Client(stack.addresses.envoy, token=f"dev.{tenant}.operator.olga") as client:
        yield client


@pytest_asyncio.fixture
async def quiz(teacher: Client) -> Assignment:
    """An assignment with three items."""
    return await teacher.create_assignment("networks", QUIZ, assignment_id="quiz")
