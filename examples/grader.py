"""A grader of your own for the queue "text": an answer close to an accepted one earns part of the points."""

import asyncio
import os
from difflib import SequenceMatcher

import grpc

from cinnabar.grader.v1.grade_pb2 import CriterionScore, Grade, Provenance
from cinnabar.grader.v1.item_pb2 import Item
from cinnabar.scheduler.v1.work_service_pb2 import (
    Heartbeat,
    Hello,
    LeasedTask,
    Outcome,
    Ready,
    Report,
    WorkRequest,
)
from cinnabar.scheduler.v1.work_service_pb2_grpc import WorkServiceStub

QUEUE, CREDITS = "text", 16


def grade(item: Item, task: LeasedTask) -> Outcome:
    ratios = [SequenceMatcher(None, task.answer.text, right).ratio() for right in item.text.accepted]
    likeness = max(ratios, default=0.0)
    score = item.points * (likeness if likeness > 0.8 else 0)
    made_by = Provenance(grader="close-enough", version="1")
    criterion = CriterionScore(criterion="answer", score=score, max_score=item.points, provenance=made_by)
    return Outcome(
        lease_token=task.lease_token, grade=Grade(score=score, max_score=item.points, criteria=[criterion])
    )


async def main() -> None:
    items: dict[str, Item] = {}
    async with grpc.aio.insecure_channel(os.environ["CINNABAR_SCHEDULER"]) as channel:
        stream = WorkServiceStub(channel).Work()
        await stream.write(WorkRequest(hello=Hello(worker=f"example-{os.getpid()}", queues=[QUEUE])))
        await stream.write(WorkRequest(ready=Ready(queue=QUEUE, credits=CREDITS)))
        async for response in stream:
            items |= {ref.item_key: ref.item for ref in response.leases.items}
            outcomes = [grade(items[task.item_key], task) for task in response.leases.tasks]
            if response.HasField("pulse"):  # who says nothing gets no work
                await stream.write(WorkRequest(heartbeat=Heartbeat()))
            if outcomes:
                await stream.write(WorkRequest(report=Report(outcomes=outcomes)))
                await stream.write(WorkRequest(ready=Ready(queue=QUEUE, credits=len(outcomes))))


if __name__ == "__main__":
    asyncio.run(main())
