"""Items and answers to grade."""

from __future__ import annotations

from cinnabar.grader.v1.grade_pb2 import Answer
from cinnabar.grader.v1.item_pb2 import ChoiceSpec, FreeTextSpec, Item, NumericSpec, TextSpec
from tests.support.grader_scheduler import Homework

ITEMS = {
    "choice": Item(
        item="choice",
        prompt="Which of these are prime?",
        points=2,
        choice=ChoiceSpec(
            options=[ChoiceSpec.Option(id=name, text=name) for name in ("two", "four", "five", "nine")],
            correct=["two", "five"],
            partial_credit=True,
        ),
    ),
    "numeric": Item(
        item="numeric",
        prompt="How fast does light travel?",
        points=3,
        numeric=NumericSpec(value=3e8, relative_tolerance=0.01, unit="m/s", wrong_unit_credit=0.5),
    ),
    "text": Item(
        item="text",
        prompt="Capital of France?",
        points=1,
        text=TextSpec(accepted=["Paris"]),
    ),
    "free-text": Item(
        item="free-text",
        prompt="Why does ice float on water?",
        points=4,
        free_text=FreeTextSpec(
            references=["Ice is less dense than liquid water, because water expands when it freezes."],
            criteria=[
                FreeTextSpec.Criterion(criterion="density", description="ice is less dense", points=3),
                FreeTextSpec.Criterion(criterion="cause", description="water expands on freezing", points=1),
            ],
        ),
    ),
}

RIGHT = {
    "choice": Answer(item="choice", choice=Answer.Choice(options=["two", "five"])),
    "numeric": Answer(item="numeric", number=Answer.Number(value=2.998e8, unit="m / s")),
    "text": Answer(item="text", text="  paris "),
    "free-text": Answer(
        item="free-text",
        text="Ice is less dense than liquid water, because water expands when it freezes.",
    ),
}

RULES = ("choice", "numeric", "text")


def homework(queue: str, number: int, *, answer: Answer | None = None, item: Item | None = None) -> Homework:
    """The task ``number`` of a queue, answered right unless an answer is given."""
    return Homework(
        task=f"s{number}/{queue}",
        queue=queue,
        item_key=f"r1/{queue}" if item is None else f"r1/{item.item}",
        item=ITEMS[queue] if item is None else item,
        answer=RIGHT[queue] if answer is None else answer,
    )
