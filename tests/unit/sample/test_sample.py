"""The sample homework that ships with the local stack is well formed and agrees with its own answer keys."""

import json
import math
import re
from collections import Counter
from importlib.resources import files
from typing import NotRequired, TypedDict

import pytest
import yaml

SAMPLE = files("cinnabar_local") / "sample"
ID = re.compile(r"[a-z0-9-]{1,63}")
HAN = re.compile(r"[\u4e00-\u9fff]")
KINDS = {"free_text", "choice", "numeric", "text"}


class Criterion(TypedDict):
    criterion: str
    description: str
    points: float


class FreeText(TypedDict):
    references: list[str]
    criteria: list[Criterion]


class Option(TypedDict):
    id: str
    text: str


class Choice(TypedDict):
    options: list[Option]
    correct: list[str]


class Unit(TypedDict):
    unit: str
    factor: float


class Numeric(TypedDict):
    value: float
    absolute_tolerance: NotRequired[float]
    relative_tolerance: NotRequired[float]
    unit: NotRequired[str]
    accepted_units: NotRequired[list[Unit]]


class Text(TypedDict):
    accepted: NotRequired[list[str]]
    case_sensitive: NotRequired[bool]
    pattern: NotRequired[str]


class Item(TypedDict):
    item: str
    points: float
    prompt: str
    free_text: NotRequired[FreeText]
    choice: NotRequired[Choice]
    numeric: NotRequired[Numeric]
    text: NotRequired[Text]


class Assignment(TypedDict):
    course: str
    assignment: str
    display_name: str
    items: list[Item]


class Given(TypedDict):
    text: NotRequired[str]
    choice: NotRequired[list[str]]
    number: NotRequired[float]
    unit: NotRequired[str]


class Answer(TypedDict):
    id: str
    course: str
    assignment: str
    item: str
    author: str
    answer: Given
    score: float
    reason: str
    language: str


def read_assignments() -> list[Assignment]:
    return yaml.safe_load((SAMPLE / "assignments.yaml").read_text(encoding="utf-8"))


def read_answers() -> list[Answer]:
    text = (SAMPLE / "answers.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


ASSIGNMENTS = read_assignments()
ANSWERS = read_answers()
ITEMS = {(a["course"], a["assignment"], i["item"]): i for a in ASSIGNMENTS for i in a["items"]}
FREE_TEXT_ITEMS = {name for name, item in ITEMS.items() if "free_text" in item}
FREE_TEXT = [a for a in ANSWERS if (a["course"], a["assignment"], a["item"]) in FREE_TEXT_ITEMS]
QUIZ = [a for a in ANSWERS if a not in FREE_TEXT]


def item_of(answer: Answer) -> Item:
    return ITEMS[answer["course"], answer["assignment"], answer["item"]]


def repeated(values: list[str]) -> list[str]:
    return [value for value, count in Counter(values).items() if count > 1]


def test_assignment_ids_are_valid_and_unique() -> None:
    names = [f"{a['course']}/{a['assignment']}" for a in ASSIGNMENTS]
    assert not repeated(names)
    for assignment in ASSIGNMENTS:
        items = [item["item"] for item in assignment["items"]]
        assert not repeated(items)
        for value in [assignment["course"], assignment["assignment"], *items]:
            assert ID.fullmatch(value), value
        assert assignment["display_name"]


@pytest.mark.parametrize("item", [pytest.param(i, id="/".join(name)) for name, i in ITEMS.items()])
def test_item_is_complete(item: Item) -> None:
    assert len(KINDS & item.keys()) == 1
    assert item.keys() - KINDS == {"item", "points", "prompt"}
    assert item["points"] > 0
    assert item["prompt"].strip()
    if "free_text" in item:
        free_text = item["free_text"]
        assert 1 <= len(free_text["references"]) <= 2
        assert all(reference.strip() for reference in free_text["references"])
        assert 2 <= len(free_text["criteria"]) <= 3
        assert not repeated([c["criterion"] for c in free_text["criteria"]])
        assert all(ID.fullmatch(c["criterion"]) and c["description"] for c in free_text["criteria"])
        assert sum(c["points"] for c in free_text["criteria"]) == item["points"]
    elif "choice" in item:
        ids = [option["id"] for option in item["choice"]["options"]]
        assert not repeated(ids)
        assert item["choice"]["correct"]
        assert set(item["choice"]["correct"]) <= set(ids)
    elif "numeric" in item:
        assert len({"absolute_tolerance", "relative_tolerance"} & item["numeric"].keys()) == 1
        assert all(unit["factor"] > 0 for unit in item["numeric"].get("accepted_units", []))
    elif "text" in item:
        assert len({"accepted", "pattern"} & item["text"].keys()) == 1
        re.compile(item["text"].get("pattern", ""))


def test_every_answer_is_valid() -> None:
    assert not repeated([answer["id"] for answer in ANSWERS])
    for answer in ANSWERS:
        assert answer.keys() == Answer.__required_keys__, answer
        assert ID.fullmatch(answer["id"]), answer
        assert re.fullmatch(r"student-\d{3}", answer["author"]), answer
        assert answer["language"] in {"en", "zh"}, answer
        assert 0 <= answer["score"] <= 1, answer
        assert answer["reason"].strip(), answer


def test_every_answer_fits_the_type_of_its_item() -> None:
    fields = {"free_text": {"text"}, "text": {"text"}, "choice": {"choice"}, "numeric": {"number"}}
    for answer in ANSWERS:
        item = item_of(answer)
        (kind,) = KINDS & item.keys()
        given = answer["answer"]
        assert given.keys() - {"unit"} == fields[kind], answer
        assert ("unit" in given) == ("unit" in item.get("numeric", {})), answer
        assert given.get("text", "x").strip(), answer
        if "choice" in item:
            options = {option["id"] for option in item["choice"]["options"]}
            assert set(given.get("choice", [])) <= options, answer


def test_every_submission_answers_every_item_once() -> None:
    submissions: dict[tuple[str, str, str], list[str]] = {}
    for answer in ANSWERS:
        key = (answer["course"], answer["assignment"], answer["author"])
        submissions.setdefault(key, []).append(answer["item"])
    expected = {(a["course"], a["assignment"]): [i["item"] for i in a["items"]] for a in ASSIGNMENTS}
    assert {key[:2] for key in submissions} == expected.keys()
    for (course, assignment, _), items in submissions.items():
        assert sorted(items) == sorted(expected[course, assignment])


def test_there_is_enough_of_everything() -> None:
    languages = Counter(answer["language"] for answer in FREE_TEXT)
    assert languages["en"] >= 90
    assert languages["zh"] >= 40
    assert len(QUIZ) >= 40
    assert len(FREE_TEXT_ITEMS) >= 14
    assert len({a["course"] for a in ASSIGNMENTS}) >= 6
    assert len({answer["answer"].get("text") for answer in FREE_TEXT}) == len(FREE_TEXT)


def test_free_text_scores_vary() -> None:
    scores = Counter(answer["score"] for answer in FREE_TEXT)
    assert len(scores) >= 5
    assert max(scores.values()) < len(FREE_TEXT) / 2
    for name, item in ITEMS.items():
        if "free_text" in item:
            of_item = {a["score"] for a in FREE_TEXT if (a["course"], a["assignment"], a["item"]) == name}
            assert len(of_item) >= 3, name


def test_language_is_that_of_the_text() -> None:
    for answer in ANSWERS:
        prompt, reason = item_of(answer)["prompt"], answer["reason"]
        assert all(bool(HAN.search(text)) == (answer["language"] == "zh") for text in (prompt, reason)), (
            answer
        )


def expected_score(item: Item, given: Given) -> float:
    """The score that the rules described in the sample's README give to a quiz answer."""
    if "choice" in item:
        return float(set(given.get("choice", [])) == set(item["choice"]["correct"]))
    if "numeric" in item:
        numeric = item["numeric"]
        factors = {u["unit"]: u["factor"] for u in numeric.get("accepted_units", [])}
        factors[numeric.get("unit", "")] = 1.0
        number = given.get("number", math.nan) * factors.get(given.get("unit", ""), math.nan)
        tolerance = numeric.get(
            "absolute_tolerance", numeric.get("relative_tolerance", 0) * abs(numeric["value"])
        )
        return float(abs(number - numeric["value"]) <= tolerance)
    assert "text" in item
    rule, text = item["text"], given.get("text", "").strip()
    if "pattern" in rule:
        return float(re.fullmatch(rule["pattern"], text) is not None)
    if not rule.get("case_sensitive", False):
        text = text.casefold()
    return float(text in rule.get("accepted", []))


@pytest.mark.parametrize("answer", [pytest.param(a, id=a["id"]) for a in QUIZ])
def test_quiz_score_follows_from_the_key(answer: Answer) -> None:
    assert expected_score(item_of(answer), answer["answer"]) == answer["score"]
