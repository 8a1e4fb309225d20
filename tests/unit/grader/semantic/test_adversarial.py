"""The guards against texts of their own, over many subjects: what must be caught, and what must pass."""

import random
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from cinnabar_grader.semantic import Flag, SemanticRequest, SemanticScore, SemanticScorer

LANGUAGES: Final = ("en", "zh")
TABLES: Final[dict[str, dict[str, Any]]] = {
    language: tomllib.loads(Path(__file__).with_name(f"adversarial_{language}.toml").read_text("utf-8"))
    for language in LANGUAGES
}
Item = dict[str, str]


def graded(scorer: SemanticScorer, language: str, answer: Callable[[Item], str]) -> list[SemanticScore]:
    """One score per item of the table for which `answer` has a text."""
    items: list[Item] = TABLES[language]["item"]
    return scorer.score(
        [
            SemanticRequest(question=item["question"], references=(item["reference"],), answer=answer(item))
            for item in items
            if answer(item)
        ]
    )


def caught(scores: list[SemanticScore], flag: Flag) -> float:
    """The share that `flag` marks for review or that gets next to nothing."""
    assert len(scores) >= 12
    return sum(flag in score.flags or score.fraction <= 0.2 for score in scores) / len(scores)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("models", [True, False], ids=["models", "words"])
@pytest.mark.parametrize(
    ("kind", "flag", "share"),
    [
        ("denied", Flag.NEGATION_MISMATCH, 1.0),
        ("keywords", Flag.KEYWORD_LIST, 1.0),
        ("opposite", Flag.CONTRADICTION, 0.8),
    ],
)
def test_wrong_in_the_words_of_the_reference(
    scorer: SemanticScorer,
    wordwise: SemanticScorer,
    language: str,
    models: bool,
    kind: str,
    flag: Flag,
    share: float,
) -> None:
    scores = graded(scorer if models else wordwise, language, lambda item: item[kind])
    assert caught(scores, flag) >= share
    assert all(score.needs_review for score in scores if flag in score.flags)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("asked", [False, True], ids=["reference", "with-question"])
def test_words_in_no_order(scorer: SemanticScorer, language: str, asked: bool) -> None:
    scores = graded(scorer, language, lambda item: _shuffled(item, language, asked=asked))
    assert caught(scores, Flag.WORD_SALAD) >= 0.9


def _shuffled(item: Item, language: str, *, asked: bool) -> str:
    """The words of the reference, and of the question if `asked`, in an order that depends on them alone."""
    text = item["reference"] + (f" {item['question']}" if asked else "")
    for mark in ",.;:?，。、；：？":
        text = text.replace(mark, "")
    pairs = [text[index : index + 2] for index in range(0, len(text), 2)]
    words = text.split() if language == "en" else pairs
    random.Random(len(text)).shuffle(words)
    return (" " if language == "en" else "").join(words)


@pytest.mark.parametrize("language", LANGUAGES)
def test_refusals_in_other_words(scorer: SemanticScorer, language: str) -> None:
    table = TABLES[language]
    items: list[Item] = table["item"]
    for index, refusal in enumerate(table["refusals"]):
        item = items[index % len(items)]
        [score] = scorer.score(
            [SemanticRequest(question=item["question"], references=(item["reference"],), answer=str(refusal))]
        )
        assert score.flags == (Flag.REFUSAL,), refusal
        assert score.fraction == 0.0


@pytest.mark.parametrize("language", LANGUAGES)
def test_honest_answers_pass(scorer: SemanticScorer, language: str) -> None:
    scores = graded(scorer, language, lambda item: item["honest"])
    assert [score.flags for score in scores] == [()] * len(scores)
    assert sum(score.fraction for score in scores) / len(scores) > 0.7


def test_a_refusal_with_a_try_is_no_refusal(scorer: SemanticScorer) -> None:
    item: Item = TABLES["en"]["item"][0]
    [score] = scorer.score(
        [
            SemanticRequest(
                question=item["question"],
                references=(item["reference"],),
                answer="I am not sure, but I think free electrons drift through the lattice.",
            )
        ]
    )
    assert Flag.REFUSAL not in score.flags
    assert score.fraction > 0.4


def test_who_denies_what_the_reference_denies_agrees(scorer: SemanticScorer) -> None:
    reference = (
        "A catalyst is not used up by the reaction; it only lowers the energy that the reaction needs."
    )
    [score] = scorer.score(
        [
            SemanticRequest(
                question="What does a catalyst do?",
                references=(reference,),
                answer="The catalyst is not used up by the reaction. It lowers the energy that is needed.",
            )
        ]
    )
    assert score.flags == ()


def test_the_same_comparison_from_the_other_side_is_no_contradiction(scorer: SemanticScorer) -> None:
    [score] = scorer.score(
        [
            SemanticRequest(
                question="Compare the speed of sound in steel and in air.",
                references=("Sound is faster in steel than in air because the atoms are coupled firmly.",),
                answer="In air the sound is slower than in steel, the atoms of which are coupled firmly.",
            )
        ]
    )
    assert Flag.CONTRADICTION not in score.flags
