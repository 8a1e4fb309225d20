"""The oracle of the campaign: it passes what is right, and sees everything that may not happen."""

from collections import Counter
from dataclasses import replace

import grpc
import pytest

from cinnabar_client import ApiError
from tests.support.chaos_ledger import Ledger, Request
from tests.support.chaos_oracle import (
    CANCELLED,
    DEAD,
    OPEN,
    Account,
    GradeRow,
    SubmissionRow,
    TaskRow,
    longest_stall,
    longest_wait,
    problems,
)

ITEMS = ("one", "two")
PARENT = "courses/c/assignments/a/submissions"


def request(number: int) -> Request:
    """Of submission ``number``."""
    return Request("t", "student", f"r-{number}")


def world() -> tuple[Ledger, Account]:
    """Two graded submissions, and one of which an item was cancelled, seconds apart."""
    ledger = Ledger()
    submissions: list[SubmissionRow] = []
    grades: list[GradeRow] = []
    for number in range(3):
        name = f"{PARENT}/s{number}"
        ledger.accept("test", request(number), name, 3.0)
        submissions.append(SubmissionRow(name, request(number), 100.0 * number))
        grades.append(GradeRow(f"s{number}", "one", 1, 1.0, 100.0 * number + 1))
        if number < 2:
            grades.append(GradeRow(f"s{number}", "two", 1, 2.0, 100.0 * number + 2))
            ledger.seen_final[name] = ("GRADED", 3.0)
    ledger.cancelled.add(f"{PARENT}/s2")
    ledger.seen_final[f"{PARENT}/s2"] = ("CANCELLED", 1.0)
    audit = Counter({("grade", row.name, row.item, 1): 1 for row in grades})
    audit["cancel", "s2", "two", 1] = 1
    return ledger, Account(submissions, [TaskRow("s2", "two", CANCELLED, "", 0, 205.0)], grades, audit)


def test_what_is_right_passes() -> None:
    ledger, found = world()
    assert problems(ledger, found, items=ITEMS) == []


def wrongs() -> dict[str, tuple[str, Account]]:
    """What may not happen, by what the oracle calls it."""
    _, found = world()
    first, *others = found.submissions
    grade, *grades = found.grades
    task = found.tasks[0]
    stranger = replace(first, name=f"{PARENT}/s9", request=request(9))
    unaudited = found.audit - Counter({("grade", "s0", "one", 1): 1})
    return {
        "lost": ("acknowledged and not stored", replace(found, submissions=others)),
        "invented": (
            "stored and never acknowledged",
            replace(found, submissions=[*found.submissions, stranger]),
        ),
        "twice": (
            "twice for one request",
            replace(found, submissions=[first, replace(first, name=f"{PARENT}/s1"), *others]),
        ),
        "mixed up": (
            "stored under another request",
            replace(found, submissions=[replace(first, request=request(5)), *others]),
        ),
        "double": ("graded more than once", replace(found, grades=[grade, grade, *grades])),
        "regraded": ("of another generation", replace(found, grades=[replace(grade, generation=2), *grades])),
        "both": (
            "graded and still a task",
            replace(found, tasks=[task, TaskRow("s0", "one", OPEN, "", 0, 0.0)]),
        ),
        "neither": ("neither graded nor a task", replace(found, grades=grades)),
        "of nobody": ("of no submission", replace(found, grades=[grade, *grades, replace(grade, name="s9")])),
        "early": (
            "graded before its time",
            replace(found, grades=[replace(grade, at=first.at - 1), *grades]),
        ),
        "given up": ("given up", replace(found, tasks=[task, TaskRow("s0", "one", DEAD, "", 6, 0.0)])),
        "open": ("still open", replace(found, tasks=[task, TaskRow("s0", "one", OPEN, "", 0, 0.0)])),
        "score": (
            "graded with another score",
            replace(found, grades=[replace(grade, score=0.0), *grades]),
        ),
        "not cancelled": ("cancellation acknowledged and not done", replace(found, tasks=[])),
        "cancelled": (
            "cancelled and nobody asked",
            replace(found, tasks=[task, replace(task, name="s0", item="one")]),
        ),
        "watched": (
            "watched to another end",
            replace(found, tasks=[task, TaskRow("s0", "one", DEAD, "", 6, 0.0)]),
        ),
        "not audited": ("done and not audited", replace(found, audit=unaudited)),
        "audited": (
            "audited and not done",
            replace(found, audit=found.audit + Counter({("grade", "s0", "one", 1): 1})),
        ),
    }


@pytest.mark.parametrize("case", wrongs())
def test_what_is_wrong_is_seen(case: str) -> None:
    ledger, _ = world()
    name, found = wrongs()[case]
    assert name in [problem.partition(" (")[0] for problem in problems(ledger, found, items=ITEMS)]


def test_only_what_has_a_deadline_may_be_given_up() -> None:
    ledger, found = world()
    *grades, last = found.grades
    given_up = TaskRow(last.name, last.item, DEAD, "the deadline has passed", 0, 203.0)
    audit = found.audit - Counter({("grade", last.name, last.item, 1): 1})
    audit["dead-letter", last.name, last.item, 1] = 1
    late = replace(found, tasks=[*found.tasks, given_up], grades=grades, audit=audit)
    del ledger.seen_final[f"{PARENT}/s2"]
    assert [problem.partition(" (")[0] for problem in problems(ledger, late, items=ITEMS)] == ["given up"]
    ledger.deadlines.add(f"{PARENT}/s2")
    assert problems(ledger, late, items=ITEMS) == []


def test_one_request_may_not_get_two_names() -> None:
    ledger = Ledger()
    ledger.accept("test", request(1), "a", 1.0)
    ledger.accept("test", request(1), "a", 1.0)
    assert (ledger.repeats, ledger.forbidden) == (1, [])
    ledger.accept("test", request(1), "b", 1.0)
    assert len(ledger.forbidden) == 1


@pytest.mark.parametrize(
    ("error", "again", "forbidden"),
    [
        (ApiError(grpc.StatusCode.UNAVAILABLE, ""), True, 0),
        (ApiError(grpc.StatusCode.RESOURCE_EXHAUSTED, ""), True, 0),
        (ApiError(grpc.StatusCode.DEADLINE_EXCEEDED, ""), True, 0),
        (ApiError(grpc.StatusCode.ABORTED, "", retry_after=1.0), True, 0),
        (ApiError(grpc.StatusCode.ABORTED, ""), False, 1),
        (ApiError(grpc.StatusCode.INTERNAL, ""), False, 1),
        (ApiError(grpc.StatusCode.UNKNOWN, ""), False, 1),
        (ApiError(grpc.StatusCode.NOT_FOUND, ""), False, 1),
        (ApiError(grpc.StatusCode.FAILED_PRECONDITION, "", reason="STATE_FORBIDS"), False, 0),
        (ApiError(grpc.StatusCode.FAILED_PRECONDITION, "", reason="REQUEST_ID_REUSED"), False, 1),
    ],
    ids=str,
)
def test_only_the_documented_refusals_are_allowed(error: ApiError, again: bool, forbidden: int) -> None:
    ledger = Ledger()
    assert ledger.refuse("test", error, allowed=("STATE_FORBIDS",)) is again
    assert len(ledger.forbidden) == forbidden
    assert ledger.statuses == Counter([error.code.name])


def test_a_stall_is_time_without_a_grade_while_work_waits() -> None:
    _, found = world()
    # s2: accepted at 200, one item graded at 201, the other cancelled at 205.
    assert longest_stall(found) == 4.0
    assert longest_wait(found) == 2.0
    late = [replace(row, at=row.at + 30) if row.name == "s1" else row for row in found.grades]
    assert longest_stall(replace(found, grades=late)) == 31.0
    assert longest_wait(replace(found, grades=late)) == 32.0


def test_idle_time_is_no_stall() -> None:
    _, found = world()
    assert longest_stall(Account((), (), (), Counter())) == 0.0
    assert longest_stall(replace(found, tasks=[])) == 1.0
