"""Files of tasks under lease: who holds the lease gets them, nobody else."""

from __future__ import annotations

import pytest

from cinnabar.grader.v1.grade_pb2 import Answer, Artifact
from cinnabar.grader.v1.grade_pb2 import Grade as GradeMessage
from cinnabar.scheduler.v1 import work_service_pb2 as pb
from cinnabar_common.clock import SystemClock
from cinnabar_common.errors import DependencyUnavailable, InvalidRequest, ResourceNotFound
from cinnabar_scheduler import convert
from cinnabar_scheduler.adapters.memory import MemoryQueue
from cinnabar_scheduler.outcomes import Failure
from cinnabar_scheduler.ports import FileFacts
from cinnabar_scheduler.session import WorkerSession
from cinnabar_scheduler.tasks import Grade, HeadStart, Lease, QueueName, Task, Why
from cinnabar_scheduler.work_files import WorkFiles
from tests.support.scheduler_doubles import MemoryFiles

TEXT = QueueName("text")
UPLOAD = "courses/net/assignments/a1/uploads/u1"
ARTIFACT = "courses/net/assignments/a1/uploads/artifact-0"
FACTS = FileFacts("text/plain", 3, b"s" * 32)


class Desk:
    """A worker with one lease, of an answer that is a file."""

    def __init__(self) -> None:
        self.queue = MemoryQueue(clock=SystemClock())
        self.store = MemoryFiles()
        self.store.links["t1", "s1", "u1"] = "http://objects/u1"
        self.session = WorkerSession(10)
        self.session.hello("worker", ["text"])
        self.session.ready("text", 5)
        self.files = WorkFiles(self.queue, self.store, lambda: [self.session])

    async def lease(self) -> Lease:
        answer = Answer(item="q1", file=Answer.File(upload=UPLOAD)).SerializeToString()
        task = Task(
            task="s1/q1",
            tenant="t1",
            queue=TEXT,
            generation=1,
            head_start=HeadStart.NORMAL,
            ready_ms=0,
            item_key="r1/q1",
            answer=answer,
        )
        await self.queue.enqueue([task])
        leased = await self.queue.lease(TEXT, 1, free=5)
        self.session.grant(leased.leases)
        return leased.leases[0]

    async def links(self, token: str, *uploads: str) -> list[str]:
        response = await self.files.links(pb.GetFilesRequest(lease_token=token, uploads=uploads))
        assert response.expire_time.ToMilliseconds() == 1_000
        return [file.url for file in response.files]


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_who_holds_the_lease_gets_a_link(desk: Desk) -> None:
    lease = await desk.lease()
    assert await desk.links(lease.token, UPLOAD) == ["http://objects/u1"]


async def test_nobody_else_does(desk: Desk) -> None:
    lease = await desk.lease()
    with pytest.raises(ResourceNotFound):
        await desk.links("1-other", UPLOAD)
    with pytest.raises(ResourceNotFound):
        await desk.links(lease.token, UPLOAD, ARTIFACT)
    with pytest.raises(InvalidRequest):
        await desk.links(lease.token)
    await desk.queue.give_back(TEXT, [(lease.task, lease.token)], Why.RETURNED)
    with pytest.raises(ResourceNotFound):  # although this stream has not heard of it yet
        await desk.links(lease.token, UPLOAD)


async def test_a_lease_is_believed_while_the_queue_is_away(desk: Desk) -> None:
    lease = await desk.lease()
    desk.queue.outage = True
    assert await desk.links(lease.token, UPLOAD) == ["http://objects/u1"]
    desk.store.away = True
    with pytest.raises(DependencyUnavailable):
        await desk.links(lease.token, UPLOAD)


async def test_an_artifact_is_announced_under_a_lease(desk: Desk) -> None:
    lease = await desk.lease()
    request = pb.CreateArtifactRequest(
        lease_token=lease.token, content_type="text/plain", size_bytes=3, sha256=FACTS.sha256
    )
    response = await desk.files.prepare(request)
    assert (response.upload, response.url) == (ARTIFACT, "memory:")
    assert [(field.name, field.value) for field in response.fields] == [("key", "artifact-0")]
    assert desk.store.artifacts["artifact-0"] == ("s1", "q1", FACTS)
    request.lease_token = "1-other"
    with pytest.raises(ResourceNotFound):
        await desk.files.prepare(request)


def graded(*uploads: str) -> Grade:
    message = GradeMessage(
        score=1, max_score=2, artifacts=[Artifact(upload=upload, title="log") for upload in uploads]
    )
    return Grade(1.0, message.SerializeToString(), uploads)


async def test_a_grade_says_what_its_artifacts_are(desk: Desk) -> None:
    lease = await desk.lease()
    desk.store.artifacts["artifact-0"] = ("s1", "q1", FACTS)
    plain = graded()
    good, bad = await desk.files.checked([(lease, plain), (lease, graded(ARTIFACT))])
    assert bad == []
    assert good[0] == (lease, plain)
    [artifact] = GradeMessage.FromString(good[1][1].blob).artifacts
    assert (artifact.title, artifact.content_type, artifact.size_bytes) == ("log", "text/plain", 3)
    assert artifact.sha256 == FACTS.sha256


@pytest.mark.parametrize("of", [("s2", "q1"), ("s1", "q2")])
async def test_a_grade_with_the_artifact_of_another_task_is_none(desk: Desk, of: tuple[str, str]) -> None:
    lease = await desk.lease()
    desk.store.artifacts["artifact-0"] = (*of, FACTS)
    for upload in (ARTIFACT, "courses/net/assignments/a1/uploads/unknown", "nonsense"):
        good, [(_, failure)] = await desk.files.checked([(lease, graded(upload))])
        assert good == []
        assert failure.why is Why.FAILED


async def test_an_artifact_that_nobody_can_look_at_costs_a_retry(desk: Desk) -> None:
    lease = await desk.lease()
    desk.store.unseen = True
    _, [(_, failure)] = await desk.files.checked([(lease, graded(ARTIFACT))])
    assert failure.why is Why.UNAVAILABLE
    desk.store.away = True
    _, [(_, failure)] = await desk.files.checked([(lease, graded(ARTIFACT))])
    assert failure.why is Why.UNAVAILABLE


def test_a_grade_has_a_bounded_number_of_artifacts() -> None:
    outcome = pb.Outcome(grade=GradeMessage(score=1, max_score=2))
    outcome.grade.criteria.add(criterion="answer", score=1, max_score=2)
    outcome.grade.artifacts.add(upload=ARTIFACT, title="t" * 128)
    kept = convert.grade(outcome)
    assert isinstance(kept, Grade)
    assert kept.artifacts == (ARTIFACT,)
    for wrong in ([Artifact(upload=ARTIFACT)], [Artifact(upload=f"{ARTIFACT}{n}") for n in range(20)]):
        broken = pb.Outcome()
        broken.CopyFrom(outcome)
        broken.grade.artifacts.extend(wrong)
        assert isinstance(convert.grade(broken), Failure)
    outcome.grade.artifacts[0].title += "t"
    assert isinstance(convert.grade(outcome), Failure)
