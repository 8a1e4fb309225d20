"""The quick check and the one that explains say the same."""

from hypothesis import given
from hypothesis import strategies as st

from cinnabar.gateway.v1.assignment_service_pb2 import Assignment
from cinnabar.grader.v1.grade_pb2 import Answer
from cinnabar_common.names import AssignmentName
from cinnabar_gateway import records
from cinnabar_gateway.answer_rules import AnswerRules
from tests.support.gateway_world import answers, items

RULES = AnswerRules(
    records.Assignment(
        tenant="uni",
        name=AssignmentName("net", "a1"),
        revision_id="r1",
        spec=Assignment(items=items()).SerializeToString(),
    )
)
item_ids = st.sampled_from(["pick", "count", "name", "explain", "other", ""])


@st.composite
def any_answer(draw: st.DrawFn) -> Answer:
    """An answer of any type to any item; often a bad one."""
    item = draw(item_ids)
    match draw(st.integers(0, 3)):
        case 0:
            return Answer(item=item)
        case 1:
            return Answer(item=item, text=draw(st.text(max_size=5)))
        case 2:
            unit = draw(st.text(min_size=60, max_size=70))
            return Answer(item=item, number=Answer.Number(value=draw(st.floats()), unit=unit))
        case _:
            options = draw(st.lists(st.sampled_from(["tcp", "udp", "http"]), max_size=3))
            return Answer(item=item, choice=Answer.Choice(options=options))


@st.composite
def spoilt(draw: st.DrawFn) -> list[Answer]:
    """Good answers, some of which are replaced."""
    places = draw(st.dictionaries(st.integers(0, 3), any_answer(), max_size=2))
    return [places.get(index, good) for index, good in enumerate(answers())]


@given(st.one_of(spoilt(), st.lists(any_answer(), max_size=5), st.permutations(answers())))
def test_what_is_accepted_breaks_no_rule_and_the_other_way_round(given_answers: list[Answer]) -> None:
    missing_item = any(not answer.item for answer in given_answers)
    violations = list(RULES.violations(given_answers, "answers"))
    accepted = RULES.accept(given_answers)
    assert (accepted is None) == bool(violations or missing_item)
    if accepted is not None:
        assert [plan.item for plan, _ in accepted] == [answer.item for answer in given_answers]
        assert [Answer.FromString(encoded) for _, encoded in accepted] == given_answers
