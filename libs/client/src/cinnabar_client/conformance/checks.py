"""What a grader must do, one check each; through the public API and the signals of its process alone.

To be met in the middle of its work a grader is paused: what is handed in meanwhile is leased to it, as far as
its credits go, and it can report none of it.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from uuid import uuid4

from cinnabar.gateway.v1.assignment_service_pb2 import Assignment
from cinnabar.gateway.v1.submission_service_pb2 import Grading, ItemResult, Submission
from cinnabar.grader.v1.grade_pb2 import Answer, Grade
from cinnabar.grader.v1.item_pb2 import Item
from cinnabar_client.client import Client
from cinnabar_client.conformance.program import Program
from cinnabar_client.convert import submission_request

AT_ONCE = 16
"""Calls of this program at once."""
FEW = 40
MANY = 200
ITEM = "q"
_TOLERANCE = 1e-6
ODD_TEXTS = (
    "",
    " \t\n",
    "word " * 40_000,
    "x" * 200_000,
    "\x00\x01\x1f",
    "اكتب الإجابة هنا",
    "🧪👩🏽‍🔬 \u200b\u202e",
    "é e\u0301 \ufeff",
)
"""Empty, blank, long, one long line, control characters, right to left, emoji, combining marks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is examined. ``item`` is graded by the program alone; ``answers`` are sound answers to it."""

    item: Item
    answers: Sequence[Answer]
    grade_seconds: float = 60.0
    """How long all grades of a check may take."""
    stop_seconds: float = 15.0
    """How long the program may take to leave."""
    deterministic: bool = True
    """The same answer earns the same score."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found: ``problems`` is empty when all is well."""

    check: str
    rule: str
    seconds: float
    problems: Sequence[str] = field(default_factory=tuple[str, ...])


class Examination:
    """A client, the program, and an assignment of their own."""

    def __init__(self, client: Client, program: Program, subject: Subject, assignment: str) -> None:
        self.client = client
        self.program = program
        self.subject = subject
        self._assignment = assignment
        self._numbers = itertools.count()

    async def submit(self, answers: Sequence[Answer]) -> list[str]:
        """Names of new submissions, one for each answer, each of another student."""
        requests = [
            submission_request(self._assignment, [answer], author=f"student-{next(self._numbers)}")
            for answer in answers
        ]
        names = [""] * len(requests)
        async for result in self.client.submit_many(requests):
            if result.error is not None:
                raise result.error
            if result.submission is not None:
                names[result.index] = result.submission.name
        return names

    async def final(self, names: Sequence[str]) -> list[Submission]:
        """These in their last state, in order. TimeoutError after the subject's ``grade_seconds``."""
        async with (
            asyncio.timeout(self.subject.grade_seconds),
            aclosing(self.client.wait_all_graded(names, concurrency=AT_ONCE)) as finals,
        ):
            found = {submission.name: submission async for submission in finals}
        return [found[name] for name in names]

    async def at_work(self) -> None:
        """Returns when the program has graded an answer, and so is not just starting."""
        await self.final(await self.submit(self.cycled(1)))

    def cycled(self, count: int) -> list[Answer]:
        """So many sound answers."""
        return list(itertools.islice(itertools.cycle(self.subject.answers), count))

    async def problems_of(self, names: Sequence[str]) -> list[str]:
        """What is wrong with submissions that should each have one good grade."""
        problems = [problem for one in await self.final(names) for problem in ungraded(one)]
        rest = iter(names)

        async def look() -> None:
            for name in rest:
                gradings = [grading async for grading in self.client.gradings(name)]
                if len(gradings) != 1 or gradings[0].kind != Grading.GRADED:
                    problems.append(f"{name} has {len(gradings)} gradings")

        await asyncio.gather(*(look() for _ in range(AT_ONCE)))
        return problems


def ungraded(submission: Submission) -> list[str]:
    """What is wrong with the grade of a submission; nothing when it has a good one."""
    for result in submission.results:
        if result.state != ItemResult.GRADED:
            return [f"{submission.name} is {ItemResult.State.Name(result.state)}"]
        return [f"{submission.name}: {problem}" for problem in problems_of(result.grade)]
    return [f"{submission.name} has no result"]


def problems_of(grade: Grade) -> list[str]:
    """The rules of grade.proto that a grade breaks."""
    problems: list[str] = []
    if not 0 <= grade.score <= grade.max_score + _TOLERANCE:
        problems.append(f"score {grade.score:g} is not within 0 and {grade.max_score:g}")
    total = math.fsum(part.score for part in grade.criteria)
    if not grade.criteria:
        problems.append("it has no criteria")
    elif not math.isclose(total, grade.score, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE):
        problems.append(f"the criteria make {total:g}, the score is {grade.score:g}")
    for part in grade.criteria:
        if not part.provenance.grader or not part.provenance.version:
            problems.append(f"criterion {part.criterion!r} does not say which grader and version made it")
        if not 0 <= part.confidence <= 1:
            problems.append(f"criterion {part.criterion!r} has the confidence {part.confidence:g}")
    return problems


async def grades(examination: Examination) -> list[str]:
    """Every sound answer gets one grade that keeps the rules: range, sum of criteria, provenance."""
    return await examination.problems_of(await examination.submit(examination.cycled(FEW)))


async def repeats_itself(examination: Examination) -> list[str]:
    """The same answer earns the same score, whenever and beside whatever it is graded."""
    if not examination.subject.deterministic:
        return []
    answers = list(examination.subject.answers)
    first = await examination.final(await examination.submit(answers))
    again = await examination.final(await examination.submit(answers[::-1]))
    return [
        f"{one.name} earned {one.score:g}, {other.name} with the same answer {other.score:g}"
        for one, other in zip(first, again[::-1], strict=True)
        if not math.isclose(one.score, other.score, abs_tol=_TOLERANCE)
    ]


async def keeps_up(examination: Examination) -> list[str]:
    """Credits are granted again and again: many submissions at once are all graded."""
    return await examination.problems_of(await examination.submit(examination.cycled(MANY)))


async def survives_odd_answers(examination: Examination) -> list[str]:
    """Empty, huge, blank and strange answers end as a grade or a failure, and the process lives."""
    if examination.subject.answers[0].WhichOneof("value") != "text":
        return []
    names = await examination.submit([Answer(item=ITEM, text=text) for text in ODD_TEXTS])
    odd = await examination.final(names)
    problems = [problem for one in odd if one.state == Submission.GRADED for problem in ungraded(one)]
    if not examination.program.running:
        problems.append("the program ended")
    return problems + await examination.problems_of(await examination.submit(examination.cycled(FEW)))


async def obeys_cancellation(examination: Examination) -> list[str]:
    """Cancelled submissions get no grade, and do not hold up the others."""
    await examination.at_work()
    with examination.program.paused():  # it holds some of them and can report none
        names = await examination.submit(examination.cycled(FEW))
        cancelled = names[1::2]
        for name in cancelled:
            await examination.client.cancel(name)
    problems = await examination.problems_of(names[::2])
    for submission in await examination.final(cancelled):
        if submission.state != Submission.CANCELLED:
            problems.append(f"{submission.name} is {Submission.State.Name(submission.state)}")
    return problems


async def leaves_in_good_order(examination: Examination) -> list[str]:
    """SIGTERM in the middle of work: it ends in time with exit code 0, nothing is lost or graded twice."""
    await examination.at_work()
    with examination.program.paused():
        names = await examination.submit(examination.cycled(FEW))
    code = await examination.program.stop(examination.subject.stop_seconds)
    await examination.program.start()
    problems = [] if code == 0 else [f"it ended with {code}" if code is not None else "it had to be killed"]
    return problems + await examination.problems_of(names)


async def may_die(examination: Examination) -> list[str]:
    """SIGKILL in the middle of work: its successor grades what is left, and nothing is graded twice."""
    await examination.at_work()
    with examination.program.paused():
        names = await examination.submit(examination.cycled(FEW))
        await examination.program.kill()
    await examination.program.start()
    return await examination.problems_of(names)


Check = Callable[[Examination], Awaitable[list[str]]]
CHECKS: Sequence[Check] = (
    grades,
    repeats_itself,
    keeps_up,
    survives_odd_answers,
    obeys_cancellation,
    leaves_in_good_order,
    may_die,
)


async def examine(
    client: Client,
    program: Program,
    subject: Subject,
    *,
    checks: Sequence[Check] = CHECKS,
    course: str = "conformance",
) -> AsyncGenerator[Finding]:
    """Runs the checks, one after the other; the program is started first and killed in the end.

    The caller of ``client`` must be an instructor. Each run makes an assignment of its own in ``course``.
    """
    item = Item()
    item.CopyFrom(subject.item)
    item.item = ITEM
    assignment = await client.create_assignment(
        course, Assignment(items=[item]), assignment_id=f"run-{uuid4().hex[:12]}"
    )
    examination = Examination(client, program, subject, assignment.name)
    await program.start()
    try:
        for check in checks:
            started = time.monotonic()
            try:
                problems = await check(examination)
            except TimeoutError:
                problems = [f"not everything was graded within {subject.grade_seconds:g} s"]
            rule = (check.__doc__ or "").strip()
            yield Finding(check.__name__.replace("_", "-"), rule, time.monotonic() - started, problems)
            if not program.running:
                await program.start()
    finally:
        await program.kill()
