"""Statistics and erasures at the public door: who may, what is refused, what is shown."""

import grpc
import pytest

from cinnabar.gateway.v1 import assignment_service_pb2 as assignments_pb
from cinnabar.gateway.v1 import operations_service_pb2 as operations_pb
from cinnabar.grader.v1.grade_pb2 import CriterionScore, Grade
from tests.support.gateway_world import (
    INSTRUCTOR,
    OPERATOR,
    PARENT,
    STUDENT,
    Metadata,
    World,
    credential,
    key_of,
    refusal_of,
)
from tests.support.waiting import until

GET = assignments_pb.GetAssignmentStatisticsRequest(name=PARENT)
ERASE = operations_pb.EraseStudentRequest(student="ann", reason="left the school")


async def test_items_come_in_their_order_with_their_criteria(gateway: World) -> None:
    for author, score in (("ann", 1.0), ("bob", 3.0)):
        made = await gateway.submission(author=author, metadata=INSTRUCTOR)
        criteria = [CriterionScore(criterion="window", score=score / 2), CriterionScore(criterion="flight")]
        grade = Grade(score=score, max_score=4, criteria=criteria).SerializeToString()
        gateway.storage.grade(key_of(made), "explain", score=score, grade=grade)
        for item in ("pick", "count", "name"):
            if author == "ann" or item == "pick":
                gateway.grade(made, item, 2.0)
    found = await gateway.assignments.GetAssignmentStatistics(GET, metadata=INSTRUCTOR)
    assert (found.name, list(found.unreachable)) == (PARENT, [])
    assert found.as_of_time.seconds > 0
    assert [one.item for one in found.items] == ["pick", "count", "name", "explain"]
    assert (found.submissions.count, found.submissions.mean) == (1, 7.0)
    explain = found.items[3]
    assert (explain.scores.count, explain.scores.mean, explain.scores.standard_deviation) == (2, 2.0, 1.0)
    assert [(one.criterion, one.scores.mean) for one in explain.criteria] == [
        ("flight", 0.0),
        ("window", 1.0),
    ]
    assert explain.scores.histogram[5] == explain.scores.histogram[15] == 1


async def test_an_assignment_without_grades_has_no_numbers(gateway: World) -> None:
    found = await gateway.assignments.GetAssignmentStatistics(GET, metadata=INSTRUCTOR)
    assert (found.submissions.count, list(found.items)) == (0, [])


@pytest.mark.parametrize("metadata", [STUDENT, OPERATOR])
async def test_statistics_are_for_instructors(gateway: World, metadata: Metadata) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await gateway.assignments.GetAssignmentStatistics(GET, metadata=metadata)
    assert refusal_of(raised.value).reason == "ROLE_FORBIDDEN"


async def test_statistics_of_what_is_not_there_or_foreign(gateway: World) -> None:
    foreign = credential("instructor", "prof", tenant="other")
    for name, metadata in ((f"{PARENT}-not", INSTRUCTOR), (PARENT, foreign)):
        request = assignments_pb.GetAssignmentStatisticsRequest(name=name)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await gateway.assignments.GetAssignmentStatistics(request, metadata=metadata)
        assert refusal_of(raised.value).reason == "RESOURCE_NOT_FOUND"


async def test_an_erasure_takes_the_tasks_out_of_the_queue(gateway: World) -> None:
    mine = await gateway.submission()
    other = await gateway.submission(author="bob", metadata=INSTRUCTOR)
    await until(lambda: len(gateway.queue.tasks) == 8, description="all tasks are queued")
    erasure = await gateway.operations.EraseStudent(ERASE, metadata=OPERATOR)
    assert (erasure.state, erasure.actor, erasure.reason) == (
        operations_pb.Erasure.ERASED,
        "operator/root",
        "left the school",
    )
    assert {task.split("/")[0] for task, _ in gateway.queue.tasks} == {key_of(other).submission_id}
    assert key_of(mine) not in gateway.storage.submissions
    request = operations_pb.GetErasureRequest(name=erasure.name)
    assert await gateway.operations.GetErasure(request, metadata=OPERATOR) == erasure
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await gateway.operations.GetErasure(request, metadata=credential("operator", "r", tenant="other"))
    assert refusal_of(raised.value).reason == "RESOURCE_NOT_FOUND"


@pytest.mark.parametrize("metadata", [STUDENT, INSTRUCTOR])
async def test_only_operators_erase(gateway: World, metadata: Metadata) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await gateway.operations.EraseStudent(ERASE, metadata=metadata)
    assert refusal_of(raised.value).reason == "ROLE_FORBIDDEN"


@pytest.mark.parametrize(
    ("student", "reason", "field"),
    [
        ("", "r", "student"),
        ("Ann", "r", "student"),
        ("ann", "", "reason"),
        ("ann", "x" * 1001, "reason"),
        ("ann", "a\0b", "reason"),
        ("ann", "ann asked", "reason"),
    ],
)
async def test_bad_requests_to_erase(gateway: World, student: str, reason: str, field: str) -> None:
    request = operations_pb.EraseStudentRequest(student=student, reason=reason)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await gateway.operations.EraseStudent(request, metadata=OPERATOR)
    assert refusal_of(raised.value).fields == (field,)


@pytest.mark.parametrize("name", ["", "erasures/", "erasures/A", "x/1", "erasures/01-fff"])
async def test_bad_names_of_erasures(gateway: World, name: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await gateway.operations.GetErasure(operations_pb.GetErasureRequest(name=name), metadata=OPERATOR)
    reason = "RESOURCE_NOT_FOUND" if name.endswith("fff") else "INVALID_REQUEST"
    assert refusal_of(raised.value).reason == reason
