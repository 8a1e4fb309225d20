"""What the regression sees of an answer and one reference: a fixed vector of numbers around 0..1."""

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from cinnabar_grader.semantic.encoders import Encoded
from cinnabar_grader.semantic.text import Analysis

__all__ = ["EMBEDDING", "LEXICAL", "Text", "features", "overlap", "soft_recall"]

LEXICAL: Final = (
    "recall", "precision", "f1",
    "new_recall", "new_precision", "new_f1",
    "trigram_recall", "trigram_f1", "bigram_recall",
    "tfidf_cosine",
    "length_ratio", "log_length", "short",
    "negation_gap", "number_recall", "question_share",
)  # fmt: skip
EMBEDDING: Final = (
    "cosine", "cosine_gain", "question_cosine",
    "soft_recall", "soft_precision", "soft_f1", "soft_recall_gain", "soft_worst",
)  # fmt: skip


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Text:
    """A text analysed and, when there is a model, encoded."""

    analysis: Analysis
    encoded: Encoded | None


def features(question: Text, reference: Text, answer: Text) -> npt.NDArray[np.float64]:
    """(len(LEXICAL),), or (len(LEXICAL) + len(EMBEDDING),) when all three are encoded."""
    lexical = _lexical(question.analysis, reference.analysis, answer.analysis)
    if question.encoded is None or reference.encoded is None or answer.encoded is None:
        return np.array(lexical)
    return np.array(lexical + _embedding(question.encoded, reference.encoded, answer.encoded))


def _lexical(question: Analysis, reference: Analysis, answer: Analysis) -> list[float]:
    recall, precision, f1 = overlap(reference.content, answer.content)
    asked = question.content
    new_reference = Counter({term: n for term, n in reference.content.items() if term not in asked})
    new_answer = Counter({term: n for term, n in answer.content.items() if term not in asked})
    new = overlap(new_reference, new_answer) if new_reference else (recall, precision, f1)
    trigram_recall, _, trigram_f1 = overlap(reference.trigrams, answer.trigrams)
    bigram_recall, _, _ = overlap(reference.bigrams, answer.bigrams)
    ratio = (answer.length + 1) / (reference.length + 1)
    total = sum(answer.content.values())
    return [
        recall, precision, f1, *new, trigram_recall, trigram_f1, bigram_recall,
        _cosine(reference.content, answer.content, asked),
        min(1.0, ratio), math.tanh(math.log(ratio)), math.exp(-answer.length / 8),
        _negation_gap(reference, answer),
        _share(reference.numbers, answer.numbers),
        1 - sum(new_answer.values()) / total if total else 1.0,
    ]  # fmt: skip


def _embedding(question: Encoded, reference: Encoded, answer: Encoded) -> list[float]:
    cosine = float(reference.vector @ answer.vector)
    floor = float(reference.vector @ question.vector)
    best, best_back = _alignment(reference, answer), _alignment(answer, reference)
    recall, precision = _weighted(best, reference.weights), _weighted(best_back, answer.weights)
    # The question's own parts are no news: what counts is how much closer the answer comes than the question.
    asked = _alignment(reference, question)
    return [
        cosine,
        (cosine - floor) / max(0.2, 1 - floor),
        float(question.vector @ answer.vector),
        recall,
        precision,
        2 * recall * precision / (recall + precision) if recall + precision > 0 else 0.0,
        _weighted(best - asked, reference.weights),
        _worst(best, reference.weights),
    ]


def soft_recall(reference: Encoded, answer: Encoded) -> float:
    """Weighted mean over the reference's parts of the best cosine to a part of the answer."""
    return _weighted(_alignment(reference, answer), reference.weights)


def overlap(reference: Mapping[T, int], answer: Mapping[T, int]) -> tuple[float, float, float]:
    """Recall (share of distinct reference terms present), precision (share of answer terms wanted), F1."""
    if not reference or not answer:
        return 0.0, 0.0, 0.0
    shared = reference.keys() & answer.keys()
    recall, precision = len(shared) / len(reference), len(shared) / len(answer)
    return recall, precision, 2 * recall * precision / (recall + precision) if shared else 0.0


def _cosine(reference: Mapping[str, int], answer: Mapping[str, int], asked: Collection[str]) -> float:
    """TF-IDF cosine; the idf here is 1, or 1/2 for terms that the question hands out."""

    def weigh(terms: Mapping[str, int]) -> dict[str, float]:
        return {term: (1 + math.log(n)) * (0.5 if term in asked else 1.0) for term, n in terms.items()}

    left, right = weigh(reference), weigh(answer)
    dot = sum(weight * right.get(term, 0.0) for term, weight in left.items())
    norm = math.sqrt(sum(w * w for w in left.values()) * sum(w * w for w in right.values()))
    return dot / norm if norm else 0.0


def _negation_gap(reference: Analysis, answer: Analysis) -> float:
    """1 when one text negates an odd number of times and the other an even number."""
    return float((reference.negations - answer.negations) % 2)


def _share(wanted: frozenset[str], found: frozenset[str]) -> float:
    return len(wanted & found) / len(wanted) if wanted else 0.5


def _alignment(left: Encoded, right: Encoded) -> npt.NDArray[np.float32]:
    """(P,) for each part of `left` its best cosine among the parts of `right`; 0 without any."""
    if not len(left.parts) or not len(right.parts):
        return np.zeros(len(left.parts), dtype=np.float32)
    return (left.parts @ right.parts.T).max(axis=1)


def _weighted(values: npt.NDArray[np.float32], weights: npt.NDArray[np.float32]) -> float:
    total = float(weights.sum())
    return float(values @ weights) / total if total > 0 else 0.0


def _worst(values: npt.NDArray[np.float32], weights: npt.NDArray[np.float32]) -> float:
    """Mean of the quarter of the informative parts that is matched worst: what is missing altogether."""
    chosen = values[weights >= np.median(weights)] if len(values) else values
    if not len(chosen):
        return 0.0
    count = max(1, len(chosen) // 4)
    return float(np.partition(chosen, count - 1)[:count].mean())
