"""The rules agree with every quiz answer of the sample homework."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import yaml
from google.protobuf.json_format import ParseDict

from cinnabar.grader.v1.grade_pb2 import Answer
from cinnabar.grader.v1.item_pb2 import Item
from cinnabar_grader.convert import answer_of, compile_item
from cinnabar_grader.graders import Graded, LeaseToken, Task
from cinnabar_grader.rules.choice import choice_grader
from cinnabar_grader.rules.numeric import numeric_grader
from cinnabar_grader.rules.text import text_grader

SAMPLE = files("cinnabar_local") / "sample"
GRADERS = {grader.queue: grader for grader in (choice_grader(), numeric_grader(), text_grader())}


def quiz_items() -> dict[tuple[str, str, str], Item]:
    assignments: list[dict[str, Any]] = yaml.safe_load((SAMPLE / "assignments.yaml").read_text("utf-8"))
    items = {
        (assignment["course"], assignment["assignment"], item["item"]): ParseDict(item, Item())
        for assignment in assignments
        for item in assignment["items"]
    }
    return {key: item for key, item in items.items() if item.WhichOneof("grader") in GRADERS}


def answer_message(answer: dict[str, Any]) -> Answer:
    if "choice" in answer:
        return Answer(choice=Answer.Choice(options=answer["choice"]))
    if "number" in answer:
        return Answer(number=Answer.Number(value=answer["number"], unit=answer.get("unit", "")))
    return Answer(text=answer["text"])


def test_quiz_answers_score_what_their_teacher_gave() -> None:
    items = quiz_items()
    graded = 0
    for line in (SAMPLE / "answers.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        item = items.get((row["course"], row["assignment"], row["item"]))
        if item is None:
            continue
        queue = str(item.WhichOneof("grader"))
        task = Task(
            LeaseToken(row["id"]), queue, compile_item(item), answer_of(answer_message(row["answer"]))
        )
        (outcome,) = GRADERS[queue].grade([task])
        assert isinstance(outcome, Graded), row["id"]
        assert outcome.score == row["score"] * item.points, row["id"]
        graded += 1
    assert graded == 52
