"""Items of custom kinds, as the graders of such kinds know them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cinnabar_grader.free_text import Criterion
from cinnabar_grader.phrases import Language


@dataclass(frozen=True, slots=True)
class CustomItem:
    """A compiled custom item; ``config`` is plain data, whose numbers are all floats."""

    kind: str
    points: float
    prompt: str
    config: Mapping[str, object]
    criteria: Sequence[Criterion] = ()
    language: Language = Language.ENGLISH
