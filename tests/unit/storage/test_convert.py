"""What a request must be, and what it becomes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cinnabar.storage.v1 import records_pb2
from cinnabar.storage.v1 import storage_service_pb2 as pb
from cinnabar_common.errors import InvalidRequest
from cinnabar_storage import convert, responses
from cinnabar_storage.records import (
    CommitResult,
    CreateStatus,
    GivenUp,
    Graded,
    Micros,
    RedriveResult,
    TaskState,
)
from tests.support.storage_records import given_up, graded, new_submission, submission_id


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(InvalidRequest) as refused:
        call()
    return str(refused.value)


def test_a_submission_keeps_every_field() -> None:
    given = new_submission(items=("q1", "q2"), request_id="r", fingerprint=b"f")
    given.upload_ids.append(submission_id("ann"))
    given.grade_after.FromMicroseconds(1_000_000_000_000_001)
    given.grade_by.FromMicroseconds(2_000_000_000_000_002)
    [row] = convert.new_submissions(pb.CreateSubmissionsRequest(submissions=[given]))
    assert row.tasks == (("q1", "text"), ("q2", "text"))
    assert row.create_time == given.create_time.ToMicroseconds()
    assert (row.grade_after, row.grade_by) == (1_000_000_000_000_001, 2_000_000_000_000_002)
    assert row.upload_ids == tuple(given.upload_ids)
    for name in set(row._fields) - {"tasks", "create_time", "grade_after", "grade_by", "upload_ids"}:
        assert getattr(row, name) == getattr(given, name), name


def test_an_empty_request_id_is_none() -> None:
    [row] = convert.new_submissions(pb.CreateSubmissionsRequest(submissions=[new_submission()]))
    assert row.request_id is None


def test_times_that_are_not_given_are_none() -> None:
    [row] = convert.new_submissions(pb.CreateSubmissionsRequest(submissions=[new_submission()]))
    assert (row.grade_after, row.grade_by, row.existing_only) == (None, None, False)


def test_a_row_that_is_only_looked_for_needs_its_request_alone() -> None:
    given = pb.NewSubmission(tenant="t", author="ann", request_id="r", fingerprint=b"f", existing_only=True)
    [row] = convert.new_submissions(pb.CreateSubmissionsRequest(submissions=[given]))
    assert (row.tenant, row.author, row.request_id, row.fingerprint) == ("t", "ann", "r", b"f")
    assert row.existing_only


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("tenant", "", "submissions[0].tenant: is required"),
        ("author", "", "submissions[0].author: is required"),
        ("request_id", "", "submissions[0].request_id: is required"),
        ("request_id", "r\0", "submissions[0]: ids must not contain U+0000"),
        ("author", "a" * 601, "submissions[0]: ids must not have more than 600 characters together"),
    ],
)
def test_a_bad_row_that_is_only_looked_for_is_refused(field: str, value: str, message: str) -> None:
    given = pb.NewSubmission(tenant="t", author="ann", request_id="r", existing_only=True)
    setattr(given, field, value)
    request = pb.CreateSubmissionsRequest(submissions=[given])
    assert refusal(lambda: convert.new_submissions(request)) == message


Spoil = Callable[[pb.NewSubmission], object]


def _set(name: str, value: object) -> Spoil:
    return lambda submission: setattr(submission, name, value)


_BAD: list[tuple[Spoil, str]] = [
    *((_set(name, ""), f"{name}: is required") for name in ("submission_id", "tenant", "course")),
    *((_set(name, ""), f"{name}: is required") for name in ("assignment", "revision_id", "author")),
    (_set("answers", b""), "answers: is required"),
    (lambda given: given.ClearField("tasks"), "tasks: is required"),
    (lambda given: given.ClearField("create_time"), "create_time: must be after 1970"),
    (lambda given: setattr(given.create_time, "seconds", 253_402_300_800), "create_time: must be after 1970"),
    (lambda given: given.grade_after.SetInParent(), "grade_after: must be after 1970"),
    (lambda given: setattr(given.grade_by, "seconds", -1), "grade_by: must be after 1970"),
    (_set("max_score", float("nan")), "max_score: must be finite"),
    (lambda given: given.tasks.add(item_id="q1", queue="text"), "tasks: must not name an item twice"),
    (_set("request_id", "a\0b"), "ids must not contain U+0000"),
    (_set("author", "a" * 601), "ids must not have more than 600 characters together"),
]


@pytest.mark.parametrize(("spoil", "message"), _BAD)
def test_a_bad_submission_is_blamed_by_its_index(
    spoil: Callable[[pb.NewSubmission], None], message: str
) -> None:
    good, bad = new_submission(), new_submission()
    spoil(bad)
    request = pb.CreateSubmissionsRequest(submissions=[good, bad])
    text = refusal(lambda: convert.new_submissions(request))
    assert text.startswith("submissions[1]")
    assert message in text


def test_many_items_are_not_too_long() -> None:
    given = new_submission(items=tuple(f"question-{number}" for number in range(200)))
    [row] = convert.new_submissions(pb.CreateSubmissionsRequest(submissions=[given]))
    assert len(row.tasks) == 200


def test_batches_are_bounded() -> None:
    submissions = pb.CreateSubmissionsRequest(submissions=[pb.NewSubmission()] * 10_001)
    assert refusal(lambda: convert.new_submissions(submissions)) == (
        "submissions: must not have more than 10000 elements"
    )
    outcomes = pb.CommitOutcomesRequest(outcomes=[pb.FencedOutcome()] * 10_001)
    assert refusal(lambda: convert.outcomes(outcomes)).startswith("outcomes: ")
    keys = pb.GetRevisionsRequest(revisions=[pb.RevisionKey()] * 1_001)
    assert refusal(lambda: convert.revision_keys(keys)).startswith("revisions: ")

    states = pb.GetTaskStatesRequest(keys=[pb.GetTaskStatesRequest.Key()] * 10_001)
    assert refusal(lambda: convert.owned_task_keys(states)).startswith("keys: ")


def test_outcomes_keep_their_order_and_kind() -> None:
    submission = new_submission()
    request = pb.CommitOutcomesRequest(outcomes=[graded(submission, fence=3), given_up(submission, fence=4)])
    grade, letter = convert.outcomes(request)
    assert isinstance(grade, Graded)
    assert isinstance(letter, GivenUp)
    assert (grade.score, grade.grade, grade.doubt, grade.upgradable) == (1.0, b"grade under 3", None, False)
    assert letter[-2:] == ("it broke", 4)
    assert (grade.fence, letter.fence) == (3, 4)


def test_a_doubt_is_what_the_grade_says_without_what_cannot_be_kept() -> None:
    outcome = graded(new_submission())
    outcome.grade.flags.append("ODD")
    [certain] = convert.outcomes(pb.CommitOutcomesRequest(outcomes=[outcome]))
    assert isinstance(certain, Graded)
    assert certain.doubt is None
    outcome.grade.needs_review = True
    outcome.grade.flags.append("N\0UL")
    outcome.grade.max_score = 3.0
    [doubted] = convert.outcomes(pb.CommitOutcomesRequest(outcomes=[outcome]))
    assert isinstance(doubted, Graded)
    assert doubted.doubt == (("ODD", "NUL"), 3.0)


def test_an_outcome_of_nothing_is_refused() -> None:
    outcome = graded(new_submission())
    outcome.ClearField("outcome")
    request = pb.CommitOutcomesRequest(outcomes=[outcome])
    assert refusal(lambda: convert.outcomes(request)) == "outcomes[0].outcome: is required"


@pytest.mark.parametrize("field", ["tenant", "submission_id", "item_id", "generation", "fence"])
def test_an_outcome_needs_its_fence(field: str) -> None:
    outcome = graded(new_submission())
    outcome.ClearField(field)  # pyright: ignore[reportArgumentType]
    request = pb.CommitOutcomesRequest(outcomes=[outcome])
    assert refusal(lambda: convert.outcomes(request)) == f"outcomes[0].{field}: is required"


def test_the_reason_of_a_dead_letter_cannot_fail_a_batch() -> None:
    outcome = given_up(new_submission())
    outcome.dead_letter.reason = "bad\0byte"
    [letter] = convert.outcomes(pb.CommitOutcomesRequest(outcomes=[outcome]))
    assert letter[-2] == "badbyte"


@pytest.mark.parametrize("limit", [-1, 0, 1001])
def test_limits_are_bounded(limit: int) -> None:
    request = pb.ListSubmissionsRequest(tenant="t", course="c", assignment="a", limit=limit)
    assert refusal(lambda: convert.submission_query(request)) == "limit: must be 1 to 1000"


def test_dead_letters_are_asked_for_with_every_filter() -> None:
    request = pb.ListDeadLettersRequest(
        tenant="t", queue="q", course="c", assignment="a", reason="r", limit=5, after_submission_id="s"
    )
    request.given_up_after.FromMicroseconds(5)
    request.given_up_before.FromMicroseconds(7)
    assert convert.dead_letter_query(request) == ("t", "q", ("s", ""), 5, "c", "a", "r", 5, 7)
    plain = pb.ListDeadLettersRequest(tenant="t", limit=5)
    assert convert.dead_letter_query(plain) == ("t", "", ("", ""), 5, "", "", "", None, None)


@pytest.mark.parametrize("seconds", [-1, 253_402_300_800, 2**62])
@pytest.mark.parametrize("field", ["given_up_after", "given_up_before"])
def test_a_time_that_cannot_be_is_refused(field: str, seconds: int) -> None:
    request = pb.ListDeadLettersRequest(tenant="t", limit=5)
    getattr(request, field).seconds = seconds
    assert refusal(lambda: convert.dead_letter_query(request)).startswith(f"{field}: must not be before")


@pytest.mark.parametrize(
    ("control", "message"),
    [
        (pb.QueueControl(state=1, actor="ann"), "control.queue: is required"),
        (pb.QueueControl(queue="text", actor="ann"), "control.state: is required"),
        (pb.QueueControl(queue="text", state=1), "control.actor: is required"),
        (pb.QueueControl(queue="text", state=-1, actor="ann"), "control.state: must not be negative"),
        (pb.QueueControl(queue="q" * 601, state=1, actor="ann"), "control.queue: must not have more than"),
    ],
)
def test_a_bad_control_of_a_queue_is_refused(control: pb.QueueControl, message: str) -> None:
    request = pb.SetQueueControlRequest(control=control)
    assert refusal(lambda: convert.queue_control(request)).startswith(message)


def test_numbers_are_those_of_the_protos() -> None:
    status = pb.CreateSubmissionsResponse.Result.Status
    assert {item.name: item.value for item in CreateStatus} | {"STATUS_UNSPECIFIED": 0} == dict(
        status.items()
    )
    result = pb.CommitOutcomesResponse.Result
    assert {item.name: item.value for item in CommitResult} | {"RESULT_UNSPECIFIED": 0} == dict(
        result.items()
    )
    redriven = pb.RedriveTasksResponse.Result
    assert {item.name: item.value for item in RedriveResult} | {"RESULT_UNSPECIFIED": 0} == dict(
        redriven.items()
    )
    state = records_pb2.TaskRecord.State
    assert {item.name: item.value for item in TaskState} | {"STATE_UNSPECIFIED": 0} == dict(state.items())


def test_times_keep_their_microseconds() -> None:
    given = new_submission()
    given.create_time.FromMicroseconds(1_795_376_357_728_065)
    [row] = convert.new_submissions(pb.CreateSubmissionsRequest(submissions=[given]))
    assert responses.timestamp(row.create_time) == given.create_time
    assert responses.timestamp(Micros(1_999_999)).nanos == 999_999_000
