"""What a regrade changes, and which items it opens: sums and choices without a store."""

from __future__ import annotations

import pytest

from cinnabar_storage.records import GradeKind, TaskState
from cinnabar_storage.regrading.candidates import choose, last_fitting
from cinnabar_storage.regrading.records import Candidate, ItemPlan, Reopened
from cinnabar_storage.regrading.report import BINS, LARGEST, GradeParts, Report, Scored

PLANS = {"r1": {"q": ItemPlan("text", 4.0)}, "r2": {"q": ItemPlan("choice", 4.0)}, "gone": {}}
GRADED = Candidate("s", "r1", "q", 3, GradeKind.GRADED, 1.0, "", 5, 0)


def grade(score: float, points: float = 2.0, **criteria: tuple[float, float]) -> GradeParts:
    parts = {name: Scored(*scored) for name, scored in criteria.items()}
    return GradeParts(Scored(score, points), parts)


@pytest.mark.parametrize(
    ("change", "index"),
    [(-9.0, 0), (-1.0, 5), (-0.05, 10), (0.0, 10), (0.1, 11), (-0.1, 9), (0.09, 10), (1.0, 15), (2.0, 20)],
)
def test_a_change_is_counted_in_the_nearest_bin(change: float, index: int) -> None:
    report = Report(0.5)
    report.add("s", "q", grade(1.0), grade(1.0 + change))
    [(item, criterion, delta)] = report.deltas
    assert (item, criterion, len(delta.histogram)) == ("q", "", BINS)
    assert delta.histogram.index(1) == index
    assert (delta.mean, delta.rms) == pytest.approx((change, abs(change)))


def test_only_criteria_of_both_grades_are_compared() -> None:
    report = Report(0.5)
    report.add("s", "q", grade(1.0, a=(1.0, 1.0), gone=(0.0, 1.0)), grade(2.0, a=(1.0, 1.0), new=(1.0, 1.0)))
    assert [(item, criterion) for item, criterion, _ in report.deltas] == [("q", ""), ("q", "a")]


def test_items_pass_by_share_of_their_points() -> None:
    report = Report(0.6)
    report.add("s1", "q", grade(1.0), grade(1.2))
    report.add("s2", "q", grade(1.2), grade(1.19))
    report.add("s3", "q", grade(2.0), grade(2.0, points=4.0))
    assert (report.failed_to_passed, report.passed_to_failed) == (1, 2)
    assert (report.compared, report.raised, report.lowered, report.unchanged) == (3, 1, 1, 1)


def test_the_largest_are_kept_and_parts_add_up_to_the_whole() -> None:
    whole, parts = Report(0.5), [Report(0.5) for _ in range(3)]
    for number in range(60):
        change = (number * 37 % 60) / 60
        pair = (grade(0.0), grade(change, a=(change, 1.0)))
        whole.add(f"s{number:02}", "q", *pair)
        parts[number % 3].add(f"s{number:02}", "q", *pair)
    merged = Report.merged(0.5, parts)
    assert merged.largest == whole.largest
    assert len(whole.largest) == LARGEST
    shares = [change.share for change in whole.largest]
    assert shares == sorted((n / 120 for n in range(40, 60)), reverse=True)
    assert [delta.histogram for *_, delta in merged.deltas] == [delta.histogram for *_, delta in whole.deltas]
    assert (merged.compared, merged.raised) == (60, 59)


@pytest.mark.parametrize(
    ("change", "over_people"),
    [
        ({"generation": 0}, False),
        ({"kind": GradeKind.OVERRIDDEN}, False),
        ({"task_state": TaskState.OPEN}, False),
        ({"revision_id": "gone"}, False),
        ({"revision_id": "unknown"}, False),
    ],
)
def test_what_cannot_be_opened_is_skipped(change: dict[str, object], over_people: bool) -> None:
    one = GRADED._replace(**change)  # pyright: ignore[reportArgumentType]
    assert choose([one], PLANS, revision_id="", over_people=over_people) == ([], 1)


@pytest.mark.parametrize(
    ("change", "over_people"),
    [
        ({}, False),
        ({"kind": GradeKind.PROMOTED}, False),
        ({"kind": GradeKind.OVERRIDDEN}, True),
        ({"task_state": TaskState.CANCELLED}, False),
        ({"task_state": TaskState.DEAD_LETTERED}, False),
    ],
)
def test_what_is_opened_gets_a_generation_above_all(change: dict[str, object], over_people: bool) -> None:
    one = GRADED._replace(**change)  # pyright: ignore[reportArgumentType]
    opened, skipped = choose([one], PLANS, revision_id="", over_people=over_people)
    assert (opened, skipped) == ([Reopened("s", "q", "text", 6)], 0)


def test_another_kind_of_item_is_no_answer_to_it() -> None:
    assert choose([GRADED], PLANS, revision_id="r2") == ([], 1)


def test_what_the_filter_does_not_take_is_not_counted() -> None:
    assert choose([GRADED], PLANS, revision_id="", items=["other"]) == ([], 0)
    assert choose([GRADED], PLANS, revision_id="", score_below=0.25) == ([], 0)
    assert choose([GRADED._replace(done=True)], PLANS, revision_id="") == ([], 0)
    assert len(choose([GRADED], PLANS, revision_id="", score_below=0.26)[0]) == 1


@pytest.mark.parametrize(("limit", "last"), [(1, "b"), (2, "b"), (3, "c"), (4, "c"), (5, "e")])
def test_a_step_ends_between_submissions(limit: int, last: str) -> None:
    tasks = [Reopened(one, str(number), "text", 2) for number, one in enumerate("bbcdd")]
    assert last_fitting(list("abcde"), tasks, limit) == last
