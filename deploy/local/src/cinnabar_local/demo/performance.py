"""The demo on a running suite, from the first assignment to the last count."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from uuid import uuid4

from rich.console import Console

from cinnabar.gateway.v1.assignment_service_pb2 import Assignment
from cinnabar.gateway.v1.submission_service_pb2 import Submission
from cinnabar.grader.v1.grade_pb2 import Answer
from cinnabar.grader.v1.item_pb2 import Item, NumericSpec
from cinnabar_client import ApiError, Client, persist
from cinnabar_client.progress import Counts
from cinnabar_common.interceptors import sole
from cinnabar_local import sql
from cinnabar_local.demo import report
from cinnabar_local.demo.homework import Homework
from cinnabar_local.demo.traffic import HandingIn, Traffic, create_assignments
from cinnabar_local.stack import Stack

DEFAULT_TIMEOUT_SECONDS = 600.0
_PATIENCE_SECONDS = 120.0  # with one and the same trouble: a shard that is killed takes a while to recover
_IDLE_SUBMISSIONS = 50
_SQL_PAUSE_SECONDS = 0.5
_PROGRAMS_QUEUE = "code-python"


async def demo(
    stack: Stack,
    homework: Homework,
    console: Console,
    *,
    timeout: float = DEFAULT_TIMEOUT_SECONDS,
    up: str = "make up",
) -> int:
    """Hands ``homework`` in to the running ``stack`` and prints what became of it.

    Returns 0 when all is well; 1, after a clear word, when something was refused or not graded exactly once
    within ``timeout`` seconds. ``up`` is the command that keeps this suite running.
    """
    tenant = (
        f"demo-{int(time.time())}"  # of its own, so that a second demo on the same data counts only itself
    )
    token = f"dev.{tenant}.instructor.teacher"
    address = stack.addresses.envoy
    if homework.programs and not await _programs_are_graded(address, tenant):
        console.print("programs are left out: no grader here has a sandbox to run them in")
        homework = homework.without_programs()
    totals: dict[str, int | None] = dict.fromkeys(("accepted", "graded"), len(homework.hand_ins))
    async with Client(address, token=token, patience=_PATIENCE_SECONDS) as client:
        with Counts(console, totals) as counts:
            handing_in = HandingIn(
                client, base_url=stack.addresses.http, token=token, patience=_PATIENCE_SECONDS, counts=counts
            )
            problem = await _hand_in(client, handing_in, homework, timeout)
        traffic = handing_in.traffic
        if problem or len(traffic.graded) < len(homework.hand_ins):
            return _told_failure(console, stack, traffic, len(homework.hand_ins), problem)
        try:
            idle, expected = await _idle(client)
            expected += homework.tasks
            examples = await _as_students(address, tenant, traffic)
            rows = await _count_rows(stack, tenant)
        except (ApiError, TimeoutError, sql.Unreachable) as error:
            return _told_failure(console, stack, traffic, len(homework.hand_ins), _words(error))
    report.print_traffic(console, traffic, idle)
    report.print_agreement(console, homework, traffic.graded)
    report.print_programs(console, homework, traffic.graded)
    report.print_examples(console, homework, examples)
    wrong = report.print_rows(console, rows, expected)
    report.print_how_to_go_on(console, up=up, address=address, token=token, example=_shown(examples, traffic))
    if wrong:
        return _told_failure(console, stack, traffic, len(homework.hand_ins), wrong)
    return 0


async def _programs_are_graded(address: str, tenant: str) -> bool:
    """Whether some grader takes programs; graders say all that they take at once."""
    give_up = time.monotonic() + _PATIENCE_SECONDS
    async with Client(address, token=f"dev.{tenant}.operator.demo", patience=_PATIENCE_SECONDS) as operator:
        while True:
            queues = await persist(operator.queues, patience=_PATIENCE_SECONDS)
            workers = {queue.queue: queue.workers for queue in queues}
            if any(workers.values()) or time.monotonic() > give_up:
                return workers.get(_PROGRAMS_QUEUE, 0) > 0
            await asyncio.sleep(_SQL_PAUSE_SECONDS)


async def _hand_in(client: Client, handing_in: HandingIn, homework: Homework, timeout: float) -> str:
    """What went wrong; "" when nothing did."""
    try:
        async with asyncio.timeout(timeout):
            await create_assignments(client, homework, patience=_PATIENCE_SECONDS)
            await handing_in.run(homework.hand_ins)
    except TimeoutError:
        return f"not everything was graded within {timeout:g} s"
    except BaseExceptionGroup as errors:
        refusals, others = errors.split(ApiError)
        if others is not None or refusals is None:
            raise
        return _words(sole(refusals))
    return ""


async def _idle(client: Client) -> tuple[list[float], int]:
    """Latencies on the idle suite, and how many tasks that made."""
    resource = Assignment(items=[Item(item="sum", points=1, numeric=NumericSpec(value=4))])
    made = await persist(lambda: client.create_assignment("latency", resource), patience=_PATIENCE_SECONDS)
    latencies: list[float] = []
    answers = [Answer(item="sum", number=Answer.Number(value=4))]
    for _ in range(_IDLE_SUBMISSIONS):
        request_id = uuid4().hex
        began = time.monotonic()
        accepted = await persist(
            lambda request_id=request_id: client.submit(
                made.name, answers, author="student-idle", request_id=request_id
            ),
            patience=_PATIENCE_SECONDS,
        )
        await client.wait_graded(accepted.name, timeout=_PATIENCE_SECONDS)
        latencies.append(time.monotonic() - began)
    return latencies, _IDLE_SUBMISSIONS


async def _as_students(address: str, tenant: str, traffic: Traffic) -> list[tuple[str, Submission]]:
    """The examples, each read by its student."""
    examples: list[tuple[str, Submission]] = []
    for title, handed in report.choose_examples(traffic.graded):
        author = handed.hand_in.request.submission.author
        async with Client(address, token=f"dev.{tenant}.student.{author}") as student:
            name = handed.name
            seen = await persist(
                lambda student=student, name=name: student.get_submission(name), patience=_PATIENCE_SECONDS
            )
            examples.append((title, seen))
    return examples


async def _count_rows(stack: Stack, tenant: str) -> list[report.ShardCount]:
    give_up = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return await report.count_rows(stack.addresses, tenant)
        except sql.Unreachable:
            if time.monotonic() > give_up:
                raise
        await asyncio.sleep(_SQL_PAUSE_SECONDS)


def _shown(examples: Sequence[tuple[str, Submission]], traffic: Traffic) -> str:
    return examples[0][1].name if examples else next(iter(traffic.handed))


def _told_failure(console: Console, stack: Stack, traffic: Traffic, wanted: int, problem: str) -> int:
    accepted, graded = len(traffic.handed), len(traffic.graded)
    states = Counter(Submission.State.Name(h.final.state) for h in traffic.handed.values() if h.final)
    down = [name for name in stack.names if not name.endswith("-migrate") and not stack.process(name).running]
    facts = [
        problem,
        f"of {wanted} submissions {accepted} were accepted, {len(traffic.refused)} refused, {graded} graded",
        *(f"{count} are {state}" for state, count in states.items() if state != "GRADED"),
        *(f"refused: {_words(error)}" for error in traffic.refused[:3]),
        f"not running: {', '.join(down)}" if down else "",
        f"the logs are in {stack.folder.logs}",
    ]
    console.print()
    console.print("[bold red]failed[/bold red]")
    for fact in filter(None, facts):
        console.print(f"  {fact}", markup=False)
    return 1


def _words(error: BaseException) -> str:
    match error:
        case ApiError():
            return f"{error.code.name} {error.reason}: {error.message}"
        case _:
            return f"{type(error).__name__}: {error}"
