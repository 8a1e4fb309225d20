"""An endpoint that does everything wrong: how long each takes, and who grades instead."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio

from cinnabar_common.clock import SystemClock
from cinnabar_grader.adapters.memory_model_calls import MemoryModelCalls, ProviderLimits
from cinnabar_grader.free_text import LlmRule
from cinnabar_grader.graders import Failed, FailureCode, Graded
from cinnabar_grader.llm.ports import BREAKER_FAILURES, BreakerState
from tests.support.llm_endpoint import (
    Endpoint,
    Script,
    completion,
    drips,
    fails,
    floods,
    graded,
    hangs,
    resets,
    says,
    sends,
    serving_endpoint,
)
from tests.support.llm_grading import PROVIDER, Broken, item, llm_grader, of, task
from tests.support.waiting import until

ANSWER = "Ice is less dense than water."
GOOD = says(graded({"answer": 4}, "less dense than water"))
TIMEOUT = 0.6
"""Seconds that a task may take in all."""


@pytest_asyncio.fixture(scope="module")
async def endpoint() -> AsyncGenerator[Endpoint]:
    async with serving_endpoint() as endpoint:
        yield endpoint


def by_model(outcome: Graded) -> bool:
    return outcome.provenance.grader == "llm" and not outcome.provenance.fallback


async def test_a_good_reply_is_the_grade(endpoint: Endpoint) -> None:
    endpoint.script(GOOD)
    async with llm_grader(endpoint.url) as grader:
        grade = of(await grader.grade(task(ANSWER), lambda progress: None))
    assert by_model(grade)
    assert (grade.score, grade.max_score, grade.needs_review, list(grade.flags)) == (4, 5, False, [])
    assert grade.criteria[0].evidence == ("less dense than water",)
    assert grade.provenance.model == "scripted-1"
    assert (grade.provenance.input_tokens, grade.provenance.output_tokens) == (100, 20)
    [request] = endpoint.requests
    assert (request["temperature"], request["max_tokens"], request["model"]) == (0, 200, "scripted-1")
    assert isinstance(request["seed"], int)
    assert request["response_format"]["json_schema"]["strict"] is True
    assert endpoint.headers[0]["Authorization"] == "Bearer secret-key"


LASTING: list[tuple[str, Script, str, float]] = [
    ("500", fails(500), "UNAVAILABLE", TIMEOUT),
    ("503 for long", fails(503, {"retry-after": "3600"}), "UNAVAILABLE", 0.3),
    ("429 for long", fails(429, {"retry-after": "3600"}), "BUSY", 0.3),
    ("429 until a date", fails(429, {"retry-after": "Wed, 21 Oct 2099 07:28:00 GMT"}), "BUSY", 0.3),
    ("401", fails(401), "REJECTED", 0.3),
    ("404", fails(404), "REJECTED", 0.3),
    ("hang", hangs, "TIMEOUT", TIMEOUT),
    ("slow drip", drips, "TIMEOUT", TIMEOUT),
    ("endless body", floods, "MALFORMED", TIMEOUT),
    ("reset", resets, "UNAVAILABLE", TIMEOUT),
    ("no JSON at all", sends(b"{]"), "MALFORMED", 0.3),
    ("a web page", sends(b"<html>welcome</html>", "text/html"), "MALFORMED", 0.3),
    ("not UTF-8", sends(b"\xff\xfe\x00{"), "MALFORMED", 0.3),
    ("packed", sends(b"xx", **{"content-encoding": "gzip"}), "MALFORMED", 0.3),
    ("redirect", fails(307, {"location": "http://127.0.0.1:9/v1"}), "REJECTED", 0.3),
    ("null", sends(b"null"), "MALFORMED", 0.3),
    ("no choices", sends(b'{"choices": []}'), "MALFORMED", 0.3),
    ("choices of another form", sends(b'{"choices": [7], "usage": "much"}'), "MALFORMED", 0.3),
    (
        "content of another form",
        sends(json.dumps(completion(None)).replace("null", "7").encode()),
        "MALFORMED",
        0.3,
    ),
    ("empty", says(""), "MALFORMED", 0.3),
    ("prose", says("I would give 4 points."), "MALFORMED", 0.3),
    ("nested without end", says("[" * 50_000), "MALFORMED", 0.3),
    ("another form", says('{"points": 5}'), "SCHEMA", 0.3),
    ("too many points", says(graded({"answer": 50})), "SCHEMA", 0.3),
    ("points below none", says(graded({"answer": -1})), "SCHEMA", 0.3),
    ("no number", says(graded({"answer": 5}).replace("5", "NaN")), "MALFORMED", 0.3),
    ("another criterion", says(graded({"other": 5})), "SCHEMA", 0.3),
    ("refusal", says(None, refusal="I cannot do that."), "REFUSED", 0.3),
    ("filtered", says(None, finish="content_filter"), "REFUSED", 0.3),
    ("truncated", says(graded({"answer": 5})[:40], finish="length"), "TRUNCATED", 0.3),
]


@pytest.mark.parametrize(
    ("script", "reason", "seconds"), [entry[1:] for entry in LASTING], ids=[e[0] for e in LASTING]
)
async def test_what_goes_wrong_for_ever_is_graded_by_the_next_rung(
    endpoint: Endpoint, script: Script, reason: str, seconds: float
) -> None:
    endpoint.script(script)
    async with llm_grader(endpoint.url, timeout=TIMEOUT) as grader:
        started = time.monotonic()
        grade = of(await grader.grade(task(ANSWER), lambda progress: None))
        took = time.monotonic() - started
    assert (grade.provenance.grader, grade.provenance.fallback) == ("semantic", True)
    assert grade.provenance.fallback_reason == reason
    assert grade.score == 3
    assert took < seconds + 0.5, "a busy machine may take a while, a student does not wait twice"
    assert 1 <= len(endpoint.requests) <= 3


MENDED: list[tuple[str, Script]] = [
    ("500", fails(500)),
    ("503 with patience", fails(503, {"retry-after-ms": "20"})),
    ("429 in ms", fails(429, {"retry-after-ms": "30"})),
    ("429 in seconds", fails(429, {"retry-after": "0.03"})),
    ("429 until a past date", fails(429, {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"})),
    ("408", fails(408)),
    ("reset", resets),
    ("prose", says("Four points!")),
    ("another form", says('{"points": 5}')),
    ("refusal", says(None, refusal="no")),
    ("truncated", says('{"criteria', finish="length")),
    ("no JSON at all", sends(b"{]")),
]


@pytest.mark.parametrize("script", [entry[1] for entry in MENDED], ids=[entry[0] for entry in MENDED])
async def test_what_goes_wrong_once_is_mended(endpoint: Endpoint, script: Script) -> None:
    endpoint.script(script, GOOD)
    async with llm_grader(endpoint.url) as grader:
        grade = of(await grader.grade(task(ANSWER), lambda progress: None))
    assert by_model(grade)
    assert grade.score == 4
    assert len(endpoint.requests) == 2


async def test_a_bad_reply_is_shown_to_the_model_again(endpoint: Endpoint) -> None:
    endpoint.script(says(graded({"answer": 7})), GOOD)
    async with llm_grader(endpoint.url) as grader:
        grade = of(await grader.grade(task(ANSWER), lambda progress: None))
    first, second = endpoint.requests
    assert second["messages"][:2] == first["messages"]
    assert second["messages"][2]["role"] == "assistant"
    assert "must be 0 to 5" in second["messages"][3]["content"]
    assert grade.provenance.input_tokens == 200, "what the bad reply cost is counted"


async def test_a_hanging_provider_opens_the_breaker_and_then_costs_no_time(endpoint: Endpoint) -> None:
    endpoint.script(hangs)
    async with llm_grader(endpoint.url, timeout=0.2) as grader:
        first = await asyncio.gather(
            *(grader.grade(task(ANSWER), lambda progress: None) for _ in range(BREAKER_FAILURES))
        )
        assert {of(one).provenance.fallback_reason for one in first} == {"TIMEOUT"}
        started = time.monotonic()
        grade = of(await grader.grade(task(ANSWER), lambda progress: None))
    assert grade.provenance.fallback_reason == "BREAKER_OPEN"
    assert time.monotonic() - started < 0.15
    assert len(endpoint.requests) == BREAKER_FAILURES


async def test_one_probe_brings_the_model_back(endpoint: Endpoint) -> None:
    calls = MemoryModelCalls(clock=SystemClock(), limits={PROVIDER: ProviderLimits(recovery_seconds=0.3)})
    endpoint.script(fails(500))
    async with llm_grader(endpoint.url, calls=calls) as grader:
        while calls.state(PROVIDER) is not BreakerState.OPEN:
            await grader.grade(task(ANSWER), lambda progress: None)
        assert len(endpoint.requests) == BREAKER_FAILURES, "no more than it takes"
        endpoint.script(GOOD)

        async def back() -> bool:
            return by_model(of(await grader.grade(task(ANSWER), lambda progress: None)))

        await until(back, "the model grades again")
        assert len(endpoint.requests) == 1
        assert calls.state(PROVIDER) is BreakerState.CLOSED


async def test_the_words_alone_stand_in_for_a_broken_semantic_grader(endpoint: Endpoint) -> None:
    endpoint.script(fails(500))
    async with llm_grader(endpoint.url, scorer=Broken()) as grader:
        grade = of(await grader.grade(task(ANSWER), lambda progress: None))
    assert (grade.provenance.grader, grade.provenance.fallback) == ("rules", True)
    assert grade.provenance.fallback_reason == "UNAVAILABLE"
    assert grade.score == 2


@pytest.mark.parametrize(
    ("script", "again"), [(fails(500), True), (says("no"), False)], ids=["away", "malformed"]
)
async def test_only_what_passes_is_worth_an_upgrade(endpoint: Endpoint, script: Script, again: bool) -> None:
    endpoint.script(script)
    wanted = item(llm=LlmRule(upgrade_fallbacks=True))
    async with llm_grader(endpoint.url) as grader:
        grade = of(await grader.grade(task(ANSWER, wanted), lambda progress: None))
        assert grade.upgradable is again
        failed = await grader.grade(task(ANSWER, wanted, upgrade=True), lambda progress: None)
    assert isinstance(failed, Failed)
    assert failed.code is FailureCode.UNAVAILABLE
    assert ANSWER not in failed.message


async def test_the_same_answer_is_asked_once(endpoint: Endpoint) -> None:
    async def slowly(request: object, body: object) -> object:
        await asyncio.sleep(0.05)
        return await GOOD(request, body)  # pyright: ignore[reportArgumentType]

    endpoint.script(slowly)  # pyright: ignore[reportArgumentType]
    async with llm_grader(endpoint.url) as grader:
        grades = [
            of(one)
            for one in await asyncio.gather(
                *(grader.grade(task(ANSWER, key="rev/q"), lambda progress: None) for _ in range(6))
            )
        ]
        other = of(await grader.grade(task(ANSWER, key="rev2/q"), lambda progress: None))
    assert len(endpoint.requests) == 2
    assert sorted(grade.provenance.shared for grade in grades) == [False] + [True] * 5
    assert {grade.score for grade in grades} == {4}
    assert sum(grade.provenance.input_tokens for grade in grades) == 100
    assert not other.provenance.shared


async def test_a_cancelled_task_gives_its_permit_back(endpoint: Endpoint) -> None:
    calls = MemoryModelCalls(clock=SystemClock(), limits={PROVIDER: ProviderLimits(calls=1)})
    endpoint.script(hangs)
    async with llm_grader(endpoint.url, calls=calls) as grader:
        running = asyncio.create_task(grader.grade(task(ANSWER), lambda progress: None))
        await until(lambda: bool(endpoint.requests), "the call is under way")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        endpoint.script(GOOD)
        assert by_model(of(await grader.grade(task(ANSWER), lambda progress: None)))
