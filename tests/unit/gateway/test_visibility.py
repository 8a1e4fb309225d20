"""What a student may not see is in no answer of any method."""

from collections.abc import AsyncIterator

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from cinnabar.gateway.v1 import assignment_service_pb2 as assignments_pb
from cinnabar.gateway.v1 import grading_service_pb2 as grading_pb
from cinnabar.gateway.v1 import submission_service_pb2 as pb
from cinnabar.grader.v1 import grade_pb2
from tests.support.gateway_code import code_answers, code_grade, code_items
from tests.support.gateway_world import (
    COURSE,
    INSTRUCTOR,
    PARENT,
    STUDENT,
    Metadata,
    World,
    key_of,
    refused,
    world,
)

SECRET = b"secret"
SERVICES: tuple[ServiceDescriptor, ...] = (
    assignments_pb.DESCRIPTOR.services_by_name["AssignmentService"],
    pb.DESCRIPTOR.services_by_name["SubmissionService"],
    grading_pb.DESCRIPTOR.services_by_name["GradingService"],
)
FOR_INSTRUCTORS = {
    *("CreateAssignment", "UpdateAssignment", "GetAssignmentStatistics", "ExportGrades"),
    *("OverrideGrade", "RegradeSubmission", "ListAuditEvents"),
}
WITHOUT_GRADES = {"CreateUpload", "CreateDownload", "GetHealth"}


def create(request_id: str) -> pb.CreateSubmissionRequest:
    return pb.CreateSubmissionRequest(
        parent=PARENT, submission=pb.Submission(answers=code_answers()), request_id=request_id
    )


async def prepared(it: World) -> pb.Submission:
    """An assignment, and a submission to it of which the program is graded."""
    await it.assignments.CreateAssignment(
        assignments_pb.CreateAssignmentRequest(
            parent=COURSE, assignment=assignments_pb.Assignment(items=code_items()), assignment_id="a1"
        ),
        metadata=INSTRUCTOR,
    )
    made = await it.submissions.CreateSubmission(create("again"), metadata=STUDENT)
    it.storage.grade(key_of(made), "search", score=1, grade=code_grade().SerializeToString())
    return made


async def answers_to(
    it: World, made: pb.Submission, method: MethodDescriptor, who: Metadata
) -> list[Message]:
    """Everything that a method answers with; the first message of one that goes on."""
    one: dict[str, Message] = {
        "GetAssignment": assignments_pb.GetAssignmentRequest(name=PARENT),
        "ListAssignments": assignments_pb.ListAssignmentsRequest(parent=COURSE),
        "CreateSubmission": create("again"),
        "BatchCreateSubmissions": pb.BatchCreateSubmissionsRequest(parent=PARENT, requests=[create("again")]),
        "GetSubmission": pb.GetSubmissionRequest(name=made.name),
        "ListSubmissions": pb.ListSubmissionsRequest(parent=PARENT),
        "CancelSubmission": pb.CancelSubmissionRequest(name=made.name),
        "ListGradings": pb.ListGradingsRequest(parent=made.name),
        "SubmitGrading": grading_pb.SubmitGradingRequest(
            course="net", assignment="a1", answers=code_answers()
        ),
    }
    stub = next(stub for stub in (it.assignments, it.submissions, it.grading) if hasattr(stub, method.name))
    call = getattr(stub, method.name)
    if method.name == "WatchSubmission":
        watch = call(pb.WatchSubmissionRequest(name=made.name), metadata=who)
        first = await watch.read()
        watch.cancel()
        return [first]
    if method.name == "StreamCreateSubmissions":

        async def requests() -> AsyncIterator[pb.StreamCreateSubmissionsRequest]:
            yield pb.StreamCreateSubmissionsRequest(batch_id=1, requests=[create("again")])

        return [answer async for answer in call(requests(), metadata=who)]
    return [await call(one[method.name], metadata=who)]


async def test_no_method_tells_a_student_what_is_not_for_students() -> None:
    async with world() as it:
        made = await prepared(it)
        walked: set[str] = set()
        for method in (method for service in SERVICES for method in service.methods):
            if method.name in FOR_INSTRUCTORS | WITHOUT_GRADES:
                continue
            for answer in await answers_to(it, made, method, STUDENT):
                assert SECRET not in answer.SerializeToString(), method.full_name
            walked.add(method.name)
        assert len(walked) == 11
        for name in FOR_INSTRUCTORS:
            stub = it.assignments if hasattr(it.assignments, name) else it.submissions
            method = next(m for service in SERVICES for m in service.methods if m.name == name)
            call = getattr(stub, name)(GetMessageClass(method.input_type)(), metadata=STUDENT)
            refusal = await refused(call.read() if method.server_streaming else call)
            assert refusal.reason == "ROLE_FORBIDDEN", name


async def test_what_is_for_students_is_there() -> None:
    async with world() as it:
        made = await prepared(it)
        shown = await it.assignments.GetAssignment(
            assignments_pb.GetAssignmentRequest(name=PARENT), metadata=STUDENT
        )
        code = shown.items[0].code
        assert [test.test for test in code.tests] == ["call", "hidden-call", "stdio", "hidden-stdio"]
        assert code.tests[0].call.expected == "1"
        assert code.tests[2].stdio.expected_output == "seen by all\n"
        assert code.tests[2].stdio.checker.WhichOneof("kind") == "program"
        assert code.tests[1].WhichOneof("form") is None
        assert (code.tests[1].title, code.tests[1].points) == ("A corner", 1)
        assert code.limits.memory_bytes == 64 << 20
        assert shown.items[2].free_text.llm.model == "tutor"

        graded = await it.submissions.GetSubmission(pb.GetSubmissionRequest(name=made.name), metadata=STUDENT)
        seen, hidden = graded.results[0].grade.tests
        assert (seen.message, seen.output) == ("fine", "seen")
        assert (hidden.verdict, hidden.max_score, hidden.message) == (
            grade_pb2.TestResult.WRONG_ANSWER,
            1,
            "",
        )
        assert [one.feedback for one in graded.results[0].grade.criteria] == ["As expected.", ""]


async def test_an_instructor_sees_everything() -> None:
    async with world() as it:
        made = await prepared(it)
        shown = await it.assignments.GetAssignment(
            assignments_pb.GetAssignmentRequest(name=PARENT), metadata=INSTRUCTOR
        )
        assert list(shown.items) == code_items()
        for method in ("GetSubmission", "ListGradings"):
            (answer,) = await answers_to(
                it,
                made,
                pb.DESCRIPTOR.services_by_name["SubmissionService"].methods_by_name[method],
                INSTRUCTOR,
            )
            assert b"secret message" in answer.SerializeToString()
