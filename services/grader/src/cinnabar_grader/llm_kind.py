"""Opens the grader of the queue "llm": its provider, its scheduler, and the graders that stand in."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor

from cinnabar_common.channels import channel
from cinnabar_grader.adapters.model_calls import SchedulerModelCalls
from cinnabar_grader.config import GraderConfig
from cinnabar_grader.free_text import MAX_SAMPLES, FreeTextGrader
from cinnabar_grader.graders import Outcome, Task
from cinnabar_grader.kinds import Opened, Opening
from cinnabar_grader.llm.asking import Asking, Provider
from cinnabar_grader.llm.grader import LlmGrader
from cinnabar_grader.pipeline import graded
from cinnabar_grader.semantic import SemanticScorer

log = logging.getLogger(__name__)
STANDING_IN = "free-text"
"""The queue of the grader that stands in for the model."""


async def open_llm(opening: Opening) -> Opened:
    """The grader; with a provider also the check "ai_service": ConnectionError while it does not answer.

    Without a provider the queue is served all the same, by what stands in.
    """
    config, exits = opening.config, opening.exits
    executor = exits.enter_context(ThreadPoolExecutor(1, thread_name_prefix="llm"))
    by_words = FreeTextGrader(SemanticScorer(english=None, multilingual=None))

    async def semantic(task: Task) -> Outcome:
        [outcome] = await opening.colleagues.grade(STANDING_IN, [task])
        return outcome

    async def words(task: Task) -> Outcome:
        loop = asyncio.get_running_loop()
        [outcome] = await loop.run_in_executor(executor, graded, by_words, [task])
        return outcome

    asking = await _asking(config, opening) if config.llm_url else None
    grader = LlmGrader(asking, model=config.llm_model, semantic=semantic, words=words, executor=executor)
    if asking is None:
        log.info("no provider of language models: the queue is graded by what stands in")
        return Opened([grader])

    async def ai_service() -> None:
        if asking.answering is False:
            raise ConnectionError("the provider did not answer the last call")

    return Opened([grader], {"ai_service": ai_service})


async def _asking(config: GraderConfig, opening: Opening) -> Asking:
    from cinnabar_grader.adapters.openai_model import openai_model  # costly, and of an extra

    chat = await opening.exits.enter_async_context(
        openai_model(
            config.llm_url,
            key=config.llm_key,
            concurrency=config.max_workers * MAX_SAMPLES,
            tokens_field=config.llm_tokens_field,
            schema=config.llm_schema,
        )
    )
    channels = [await opening.exits.enter_async_context(channel(address)) for address in config.addresses]
    provider = Provider(
        name=config.llm_provider,
        timeout=config.llm_timeout_seconds,
        max_output_tokens=config.llm_max_output_tokens,
        input_price=config.llm_input_price,
        output_price=config.llm_output_price,
    )
    return Asking(SchedulerModelCalls(channels), chat, provider)
