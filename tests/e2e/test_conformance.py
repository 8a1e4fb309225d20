"""Graders are examined against the real suite: a sound one passes, and each fault is found."""

import re
import sys
from contextlib import aclosing
from pathlib import Path

import pytest

from cinnabar.grader.v1.grade_pb2 import Answer
from cinnabar.grader.v1.item_pb2 import CustomSpec, Item
from cinnabar_client import Client
from cinnabar_client.conformance import CHECKS, Subject, checks, examine
from cinnabar_client.conformance.program import Program
from cinnabar_local.stack import Stack
from tests.support import custom_grader
from tests.support.client_cli import run

NAMES = [check.__name__.replace("_", "-") for check in CHECKS]
EXAMPLES = Path(__file__).parents[2] / "examples"
FOUND_BY = {
    "anonymous": checks.grades,
    "wavering": checks.repeats_itself,
    "stingy": checks.grades,
    "deaf-to-sigterm": checks.leaves_in_good_order,
    "fragile": checks.survives_odd_answers,
}


async def conforms(stack: Stack, tenant: str, *command: str) -> None:
    ran = await run(
        stack.addresses.envoy,
        *("conformance", "--json", str(EXAMPLES / "word-count.yaml"), "env", *command),
        token=f"dev.{tenant}.instructor.grace",
        seconds=120,
    )
    found = [(finding["check"], finding["problems"]) for finding in ran.lines]
    assert found == [(name, []) for name in NAMES], ran.err
    assert ran.code == 0


@pytest.mark.timeout(600)  # it may have to be built
async def test_the_grader_in_go_conforms(stack: Stack, tenant: str, go_grader: Path) -> None:
    await conforms(stack, tenant, f"CINNABAR_SCHEDULER={stack.addresses.schedulers[0]}", str(go_grader))


async def test_the_grader_of_ten_lines_conforms(stack: Stack, tenant: str) -> None:
    settings = (f"GRADER_SCHEDULER_TARGET={stack.addresses.schedulers[0]}", "GRADER_LISTEN=127.0.0.1:0")
    await conforms(stack, tenant, *settings, sys.executable, str(EXAMPLES / "word_count.py"))


SAID_OF = {
    "anonymous": "does not say which grader",
    "wavering": "with the same answer",
    "stingy": "not everything was graded",
    "deaf-to-sigterm": "had to be killed",
    "fragile": "not everything was graded|the program ended",
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("fault", FOUND_BY)
async def test_a_fault_is_found(stack: Stack, tenant: str, tmp_path: Path, fault: str) -> None:
    kind = f"k-{tenant[2:]}"
    subject = Subject(
        item=Item(points=4, custom=CustomSpec(kind=kind)),
        answers=[Answer(item="q", text="two words"), Answer(item="q", text="one")],
        grade_seconds=5.0,
        stop_seconds=2.0,
    )
    command = (sys.executable, custom_grader.__file__, kind, fault)
    program = Program(command, {"CINNABAR_SCHEDULER": stack.addresses.schedulers[0]}, tmp_path / "log")
    check = FOUND_BY[fault]
    async with (
        Client(stack.addresses.envoy, token=f"dev.{tenant}.instructor.grace") as client,
        aclosing(examine(client, program, subject, checks=[check])) as findings,
    ):
        found = [finding async for finding in findings]
    problems = "; ".join(found[0].problems)
    assert (len(found), re.search(SAID_OF[fault], problems) is not None) == (1, True), problems
    assert not program.running
