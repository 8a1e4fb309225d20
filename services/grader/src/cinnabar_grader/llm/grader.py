"""The queue "llm": a language model, under it the semantic grader, under that the words alone.

The guards of the semantic grader speak first: what they settle needs no model, text that addresses the grader
is cut out before a model sees it, and whatever they suspect a person looks at, whoever made the grade.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import TypeAlias

from cinnabar_common.queues import LLM
from cinnabar_grader.free_text import FreeTextItem, LlmRule
from cinnabar_grader.graders import (
    Failed,
    FailureCode,
    Graded,
    Outcome,
    Progress,
    Provenance,
    Released,
    Task,
    Ungradable,
    checked,
)
from cinnabar_grader.llm.asking import Asked, Asking, Question, Unanswered
from cinnabar_grader.llm.judging import ModelFlag, judge
from cinnabar_grader.llm.ports import LeaseNotHeld
from cinnabar_grader.llm.prompt import PROMPT_VERSION, criteria_of, prompt_of, readable, share_key
from cinnabar_grader.llm.replies import ABSENT, Reason
from cinnabar_grader.phrases import Language, language_of, phrase
from cinnabar_grader.semantic import Flag
from cinnabar_grader.semantic.guards import without_instructions
from cinnabar_grader.semantic.scores import REVIEWED

log = logging.getLogger(__name__)
SEMANTIC, RULES = "semantic", "rules"
OTHER_SAMPLES_TEMPERATURE = 0.5
"""Of the second sample and those after it; the first has 0. Without any chance all would say the same."""
SEED = 20_240_229
"""Of the first sample; those after it count on. A provider that heeds it repeats itself."""
SEMANTIC_SECONDS = 10.0
"""How long the semantic grader, which is busy with others too, may take before the words stand in."""
LEARNING_SECONDS = 0.05
"""When to ask it again while it learns the scale of an item."""
_SETTLING = frozenset({Flag.EMPTY, Flag.REFUSAL, Flag.QUESTION_COPY})


Rung: TypeAlias = "Callable[[Task], Awaitable[Outcome]]"
"""Grades a task in another way; may raise anything."""


@dataclass(frozen=True, slots=True)
class _Examined:
    """An answer, and what the semantic grader makes of it."""

    graded: Graded
    text: str
    """What a model may see of it."""
    cut: bool


class LlmGrader:
    """Grades the queue "llm". Implements `TaskGrader`."""

    name = "llm"
    version = PROMPT_VERSION
    queue = LLM

    def __init__(
        self, asking: Asking | None, *, model: str, semantic: Rung, words: Rung, executor: Executor
    ) -> None:
        """``asking`` is None without a provider; ``model`` is what items without one of their own have.

        ``semantic`` gives the second opinion and stands in; ``words``, which needs nothing that could be
        away, stands in for that. Long texts are looked through in ``executor``.
        """
        self._asking = asking
        self._model = model
        self._semantic = semantic
        self._words = words
        self._executor = executor

    async def grade(self, task: Task, report: Callable[[Progress], None]) -> Outcome:
        """See TaskGrader."""
        item, answer = checked(task, FreeTextItem, str)
        rule = item.llm
        if rule is None:
            raise Ungradable(FailureCode.INVALID_ARGUMENT, "the item does not want a language model")
        examined = await self._examine(task, item, answer)
        if not _SETTLING.isdisjoint(examined.graded.flags):
            return replace(examined.graded, provenance=Provenance(RULES, self.version))
        try:
            return await self._by_model(task, item, rule, examined)
        except LeaseNotHeld:
            return Failed(task.token, FailureCode.UNAVAILABLE, "the lease is not held any more")
        except Unanswered as error:
            reason = error.reason
        if task.upgrade:
            return Failed(task.token, FailureCode.UNAVAILABLE, f"no model graded it: {reason}")
        return _fallback(item, rule, examined, reason)

    async def _examine(self, task: Task, item: FreeTextItem, answer: str) -> _Examined:
        loop = asyncio.get_running_loop()
        text, cut = await loop.run_in_executor(self._executor, _shown, item, answer)
        # This grader must answer for the task also when it is cancelled meanwhile; nobody reads it then.
        other = replace(task, cancelled=False)
        try:
            async with asyncio.timeout(SEMANTIC_SECONDS):
                graded = await _patiently(self._semantic, other)
        except Exception as error:  # the words alone need no model that could be broken or away
            log.warning("semantic grader not there", extra={"error": type(error).__name__})
            graded = await _patiently(self._words, other)
        return _Examined(graded, text, cut)

    async def _by_model(self, task: Task, item: FreeTextItem, rule: LlmRule, examined: _Examined) -> Graded:
        started = time.perf_counter()
        if self._asking is None:
            raise Unanswered(Reason.NOT_CONFIGURED)
        asked = await self._ask(self._asking, task, item, rule, examined.text)
        judged = judge(
            criteria_of(item),
            [one.reply for one in asked],
            examined.text,
            samples=rule.samples,
            review_below=rule.review_below,
            # Of a longer answer the semantic grader has read the beginning only.
            second=None if Flag.TRUNCATED in examined.graded.flags else examined.graded.score / item.points,
        )
        suspected = [flag for flag in examined.graded.flags if flag != Flag.TRUNCATED]
        if examined.cut:
            suspected.append(Flag.TRUNCATED)
        flags = [*map(str, suspected), *map(str, judged.flags)]
        needs_review = bool(judged.flags) or not REVIEWED.isdisjoint(suspected)
        language = language_of(item.question, *item.references)
        words = [judged.feedback, *(phrase(language, flag) for flag in flags)]
        if needs_review:
            words.append(phrase(language, "review"))
        return Graded(
            task.token,
            judged.score,
            item.points,
            judged.criteria,
            phrase(language, "gap").join(filter(None, words)),
            Provenance(
                self.name,
                self.version,
                rule.model or self._model,
                seconds=time.perf_counter() - started,
                shared=all(one.shared for one in asked),
                input_tokens=sum(one.input_tokens for one in asked),
                output_tokens=sum(one.output_tokens for one in asked),
            ),
            needs_review,
            flags,
        )

    async def _ask(
        self, asking: Asking, task: Task, item: FreeTextItem, rule: LlmRule, text: str
    ) -> Sequence[Asked]:
        """Every sample that there is a reply to, at least one. Raises Unanswered, LeaseNotHeld."""
        model = rule.model or self._model
        questions = [
            Question(
                lease=task.token,
                model=model,
                prompt=prompt_of(item, text, instructions=rule.instructions, sample=sample),
                criteria=criteria_of(item),
                share_key=share_key(task.item_key, text, model=model, sample=sample),
                temperature=OTHER_SAMPLES_TEMPERATURE if sample else 0.0,
                seed=SEED + sample,
            )
            for sample in range(rule.samples)
        ]
        results = await asyncio.gather(*map(asking.ask, questions), return_exceptions=True)
        asked = [one for one in results if isinstance(one, Asked)]
        for one in results:
            # Who talked the model over once did it; who cannot be answered at all has no sample.
            if isinstance(one, Unanswered) and (one.reason is Reason.CANARY or not asked):
                raise one
            if isinstance(one, BaseException) and not isinstance(one, Unanswered):
                raise one
        return asked


async def _patiently(rung: Rung, task: Task) -> Graded:
    """The grade. A task that is handed back, because something of its item is learned first, comes again."""
    outcome = await rung(task)
    while isinstance(outcome, Released):
        await asyncio.sleep(LEARNING_SECONDS)
        outcome = await rung(task)
    if not isinstance(outcome, Graded):
        raise TypeError("a free text is graded or handed back")
    return outcome


def _shown(item: FreeTextItem, answer: str) -> tuple[str, bool]:
    """What a model may see of an answer, and whether its end is missing."""
    text, cut = readable(answer)
    dense = language_of(item.question, *item.references) is Language.CHINESE
    known = "\n".join((item.question, *item.references))
    return without_instructions(text, dense=dense, known=known)[0], cut


def _fallback(item: FreeTextItem, rule: LlmRule, examined: _Examined, reason: Reason) -> Graded:
    graded, made = examined.graded, examined.graded.provenance
    provenance = replace(
        made,
        grader=RULES if made.fallback else SEMANTIC,
        fallback=True,
        fallback_reason=str(reason),
    )
    suspicious = reason is Reason.CANARY
    language = language_of(item.question, *item.references)
    words = phrase(language, "gap") + phrase(language, "CANARY") if suspicious else ""
    return replace(
        graded,
        provenance=provenance,
        feedback=graded.feedback + words,
        flags=[*graded.flags, str(ModelFlag.CANARY)] if suspicious else graded.flags,
        needs_review=graded.needs_review or suspicious,
        upgradable=rule.upgrade_fallbacks and reason in ABSENT,
    )
