"""The examples that the README shows do what they say."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import yaml

from cinnabar.grader.v1.grade_pb2 import Answer
from cinnabar.grader.v1.item_pb2 import Item, TextSpec
from tests.support.client_fixtures import world
from tests.support.grader_scheduler import Homework, MemoryScheduler, scheduler_running

EXAMPLES = Path(__file__).parents[3] / "examples"


async def test_the_client_prints_a_grade() -> None:
    async with world() as w:
        quiz = yaml.safe_load((EXAMPLES / "networks-quiz.yaml").read_text("utf-8"))
        await w.client.create_assignment(quiz["course"], quiz)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(EXAMPLES / "client.py")),
            env=os.environ | {"CINNABAR_ADDRESS": w.address, "CINNABAR_TOKEN": "dev.t.student.ada"},
            stdout=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(30):
            out, _ = await process.communicate()
        assert process.returncode == 0
        assert "8 of 8 points" in out.decode()


async def test_the_grader_keeps_the_protocol_and_grades() -> None:
    item = Item(item="q", points=2, text=TextSpec(accepted=["photosynthesis"]))
    given = {"right": "photosynthesis", "typo": "photosyntesis", "wrong": "osmosis"}
    scheduler = MemoryScheduler()
    for name, text in given.items():
        await scheduler.put(Homework(f"{name}/q", "text", "r/q", item, Answer(item="q", text=text)))
    async with scheduler_running(scheduler) as address:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(EXAMPLES / "grader.py")), env=os.environ | {"CINNABAR_SCHEDULER": address}
        )
        try:
            await scheduler.until(lambda: len(scheduler.graded) == len(given), "everything is graded")
        finally:
            process.send_signal(signal.SIGKILL)
            await process.wait()
    scores = {task.partition("/")[0]: outcome.grade.score for task, outcome in scheduler.graded.items()}
    assert scores["right"] == 2
    assert 1.6 < scores["typo"] < 2
    assert scores["wrong"] == 0
    assert not scheduler.violations
