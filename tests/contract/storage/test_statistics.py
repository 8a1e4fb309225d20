"""What every shard promises about the sums of scores, whatever happens to grades."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence

import pytest

from cinnabar.grader.v1.grade_pb2 import CriterionScore, Grade
from cinnabar_storage.records import Graded, NewSubmission, TaskKey
from cinnabar_storage.scoring.records import (
    BINS,
    ScoredItem,
    ScoreStatistics,
    contributions,
    of_contribution,
    plus,
    share_of,
    statistics_of,
)
from cinnabar_storage.scoring.statistics import Statistics
from tests.contract.storage.conftest import Stored
from tests.support.storage_domain import dead_letter, grade, key, new_tenant, submission
from tests.support.waiting import until


def graded(row: NewSubmission, item: str, parts: Sequence[tuple[float, float]], *, fence: int = 1) -> Graded:
    """A grade with a criterion "c1", "c2", … for each pair of score and maximum."""
    message = Grade(
        score=sum(score for score, _ in parts),
        max_score=sum(best for _, best in parts),
        criteria=[
            CriterionScore(criterion=f"c{number}", score=score, max_score=best)
            for number, (score, best) in enumerate(parts, start=1)
        ],
    )
    outcome = grade(row, item, fence=fence)
    return outcome._replace(score=message.score, grade=message.SerializeToString())


async def counted(
    stored: Stored, tenant: str, wanted: int, item: str = ""
) -> dict[tuple[str, str], ScoreStatistics]:
    """The statistics once so many scores of the item are counted."""
    found: dict[tuple[str, str], ScoreStatistics] = {}

    async def enough() -> bool:
        nonlocal found
        scores, _, unreachable = await Statistics(stored.shards).of(tenant, "net", "a1")
        assert unreachable == []
        found = {(one.item_id, one.criterion): one for one in scores}
        return (found[item, ""].number if (item, "") in found else 0) == wanted

    await until(enough, description="the grades are counted")
    return found


async def test_scores_are_counted_by_item_and_criterion(stored: Stored) -> None:
    tenant = new_tenant()
    chance = random.Random(7)
    rows = [submission(tenant, items=("q1", "q2")) for _ in range(40)]
    await stored.submissions.create(rows)
    scores: dict[tuple[str, str], list[float]] = {}
    outcomes: list[Graded] = []
    for row in rows[:30]:
        first = [(round(chance.random() * 3, 2), 3.0), (round(chance.random(), 2), 1.0)]
        second = [(float(chance.randint(0, 2)), 2.0)]
        outcomes += [graded(row, "q1", first), graded(row, "q2", second)]
        for item, parts in (("q1", first), ("q2", second)):
            scores.setdefault((item, ""), []).append(sum(score for score, _ in parts))
            for number, (score, _) in enumerate(parts, start=1):
                scores.setdefault((item, f"c{number}"), []).append(score)
        scores.setdefault(("", ""), []).append(sum(score for score, _ in (*first, *second)))
    # Of these not every item is graded: they count by item only.
    outcomes += [graded(rows[30], "q1", [(3.0, 3.0), (1.0, 1.0)])]
    scores["q1", ""].append(4.0)
    scores["q1", "c1"].append(3.0)
    scores["q1", "c2"].append(1.0)
    await stored.tasks.commit(outcomes)
    await stored.tasks.commit([dead_letter(rows[30], "q2")])
    found = await counted(stored, tenant, 31, "q1")
    assert found.keys() == scores.keys()
    for name, given in scores.items():
        one = found[name]
        assert one.number == len(given)
        assert one.mean == pytest.approx(statistics.fmean(given), abs=1e-6)
        assert one.standard_deviation == pytest.approx(statistics.pstdev(given), abs=1e-6)
        assert sum(one.histogram) == len(given)
    assert found["q2", ""].histogram[0] == scores["q2", ""].count(0.0)
    assert found["q2", ""].histogram[10] == scores["q2", ""].count(1.0)
    assert found["q2", ""].histogram[19] == scores["q2", ""].count(2.0)


async def test_other_tenants_and_assignments_are_not_counted(stored: Stored) -> None:
    tenant = new_tenant()
    mine, other, foreign = submission(tenant), submission(tenant, assignment="a2"), submission(new_tenant())
    await stored.submissions.create([mine, other, foreign])
    await stored.tasks.commit([graded(row, "q1", [(1.0, 2.0)]) for row in (other, foreign, mine)])
    found = await counted(stored, tenant, 1)
    assert found["q1", ""] == ScoreStatistics("q1", "", 1, 1.0, 0.0, (*[0] * 10, 1, *[0] * 9))


async def test_what_is_cancelled_or_open_does_not_count(stored: Stored) -> None:
    tenant = new_tenant()
    rows = [submission(tenant, items=("q1", "q2")) for _ in range(3)]
    await stored.submissions.create(rows)
    await stored.tasks.commit([graded(row, "q1", [(1.0, 1.0)]) for row in rows])
    await stored.submissions.cancel([key(rows[0])], "ann")
    await stored.tasks.commit([dead_letter(rows[1], "q2")])
    found = await counted(stored, tenant, 3, "q1")
    assert ("", "") not in found
    await stored.tasks.redrive(tenant, [TaskKey(rows[1].submission_id, "q2")], "root")
    await stored.tasks.commit([graded(rows[1], "q2", [(0.0, 1.0)], fence=2)])
    assert (await counted(stored, tenant, 1))["", ""].mean == 1.0


async def test_a_grade_that_is_no_message_counts_by_its_score(stored: Stored) -> None:
    tenant = new_tenant()
    row = submission(tenant)
    await stored.submissions.create([row])
    await stored.tasks.commit([grade(row)._replace(grade=b"\xff\xff")])
    found = await counted(stored, tenant, 1)
    assert (found["q1", ""].mean, found.keys()) == (1.5, {("", ""), ("q1", "")})


@pytest.mark.parametrize(
    ("score", "best", "part"),
    [(0, 1, 0), (0.0499, 1, 0), (0.05, 1, 1), (0.15, 1, 3), (0.55, 1, 11), (0.29, 0.58, 10), (1, 1, 19),
     (2, 1, 19), (-1, 1, 0), (0, 0, 19), (0.7, 1, 14), (1.1, 2, 11)],
)  # fmt: skip
def test_shares(score: float, best: float, part: int) -> None:
    assert share_of(score, best) == part


def test_what_is_taken_away_leaves_nothing() -> None:
    chance = random.Random(3)
    sums = of_contribution(contributions([ScoredItem("q", 1.0, 2.0, ())], complete=False)[0])
    start = sums
    others = [
        contributions([ScoredItem("q", chance.random() * 1e6, 1e6, ())], complete=False)[0]
        for _ in range(999)
    ]
    for one in others:
        sums = plus(sums, of_contribution(one))
    assert statistics_of("q", "", sums).number == 1000
    chance.shuffle(others)
    for one in others:
        sums = plus(sums, of_contribution(one, -1))
    assert sums == start
    assert len(sums.histogram) == BINS
