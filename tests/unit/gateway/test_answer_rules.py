"""The quick check and the one that explains say the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinnabar.gateway.v1.assignment_service_pb2 import Assignment
from cinnabar.grader.v1.grade_pb2 import Answer
from cinnabar.grader.v1.item_pb2 import Item, SourceFile
from cinnabar_common.names import AssignmentName
from cinnabar_gateway import records
from cinnabar_gateway.answer_rules import AWAITED, AnswerRules
from cinnabar_gateway.required import missing
from tests.support.gateway_code import code_answers, code_items
from tests.support.gateway_world import answers, items

PARENT = AssignmentName("net", "a1")
UPLOAD = f"{PARENT}/uploads/01j9zq8v5x0000000000000000-001"


def rules_of(wanted: list[Item]) -> AnswerRules:
    """The rules of an assignment with these items."""
    spec = Assignment(items=wanted).SerializeToString()
    return AnswerRules(records.Assignment(tenant="uni", name=PARENT, revision_id="r1", spec=spec))


RULES = rules_of(items())
CODE_RULES = rules_of(code_items())
item_ids = st.sampled_from(["pick", "count", "name", "explain", "other", ""])
code_ids = st.sampled_from(["search", "script", "essay", "poem", "other", ""])
paths = st.sampled_from(
    ["main.py", "a/b.py", "a", "../x", "/etc/x", "a//b", ".", "a/..", ".git", "ü.py", "x" * 201, "a\0b", ""]
)


@st.composite
def any_answer(draw: st.DrawFn, ids: st.SearchStrategy[str] = item_ids) -> Answer:
    """An answer of any type to any item; often a bad one."""
    item = draw(ids)
    match draw(st.integers(0, 5)):
        case 0:
            return Answer(item=item)
        case 1:
            return Answer(item=item, text=draw(st.text(max_size=5)))
        case 2:
            unit = draw(st.text(min_size=60, max_size=70))
            return Answer(item=item, number=Answer.Number(value=draw(st.floats()), unit=unit))
        case 3:
            files = draw(st.lists(st.builds(SourceFile, path=paths, content=st.text(max_size=5)), max_size=4))
            return Answer(item=item, code=Answer.Code(files=files))
        case 4:
            return Answer(item=item, file=Answer.File(upload=draw(st.sampled_from([UPLOAD, "x", ""]))))
        case _:
            options = draw(st.lists(st.sampled_from(["tcp", "udp", "http", "Not An Id"]), max_size=3))
            return Answer(item=item, choice=Answer.Choice(options=options))


@st.composite
def spoilt(draw: st.DrawFn, good: list[Answer], ids: st.SearchStrategy[str] = item_ids) -> list[Answer]:
    """Good answers, some of which are replaced."""
    places = draw(st.dictionaries(st.integers(0, 3), any_answer(ids), max_size=2))
    return [places.get(index, one) for index, one in enumerate(good)]


def check(rules: AnswerRules, given_answers: list[Answer]) -> None:
    violations = [*rules.violations(given_answers, "answers")]
    violations += [one for answer in given_answers for one in missing(answer)]
    accepted = rules.accept(given_answers)
    assert (accepted is None) == bool(violations), violations
    if accepted is not None:
        assert [plan.item for plan, _ in accepted] == [answer.item for answer in given_answers]
        for (_, encoded), answer in zip(accepted, given_answers, strict=True):
            assert encoded == (AWAITED if answer.HasField("file") else answer.SerializeToString())


@given(st.one_of(spoilt(answers()), st.lists(any_answer(), max_size=5), st.permutations(answers())))
def test_what_is_accepted_breaks_no_rule_and_the_other_way_round(given_answers: list[Answer]) -> None:
    check(RULES, given_answers)


@given(st.one_of(spoilt(code_answers(), code_ids), st.permutations(code_answers())))
def test_so_it_is_with_programs_and_custom_items(given_answers: list[Answer]) -> None:
    check(CODE_RULES, given_answers)


def test_tasks_go_to_the_queue_of_their_language_kind_or_model() -> None:
    accepted = CODE_RULES.accept(code_answers())
    assert accepted is not None
    assert [plan.queue for plan, _ in accepted] == ["code-python", "code-cpp", "llm", "custom-verse"]


@pytest.mark.parametrize(
    ("files", "field", "words"),
    [
        ([("main.py", "x" * 262_145)], "files", "262144 bytes"),
        ([("main.py", "纸" * 90_000)], "files", "262144 bytes"),
        ([("a.py", "")] * 2, "files[1].path", "unique"),
        ([(f"{n}.py", "") for n in range(51)], "files", "at most 50"),
        ([("a", ""), ("a/b.py", "")], "files[0].path", "folder"),
        ([("a/../b", "")], "files[0].path", "relative path"),
        ([("a.py\n", "")], "files[0].path", "relative path"),
    ],
)
def test_files_of_a_program_are_few_small_and_well_named(
    files: list[tuple[str, str]], field: str, words: str
) -> None:
    sources = [SourceFile(path=path, content=content) for path, content in files]
    given_answers = [Answer(item="search", code=Answer.Code(files=sources)), *code_answers()[1:]]
    assert CODE_RULES.accept(given_answers) is None
    (violation,) = CODE_RULES.violations(given_answers, "answers")
    assert violation.field == f"answers[0].code.{field}"
    assert words in violation.rule


@pytest.mark.parametrize(
    "content",
    ["", "\0\x01\x7f", "x" * 262_144, "שלום 👩‍👩‍👧 \u202e", "a\r\nb\rc\x85\u2028"],
    ids=["empty", "binary", "one long line", "right to left and emoji", "line ends"],
)
def test_any_text_is_an_answer(content: str) -> None:
    given_answers = code_answers()
    given_answers[0].code.files[0].content = content
    for answer in given_answers[1:]:
        answer.text = content
    accepted = CODE_RULES.accept(given_answers)
    assert accepted is not None
    assert [Answer.FromString(encoded) for _, encoded in accepted] == given_answers
