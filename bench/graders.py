"""What a grade costs inside the grader: from the message of leases to the message of the report.

``python -m bench.graders NAMES ROUNDS SCALE`` prints it as JSON; a process of its own, as a grader is one.

All figures are of CPU time of this process (`time.process_time`, all of its threads), which on one core is
time by the clock: what else the machine does is left out, except that it slows a core down. One thread works.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice

from cinnabar.grader.v1.grade_pb2 import Answer
from cinnabar.grader.v1.item_pb2 import ChoiceSpec, Item, NumericSpec, TextSpec
from cinnabar.scheduler.v1 import work_service_pb2 as pb
from cinnabar_grader.convert import CompiledItems, StreamItems, report_of
from cinnabar_grader.free_text import FreeTextGrader
from cinnabar_grader.graders import Graded, Grader, Outcome
from cinnabar_grader.pipeline import graded
from cinnabar_grader.rules.choice import choice_grader
from cinnabar_grader.rules.numeric import numeric_grader
from cinnabar_grader.rules.text import text_grader
from cinnabar_grader.semantic import SemanticScorer
from cinnabar_local.demo import load

NAMES = (
    "rules_grades_per_second_per_core",
    "semantic_answers_per_second_per_core",
    "semantic_single_p50_ms",
)
RULES = 60_000
RULES_BATCH = 256
"""Tasks in a message, as many as a grader takes ahead by default."""
ANSWERS = 960
SINGLES = 200
WARM_UP = 120

Pair = tuple[Item, Answer]


async def measure(wanted: set[str], rounds: int, scale: float) -> dict[str, list[float]]:
    """A value of each round by name; with a small ``scale`` of fewer tasks."""
    names = ",".join(sorted(wanted & set(NAMES)))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.graders", names, str(rounds), str(scale)),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},  # as a grader sets it, before numpy is imported
    )
    said, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError("the graders could not be measured")
    return json.loads(said)


def _measured(wanted: set[str], rounds: int, scale: float) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    if "rules_grades_per_second_per_core" in wanted:
        count = max(3 * RULES_BATCH, int(RULES * scale))
        found["rules_grades_per_second_per_core"] = [_rules(count) for _ in range(rounds)]
    if wanted & {"semantic_answers_per_second_per_core", "semantic_single_p50_ms"}:
        grader = FreeTextGrader(SemanticScorer.load())
        pairs = answers()
        _timed(grader, pairs[: max(12, int(WARM_UP * scale))])
        count, singles = max(48, int(ANSWERS * scale)), max(10, int(SINGLES * scale))
        rates: list[float] = []
        latencies: list[float] = []
        for number in range(rounds):
            chosen = random.Random(number).sample(pairs, min(count, len(pairs)))
            rates.append(len(chosen) / _timed(grader, chosen))
            alone = [_timed(grader, [pair]) for pair in random.Random(-1 - number).choices(pairs, k=singles)]
            latencies.append(statistics.median(alone) * 1000)
        found["semantic_answers_per_second_per_core"] = rates
        found["semantic_single_p50_ms"] = latencies
    return {name: values for name, values in found.items() if name in wanted}


def answers() -> list[Pair]:
    """English free text in a fixed disorder: of the collected answers, or of the sample where none are."""
    homework = load()
    pairs: list[Pair] = []
    for hand_in in homework.hand_ins:
        name = hand_in.request.parent
        assignment = next(found for key, found in homework.assignments.items() if str(key) == name)
        items = {item.item: item for item in assignment.items}
        for answer in hand_in.request.submission.answers:
            item = items[answer.item]
            if item.HasField("free_text") and item.prompt.isascii():
                pairs.append((item, answer))
    random.Random(1).shuffle(pairs)
    return pairs


def _rules(count: int) -> float:
    """Grades per second of choice, numeric and text items, a third each."""
    options = [ChoiceSpec.Option(id=name) for name in ("tcp", "udp", "ip", "arp")]
    kinds: list[tuple[Callable[[], Grader], list[Pair]]] = [
        (
            choice_grader,
            [
                (
                    Item(item="q", points=2, choice=ChoiceSpec(options=options, correct=["tcp", "udp"])),
                    Answer(item="q", choice=Answer.Choice(options=chosen)),
                )
                for chosen in (["tcp"], ["tcp", "udp"], ["ip"])
            ],
        ),
        (
            numeric_grader,
            [
                (
                    Item(
                        item="q", points=1, numeric=NumericSpec(value=8, absolute_tolerance=0.5, unit="bit")
                    ),
                    Answer(item="q", number=Answer.Number(value=value, unit="bit")),
                )
                for value in (8.0, 8.25, 9.0)
            ],
        ),
        (
            text_grader,
            [
                (
                    Item(item="q", points=1, text=TextSpec(accepted=["three-way handshake"])),
                    Answer(item="q", text=text),
                )
                for text in ("three-way handshake", " Three-way  Handshake", "a handshake")
            ],
        ),
    ]
    each = count // len(kinds)
    seconds = sum(_timed(grader(), list(islice(cycle(pairs), each)), RULES_BATCH) for grader, pairs in kinds)
    return each * len(kinds) / seconds


def _timed(grader: Grader, pairs: Sequence[Pair], batch: int = 0) -> float:
    """Seconds of CPU from bytes of leases to bytes of reports; each item travels once, as on a stream."""
    items = StreamItems(CompiledItems())
    messages = list(_messages(grader.queue, pairs, batch or grader.batch_limit))
    graded_at_all = 0
    begun = time.process_time()
    for message in messages:
        leases = pb.WorkResponse.FromString(message).leases
        items.add(leases.items)
        tasks = items.tasks(leases.tasks)
        outcomes: list[Outcome] = []
        for start in range(0, len(tasks), grader.batch_limit):
            outcomes += graded(grader, tasks[start : start + grader.batch_limit])
        report_of(outcomes).SerializeToString()
        graded_at_all += sum(isinstance(outcome, Graded) for outcome in outcomes)
    seconds = time.process_time() - begun
    if graded_at_all != len(pairs):
        raise RuntimeError(f"{len(pairs) - graded_at_all} of {len(pairs)} answers were not graded")
    return seconds


def _messages(queue: str, pairs: Sequence[Pair], batch: int) -> Iterator[bytes]:
    """Leases of ``batch`` tasks each."""
    keys: dict[bytes, str] = {}
    for start in range(0, len(pairs), batch):
        response = pb.WorkResponse()
        for index, (item, answer) in enumerate(pairs[start : start + batch], start=start):
            content = item.SerializeToString(deterministic=True)
            if content not in keys:
                keys[content] = f"r{len(keys)}/{item.item}"
                response.leases.items.add(item_key=keys[content], item=item)
            response.leases.tasks.add(
                lease_token=str(index),
                task=f"s{index}/{item.item}",
                generation=1,
                attempt=1,
                queue=queue,
                item_key=keys[content],
                answer=answer,
            )
        yield response.SerializeToString()


if __name__ == "__main__":
    print(json.dumps(_measured(set(sys.argv[1].split(",")), int(sys.argv[2]), float(sys.argv[3]))))
