"""The queue "llm" in a grader process: leases in, grades of a model out, and what health says of it."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cinnabar.grader.v1.grade_pb2 import Answer
from cinnabar.grader.v1.item_pb2 import FreeTextSpec, Item, LlmSpec
from cinnabar_common.config import ConfigError, load
from cinnabar_grader.app import running
from cinnabar_grader.config import GraderConfig
from cinnabar_grader.kinds import KINDS
from tests.support.grader_items import homework
from tests.support.grader_scheduler import MemoryScheduler, scheduler_running
from tests.support.llm_endpoint import fails, graded, says, serving_endpoint
from tests.support.waiting import until

ITEM = Item(
    item="q",
    prompt="Why does ice float on water?",
    points=5,
    free_text=FreeTextSpec(
        references=["Ice is less dense than liquid water, because water expands when it freezes."],
        llm=LlmSpec(upgrade_fallbacks=True),
    ),
)
# Without the semantic grader, which takes seconds to load: the words stand in for it.
ALONE = [kind for kind in KINDS if kind.name == "llm"]


def answer(text: str) -> Answer:
    return Answer(item="q", text=text)


async def test_a_lease_becomes_the_grade_of_a_model_or_of_what_stands_in(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("secret-of-the-provider\n")
    scheduler = MemoryScheduler()
    async with serving_endpoint() as endpoint, scheduler_running(scheduler) as address:
        config = load(
            GraderConfig,
            prefix="GRADER_",
            env={
                "GRADER_SCHEDULER_TARGET": address,
                "GRADER_LISTEN": "127.0.0.1:0",
                "GRADER_QUEUES": "llm",
                "GRADER_LLM_URL": endpoint.url,
                "GRADER_LLM_KEY": f"file:{key}",
                "GRADER_LLM_MODEL": "small",
                "GRADER_LLM_TIMEOUT_SECONDS": "2",
            },
        )
        assert "secret-of-the-provider" not in repr(config)
        endpoint.script(says(graded({"answer": 5}, "less dense")))
        async with running(config, ALONE) as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            health = health_pb2_grpc.HealthStub(channel)

            async def serving() -> bool:
                request = health_pb2.HealthCheckRequest(service="ai_service")
                response = await health.Check(request, timeout=5)
                return response.status == health_pb2.HealthCheckResponse.SERVING

            await scheduler.put(homework("llm", 1, item=ITEM, answer=answer("Ice is less dense than water.")))
            await scheduler.until(lambda: len(scheduler.graded) == 1, "the model grades")
            assert await serving()
            endpoint.script(fails(500))
            await scheduler.put(homework("llm", 2, item=ITEM, answer=answer("Ice is lighter than water.")))
            await scheduler.until(lambda: len(scheduler.graded) == 2, "the words grade")

            async def down() -> bool:
                return not await serving()

            await until(down, "the provider is seen to be away")
    first, second = (outcome.grade for _, outcome in sorted(scheduler.graded.items()))
    made = first.criteria[0].provenance
    assert (made.grader, made.model, made.fallback, made.input_tokens) == ("llm", "small", False, 100)
    assert first.criteria[0].evidence == ["less dense"]
    stood_in = second.criteria[0].provenance
    assert (stood_in.grader, stood_in.fallback, stood_in.fallback_reason) == ("rules", True, "UNAVAILABLE")
    assert second.upgradable
    assert scheduler.violations == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LLM_URL", "ftp://models"),
        ("LLM_URL", "https://user:secret@models/v1"),
        ("LLM_URL", "https://models/v1"),
        ("LLM_PROVIDER", "My Provider"),
        ("LLM_TIMEOUT_SECONDS", "0"),
        ("LLM_MAX_OUTPUT_TOKENS", "0"),
        ("LLM_INPUT_PRICE", "-1"),
        ("LLM_OUTPUT_PRICE", "nan"),
        ("LLM_TOKENS_FIELD", "a-b"),
    ],
)
def test_settings_that_cannot_work_are_refused(name: str, value: str) -> None:
    env = {"GRADER_SCHEDULER_TARGET": "127.0.0.1:1", f"GRADER_{name}": value}
    with pytest.raises(ConfigError, match="GRADER_LLM"):
        load(GraderConfig, prefix="GRADER_", env=env)
