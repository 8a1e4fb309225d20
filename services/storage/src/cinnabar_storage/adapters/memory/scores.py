"""Sums of scores, computed anew from the grades that are there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from cinnabar_storage.adapters.scores import scored
from cinnabar_storage.records import Submission
from cinnabar_storage.scoring.records import NOTHING, ScoreSums, contributions, of_contribution, plus


def scores_of(submissions: Iterable[Submission]) -> dict[tuple[str, str], ScoreSums]:
    """By item and criterion."""
    sums: defaultdict[tuple[str, str], ScoreSums] = defaultdict(lambda: NOTHING)
    for one in submissions:
        items = [scored(grade.item_id, grade.score, grade.grade) for grade in one.grades]
        graded = {item.item_id for item in items}
        complete = all(task.item_id in graded for task in one.tasks)
        for each in contributions(items, complete=complete):
            key = (each.item_id, each.criterion)
            sums[key] = plus(sums[key], of_contribution(each))
    return dict(sums)
