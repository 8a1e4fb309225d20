"""The kinds of graders: one entry for each, which is all that a new kind needs to be served.

An entry names the queues that the kind could serve, where its work runs, and how it is opened.
A module that is costly to import is imported by the function that opens its kind, not here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, TypeAlias

from cinnabar_common import queues
from cinnabar_grader.config import GraderConfig
from cinnabar_grader.graders import Grader, Outcome, Task, TaskGrader
from cinnabar_grader.rules.choice import choice_grader
from cinnabar_grader.rules.numeric import numeric_grader
from cinnabar_grader.rules.text import text_grader


class Place(Enum):
    """Where the work of a kind runs."""

    INLINE = "inline"
    """On the event loop, in batches; what `Grader.blocking` says in a thread. For microseconds of work."""
    PROCESSES = "processes"
    """In worker processes, which open the kind themselves. For `Grader`s that use a CPU."""
    SLOTS = "slots"
    """On the event loop, a coroutine per task. For `TaskGrader`s, which mostly wait."""


Check: TypeAlias = "Callable[[], Awaitable[None]]"
"""Raises anything when what it looks at is not healthy; at most 2 s are waited for it."""


class Colleagues(Protocol):
    """The graders of the kinds that this one needs."""

    async def grade(self, queue: str, tasks: Sequence[Task]) -> list[Outcome]:
        """Outcomes by the grader of ``queue``: at most one per task, in any order.

        ConnectionError when it is not there, or not yet.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What a kind is opened with."""

    config: GraderConfig
    exits: AsyncExitStack
    """Closed when the process leaves, after all work has ended."""
    colleagues: Colleagues


@dataclass(frozen=True, slots=True)
class Opened:
    """What came of opening a kind.

    Only the queues of ``graders`` are served: leave out what cannot be graded here and now, for
    example a language without its compiler.
    """

    graders: Sequence[Grader] | Sequence[TaskGrader]
    checks: Mapping[str, Check] = field(default_factory=dict[str, Check])
    """Dependencies for health, by name: "sandbox", "ai_service", "model"."""
    most: int | None = None
    """Most tasks at once, in slots, where what they use bounds that: cores, for example."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of graders."""

    name: str
    queues: Collection[str]
    """Those that it could serve."""
    place: Place
    open: Callable[[Opening], Awaitable[Opened]]
    """Makes the graders. What it raises ends the process: a kind that is not to be had here opens
    without graders, and a log line says why."""
    checks: Collection[str] = ()
    """Names of the checks, for kinds in processes: those are asked there."""
    needs: Collection[str] = ()
    """Queues whose graders it asks, see `Colleagues`; they are opened along, though not announced."""


async def _choice(opening: Opening) -> Opened:
    return Opened([choice_grader()])


async def _numeric(opening: Opening) -> Opened:
    return Opened([numeric_grader()])


async def _text(opening: Opening) -> Opened:
    return Opened([text_grader()])


async def _free_text(opening: Opening) -> Opened:
    from cinnabar_grader.free_text_kind import open_free_text

    return await open_free_text(opening.config)


async def _code(opening: Opening) -> Opened:
    from cinnabar_grader.code_kind import open_code

    return await open_code(opening)


async def _llm(opening: Opening) -> Opened:
    from cinnabar_grader.llm_kind import open_llm

    return await open_llm(opening)


KINDS: Sequence[Kind] = (
    Kind(name="choice", queues=("choice",), place=Place.INLINE, open=_choice),
    Kind(name="numeric", queues=("numeric",), place=Place.INLINE, open=_numeric),
    Kind(name="text", queues=("text",), place=Place.INLINE, open=_text),
    Kind(
        name="free-text",
        queues=("free-text",),
        place=Place.PROCESSES,
        open=_free_text,
        checks=("model",),
    ),
    Kind(name="code", queues=tuple(queues.CODE.values()), place=Place.SLOTS, open=_code),
    Kind(name="llm", queues=(queues.LLM,), place=Place.SLOTS, open=_llm, needs=("free-text",)),
)
