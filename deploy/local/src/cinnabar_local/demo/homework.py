"""What the demo hands in: the collected answers where they are, the sample that ships otherwise."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml

from cinnabar.gateway.v1.assignment_service_pb2 import Assignment
from cinnabar.gateway.v1.submission_service_pb2 import CreateSubmissionRequest
from cinnabar.grader.v1.grade_pb2 import Answer
from cinnabar.grader.v1.item_pb2 import FreeTextSpec, Item
from cinnabar_client import submission_request
from cinnabar_client.convert import answers_to, drafts
from cinnabar_common.names import AssignmentName
from cinnabar_local.demo import programs
from cinnabar_local.demo.programs import Programs

T = TypeVar("T")
_NOT_IN_IDS = re.compile(r"[^a-z0-9]+")
_POINTS = 10.0  # of a collected answer's question
_PROGRAMMING = "programming-101"
_PROGRAMS = 60  # that are handed in, of all that there are
_REFERENCES = 20  # most that an item may have


@dataclass(frozen=True, slots=True, kw_only=True)
class HandIn:
    """A submission to make, and what a teacher gave for each of its items, from 0 to 1, in which group."""

    request: CreateSubmissionRequest
    human: Mapping[str, float]
    group: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Answers that are compared with their teachers' scores together. ``bar`` is what to reach.

    ``note`` says whether the grader's weights have seen these answers.
    """

    title: str
    bar: str = ""
    note: str = ""


@dataclass(slots=True, kw_only=True)
class Homework:
    """Assignments by name, and what is handed in to them."""

    title: str
    assignments: dict[AssignmentName, Assignment] = field(default_factory=dict[AssignmentName, Assignment])
    hand_ins: list[HandIn] = field(default_factory=list[HandIn])
    groups: dict[str, Group] = field(default_factory=dict[str, Group])
    programs: frozenset[str] = frozenset()
    """Groups of programs: what they are compared with is whether their course took them as correct."""

    def without_programs(self) -> Homework:
        """All but the programs, for a suite that cannot run them."""
        return replace(
            self,
            hand_ins=[one for one in self.hand_ins if one.group not in self.programs],
            programs=frozenset(),
        )

    @property
    def tasks(self) -> int:
        """Items to be graded, over all submissions."""
        return sum(len(hand_in.request.submission.answers) for hand_in in self.hand_ins)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Collection:
    file: str
    course: str
    title: str
    scale: float
    groups: Mapping[str, Group]  # by split


_FITTED = "the shipped weights were fitted on these answers"
_COLLECTIONS = (
    _Collection(
        file="saf_en.jsonl.gz",
        course="computer-networks",
        title="Computer networks",
        scale=1.0,
        groups={
            "test-ua": Group(
                title="saf_en test-ua", bar="r ≥ 0.80, RMSE ≤ 0.23", note="never seen by the weights"
            ),
            "train": Group(title="saf_en train", note=_FITTED),
        },
    ),
    _Collection(
        file="ads_zh.jsonl.gz",
        course="algorithms-zh",
        title="算法与数据结构",
        scale=10.0,
        groups={
            "train": Group(
                title="ads_zh", bar="r ≥ 0.50, RMSE ≤ 0.27", note=f"bar: held out by question; {_FITTED}"
            )
        },
    ),
)


def collected(folder: Path, *, limit: int | None = None) -> Homework | None:
    """The collected answers of ``folder``, at most ``limit`` of each set; None when it holds none of them."""
    homework = Homework(title="real homework: short answers collected from students")
    for collection in _COLLECTIONS:
        path = folder / collection.file
        if not path.exists():
            continue
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            rows = [cast("dict[str, Any]", json.loads(line)) for line in lines]
        _add(homework, collection, _thinned(rows, limit))
    found = programs.collected(folder)
    if found is not None:
        _add_programs(homework, found, limit)
    return homework if homework.hand_ins else None


def sample(*, limit: int | None = None) -> Homework:
    """The homework that ships with the stack."""
    folder = files("cinnabar_local") / "sample"
    homework = Homework(title="the sample homework that ships with Cinnabar")
    for draft in drafts(yaml.safe_load((folder / "assignments.yaml").read_text(encoding="utf-8"))):
        name = AssignmentName(draft.course, draft.assignment_id)
        homework.assignments[name] = draft.assignment
    handed: dict[tuple[AssignmentName, str], list[dict[str, Any]]] = {}
    for line in (folder / "answers.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        handed.setdefault((AssignmentName(row["course"], row["assignment"]), row["author"]), []).append(row)
    for (name, author), rows in _thinned(list(handed.items()), limit):
        assignment = homework.assignments[name]
        free = assignment.items[0].HasField("free_text")
        group = f"sample {rows[0]['language']}, free text" if free else "sample, quiz items"
        homework.groups.setdefault(group, Group(title=group))
        homework.hand_ins.append(
            HandIn(
                request=submission_request(
                    name, answers_to(assignment, {row["item"]: row["answer"] for row in rows}), author=author
                ),
                human={row["item"]: float(row["score"]) for row in rows},
                group=group,
            )
        )
    _add_programs(homework, programs.sample(), limit)
    return homework


def _add_programs(homework: Homework, found: Programs, limit: int | None) -> None:
    """Some of the programs: each takes a box or two, where a text takes some milliseconds."""
    group = found.title
    homework.groups[group] = Group(title=group)
    homework.programs |= {group}
    for task, item in found.items.items():
        name = AssignmentName(_PROGRAMMING, _question_id(task))
        homework.assignments[name] = Assignment(display_name=f"Programming: {task}", items=[item])
    chosen = _thinned(found.programs, min(limit or _PROGRAMS, _PROGRAMS))
    for number, program in enumerate(chosen, start=1):
        name = AssignmentName(_PROGRAMMING, _question_id(program.task))
        answers = [Answer(item=programs.ITEM, text=program.source)]
        homework.hand_ins.append(
            HandIn(
                request=submission_request(name, answers, author=f"programmer-{number:04d}"),
                human={programs.ITEM: float(program.correct)},
                group=group,
            )
        )


def _add(homework: Homework, collection: _Collection, rows: Sequence[dict[str, Any]]) -> None:
    for split, group in collection.groups.items():
        homework.groups[f"{collection.course}/{split}"] = group
    for number, row in enumerate(rows, start=1):
        name = AssignmentName(collection.course, _question_id(row["qid"]))
        if name not in homework.assignments:
            homework.assignments[name] = Assignment(
                display_name=f"{collection.title}: {row['qid']}",
                items=[
                    Item(
                        item="answer",
                        prompt=row["question"],
                        points=_POINTS,
                        free_text=FreeTextSpec(references=row["references"][:_REFERENCES]),
                    )
                ],
            )
        homework.hand_ins.append(
            HandIn(
                # The authors are not known: each answer gets one of its own.
                request=submission_request(
                    name, [Answer(item="answer", text=row["answer"])], author=f"student-{number:04d}"
                ),
                human={"answer": float(row["score"]) / collection.scale},
                group=f"{collection.course}/{row['split']}",
            )
        )


def _question_id(text: str) -> str:
    return f"q-{_NOT_IN_IDS.sub('-', text.lower()).strip('-')}"


def _thinned(rows: Sequence[T], limit: int | None) -> Sequence[T]:
    """About ``limit`` of the rows, evenly over all of them."""
    if limit is None or limit >= len(rows):
        return rows
    return [rows[index * len(rows) // limit] for index in range(limit)]
