"""Statistics and erasures over a store in memory: computed and done at once."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from hashlib import sha256

from cinnabar.grader.v1.grade_pb2 import Grade
from cinnabar_common.clock import Clock, SystemClock
from cinnabar_common.names import AssignmentName, task_id
from cinnabar_gateway.adapters.memory import MemoryStorage
from cinnabar_gateway.consistency import Position
from cinnabar_gateway.data_ports import AssignmentScores, Erasure, Scores
from cinnabar_gateway.records import CancelledTask, Submission, TaskState

_PARTS = 20


class MemoryData:
    """Implements the port DataStore."""

    def __init__(self, storage: MemoryStorage, clock: Clock | None = None) -> None:
        self._storage = storage
        self._clock = clock or SystemClock()
        self._erasures: dict[tuple[str, str], Erasure] = {}

    def _now_us(self) -> int:
        return int(self._clock.time() * 1e6)

    async def assignment_scores(self, tenant: str, name: AssignmentName) -> AssignmentScores:
        """See DataStore."""
        scores: defaultdict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
        for key, one in self._storage.submissions.items():
            if key.tenant == tenant and one.parent == name:
                for place, score in _scores_of(one):
                    scores[place].append(score)
        found = tuple(_summary(*place, given) for place, given in sorted(scores.items()))
        return AssignmentScores(found, self._now_us(), ())

    async def erase_student(
        self, tenant: str, student: str, *, erasure_id: str, actor: str, reason: str
    ) -> tuple[Erasure, list[CancelledTask], Position]:
        """See DataStore."""
        position = Position(0, 1)
        if (tenant, erasure_id) in self._erasures:
            return self._erasures[tenant, erasure_id], [], position
        gone = [
            one
            for key, one in self._storage.submissions.items()
            if key.tenant == tenant and one.author == student
        ]
        for one in gone:
            self._storage.forget(one)
        now = self._now_us()
        erasure = Erasure(
            erasure_id=erasure_id,
            subject=sha256(f"{tenant}/{student}".encode()).hexdigest(),
            actor=actor,
            reason=reason,
            submissions=len(gone),
            grades=sum(len(one.grades) for one in gone),
            objects=0,
            redacted_events=0,
            create_time_us=now,
            complete_time_us=now,
        )
        self._erasures[tenant, erasure_id] = erasure
        cancelled = [
            CancelledTask(task_id(one.submission_id, task.item), task.queue)
            for one in gone
            for task in one.tasks
            if task.state is TaskState.OPEN
        ]
        return erasure, cancelled, position

    async def get_erasure(self, tenant: str, erasure_id: str) -> Erasure | None:
        """See DataStore."""
        return self._erasures.get((tenant, erasure_id))


def _scores_of(one: Submission) -> list[tuple[tuple[str, str], tuple[float, float]]]:
    """(item, criterion) with (score, points) of all that is graded."""
    found: list[tuple[tuple[str, str], tuple[float, float]]] = []
    whole: list[tuple[float, float]] = []
    for graded in one.grades:
        grade = Grade.FromString(graded.grade)
        whole.append((graded.score, grade.max_score))
        found.append(((graded.item, ""), whole[-1]))
        found += [((graded.item, each.criterion), (each.score, each.max_score)) for each in grade.criteria]
    if whole and {task.item for task in one.tasks} <= {graded.item for graded in one.grades}:
        found.append((("", ""), (math.fsum(s for s, _ in whole), math.fsum(p for _, p in whole))))
    return found


def _summary(item: str, criterion: str, given: list[tuple[float, float]]) -> Scores:
    histogram = [0] * _PARTS
    for score, points in given:
        share = score / points if points > 0 else 1.0
        histogram[max(0, min(_PARTS - 1, math.floor(share * _PARTS + 1e-9)))] += 1
    scores = [score for score, _ in given]
    return Scores(
        item=item,
        criterion=criterion,
        count=len(scores),
        mean=statistics.fmean(scores),
        standard_deviation=statistics.pstdev(scores),
        histogram=tuple(histogram),
    )
