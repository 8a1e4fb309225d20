"""Messages to words and back."""

from __future__ import annotations

import pytest

from cinnabar.grader.v1.grade_pb2 import Answer
from cinnabar.grader.v1.item_pb2 import ChoiceSpec, FreeTextSpec, Item, NumericSpec, TextSpec
from cinnabar.scheduler.v1 import work_service_pb2 as pb
from cinnabar_grader.convert import CompiledItems, StreamItems, answer_of, compile_item, report_of, request_of
from cinnabar_grader.free_text import FreeTextItem
from cinnabar_grader.graders import (
    BrokenItem,
    CriterionScore,
    Failed,
    FailureCode,
    Graded,
    LeaseToken,
    NumberAnswer,
    Provenance,
    Released,
)
from cinnabar_grader.rules.choice import ChoiceRule
from cinnabar_grader.rules.numeric import NumericRule
from cinnabar_grader.rules.text import TextRule
from cinnabar_grader.worker import Close, Grant, Heartbeat
from tests.support.grader_items import ITEMS


@pytest.mark.parametrize(
    ("queue", "kind"),
    [("choice", ChoiceRule), ("numeric", NumericRule), ("text", TextRule), ("free-text", FreeTextItem)],
)
def test_items_compile_to_what_their_grader_knows(queue: str, kind: type[object]) -> None:
    assert isinstance(compile_item(ITEMS[queue]), kind)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (Item(points=1), "how it is graded"),
        (Item(points=0, text=TextSpec(accepted=["a"])), "points"),
        (Item(points=float("nan"), text=TextSpec(accepted=["a"])), "points"),
        (Item(points=1e9, text=TextSpec(accepted=["a"])), "points"),
        (Item(points=1, choice=ChoiceSpec()), "no option"),
        (Item(points=1, numeric=NumericSpec(value=float("inf"))), "not finite"),
        (Item(points=1, text=TextSpec()), "exactly one"),
        (Item(points=1, text=TextSpec(pattern="(")), "regular expression"),
        (Item(points=1, free_text=FreeTextSpec()), "no reference"),
    ],
)
def test_items_that_make_no_sense_are_broken(item: Item, reason: str) -> None:
    compiled = compile_item(item)
    assert isinstance(compiled, BrokenItem)
    assert reason in compiled.reason


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        (Answer(), None),
        (Answer(text=""), ""),
        (Answer(text="a"), "a"),
        (Answer(choice=Answer.Choice()), frozenset[str]()),
        (Answer(choice=Answer.Choice(options=["b", "a", "b"])), frozenset("ab")),
        (Answer(number=Answer.Number(value=2, unit="m")), NumberAnswer(2, "m")),
    ],
)
def test_answers(answer: Answer, value: object) -> None:
    assert answer_of(answer) == value


def test_items_are_compiled_once_and_the_least_used_go_first() -> None:
    items = CompiledItems(limit=2)
    first = items.get("a", ITEMS["text"])
    items.get("b", ITEMS["text"])
    assert items.get("a", ITEMS["text"]) is first
    items.get("c", ITEMS["text"])
    assert items.get("a", ITEMS["text"]) is first
    b = items.get("b", ITEMS["text"])
    assert items.get("b", ITEMS["text"]) is b


def test_a_stream_keeps_every_item_though_compiled_ones_are_few() -> None:
    stream = StreamItems(CompiledItems(limit=1))
    references = [pb.ItemRef(item_key=key, item=ITEMS["text"]) for key in "abc"]
    stream.add(references)
    size = stream.size
    stream.add(references)
    assert stream.size == size > 0
    leased = [
        pb.LeasedTask(lease_token=key, queue="text", item_key=key) for key in ("a", "b", "c", "a", "gone")
    ]
    items = [task.item for task in stream.tasks(leased)]
    assert [isinstance(item, TextRule) for item in items] == [True, True, True, True, False]
    assert items[-1] is None


def test_outcomes() -> None:
    provenance = Provenance("semantic", "1", "m@1", True, 0.25)
    graded = Graded(
        LeaseToken("a"),
        1.5,
        4,
        [CriterionScore("x", 1.5, 3, "why", 0.5), CriterionScore("y", 0, 1)],
        "words",
        provenance,
        True,
        ["OFF_TOPIC"],
    )
    failed = Failed(LeaseToken("b"), FailureCode.UNKNOWN, "too slow")
    first, second, third = report_of([graded, failed, Released(LeaseToken("c"))]).report.outcomes
    assert (first.lease_token, first.grade.score, first.grade.max_score) == ("a", 1.5, 4)
    assert (first.grade.feedback, first.grade.needs_review, list(first.grade.flags)) == (
        "words",
        True,
        ["OFF_TOPIC"],
    )
    x, y = first.grade.criteria
    assert (x.criterion, x.score, x.max_score, x.feedback, x.confidence) == ("x", 1.5, 3, "why", 0.5)
    assert (y.score, y.confidence) == (0, 1)
    assert x.provenance == y.provenance
    assert (x.provenance.grader, x.provenance.version, x.provenance.model) == ("semantic", "1", "m@1")
    assert x.provenance.fallback
    assert x.provenance.duration.ToMilliseconds() == 250
    assert (second.failure.code, second.failure.message) == (2, "too slow")
    assert third.WhichOneof("result") == "released"


def test_a_grade_that_is_no_message_fails_alone() -> None:
    bad = Graded(LeaseToken("a"), 1, 1, [CriterionScore("answer", 1, 1)], "\ud800", Provenance("g", "1"))
    good = Graded(LeaseToken("b"), 1, 1, [CriterionScore("answer", 1, 1)], "fine", Provenance("g", "1"))
    first, second = report_of([bad, good]).report.outcomes
    assert (first.WhichOneof("result"), first.failure.code) == ("failure", FailureCode.INTERNAL)
    assert second.grade.feedback == "fine"


def test_other_messages() -> None:
    assert request_of(Grant("q", 3)) == pb.WorkRequest(ready=pb.Ready(queue="q", credits=3))
    assert request_of(Heartbeat([LeaseToken("a")])) == pb.WorkRequest(
        heartbeat=pb.Heartbeat(lease_tokens=["a"])
    )
    assert request_of(Close()) is None
