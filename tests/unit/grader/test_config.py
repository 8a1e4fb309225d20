"""Configuration."""

import pytest

from cinnabar_common.config import ConfigError, load
from cinnabar_common.names import is_id
from cinnabar_grader.app import worker_id
from cinnabar_grader.config import GraderConfig


def test_only_the_scheduler_must_be_named() -> None:
    config = load(GraderConfig, prefix="GRADER_", env={"GRADER_SCHEDULER_TARGET": "a:1, b:2,a:1"})
    assert config.addresses == ("a:1", "b:2")
    assert {"choice", "free-text", "llm", "code-python"} <= set(config.queues)


def test_credits_of_some_queues() -> None:
    env = {
        "GRADER_SCHEDULER_TARGET": "a:1",
        "GRADER_QUEUES": "text,free-text,custom-chess",
        "GRADER_CREDITS": "free-text=4,custom-chess=9",
    }
    config = load(GraderConfig, prefix="GRADER_", env=env)
    assert config.configured_credits == {"free-text": 4, "custom-chess": 9}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("SCHEDULER_TARGET", " , ", "no address"),
        ("QUEUES", "text,essay", "'essay' is not a queue"),
        ("QUEUES", "", "names no queue"),
        ("CODE_RUNS", "-1", "CODE_RUNS must be 0 to 256"),
        ("CODE_TASK_SECONDS", "0", "CODE_TASK_SECONDS must be"),
        ("CODE_TREES", "opt/python", "CODE_TREES must be absolute"),
        ("CREDITS", "text", "not queue=number"),
        ("CREDITS", "text=0", "not queue=number"),
        ("CREDITS", "essay=5", "not queue=number"),
        ("QUEUES", "custom-", "'custom-' is not a queue"),
        ("MAX_WORKERS", "2", "in this order"),
        ("SCALE_DOWN", "0.5", "half of GRADER_SCALE_UP"),
        ("BATCH_SECONDS", "0", "GRADER_BATCH_SECONDS must be more than 0"),
        ("PROCESS_MIB", "1", "64 or more"),
        ("PROCESS_BATCHES", "0", "1 or more"),
        ("SEMANTIC_THREADS", "0", "1 or more"),
        ("SEMANTIC_THREADS", "many", "not a whole number"),
        ("DRAIN_SECONDS", "-1", "0 to 3600"),
        ("WORKER", "Upper Case", "GRADER_WORKER must be"),
        ("CREDIT", "text=5", "not a setting"),
    ],
)
def test_problems_are_told(name: str, value: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load(GraderConfig, prefix="GRADER_", env={"GRADER_SCHEDULER_TARGET": "a:1", f"GRADER_{name}": value})


def test_worker_ids() -> None:
    assert worker_id("w-1") == "w-1"
    assert is_id(worker_id(""))
    assert worker_id("") != worker_id("")
