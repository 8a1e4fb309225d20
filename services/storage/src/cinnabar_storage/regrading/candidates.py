"""Which items a regrade opens again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cinnabar_storage.records import GradeKind, TaskState
from cinnabar_storage.regrading.records import Candidate, Plans, Reopened


def choose(
    candidates: Iterable[Candidate],
    plans: Plans,
    *,
    revision_id: str,
    items: Sequence[str] = (),
    score_below: float | None = None,
    over_people: bool = False,
) -> tuple[list[Reopened], int]:
    """The tasks to open, and how many items are meant but cannot be opened.

    An item is meant when the same regrade has not opened it before, when it is
    among ``items`` (all when there are none), and when its grade is below the share
    ``score_below`` of its points. It can be opened when it has a grade that no
    person gave (or ``over_people``), no open task, and is graded in the same queue
    by ``revision_id`` (its own when empty) as before.
    """
    wanted = frozenset(items)
    opened: list[Reopened] = []
    skipped = 0
    for one in candidates:
        if one.done or (wanted and one.item_id not in wanted):
            continue
        if score_below is not None and not _is_below(one, plans, score_below):
            continue
        own = plans.get(one.revision_id, {}).get(one.item_id)
        target = plans.get(revision_id or one.revision_id, {}).get(one.item_id)
        if (
            one.generation == 0
            or (one.kind == GradeKind.OVERRIDDEN and not over_people)
            or one.task_state == TaskState.OPEN
            or own is None
            or target is None
            or own.queue != target.queue
        ):
            skipped += 1
        else:
            opened.append(Reopened(one.submission_id, one.item_id, target.queue, one.last_generation + 1))
    return opened, skipped


def _is_below(one: Candidate, plans: Plans, share: float) -> bool:
    plan = plans.get(one.graded_by or one.revision_id, {}).get(one.item_id)
    return one.generation > 0 and plan is not None and one.score < share * plan.points


def last_fitting(submission_ids: Sequence[str], tasks: Sequence[Reopened], limit: int) -> str:
    """The submission to stop after, so that whole submissions give at most ``limit`` tasks but at least one.

    ``submission_ids``, not empty, and ``tasks`` of them, both ascending by submission.
    """
    if len(tasks) <= limit:
        return submission_ids[-1]
    first_left_out = tasks[limit].submission_id
    if tasks[0].submission_id == first_left_out:
        return first_left_out
    return max(one for one in submission_ids if one < first_left_out)
