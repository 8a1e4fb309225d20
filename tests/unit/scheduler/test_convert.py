"""Requests that break rules, and messages that fit."""

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from cinnabar.grader.v1 import grade_pb2
from cinnabar.grader.v1.grade_pb2 import Answer, CriterionScore, Grade
from cinnabar.grader.v1.item_pb2 import Item
from cinnabar.scheduler.v1 import queue_service_pb2 as pb
from cinnabar.scheduler.v1 import work_service_pb2 as work_pb
from cinnabar_common.errors import InvalidRequest
from cinnabar_scheduler import convert, progress_convert
from cinnabar_scheduler.dispatch import Delivery
from cinnabar_scheduler.outcomes import Failure, Fate
from cinnabar_scheduler.ports import Changed
from cinnabar_scheduler.tasks import Grade as DomainGrade
from cinnabar_scheduler.tasks import HeadStart, Lease, LeaseToken, Position
from tests.support.scheduler_queue import QUEUE

NOW_MS = 1_700_000_000_000


def queued(**changes: object) -> pb.QueuedTask:
    task = pb.QueuedTask(
        task="s1/q1", tenant="t1", queue="free-text", generation=1, item_key="r1/q1", answer=b"a"
    )
    for name, value in changes.items():
        setattr(task, name, value)
    return task


def violated(request: pb.EnqueueRequest) -> list[str]:
    with pytest.raises(InvalidRequest) as refused:
        convert.tasks(request, NOW_MS)
    return [violation.field for violation in refused.value.violations]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("task", "s1"),
        ("task", "/q1"),
        ("task", "s1/Q 1"),
        ("tenant", ""),
        ("tenant", "T 1"),
        ("queue", "free_text"),
        ("queue", "x" * 64),
        ("generation", 0),
        ("generation", -1),
        ("item_key", "r1"),
        ("item_key", "r1/q1\nmore"),
        ("item_key", "r1/q1 upgrade"),
    ],
)
def test_a_task_that_breaks_a_rule_names_its_field(field: str, value: object) -> None:
    request = pb.EnqueueRequest(tasks=[queued(), queued(**{field: value})])
    assert violated(request) == [f"tasks[1].{field}"]


def test_every_broken_rule_is_told() -> None:
    request = pb.EnqueueRequest(tasks=[queued(tenant="", generation=0), queued(), queued(queue="?")])
    assert violated(request) == ["tasks[0].tenant", "tasks[0].generation", "tasks[2].queue"]


def test_too_many_tasks() -> None:
    assert violated(pb.EnqueueRequest(tasks=[queued()] * 10_001)) == ["tasks"]
    cancels = pb.CancelRequest(tasks=[pb.CancelRequest.Task(task="s/q", queue="text")] * 10_001)
    with pytest.raises(InvalidRequest):
        convert.cancellations(cancels)


@pytest.mark.parametrize(
    ("priority", "head_start"),
    [
        (0, HeadStart.NORMAL),
        (pb.REGRADE, HeadStart.REGRADE),
        (pb.LOW, HeadStart.LOW),
        (pb.NORMAL, HeadStart.NORMAL),
        (pb.HIGH, HeadStart.HIGH),
        (pb.RECOVERY, HeadStart.RECOVERY),
        (77, HeadStart.NORMAL),
    ],
)
def test_priorities(priority: int, head_start: HeadStart) -> None:
    assert convert.head_start(priority) is head_start


@pytest.mark.parametrize(("not_before_ms", "ready_ms"), [(NOW_MS + 5, NOW_MS + 5), (NOW_MS - 5, NOW_MS)])
def test_a_task_is_ready_now_or_later(not_before_ms: int, ready_ms: int) -> None:
    later = Timestamp()
    later.FromMilliseconds(not_before_ms)
    task = queued()
    task.not_before.CopyFrom(later)
    (converted,) = convert.tasks(pb.EnqueueRequest(tasks=[task]), NOW_MS)
    assert (converted.ready_ms, converted.ready_now) == (ready_ms, False)


def test_a_task_without_a_time_is_ready_whatever_the_clocks_say() -> None:
    (converted,) = convert.tasks(pb.EnqueueRequest(tasks=[queued()]), NOW_MS)
    assert converted.ready_now


def test_cancellations_are_grouped_by_queue_and_checked() -> None:
    task = pb.CancelRequest.Task
    request = pb.CancelRequest(
        tasks=[
            task(task="a/1", queue="text"),
            task(task="b/1", queue="choice"),
            task(task="c/1", queue="text"),
        ]
    )
    assert convert.cancellations(request) == {"text": ["a/1", "c/1"], "choice": ["b/1"]}
    request.tasks.add(task="d/1", queue="no queue")
    with pytest.raises(InvalidRequest, match=r"tasks\[3\].queue"):
        convert.cancellations(request)


def test_every_fate_has_a_receipt() -> None:
    results = {convert.receipt("1-a", fate).result for fate in Fate}
    assert len(results) == len(Fate)


def test_changes_travel_both_ways() -> None:
    changed = Changed(["a", "b"], [Position(0, 7), Position(1, 2**60)])
    assert convert.changed(convert.follow_response(changed)) == changed


def leases(count: int, text: str, item_key: str = "r1/q1") -> list[Lease]:
    answer = Answer(item="q1", text=text).SerializeToString()
    return [
        Lease(f"s{n}/q1", LeaseToken(f"{n}-x"), 1, 1, "t1", QUEUE, item_key, answer) for n in range(count)
    ]


def test_deliveries_are_cut_to_size_and_keep_their_order() -> None:
    items = {"r1/q1": Item(item="q1").SerializeToString()}
    messages = list(convert.deliveries(Delivery(leases(20, "x" * 300_000), items), lambda lease: None))
    assert all(message.ByteSize() <= convert.MESSAGE_BYTES + 1000 for message in messages)
    assert [task.task for message in messages for task in message.leases.tasks] == [
        f"s{n}/q1" for n in range(20)
    ]
    assert [ref.item_key for message in messages for ref in message.leases.items] == ["r1/q1"]
    assert messages[0].leases.items


def test_an_unreadable_answer_is_left_out_but_its_item_is_not() -> None:
    (good,) = leases(1, "fine")
    bad = Lease("bad/q1", LeaseToken("9-x"), 1, 1, "t1", QUEUE, "r2/q1", b"\xff\xff")
    items = {key: Item(item="q1").SerializeToString() for key in ("r1/q1", "r2/q1")}
    unreadable: list[Lease] = []
    (message,) = convert.deliveries(Delivery([bad, good], items), unreadable.append)
    assert unreadable == [bad]
    assert [task.task for task in message.leases.tasks] == ["s0/q1"]
    assert {ref.item_key for ref in message.leases.items} == set(items)


def test_cancellations_go_out_alone() -> None:
    (message,) = convert.deliveries(Delivery(cancelled=[LeaseToken("1-a")]), lambda lease: None)
    assert list(message.cancellations.lease_tokens) == ["1-a"]


@pytest.mark.parametrize("upgrade", [False, True])
def test_an_upgrade_is_one_from_the_queue_to_the_worker(upgrade: bool) -> None:
    [task] = convert.tasks(pb.EnqueueRequest(tasks=[queued(upgrade=upgrade)]), NOW_MS)
    assert task.upgrade is upgrade
    lease = Lease("s1/q1", LeaseToken("1-x"), 2, 1, "t1", QUEUE, "r1/q1", b"", upgrade=upgrade)
    [response] = convert.deliveries(Delivery(leases=[lease], items={}), lambda lease: None)
    assert [one.upgrade for one in response.leases.tasks] == [upgrade]


@pytest.mark.parametrize("upgradable", [False, True])
def test_a_grade_says_whether_it_may_be_replaced(upgradable: bool) -> None:
    verdict = Grade(
        score=1, max_score=2, criteria=[CriterionScore(score=1, max_score=2)], upgradable=upgradable
    )
    grade = convert.grade(work_pb.Outcome(grade=verdict))
    assert isinstance(grade, DomainGrade)
    assert grade.upgradable is upgradable


TIME = Duration(seconds=1, nanos=5)


@pytest.mark.parametrize(
    ("test", "problem"),
    [
        (grade_pb2.TestResult(test="t", score=1, max_score=1, cpu_time=TIME, wall_time=TIME), ""),
        (grade_pb2.TestResult(test="t", score=2, max_score=1), "score"),
        (grade_pb2.TestResult(test="t", score=-1, max_score=1), "score"),
        (grade_pb2.TestResult(test="t", score=float("nan"), max_score=1), "score"),
        (grade_pb2.TestResult(test="t", max_score=float("inf")), "score"),
        (grade_pb2.TestResult(test="t", cpu_time=Duration(seconds=-1)), "time"),
        (grade_pb2.TestResult(test="t", wall_time=Duration(nanos=2**30)), "time"),
        (grade_pb2.TestResult(test="t", wall_time=Duration(seconds=2**40)), "time"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_results_of_tests_are_looked_at(test: grade_pb2.TestResult, problem: str) -> None:
    verdict = Grade(score=1, max_score=2, criteria=[CriterionScore(score=1, max_score=2)], tests=[test])
    found = convert.grade(work_pb.Outcome(grade=verdict))
    assert isinstance(found, Failure) == bool(problem)
    if isinstance(found, Failure):
        assert problem in found.reason
    assert (progress_convert.kept(work_pb.Progress(tests=[test])) is None) == bool(problem)


def test_there_are_not_too_many_tests() -> None:
    assert convert.tests_problem([grade_pb2.TestResult()] * 1000) == ""
    assert "more than 1000 tests" in convert.tests_problem([grade_pb2.TestResult()] * 1001)
