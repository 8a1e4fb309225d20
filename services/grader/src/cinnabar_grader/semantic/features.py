"""What the regression sees of an answer and one reference: a fixed vector of numbers around 0..1."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from cinnabar_grader.semantic.encoders import Encoded
from cinnabar_grader.semantic.text import Analysis

__all__ = ["EMBEDDING", "LEXICAL", "Text", "common_subsequence", "features", "overlap"]

LEXICAL: Final = (
    "recall",  # content words of the reference that the answer has
    "new_recall",  # the same without the question's words
    "new_precision",
    "trigram_recall",  # character trigrams: inflection, compounds, typing errors
    "order",  # longest common subsequence of content words, per reference word
    "number_recall",  # numbers of the reference; 1/2 when it has none
    "negation_gap",  # 1 when one of the two negates an odd number of times
    "verdict",  # 1 both open with the same yes or no, −1 with opposite ones, 0 otherwise
    "verdict_against",  # 1 for opposite ones: being wrong costs more than being right gains
    "log_length",  # tanh of the log of the ratio of lengths
    "short",  # exp(−tokens / 8); for the confidence only
)
EMBEDDING: Final = (
    "cosine",
    "cosine_gain",  # how much closer to the reference than the question is, of what is possible
    "soft_recall",  # weighted mean over the reference's parts of the best cosine in the answer
    "soft_gain",  # the same above what the question reaches, over parts that are not the question's
    "soft_gain_share",  # the same as a share of what is possible, over all parts
)

_Term = TypeVar("_Term")


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
    recall, _, _ = overlap(reference.content, answer.content)
    asked = question.content
    new_reference = {term: n for term, n in reference.content.items() if term not in asked}
    new_answer = {term: n for term, n in answer.content.items() if term not in asked}
    new_recall, new_precision, _ = overlap(new_reference or reference.content, new_answer)
    verdicts = reference.verdict * answer.verdict
    return [
        recall,
        new_recall,
        new_precision,
        overlap(reference.trigrams, answer.trigrams)[0],
        common_subsequence(reference.sequence, answer.sequence) / max(1, len(reference.sequence)),
        len(reference.numbers & answer.numbers) / len(reference.numbers) if reference.numbers else 0.5,
        float((reference.negations - answer.negations) % 2),
        float(verdicts),
        float(verdicts < 0),
        math.tanh(math.log((answer.length + 1) / (reference.length + 1))),
        math.exp(-answer.length / 8),
    ]


def _embedding(question: Encoded, reference: Encoded, answer: Encoded) -> list[float]:
    cosine = float(reference.vector @ answer.vector)
    floor = float(reference.vector @ question.vector)
    reached, asked = _alignment(reference, answer), _alignment(reference, question)
    gain = reached - asked
    new = reference.weights * ~(np.isin(reference.keys, question.keys) & (reference.keys >= 0))
    return [
        cosine,
        (cosine - floor) / max(0.2, 1 - floor),
        _weighted(reached, reference.weights),
        _weighted(gain, new),
        _weighted((gain / np.maximum(1 - asked, 0.2)).astype(np.float32), reference.weights),
    ]


def overlap(reference: Mapping[_Term, int], answer: Mapping[_Term, int]) -> tuple[float, float, float]:
    """Recall (share of distinct reference terms present), precision (share of answer terms wanted), F1."""
    shared = len(reference.keys() & answer.keys())
    if not shared:
        return 0.0, 0.0, 0.0
    recall, precision = shared / len(reference), shared / len(answer)
    return recall, precision, 2 * recall * precision / (recall + precision)


def common_subsequence(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest common subsequence; bit-parallel (Hyyrö 2004), a step per word of `left`."""
    masks: dict[str, int] = {}
    for index, word in enumerate(right):
        masks[word] = masks.get(word, 0) | 1 << index
    full = (1 << len(right)) - 1
    row = full
    for word in left:
        matched = row & masks.get(word, 0)
        row = ((row + matched) | (row - matched)) & full
    return len(right) - row.bit_count()


def _alignment(left: Encoded, right: Encoded) -> npt.NDArray[np.float32]:
    """(P,) for each part of `left` its best cosine among the parts of `right`; 0 without any."""
    if not len(left.parts) or not len(right.parts):
        return np.zeros(len(left.parts), dtype=np.float32)
    return (left.parts @ right.parts.T).max(axis=1)


def _weighted(values: npt.NDArray[np.float32], weights: npt.NDArray[np.float32]) -> float:
    total = float(weights.sum())
    return float(values @ weights) / total if total > 0 else 0.0
