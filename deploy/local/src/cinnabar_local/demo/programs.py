"""Programs that students wrote, with the tests of their course: collected ones, or the sample that ships."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import yaml
from google.protobuf.duration_pb2 import Duration

from cinnabar.grader.v1.item_pb2 import CallTest, CodeLimits, CodeSpec, CodeTest, Item

_LIMITS = CodeLimits(cpu_time=Duration(seconds=1), wall_time=Duration(seconds=10))
ITEM = "program"
_POINT = 1.0  # of a test
_FILES = ("python_tasks.json", "python_submissions.jsonl.gz")


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program for the item ``task``, and whether its course took it as correct."""

    task: str
    source: str
    correct: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """Items by name, and programs for them."""

    title: str
    items: Mapping[str, Item]
    programs: Sequence[Program]


def collected(folder: Path) -> Programs | None:
    """The programs of ``folder``; None when it holds none."""
    tasks, submissions = (folder / name for name in _FILES)
    if not tasks.exists() or not submissions.exists():
        return None
    with gzip.open(submissions, "rt", encoding="utf-8") as lines:
        rows = [cast("dict[str, Any]", json.loads(line)) for line in lines]
    found = cast("dict[str, dict[str, Any]]", json.loads(tasks.read_text("utf-8")))
    return Programs(
        title="real programs: Python collected from students",
        items={name: _item(task) for name, task in found.items()},
        programs=[
            Program(task=row["qid"], source=row["code"], correct=row["label"] == "correct") for row in rows
        ],
    )


def sample() -> Programs:
    """The programs that ship with the stack."""
    text = (files("cinnabar_local") / "sample" / "programs.yaml").read_text(encoding="utf-8")
    found = cast("dict[str, dict[str, Any]]", yaml.safe_load(text))
    return Programs(
        title="the sample programs that ship with Cinnabar",
        items={name: _item(task) for name, task in found.items()},
        programs=[
            Program(task=name, source=source, correct=label == "correct")
            for name, task in found.items()
            for label in ("correct", "wrong")
            for source in task[label]
        ],
    )


def _item(task: Mapping[str, Any]) -> Item:
    """An item of call tests, of which the second half is hidden."""
    tests = [
        CodeTest(
            test=f"test-{number}",
            title=f"Test {number}",
            points=_POINT,
            hidden=number > (len(task["tests"]) + 1) // 2,
            call=CallTest(call=str(test["call"]), expected=str(test["expected"])),
        )
        for number, test in enumerate(task["tests"], start=1)
    ]
    return Item(
        item=ITEM,
        prompt=str(task["description"]).strip(),
        points=_POINT * len(tests),
        code=CodeSpec(
            language=CodeSpec.PYTHON, tests=tests, preamble=task.get("preamble", ""), limits=_LIMITS
        ),
    )
