"""A grader of the kind given that does one thing wrong, the ``fault`` given: for who examines graders.

As a program: ``custom_grader.py KIND FAULT`` with CINNABAR_SCHEDULER in the environment.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from itertools import count

import grpc

from cinnabar.grader.v1.grade_pb2 import CriterionScore, Grade, Provenance
from cinnabar.grader.v1.item_pb2 import Item
from cinnabar.scheduler.v1 import work_service_pb2 as pb
from cinnabar.scheduler.v1.work_service_pb2_grpc import WorkServiceStub

FAULTS = ("none", "anonymous", "wavering", "stingy", "deaf-to-sigterm", "fragile")
CREDITS = 16
_numbers = count()


def grade(fault: str, item: Item, text: str) -> Grade:
    """As many points as there are words, up to those of the item."""
    if fault == "fragile" and not text.strip():
        sys.exit(3)
    score = min(item.points, float(len(text.split())))
    if fault == "wavering":
        score = item.points * (next(_numbers) % 7) / 7
    made_by = Provenance() if fault == "anonymous" else Provenance(grader="words", version="1")
    part = CriterionScore(criterion="answer", score=score, max_score=item.points, provenance=made_by)
    return Grade(score=score, max_score=item.points, criteria=[part])


async def main(kind: str, fault: str) -> None:
    """Works until it is told to stop, and then leaves what it holds to others."""
    queue, items, stopped = f"custom-{kind}", dict[str, Item](), asyncio.Event()
    handler = (lambda: None) if fault == "deaf-to-sigterm" else stopped.set
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, handler)
    async with grpc.aio.insecure_channel(os.environ["CINNABAR_SCHEDULER"]) as channel:
        stream = WorkServiceStub(channel).Work()
        await stream.write(pb.WorkRequest(hello=pb.Hello(worker=f"words-{os.getpid()}", queues=[queue])))
        await stream.write(pb.WorkRequest(ready=pb.Ready(queue=queue, credits=CREDITS)))

        async def work() -> None:
            async for response in stream:
                items.update({ref.item_key: ref.item for ref in response.leases.items})
                outcomes = [
                    pb.Outcome(
                        lease_token=task.lease_token,
                        grade=grade(fault, items[task.item_key], task.answer.text),
                    )
                    for task in response.leases.tasks
                ]
                if response.HasField("pulse"):
                    await stream.write(pb.WorkRequest(heartbeat=pb.Heartbeat()))
                if outcomes:
                    await stream.write(pb.WorkRequest(report=pb.Report(outcomes=outcomes)))
                    if fault != "stingy":
                        more = pb.Ready(queue=queue, credits=len(outcomes))
                        await stream.write(pb.WorkRequest(ready=more))

        working = asyncio.create_task(work())
        leaving = asyncio.create_task(stopped.wait())
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
