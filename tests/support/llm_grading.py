"""A grader of the queue "llm" for tests: its parts where a test can reach them."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from cinnabar_common.clock import SystemClock
from cinnabar_grader.adapters.memory_model_calls import MemoryModelCalls
from cinnabar_grader.adapters.openai_model import openai_model
from cinnabar_grader.calibrating import Scorer
from cinnabar_grader.free_text import Criterion, FreeTextGrader, FreeTextItem, LlmRule
from cinnabar_grader.graders import Graded, LeaseToken, Outcome, Task
from cinnabar_grader.llm.asking import Asking, Provider
from cinnabar_grader.llm.chat import ChatModel, ChatReply, ChatRequest
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


@dataclass(slots=True)
class Said:
    """Implements ChatModel: says these things one after the other, the last for ever."""

    replies: list[str]
    requests: list[ChatRequest] = field(default_factory=list[ChatRequest])

    async def complete(self, request: ChatRequest) -> ChatReply:
        """See ChatModel."""
        self.requests.append(request)
        text = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        return ChatReply(text=text, input_tokens=10, output_tokens=5)


@contextmanager
def grader_of(
    chat: ChatModel | None,
    *,
    calls: ModelCalls | None = None,
    timeout: float = 5.0,
    scorer: Scorer | None = None,
    words: Scorer | None = None,
    max_output_tokens: int = 200,
    model: str = MODEL,
    prices: tuple[float, float] = (0.0, 0.0),
) -> Generator[LlmGrader]:
    """A grader that asks ``chat``."""
    provider = Provider(
        name=PROVIDER,
        timeout=timeout,
        max_output_tokens=max_output_tokens,
        input_price=prices[0],
        output_price=prices[1],
    )
    asking = None
    if chat is not None:
        known = calls or MemoryModelCalls(clock=SystemClock())
        asking = Asking(known, chat, provider, jitter=lambda: 0.0)
    with ThreadPoolExecutor(1) as executor:
        yield LlmGrader(
            asking,
            model=model,
            semantic=_rung(scorer or Opinion(score(0.6))),
            words=_rung(words or Opinion(score(0.4, fallback=True))),
            executor=executor,
        )


@asynccontextmanager
async def llm_grader(
    url: str,
    *,
    calls: ModelCalls | None = None,
    timeout: float = 5.0,
    scorer: Scorer | None = None,
    max_output_tokens: int = 200,
) -> AsyncGenerator[LlmGrader]:
    """A grader that asks the endpoint at ``url``."""
    async with openai_model(url, key="secret-key", concurrency=16) as chat:
        with grader_of(
            chat, calls=calls, timeout=timeout, scorer=scorer, max_output_tokens=max_output_tokens
        ) as grader:
            yield grader


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
