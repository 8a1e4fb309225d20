"""What a grader is not sure of reaches the instructor, through the scheduler and real storage."""

from __future__ import annotations

from cinnabar.gateway.v1 import review_service_pb2 as pb
from cinnabar.gateway.v1.review_service_pb2_grpc import ReviewServiceStub
from cinnabar.grader.v1.grade_pb2 import CriterionScore, Grade
from cinnabar.scheduler.v1.work_service_pb2 import Outcome
from cinnabar_gateway.consistency import TOKEN_KEY
from tests.support.gateway_suite import PARENT, Real, create_request
from tests.support.gateway_world import INSTRUCTOR, STUDENT, token_from
from tests.support.scheduler_worker import worker as connected
from tests.support.waiting import until


def unsure(token: str) -> Outcome:
    grade = Grade(
        score=0.5,
        max_score=1,
        criteria=[CriterionScore(criterion="answer", score=0.5, max_score=1)],
        needs_review=True,
        flags=["LOW_CONFIDENCE"],
    )
    return Outcome(lease_token=token, grade=grade)


async def test_a_grade_in_doubt_is_listed_and_accepted(real: Real) -> None:
    reviews = ReviewServiceStub(real.channel)
    async with real.scheduler(), connected(real.scheduler_target) as grader:
        await grader.hello("text")
        created = await real.submissions.CreateSubmission(create_request(), metadata=STUDENT)
        [lease] = await grader.take(1, "text", seconds=20)
        await grader.report(unsure(lease.lease_token))
        found: list[pb.Review] = []

        async def listed() -> bool:  # from a replica, which may be behind
            answer = await reviews.ListReviews(pb.ListReviewsRequest(parent=PARENT), metadata=INSTRUCTOR)
            found[:] = answer.reviews
            return bool(found)

        await until(listed, description="the review is listed")
        [waiting] = found
        assert (waiting.submission, waiting.item, waiting.author) == (created.name, "name", "ann")
        assert (list(waiting.flags), waiting.score, waiting.max_score) == (["LOW_CONFIDENCE"], 0.5, 1)
        call = reviews.AcceptReview(
            pb.AcceptReviewRequest(name=created.name, item="name"), metadata=INSTRUCTOR
        )
        assert (await call).grade.needs_review
        mine = (*INSTRUCTOR, (TOKEN_KEY, await token_from(call)))
        after = await reviews.ListReviews(pb.ListReviewsRequest(parent=PARENT), metadata=mine)
        assert list(after.reviews) == []
