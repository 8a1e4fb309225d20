"""A grader of the queue "llm" for tests: its parts where a test can reach them."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass

from cinnabar_common.clock import SystemClock
from cinnabar_grader.adapters.memory_model_calls import MemoryModelCalls
from cinnabar_grader.adapters.openai_model import openai_model
from cinnabar_grader.free_text import Criterion, FreeTextGrader, FreeTextItem, LlmRule, Scorer
from cinnabar_grader.graders import Graded, LeaseToken, Outcome, Task
from cinnabar_grader.llm.asking import Asking, Provider
from cinnabar_grader.llm.grader import LlmGrader, Rung
from cinnabar_grader.llm.ports import ModelCalls
from cinnabar_grader.semantic import Flag, SemanticRequest, SemanticScore

PROVIDER = "scripted"
MODEL = "scripted-1"
_numbers = itertools.count()


def score(fraction: float, *flags: Flag, needs_review: bool = False, fallback: bool = False) -> SemanticScore:
    """What a scorer may say."""
    return SemanticScore(
        fraction=fraction,
        confidence=0.8,
        flags=flags,
        needs_review=needs_review,
        covered=(),
        missing=(),
        fallback=fallback,
        model="lexical@1" if fallback else "m@1",
    )


@dataclass(slots=True)
class Opinion:
    """Implements Scorer: always the same."""

    says: SemanticScore

    def score(self, requests: Sequence[SemanticRequest]) -> list[SemanticScore]:
        return [self.says for _ in requests]


class Broken:
    """Implements Scorer: never."""

    def score(self, requests: Sequence[SemanticRequest]) -> list[SemanticScore]:
        raise RuntimeError("the model is broken")


def item(*, rubric: Sequence[Criterion] = (), points: float = 5, llm: LlmRule | None = None) -> FreeTextItem:
    """A question about ice."""
    return FreeTextItem(
        points=points,
        question="Why does ice float on water?",
        references=["Water expands when it freezes, so ice is less dense than water."],
        criteria=rubric,
        llm=llm or LlmRule(),
    )


def task(answer: str, of: FreeTextItem | None = None, *, upgrade: bool = False, key: str = "") -> Task:
    """A task under a lease of its own, of an item of its own unless ``key`` says which."""
    number = next(_numbers)
    return Task(
        LeaseToken(f"{number}-x"),
        "llm",
        of or item(),
        answer,
        item_key=key or f"rev{number}/q",
        upgrade=upgrade,
    )


@asynccontextmanager
async def llm_grader(
    url: str,
    *,
    calls: ModelCalls | None = None,
    timeout: float = 5.0,
    scorer: Scorer | None = None,
    words: Scorer | None = None,
    max_output_tokens: int = 200,
    model: str = MODEL,
    concurrency: int = 16,
    prices: tuple[float, float] = (0.0, 0.0),
    jitter: Callable[[], float] = lambda: 0.0,
) -> AsyncGenerator[LlmGrader]:
    """A grader that asks the endpoint at ``url``."""
    provider = Provider(
        name=PROVIDER,
        timeout=timeout,
        max_output_tokens=max_output_tokens,
        input_price=prices[0],
        output_price=prices[1],
    )
    with ThreadPoolExecutor(1) as executor:
        async with openai_model(url, key="secret-key", concurrency=concurrency) as chat:
            yield LlmGrader(
                Asking(calls or MemoryModelCalls(clock=SystemClock()), chat, provider, jitter=jitter),
                model=model,
                semantic=_rung(scorer or Opinion(score(0.6))),
                words=_rung(words or Opinion(score(0.4, fallback=True))),
                executor=executor,
            )


def _rung(scorer: Scorer) -> Rung:
    grader = FreeTextGrader(scorer)

    async def grade(task: Task) -> Outcome:
        [outcome] = grader.grade([task])
        return outcome

    return grade


def of(outcome: Outcome) -> Graded:
    """The grade; AssertionError when it is none."""
    assert isinstance(outcome, Graded), outcome
    return outcome
