"""What a grader process and its worker processes say to each other.

Both run the same code and one starts the other, so a message is a pickled object after its length: four
bytes, most significant first.
"""

from __future__ import annotations

import asyncio
import pickle
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from cinnabar_grader.config import GraderConfig
from cinnabar_grader.graders import Outcome, Task
from cinnabar_grader.kinds import Kind

MAX_BYTES = 1 << 30
_LENGTH = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Open:
    """To the child, first: what it is. ``kind.open`` must be a function of a module, to be found there."""

    config: GraderConfig
    kind: Kind


@dataclass(frozen=True, slots=True)
class Batch:
    """To the child: tasks of one queue, to be answered by `Outcomes` of the same number."""

    number: int
    queue: str
    tasks: Sequence[Task]


@dataclass(frozen=True, slots=True)
class GraderFacts:
    """Who grades a queue there."""

    name: str
    version: str
    batch_limit: int


@dataclass(frozen=True, slots=True)
class Ready:
    """From the child: it is open, and serves these queues."""

    graders: Mapping[str, GraderFacts]


@dataclass(frozen=True, slots=True)
class Beat:
    """From the child, every `BEAT_SECONDS`, by its event loop: it lives."""

    memory_bytes: int
    """Its resident memory."""
    checks: Mapping[str, bool]
    """Which dependencies are healthy; empty before it is open."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """From the child: what came of a batch."""

    number: int
    outcomes: Sequence[Outcome]


Message: TypeAlias = "Open | Batch | Ready | Beat | Outcomes"
BEAT_SECONDS = 0.5


async def read(reader: asyncio.StreamReader) -> Message | None:
    """The next message; None at the end."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        if length > MAX_BYTES:
            return None
        return pickle.loads(await reader.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def write(writer: asyncio.StreamWriter, message: Message) -> None:
    """Sends a message, sooner or later; what cannot be pickled raises here."""
    content = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    writer.write(_LENGTH.pack(len(content)) + content)
