"""A real OpenAI-compatible server with a model too small to be right: protocol, schema, several at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio

from cinnabar_grader.adapters.openai_model import openai_model
from cinnabar_grader.llm.chat import ChatModel, ChatReply, ChatRequest, ProviderRejects
from cinnabar_grader.llm.prompt import MAX_ANSWER_CHARS, Prompt, criteria_of, prompt_of
from cinnabar_grader.llm.replies import read
from tests.support.llm_grading import item, llm_grader, of, task
from tests.support.llm_local_server import local_model

SECONDS = 60.0
"""Far more than it takes, on a machine that has more to do."""
TOKENS = 96
ANSWERS = (
    "Ice is less dense than water because water expands when it freezes.",
    "冰的密度比水小。",
)


@pytest_asyncio.fixture(scope="module")
async def url() -> AsyncGenerator[str]:
    async with local_model() as url:
        yield url


async def test_the_reply_has_the_form_that_the_schema_wants(url: str) -> None:
    async with openai_model(url, key="", concurrency=1) as model, asyncio.timeout(SECONDS):
        prompt, reply = await _asked(model, 0)
        for seed in range(1, 4):
            if not reply.truncated:  # so small a model may lose itself in its own words
                break
            prompt, reply = await _asked(model, seed)
    assert reply.input_tokens > 200
    assert 20 < reply.output_tokens <= TOKENS
    found = read(reply, criteria_of(item()), prompt.secrets)
    assert [judgement.criterion for judgement in found.criteria] == ["answer"]


async def _asked(model: ChatModel, seed: int) -> tuple[Prompt, ChatReply]:
    prompt = prompt_of(item(), ANSWERS[0])
    request = ChatRequest(
        model="any",
        turns=prompt.turns,
        schema=prompt.schema,
        max_output_tokens=TOKENS,
        temperature=0.0,
        seed=seed,
    )
    return prompt, await model.complete(request)


async def test_several_tasks_at_once_get_grades(url: str) -> None:
    async with llm_grader(url, timeout=SECONDS, max_output_tokens=TOKENS) as grader:
        started = time.monotonic()
        outcomes = await asyncio.gather(
            *(grader.grade(task(answer), lambda progress: None) for answer in ANSWERS)
        )
        took = time.monotonic() - started
    assert took < SECONDS
    for grade in map(of, outcomes):
        # So small a model may lose itself in its own words; it then runs into the bound.
        assert grade.provenance.grader == "llm" or grade.provenance.fallback_reason == "TRUNCATED"
        assert 0 <= grade.score <= 5
        assert [part.criterion for part in grade.criteria] == ["answer"]


async def test_what_the_server_does_not_take_is_rejected(url: str) -> None:
    prompt = prompt_of(item(), "ice and water " * (MAX_ANSWER_CHARS // 14))
    request = ChatRequest(
        model="any",
        turns=prompt.turns,
        schema=prompt.schema,
        max_output_tokens=16,
        temperature=0.0,
        seed=1,
    )
    async with openai_model(url, key="", concurrency=1) as model, asyncio.timeout(SECONDS):
        with pytest.raises(ProviderRejects):
            await model.complete(request)
