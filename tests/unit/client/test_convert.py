"""Plain data to messages: what is understood, and what is wrong with the rest, by its path."""

from importlib.resources import files

import pytest
import yaml

from cinnabar.gateway.v1.assignment_service_pb2 import Assignment
from cinnabar.grader.v1.item_pb2 import ChoiceSpec, FreeTextSpec, Item, NumericSpec
from cinnabar_client import convert
from cinnabar_client.convert import AssignmentDraft, InvalidInput
from cinnabar_common.errors import FieldViolation

FREE = {"references": ["yes"]}
ITEM = {"item": "q", "points": 1, "free_text": FREE}
CHOICE = Item(item="q", choice=ChoiceSpec(options=[ChoiceSpec.Option(id="a")]))
NUMERIC = Item(item="q", numeric=NumericSpec(value=1))
TEXT = Item(item="q", free_text=FreeTextSpec(references=["x"]))


def problems(data: object) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        convert.drafts(data)
    return [f"{violation.field}: {violation.rule}" for violation in caught.value.violations]


def test_the_sample_is_understood() -> None:
    sample = files("cinnabar_local") / "sample" / "assignments.yaml"
    drafts = convert.drafts(yaml.safe_load(sample.read_text(encoding="utf-8")))
    assert len(drafts) == 12
    home = drafts[0]
    assert (home.course, home.assignment_id) == ("networks-101", "home-network")
    assert home.assignment.items[0].free_text.criteria[1].points == 2
    assert {item.WhichOneof("grader") for draft in drafts for item in draft.assignment.items} == {
        "choice",
        "numeric",
        "text",
        "free_text",
    }


def test_one_mapping_is_one_assignment() -> None:
    (draft,) = convert.drafts({"items": [ITEM], "close_time": "2026-05-31T18:00:00+02:00"})
    assert draft.assignment.close_time.ToJsonString() == "2026-05-31T16:00:00Z"
    assert (draft.course, draft.path) == ("", "")


PROBLEMS: list[tuple[object, str]] = [
    (None, ": must be a mapping with display_name and items"),
    ([], ": holds no assignment"),
    ([{"items": [ITEM]}, 3], "[1]: must be a mapping with display_name and items"),
    ({"display_name": "x"}, "items: must have at least one item"),
    ({"items": {}}, "items: must be a list"),
    ({"items": ["q"]}, "items[0]: must be a mapping"),
    ({"items": [ITEM], "course": "Networks 101"}, "course: must be 1 to 63 of a-z, 0-9 and '-'"),
    ({"items": [ITEM], "name": "x"}, "name: is not a setting; there are display_name, items, close_time"),
    ({"items": [ITEM], "display_name": 7}, "display_name: must be a text; put it in quotes"),
    (
        {"items": [ITEM], "close_time": "soon"},
        "close_time: must be a time such as 2026-05-31T18:00:00+02:00",
    ),
    ({"items": [ITEM | {"points": "two"}]}, "items[0].points: must be a number"),
    ({"items": [ITEM | {"points": True}]}, "items[0].points: must be a number"),
    ({"items": [ITEM | {"points": float("nan")}]}, "items[0].points: must be a finite number"),
    ({"items": [ITEM | {"free_text": []}]}, "items[0].free_text: must be a mapping"),
    (
        {"items": [ITEM, ITEM | {"free_text": {"references": [1]}}]},
        "items[1].free_text.references[0]: must be a text; put it in quotes",
    ),
    (
        {"items": [{"item": "q", "points": 1}]},
        "items[0]: must have exactly one of choice, numeric, text, free_text, code, custom",
    ),
    (
        {"items": [ITEM | {"text": {"accepted": ["x"]}}]},
        "items[0]: must have exactly one of choice, numeric, text, free_text, code, custom",
    ),
    (
        {"items": [{"item": "q", "text": {"accepted": ["x"], "case_sensitive": "no"}}]},
        "items[0].text.case_sensitive: must be true or false",
    ),
]


@pytest.mark.parametrize(("data", "problem"), PROBLEMS)
def test_a_problem_is_named_with_its_path(data: object, problem: str) -> None:
    assert problems(data) == [problem]


def test_all_problems_are_named_at_once() -> None:
    assert len(problems([{"items": [ITEM | {"points": "x", "item": 3}]}, {"typo": 1, "items": [ITEM]}])) == 3


def test_what_the_service_finds_is_told_by_the_paths_of_the_file() -> None:
    draft = AssignmentDraft("c", "a", Assignment(), path="[2]")
    told = convert.in_file(
        [FieldViolation(field, "r") for field in ("assignment.items[0].points", "assignment_id", "parent")],
        draft,
    )
    assert [violation.field for violation in told] == ["[2].items[0].points", "[2].assignment", "[2].course"]


@pytest.mark.parametrize(
    ("value", "options"),
    [("a", ["a"]), ("a, c", ["a", "c"]), ("", []), (["b"], ["b"]), ({"choice": ["b", "c"]}, ["b", "c"])],
)
def test_choices(value: object, options: list[str]) -> None:
    assert list(convert.answer_to(CHOICE, value).choice.options) == options


@pytest.mark.parametrize(
    ("value", "number", "unit"),
    [
        ("42", 42, ""),
        (" -1.5e3 m/s^2 ", -1500, "m/s^2"),
        ("9.81m/s", 9.81, "m/s"),
        (7, 7, ""),
        ({"number": 90, "unit": "km"}, 90, "km"),
    ],
)
def test_numbers(value: object, number: float, unit: str) -> None:
    answer = convert.answer_to(NUMERIC, value).number
    assert (answer.value, answer.unit) == (number, unit)


@pytest.mark.parametrize("value", ["word", {"text": "word"}])
def test_texts(value: object) -> None:
    assert convert.answer_to(TEXT, value).text == "word"


@pytest.mark.parametrize(
    ("item", "value"),
    [
        (CHOICE, 3),
        (CHOICE, {"text": "a"}),
        (NUMERIC, "about ten"),
        (NUMERIC, True),
        (NUMERIC, {"number": "x"}),
        (NUMERIC, {"number": float("inf")}),
        (NUMERIC, {"number": 1, "unit": 2}),
        (TEXT, 5),
        (TEXT, {"choice": ["a"]}),
        (Item(item="q"), "x"),
    ],
)
def test_an_answer_of_another_type_is_refused_by_the_name_of_its_item(item: Item, value: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        convert.answer_to(item, value)
    assert [violation.field for violation in caught.value.violations] == ["q"]


def test_answers_follow_the_order_of_the_items_and_unknown_items_are_refused() -> None:
    first, second = Item(item="one"), Item(item="two")
    first.free_text.references.append("x")
    second.numeric.value = 1
    assignment = Assignment(name="courses/c/assignments/a", items=[first, second])
    answers = convert.answers_to(assignment, {"two": "2", "one": "x"})
    assert [answer.item for answer in answers] == ["one", "two"]
    with pytest.raises(
        InvalidInput, match="three: is no item of courses/c/assignments/a; there are one, two"
    ):
        convert.answers_to(assignment, {"three": "x"})


@pytest.mark.parametrize("text", ["net/a1", "courses/net/assignments/a1"])
def test_an_assignment_has_a_short_name(text: str) -> None:
    assert str(convert.assignment_name(text)) == "courses/net/assignments/a1"


@pytest.mark.parametrize("text", ["", "net", "net/a1/x", "Net/a1", "courses/net/assignments/"])
def test_a_bad_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="is not COURSE/ASSIGNMENT"):
        convert.assignment_name(text)
