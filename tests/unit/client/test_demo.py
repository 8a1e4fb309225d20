"""What the demo hands in and how it counts."""

import gzip
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cinnabar_client.progress import Counts
from cinnabar_common.names import is_id
from cinnabar_local import demo
from cinnabar_local.demo import homework
from cinnabar_local.demo.agreement import agreement, percentile


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as lines:
        lines.write("\n".join(json.dumps(row) for row in rows))


def row(number: int, *, split: str = "train", qid: str = "10.1_TC", score: float = 0.5) -> dict[str, Any]:
    return {
        "id": str(number),
        "split": split,
        "qid": qid,
        "question": "Why?",
        "references": ["Because."],
        "answer": f"It is so ({number}).",
        "score": score,
    }


def test_collected_answers_become_one_assignment_a_question(tmp_path: Path) -> None:
    write(tmp_path / "saf_en.jsonl.gz", [row(1), row(2, split="test-ua"), row(3, qid="4.1_LM_v1.0")])
    write(tmp_path / "ads_zh.jsonl.gz", [row(1, qid="006", score=5.0)])
    found = homework.collected(tmp_path)
    assert found is not None
    assert [str(name) for name in found.assignments] == [
        "courses/computer-networks/assignments/q-10-1-tc",
        "courses/computer-networks/assignments/q-4-1-lm-v1-0",
        "courses/algorithms-zh/assignments/q-006",
    ]
    assert [hand_in.group for hand_in in found.hand_ins] == [
        "computer-networks/train",
        "computer-networks/test-ua",
        "computer-networks/train",
        "algorithms-zh/train",
    ]
    assert [hand_in.human["answer"] for hand_in in found.hand_ins] == [0.5] * 4
    authors = [hand_in.request.submission.author for hand_in in found.hand_ins]
    assert authors == ["student-0001", "student-0002", "student-0003", "student-0001"]


def test_a_limit_thins_each_set_evenly(tmp_path: Path) -> None:
    write(tmp_path / "saf_en.jsonl.gz", [row(number, qid=f"q{number // 10}") for number in range(100)])
    found = homework.collected(tmp_path, limit=10)
    assert found is not None
    assert len(found.hand_ins) == len(found.assignments) == 10


def test_a_folder_without_answers_is_told_when_it_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert homework.collected(tmp_path) is None
    with pytest.raises(FileNotFoundError, match="holds no collected homework"):
        demo.load(tmp_path)
    monkeypatch.setenv("CINNABAR_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="holds no collected homework"):
        demo.load()


def test_the_sample_is_handed_in_whole() -> None:
    found = homework.sample()
    assert found.tasks == 208 + 14
    assert len(found.hand_ins) == 92 + 14
    texts = {"sample en, free text", "sample zh, free text", "sample, quiz items"}
    assert set(found.groups) == texts | found.programs
    assert {hand_in.group for hand_in in found.without_programs().hand_ins} == texts
    for hand_in in found.hand_ins:
        assert is_id(hand_in.request.submission.author)
        assert {answer.item for answer in hand_in.request.submission.answers} == hand_in.human.keys()


def test_agreement_of_equal_scores_is_perfect() -> None:
    found = agreement([(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)])
    assert (found.count, found.rmse) == (3, 0.0)
    assert found.pearson == pytest.approx(1.0)


def test_agreement_by_hand() -> None:
    found = agreement([(0.0, 0.0), (1.0, 0.5), (0.5, 1.0)])
    assert found.pearson == pytest.approx(0.5)
    assert found.rmse == pytest.approx(math.sqrt(0.5 / 3))


def test_agreement_with_a_constant_has_no_r() -> None:
    assert math.isnan(agreement([(0.5, 0.0), (0.5, 1.0)]).pearson)


@pytest.mark.parametrize(("share", "value"), [(0.5, 2.0), (0.9, 4.0), (0.99, 4.0), (0.25, 1.0)])
def test_percentiles(share: float, value: float) -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], share) == value


def test_a_percentile_of_nothing_is_no_number() -> None:
    assert math.isnan(percentile([], 0.5))


def test_counts_end_with_a_plain_line_where_there_is_no_terminal() -> None:
    out = io.StringIO()
    with Counts(Console(file=out), {"accepted": 3, "graded": None}) as counts:
        counts.advance("accepted", 2)
        counts.total("graded", 2)
        counts.advance("graded")
    assert out.getvalue() == "accepted 2/3, graded 1/2\n"
