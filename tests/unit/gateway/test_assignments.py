"""Assignments: what instructors write, what students read."""

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from cinnabar.gateway.v1 import assignment_service_pb2 as pb
from cinnabar.gateway.v1.submission_service_pb2 import GetSubmissionRequest
from cinnabar.grader.v1.item_pb2 import ChoiceSpec, FreeTextSpec, Item, NumericSpec, TextSpec
from cinnabar_common.names import id_bucket
from tests.support.gateway_world import (
    COURSE,
    INSTRUCTOR,
    OPERATOR,
    PARENT,
    STUDENT,
    World,
    create_request,
    credential,
    items,
    refusal_of,
)

GET = pb.GetAssignmentRequest(name=PARENT)
NAN, INFINITY = float("nan"), float("inf")


def update(*paths: str, etag: str = "", **content: object) -> pb.UpdateAssignmentRequest:
    """An update of the assignment."""
    assignment = pb.Assignment(name=PARENT, etag=etag, **content)  # pyright: ignore[reportArgumentType]
    return pb.UpdateAssignmentRequest(assignment=assignment, update_mask=FieldMask(paths=paths))


async def test_an_assignment_is_created_with_everything_the_server_sets(gateway: World) -> None:
    sent = pb.Assignment(name="courses/x/assignments/y", revision_id="mine", items=items(), etag="mine")
    created = await gateway.assignments.CreateAssignment(
        pb.CreateAssignmentRequest(parent=COURSE, assignment=sent), metadata=INSTRUCTOR
    )
    parent, _, assignment_id = created.name.rpartition("/")
    assert parent == f"{COURSE}/assignments"
    assert id_bucket(assignment_id) is not None
    assert id_bucket(created.revision_id) is not None
    assert created.etag == f'"{created.revision_id}"'
    assert created.create_time == created.update_time
    assert list(created.items) == items()


async def test_a_name_is_taken_once(gateway: World) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await gateway.assignment("a1")
    refusal = refusal_of(raised.value)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "RESOURCE_EXISTS")
    assert refusal.metadata == {"resource": PARENT}


async def test_a_student_reads_no_answers(gateway: World) -> None:
    whole = await gateway.assignments.GetAssignment(GET, metadata=OPERATOR)
    assert list(whole.items) == items()
    listed = await gateway.assignments.ListAssignments(
        pb.ListAssignmentsRequest(parent=COURSE), metadata=STUDENT
    )
    for seen in (await gateway.assignments.GetAssignment(GET, metadata=STUDENT), listed.assignments[0]):
        pick, count, name, explain = seen.items
        assert pick.prompt
        assert [option.id for option in pick.choice.options] == ["tcp", "udp", "ip"]
        assert not pick.choice.correct
        assert (count.numeric.value, count.numeric.absolute_tolerance, count.numeric.unit) == (0, 0, "byte")
        assert not name.text.accepted
        assert not explain.free_text.references
        assert [criterion.description for criterion in explain.free_text.criteria] == ["", ""]
        assert [item.points for item in seen.items] == [2, 1, 1, 4]


async def test_an_update_takes_the_masked_fields_and_makes_a_revision(gateway: World) -> None:
    before = await gateway.assignments.GetAssignment(GET, metadata=INSTRUCTOR)
    after = await gateway.assignments.UpdateAssignment(
        update("display_name", display_name="New", items=items()[:1]), metadata=INSTRUCTOR
    )
    assert (after.display_name, len(after.items)) == ("New", 4)
    assert after.revision_id != before.revision_id
    assert after.create_time == before.create_time
    assert await gateway.assignments.GetAssignment(GET, metadata=INSTRUCTOR) == after
    after = await gateway.assignments.UpdateAssignment(update(items=items()[:2]), metadata=INSTRUCTOR)
    assert (after.display_name, len(after.items)) == ("New", 2)
    after = await gateway.assignments.UpdateAssignment(update("*", items=items()[:3]), metadata=INSTRUCTOR)
    assert (after.display_name, len(after.items)) == ("", 3)


async def test_an_etag_refuses_to_overwrite_somebody_else(gateway: World) -> None:
    first = await gateway.assignments.GetAssignment(GET, metadata=INSTRUCTOR)
    second = await gateway.assignments.UpdateAssignment(
        update(display_name="mine", etag=first.etag), metadata=INSTRUCTOR
    )
    for etag in (first.etag, "garbage", f'"{first.revision_id}x"'):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await gateway.assignments.UpdateAssignment(
                update(display_name="theirs", etag=etag), metadata=INSTRUCTOR
            )
        refusal = refusal_of(raised.value)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    assert await gateway.assignments.GetAssignment(GET, metadata=INSTRUCTOR) == second


async def test_an_update_of_nothing_there_is_not_found(gateway: World) -> None:
    for etag in ("", '"x"'):
        request = update(display_name="x", etag=etag)
        request.assignment.name = PARENT + "x"
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await gateway.assignments.UpdateAssignment(request, metadata=INSTRUCTOR)
        assert refusal_of(raised.value).metadata == {"resource": PARENT + "x"}


async def test_submissions_keep_the_revision_they_answered(gateway: World) -> None:
    old = await gateway.submission()
    changed = await gateway.assignments.UpdateAssignment(update(items=items()[:3]), metadata=INSTRUCTOR)
    request = create_request()
    request.submission.answers.pop()
    new = await gateway.submissions.CreateSubmission(request, metadata=STUDENT)
    assert (new.revision_id, new.max_score) == (changed.revision_id, 4)
    read = await gateway.submissions.GetSubmission(GetSubmissionRequest(name=old.name), metadata=STUDENT)
    assert (read.revision_id, read.max_score) == (old.revision_id, 8)


async def test_a_closed_assignment_takes_nothing(gateway: World) -> None:
    await gateway.assignments.UpdateAssignment(
        update(close_time=Timestamp(seconds=1_000_000)), metadata=INSTRUCTOR
    )
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await gateway.submission()
    refusal = refusal_of(raised.value)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "STATE_FORBIDS")
    assert refusal.metadata == {"resource": PARENT, "state": "CLOSED"}
    await gateway.assignments.UpdateAssignment(update("close_time"), metadata=INSTRUCTOR)
    await gateway.submission()


async def test_a_list_is_walked_page_by_page(gateway: World) -> None:
    for name in ("c", "b", "d"):
        await gateway.assignment(name)
    await gateway.assignment("z", metadata=credential("instructor", "prof", tenant="elsewhere"))
    request, seen = pb.ListAssignmentsRequest(parent=COURSE, page_size=3), list[str]()
    while True:
        page = await gateway.assignments.ListAssignments(request, metadata=STUDENT)
        seen += [one.name.rpartition("/")[2] for one in page.assignments]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert seen == ["a1", "b", "c", "d"]


def choice(options: str = "ab", correct: str = "a") -> Item:
    """A choice item; one letter per id."""
    spec = ChoiceSpec(options=[ChoiceSpec.Option(id=one) for one in options], correct=correct)
    return Item(item="q", points=1, choice=spec)


def numeric(**spec: object) -> Item:
    """A numeric item."""
    return Item(item="q", points=1, numeric=NumericSpec(**spec))  # pyright: ignore[reportArgumentType]


def free_text(*points: float, references: int = 1) -> Item:
    """A free-text item of 1 point with a rubric."""
    criteria = [
        FreeTextSpec.Criterion(criterion=f"c{number}", description="d", points=one)
        for number, one in enumerate(points)
    ]
    return Item(item="q", points=1, free_text=FreeTextSpec(references=["r"] * references, criteria=criteria))


def text(*accepted: str, pattern: str = "") -> Item:
    """A text item."""
    return Item(item="q", points=1, text=TextSpec(accepted=accepted, pattern=pattern))


Q = "assignment.items[0]"
BAD_ITEMS: list[tuple[str, Item, tuple[str, ...]]] = [
    ("no id", Item(points=1, text=TextSpec(accepted=["a"])), (f"{Q}.item",)),
    ("malformed id", Item(item="Q 1", points=1, text=TextSpec(accepted=["a"])), (f"{Q}.item",)),
    ("no points", Item(item="q", text=TextSpec(accepted=["a"])), (f"{Q}.points",)),
    ("points NaN", Item(item="q", points=NAN, text=TextSpec(accepted=["a"])), (f"{Q}.points",)),
    ("too many points", Item(item="q", points=1e6 + 1, text=TextSpec(accepted=["a"])), (f"{Q}.points",)),
    (
        "long prompt",
        Item(item="q", points=1, prompt="é" * 33_000, text=TextSpec(accepted=["a"])),
        (f"{Q}.prompt",),
    ),
    ("no grader", Item(item="q", points=1), (Q,)),
    ("one option", choice("a"), (f"{Q}.choice.options",)),
    ("no options", choice("", ""), (f"{Q}.choice.options", f"{Q}.choice.correct")),
    ("option twice", choice("aba"), (f"{Q}.choice.options[2].id",)),
    ("nothing correct", choice(correct=""), (f"{Q}.choice.correct",)),
    ("unknown correct", choice(correct="ac"), (f"{Q}.choice.correct[1]",)),
    ("correct twice", choice(correct="aa"), (f"{Q}.choice.correct[1]",)),
    ("value infinite", numeric(value=INFINITY), (f"{Q}.numeric.value",)),
    ("negative tolerance", numeric(value=1, absolute_tolerance=-1), (f"{Q}.numeric.absolute_tolerance",)),
    ("tolerance NaN", numeric(value=1, absolute_tolerance=NAN), (f"{Q}.numeric.absolute_tolerance",)),
    ("relative tolerance of 1", numeric(value=1, relative_tolerance=1), (f"{Q}.numeric.relative_tolerance",)),
    ("credit above 1", numeric(wrong_unit_credit=1.1), (f"{Q}.numeric.wrong_unit_credit",)),
    ("long unit", numeric(unit="m" * 65), (f"{Q}.numeric.unit",)),
    (
        "accepted units",
        numeric(
            unit="m",
            accepted_units=[{"unit": "k m", "factor": 1}, {"unit": "km", "factor": 0}, {"factor": 1}],
        ),
        (
            f"{Q}.numeric.accepted_units[2].unit",
            f"{Q}.numeric.accepted_units[1].unit",
            f"{Q}.numeric.accepted_units[1].factor",
        ),
    ),
    (
        "units without a main one",
        numeric(accepted_units=[{"unit": "m", "factor": 1}]),
        (f"{Q}.numeric.unit",),
    ),
    ("neither list nor pattern", text(), (f"{Q}.text",)),
    ("both list and pattern", text("a", pattern="a"), (f"{Q}.text",)),
    ("blank accepted", text("a", " "), (f"{Q}.text.accepted[1]",)),
    ("long pattern", text(pattern="a" * 1001), (f"{Q}.text.pattern",)),
    ("bad pattern", text(pattern="(a"), (f"{Q}.text.pattern",)),
    ("no references", free_text(references=0), (f"{Q}.free_text.references",)),
    ("too many references", free_text(references=21), (f"{Q}.free_text.references",)),
    ("criteria of too few points", free_text(0.5, 0.4), (f"{Q}.free_text.criteria",)),
    ("criterion of no points", free_text(1, 0), (f"{Q}.free_text.criteria[1].points",)),
]


@pytest.mark.parametrize(
    ("item", "fields"), [row[1:] for row in BAD_ITEMS], ids=[row[0] for row in BAD_ITEMS]
)
async def test_a_bad_item_is_explained(gateway: World, item: Item, fields: tuple[str, ...]) -> None:
    before = dict(gateway.storage.assignments)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await gateway.assignments.CreateAssignment(
            pb.CreateAssignmentRequest(parent=COURSE, assignment=pb.Assignment(items=[item])),
            metadata=INSTRUCTOR,
        )
    refusal = refusal_of(raised.value)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert refusal.fields == fields
    assert gateway.storage.assignments == before


async def test_all_that_is_wrong_with_an_assignment_is_said_at_once(gateway: World) -> None:
    bad = pb.Assignment(
        display_name="x" * 201, items=[items()[0], items()[0]], close_time=Timestamp(nanos=-1)
    )
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await gateway.assignments.CreateAssignment(
            pb.CreateAssignmentRequest(parent="net", assignment=bad, assignment_id="A"), metadata=INSTRUCTOR
        )
    assert refusal_of(raised.value).fields == (
        "parent",
        "assignment_id",
        "assignment.display_name",
        "assignment.close_time",
        "assignment.items[1].item",
    )


async def test_a_rubric_of_thirds_adds_up(gateway: World) -> None:
    created = await gateway.assignments.CreateAssignment(
        pb.CreateAssignmentRequest(
            parent=COURSE, assignment=pb.Assignment(items=[free_text(1 / 3, 1 / 3, 1 / 3)])
        ),
        metadata=INSTRUCTOR,
    )
    assert len(created.items[0].free_text.criteria) == 3
