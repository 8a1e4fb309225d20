"""Sentences of an answer that have nothing to do with what was asked: what talks to a model is one of them.

A sentence strays when neither its words nor its meaning come near the question or a reference. Real answers
have such sentences now and then, so this asks for a person and changes no score.
"""

from collections.abc import Sequence
from typing import Final

from cinnabar_grader.semantic.address import SENTENCE
from cinnabar_grader.semantic.encoders import Encoder
from cinnabar_grader.semantic.features import Text
from cinnabar_grader.semantic.text import Analysis, analyse

__all__ = ["strays"]

_NEAR: Final = 0.15
"""Best cosine plus share of known content words below which a sentence strays."""
_LEAST: Final = 3
_LEAST_DENSE: Final = 5
"""Content words (pairs of characters) below which a sentence says too little to tell."""
_MAX_SENTENCES: Final = 64
_PIECES: Final = 64
"""Word pieces of a sentence that are read."""


def strays(encoder: Encoder, known: Sequence[Text], answer: str) -> bool:
    """Whether a sentence of `answer` does, given the question and the references."""
    vectors = [text.encoded.vector for text in known if text.encoded is not None]
    if not vectors:
        return False
    terms = {term for text in known for term in text.analysis.content}
    found = [(piece, analyse(piece)) for piece in SENTENCE.split(answer)[:_MAX_SENTENCES] if piece]
    far = [(piece, shared) for piece, one in found if (shared := _shared(one, terms)) < _NEAR]
    encoded = encoder.encode([piece for piece, _ in far], pieces=_PIECES) if far else []
    return any(
        max(float(one.vector @ vector) for vector in vectors) + shared < _NEAR
        for one, (_, shared) in zip(encoded, far, strict=True)
    )


def _shared(sentence: Analysis, terms: set[str]) -> float:
    """Share of the content that is known; 1 for a sentence that is too short to tell."""
    content = sentence.content.keys()
    if len(content) < (_LEAST_DENSE if sentence.dense else _LEAST):
        return 1.0
    return len(content & terms) / len(content)
