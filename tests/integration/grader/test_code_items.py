"""The items of the documentation, as instructors write them, graded in real boxes."""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import yaml
from google.protobuf.json_format import ParseDict

from cinnabar.grader.v1.item_pb2 import Item
from cinnabar_client.convert import assignment_from
from cinnabar_grader import code_kind
from cinnabar_grader.code.item import CodeItem
from cinnabar_grader.code_kind import open_code
from cinnabar_grader.config import GraderConfig
from cinnabar_grader.convert import compile_item
from cinnabar_grader.graders import BrokenItem, Outcome, Task
from cinnabar_grader.kinds import Opened, Opening
from cinnabar_grader.sandbox import NoSandbox, Sandbox, choose
from tests.support.grader_programs import grade

DOCS = Path(__file__).parents[3] / "docs" / "code-grading.md"
SOURCES = {
    "sum": (
        '#include <stdio.h>\nint main() { double a, b; scanf("%lf %lf", &a, &b); printf("%.2g\\n", a + b); }',
        4,
    ),
    "search": (
        "def search(x, seq): return seq.index(x)\ndef mean(n): return sum(n) / len(n) if n else inf",
        2,
    ),
    "project": ("print('hello')", 10),
}


@pytest.fixture(scope="module")
async def sandbox() -> AsyncIterator[Sandbox]:
    async with choose() as opened:
        yield opened


class Alone:
    """A kind that needs no other."""

    async def grade(self, queue: str, tasks: Sequence[Task]) -> list[Outcome]:
        raise ConnectionError(queue)


async def opened(exits: AsyncExitStack) -> Opened:
    config = GraderConfig(scheduler_target="nowhere:1", queues=("text", "code-python"))
    return await open_code(Opening(config=config, exits=exits, colleagues=Alone()))


async def test_queues_are_served_where_there_is_a_sandbox() -> None:
    async with AsyncExitStack() as exits:
        found = await opened(exits)
        assert [grader.queue for grader in found.graders] == ["code-python"]
        await found.checks["sandbox"]()


async def test_no_queue_is_served_without(monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def none(**settings: object) -> AsyncGenerator[Sandbox]:
        raise NoSandbox("tried all")
        yield

    monkeypatch.setattr(code_kind, "choose", none)
    async with AsyncExitStack() as exits:
        found = await opened(exits)
        assert (list(found.graders), dict(found.checks)) == ([], {})


def documented() -> dict[str, object]:
    texts = re.findall(r"```yaml\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    items = [item for text in texts for item in yaml.safe_load(text)]
    assignment = assignment_from({"display_name": "Docs", "items": items})
    return {item.item: compile_item(item) for item in assignment.items}


async def test_items_of_the_documentation_grade(sandbox: Sandbox) -> None:
    items = documented()
    assert items.keys() == SOURCES.keys()
    for name, (source, score) in SOURCES.items():
        item = items[name]
        assert isinstance(item, CodeItem), item
        found = await grade(sandbox, item, source)
        assert (found.score, found.needs_review) == (score, False), found.tests


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"language": "LANGUAGE_UNSPECIFIED"}, "language"),
        ({"tests": []}, "exactly one of tests and script"),
        ({"tests": [{"test": "a", "points": 2}]}, "what is done"),
        ({"tests": [{"test": "a", "points": 1, "call": {"call": "f()", "expected": "1"}}]}, "together"),
        ({"tests": [{"test": "a", "points": 2, "call": {"call": "f(", "expected": "1"}}]}, "no expression"),
        ({"tests": [{"test": "a", "points": 2, "call": {"call": "f()", "expected": "g()"}}]}, "literal"),
        ({"language": "C"}, "Python and JavaScript only"),
        ({"files": [{"path": "../x"}]}, "path"),
        ({"limits": {"memory_bytes": 1}}, "memory_bytes"),
        ({"tests": [{"test": "a", "points": 2, "stdio": {"arguments": ["a\0b"]}}]}, "NUL"),
        ({"tests": [{"test": "a", "points": 2, "stdio": {"arguments": ["a" * 65_537]}}]}, "65536 bytes"),
    ],
)
def test_items_that_make_no_sense_are_broken(change: dict[str, object], rule: str) -> None:
    tests = [{"test": "a", "points": 2, "call": {"call": "f()", "expected": "1"}}]
    code = {"language": "PYTHON", "tests": tests, **change}
    found = compile_item(ParseDict({"item": "f", "points": 2, "code": code}, Item()))
    assert isinstance(found, BrokenItem)
    assert rule in found.reason
