"""Texts taken apart, and the numbers made of them."""

import numpy as np
import pytest

from cinnabar_grader.semantic import Calibration
from cinnabar_grader.semantic.features import LEXICAL, Text, features, overlap
from cinnabar_grader.semantic.text import MAX_CHARS, Script, analyse, clauses, clean, script_of, stem
from cinnabar_grader.semantic.weights import load_weights

QUESTION = "Why is the sky blue?"
REFERENCE = "Air scatters blue light more strongly than red light."


def lexical(answer: str, *, question: str = QUESTION, reference: str = REFERENCE) -> dict[str, float]:
    texts = [Text(analyse(clean(text)[0]), None) for text in (question, reference, answer)]
    return dict(zip(LEXICAL, features(*texts).tolist(), strict=True))


def test_recall_counts_content_words_in_any_inflection() -> None:
    found = lexical("The air is scattering the light.")
    assert found["recall"] == pytest.approx(3 / 6)  # of air, scatter, blue, light, strong, red
    assert lexical(REFERENCE)["recall"] == 1.0
    assert lexical("Bananas")["recall"] == 0.0


def test_words_of_the_question_are_no_news() -> None:
    found = lexical("The sky is blue.")
    assert found["recall"] > 0
    assert found["new_recall"] == 0.0


def test_order_is_lost_when_words_are_shuffled() -> None:
    straight, shuffled = lexical(REFERENCE), lexical("red than light strongly more blue scatters air light")
    assert straight["recall"] == shuffled["recall"]
    assert straight["order"] == 1.0
    assert shuffled["order"] < 0.6


def test_opposite_verdicts_show() -> None:
    reference = "No. Glass is an amorphous solid."
    assert lexical("no, it is a solid", reference=reference)["verdict"] == 1
    assert lexical("Yes, it flows.", reference=reference)["verdict"] == -1
    assert lexical("正确，可以删除。", reference="错误，不能删除。")["verdict_against"] == 1
    assert lexical("It flows.", reference=reference)["verdict"] == 0


def test_numbers_are_looked_for() -> None:
    assert lexical("about 300 km", reference="It takes 8 minutes for 300 units.")["number_recall"] == 0.5
    assert lexical("anything")["number_recall"] == 0.5


def test_negation_parity() -> None:
    assert lexical("Air does not scatter blue light.")["negation_gap"] == 1.0
    assert lexical("Air scatters blue light.")["negation_gap"] == 0.0


def test_chinese_content_is_character_bigrams() -> None:
    assert set(analyse("光合作用").content) == {"光合", "合作", "作用"}
    assert analyse("光合作用").dense
    assert set(analyse("O(n) 时间复杂度").content) >= {"时间", "复杂", "o", "n"}


@pytest.mark.parametrize(
    ("texts", "script"),
    [
        (("Why?", "Because the light is scattered."), Script.ENGLISH),
        (("为什么？", "因为TCP是面向连接的。"), Script.CHINESE),
        (("Warum ist das so?", "Weil die Luft das Licht streut und nicht absorbiert."), Script.OTHER),
        (("Почему небо голубое?", "Воздух рассеивает свет."), Script.OTHER),
        (("", "42"), Script.ENGLISH),
    ],
)
def test_script(texts: tuple[str, ...], script: Script) -> None:
    assert script_of(texts) is script


@pytest.mark.parametrize(
    ("words", "shared"),
    [
        (("scatters", "scattered", "scattering", "scatter"), "scatter"),
        (("stops", "stopped", "stopping"), "stop"),
    ],
)
def test_inflections_share_a_stem(words: tuple[str, ...], shared: str) -> None:
    assert {stem(word) for word in words} == {shared}


@pytest.mark.parametrize("word", ["bus", "class", "is", "string", "red", "光", "über", "tcp"])
def test_short_words_stay(word: str) -> None:
    assert stem(word) == word


def test_clauses_join_short_pieces() -> None:
    assert clauses("Air scatters light. Yes. Blue light most of all.", dense=False) == [
        "Air scatters light",
        "Yes Blue light most of all",
    ]
    assert clauses("", dense=True) == []


def test_clean_is_bounded() -> None:
    text, cut = clean("\ufdfa" * (MAX_CHARS + 1))
    assert cut
    assert len(text) <= MAX_CHARS
    assert clean("a\x00b\u202ec\n d") == ("a bc d", False)
    assert clean("ig\u200bno\u00adre") == ("ignore", False)


def test_overlap_of_nothing() -> None:
    assert overlap({}, {"a": 1}) == (0.0, 0.0, 0.0)
    assert overlap({"a": 1, "b": 1}, {"a": 3}) == (0.5, 1.0, pytest.approx(2 / 3))


def test_shipped_weights_fit_the_features() -> None:
    weights = load_weights()
    assert set(weights) == {"en", "zh", "other", "lexical-en", "lexical-zh"}
    for ridge in weights.values():
        assert ridge.coefficients.shape == ridge.low.shape == ridge.high.shape == (len(ridge.names),)
        extremes = np.array([[-1e9] * len(ridge.names), [1e9] * len(ridge.names)])
        assert ((ridge.predict(extremes) >= 0) & (ridge.predict(extremes) <= 1)).all()


def test_calibration_learns_a_teachers_scale() -> None:
    ours = [i / 20 for i in range(20)] * 5
    strict = Calibration.fit(ours, [max(0.0, x - 0.3) for x in ours])
    assert strict.apply(0.8) == pytest.approx(0.5, abs=0.06)
    same = Calibration.fit(ours, ours)
    assert same.apply(0.4) == pytest.approx(0.4, abs=0.01)
    assert Calibration(scale=3, offset=0.5).apply(1.0) == 1.0
    with pytest.raises(ValueError, match="at least 10"):
        Calibration.fit([0.5] * 9, [0.5] * 9)
