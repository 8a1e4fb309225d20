"""Opens the free-text grader: loads its models and warms them up."""

from __future__ import annotations

import asyncio
import logging

from cinnabar_grader.calibrating import Scorer
from cinnabar_grader.config import GraderConfig
from cinnabar_grader.free_text import FreeTextGrader
from cinnabar_grader.kinds import Opened
from cinnabar_grader.semantic import SemanticRequest, SemanticScorer

log = logging.getLogger(__name__)

_PROBES = (
    SemanticRequest(question="What falls?", references=("An apple falls.",), answer="The apple falls."),
    SemanticRequest(question="什么落下？", references=("苹果从树上落下。",), answer="苹果落下。"),
)


async def open_free_text(config: GraderConfig) -> Opened:
    """The grader, with the check "model": RuntimeError unless every model of it is loaded."""
    scorer, complete = await asyncio.to_thread(load_scorer, config.semantic_threads)

    async def model() -> None:
        if not complete:
            raise RuntimeError("the model is not loaded")

    log.info("free-text grader ready", extra={"model": complete})
    return Opened([FreeTextGrader(scorer)], {"model": model})


def load_scorer(threads: int) -> tuple[Scorer, bool]:
    """The scorer, warmed up, and whether every model of it is there.

    Without its models it scores on words alone and marks its scores as fallback.
    """
    try:
        scorer = SemanticScorer.load(threads=threads)
        scores = scorer.score(_PROBES)
    except Exception as error:  # a broken model package must not keep answers waiting for ever
        log.error("model not loaded, scoring on words alone", exc_info=error)
        return SemanticScorer(english=None, multilingual=None), False
    return scorer, not any(score.fallback for score in scores)
