"""Whatever a student can send is graded, by every grader, in bounded time."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import pytest

from cinnabar.grader.v1.grade_pb2 import Answer
from cinnabar.grader.v1.item_pb2 import ChoiceSpec, FreeTextSpec, Item, NumericSpec, TextSpec
from cinnabar.scheduler.v1 import work_service_pb2 as pb
from cinnabar_grader.convert import CompiledItems, StreamItems, report_of
from cinnabar_grader.free_text import FreeTextGrader
from cinnabar_grader.graders import Failed, FailureCode, Graded, Grader
from cinnabar_grader.pipeline import graded
from cinnabar_grader.rules.choice import choice_grader
from cinnabar_grader.rules.numeric import numeric_grader
from cinnabar_grader.rules.text import text_grader
from cinnabar_grader.semantic import SemanticScorer

SECONDS = 5.0
"""Of CPU, for all these answers together."""
MIB = 1024 * 1024
TEXTS = (
    "",
    " \t\r\n\u3000",
    "\x00\x01\x02\x7f\x80ELF\u0093\ufffd\ufffd" * 50,
    "before\x00after",
    "x" * MIB,
    "word " * (MIB // 5),
    "-" * MIB,
    "引力" * (MIB // 6),
    "The Moon 月亮 луна القمر चाँद 달 ดวงจันทร์",
    "הירח מושך את המים \u202eabc\u202c وكذلك الشمس",
    "👩‍👩‍👧‍👦🌊" * 2000,
    "a\u200bb\u200cc\u200dd\ufeffe\u2060f" * 500,
    "Z" + "\u0301" * 20_000,
    "\ufdfa" * 6000,
    "(" * 5000 + ")" * 5000,
    "a" * 5000 + "!",
    "</answer>{{7*7}}%s%n$(id)'; DROP TABLE grades; --",
)
FREE_TEXT = FreeTextSpec(
    references=["The gravity of the Moon pulls the water."],
    criteria=[
        FreeTextSpec.Criterion(criterion="cause", description="gravity of the Moon", points=1),
        FreeTextSpec.Criterion(criterion="effect", description="pulls the water", points=1),
    ],
)
OPTIONS = [ChoiceSpec.Option(id="a"), ChoiceSpec.Option(id="b")]
CASES: Mapping[str, tuple[Item, list[Answer]]] = {
    "choice": (
        Item(item="q", points=2, choice=ChoiceSpec(options=OPTIONS, correct=["a"])),
        [Answer(item="q", choice=Answer.Choice(options=[text, "a"])) for text in TEXTS],
    ),
    "numeric": (
        Item(item="q", points=2, numeric=NumericSpec(value=8, unit="bit", relative_tolerance=0.1)),
        [Answer(item="q", number=Answer.Number(value=8, unit=text)) for text in TEXTS]
        + [
            Answer(item="q", number=Answer.Number(value=value, unit="bit"))
            for value in (math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324, -0.0)
        ],
    ),
    "text": (
        Item(item="q", points=2, text=TextSpec(accepted=["gravity", "Schwerkraft"])),
        [Answer(item="q", text=text) for text in TEXTS],
    ),
    "pattern": (
        Item(item="q", points=2, text=TextSpec(pattern=r"(gravity|pull)\s+of\s+the\s+\w+")),
        [Answer(item="q", text=text) for text in TEXTS],
    ),
    "free-text": (
        Item(item="q", prompt="What causes the tides?", points=2, free_text=FREE_TEXT),
        [Answer(item="q", text=text) for text in TEXTS],
    ),
}


def grader_of(kind: str) -> Grader:
    """The grader; the models have their own test of such texts."""
    match kind:
        case "choice":
            return choice_grader()
        case "numeric":
            return numeric_grader()
        case "free-text":
            return FreeTextGrader(SemanticScorer(english=None, multilingual=None))
        case _:
            return text_grader()


@pytest.mark.parametrize("kind", CASES)
def test_every_answer_is_graded_in_bounded_time(kind: str) -> None:
    item, answers = CASES[kind]
    leases = pb.Leases(items=[pb.ItemRef(item_key="r/q", item=item)])
    for index, answer in enumerate(answers):
        leases.tasks.add(lease_token=str(index), queue=kind, item_key="r/q", answer=answer)
    leases = pb.Leases.FromString(leases.SerializeToString())
    grader = grader_of(kind)
    begun = time.process_time()
    items = StreamItems(CompiledItems())
    items.add(leases.items)
    outcomes = graded(grader, items.tasks(leases.tasks))
    sent = report_of(outcomes).SerializeToString()
    assert time.process_time() - begun < SECONDS
    assert len(outcomes) == len(answers)
    for outcome in outcomes:
        if kind == "choice":  # no gateway lets an option through that is not there
            assert isinstance(outcome, Failed)
            assert outcome.code is FailureCode.INVALID_ARGUMENT
            continue
        assert isinstance(outcome, Graded)
        assert 0 <= outcome.score <= outcome.max_score == 2
        assert math.isclose(sum(part.score for part in outcome.criteria), outcome.score, abs_tol=1e-9)
    assert len(pb.WorkRequest.FromString(sent).report.outcomes) == len(answers)
