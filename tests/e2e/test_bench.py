"""The measurements in their short form: they run, and their report has the shape that was promised."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from bench import code

ROOT = Path(__file__).parents[2]
GRADED = [
    "graded_per_second_batched",
    "grpc_submits_per_second",
    "rest_submits_per_second",
    "submit_to_watch_p50_ms",
]
UNGRADED = [
    "redelivery_after_kill_ms",
    "enqueue_to_delivery_p50_ms",
    "rebuild_after_flush_s",
]
QUEUE = [
    "dispatch_per_second",
    "dispatch_cost_ratio_1k_to_1m",
    "redis_bytes_per_waiting_task",
]
STORAGE = [
    "storage_creates_per_second",
    "storage_grade_commits_per_second",
    "get_cached_p50_ms",
    "get_replica_p50_ms",
    "list_page_10_shards_p50_ms",
]
STORED = [
    "storage_cost_ratio_10k_to_2m",
    "reshard_longest_write_stall_ms",
    "reshard_longest_write_at_rest_ms",
    "reshard_seconds",
]
CODE = [code.RATE, *([code.AGREEMENT] if code.collected() else [])]
GRADERS = [
    "rules_grades_per_second_per_core",
    "semantic_answers_per_second_per_core",
    "semantic_single_p50_ms",
]
# Not the local model, which takes half a minute: it is asked in tests/integration/grader.
INJECTION = ["injection_success_semantic_percent", "injection_success_guards_percent"]
SANDBOX = ["sandbox_overhead_ms", "sandbox_runs_per_second"]
KEYS = {"name", "value", "unit", "bar", "better", "peer", "ratio"}


@pytest.mark.timeout(170)
@pytest.mark.parametrize(
    "names",
    [GRADED, UNGRADED, QUEUE, STORAGE, STORED, CODE, GRADERS, INJECTION, SANDBOX],
    ids=["graded", "ungraded", "queue", "storage", "stored", "code", "graders", "injection", "sandbox"],
)
async def test_a_short_run_gives_every_number(names: list[str], tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    command = ("-m", "bench", "--only", ",".join(names), "--rounds", "1", "--scale", "0.02")
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, "--output", str(output), cwd=ROOT, stdout=-1, stderr=-2
    )
    async with asyncio.timeout(160):
        said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    report = json.loads(output.read_text("utf-8"))
    assert {"system", "processor", "cores", "python", "fsync"} <= set(report["machine"])
    assert sorted(result["name"] for result in report["results"]) == sorted(names)
    for result in report["results"]:
        assert set(result) == KEYS
        assert result["value"] > 0 or result["name"] in INJECTION
        assert result["better"] in ("higher", "lower")
