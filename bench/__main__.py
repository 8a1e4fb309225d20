"""``make bench``: all numbers, or those of ``--only``; ``--rounds`` interleaves with the peers."""

from __future__ import annotations

import argparse
import asyncio
import math
import statistics
import tempfile
from collections.abc import Generator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

from bench import (
    code,
    delivery,
    dispatch,
    faults,
    graders,
    injection,
    peers,
    results,
    sandbox,
    storage,
    throughput,
)
from bench.load import POLICY, Ledger
from bench.results import Result
from cinnabar_local.stack import Stack, StackConfig, running

NAMES = (
    "graded_per_second_batched",
    "graded_ratio_to_fastest_peer",
    "rest_submits_per_second",
    "rest_submits_ratio_to_document_design",
    "grpc_submits_per_second",
    "grpc_submits_ratio_to_document_design",
    "submit_to_watch_p50_ms",
    "submit_to_watch_p99_ms",
    "redelivery_after_kill_ms",
    "redelivery_after_silence_s",
    "enqueue_to_delivery_p50_ms",
    "rebuild_after_flush_s",
    *dispatch.NAMES,
    *storage.NAMES,
    *code.NAMES,
    *graders.NAMES,
    *injection.NAMES,
    *sandbox.NAMES,
)
NEEDS_PEERS = {name for name in NAMES if "_ratio_to_" in name}
NEEDS_GRADERS = {name for name in NAMES if name.startswith(("graded", "rest", "grpc", "submit"))}
NEEDS_QUEUE_ALONE = set(dispatch.NAMES)
NEEDS_STORAGE_ALONE = set(storage.NAMES)
NEEDS_SANDBOX_ALONE = set(code.NAMES)
NEEDS_NOTHING = set(graders.NAMES)
NEEDS_MODELS = set(injection.NAMES)
NEEDS_BOXES = set(sandbox.NAMES)
NEEDS_ALONE = (
    NEEDS_QUEUE_ALONE | NEEDS_STORAGE_ALONE | NEEDS_SANDBOX_ALONE | NEEDS_NOTHING | NEEDS_MODELS | NEEDS_BOXES
)
WARM_UP = 2_000
GRADED = 20_000
SUBMITS = 4_000
WATCHED = 200
KILLS = 5
SILENCES = 2
DELIVERIES = 300
FLUSHED = 100_000
PEER_TASKS = 4_000
QUEUE_PEERS = ("celery", "taskiq", "dramatiq", "arq")


class Samples:
    """What each round gave, by name."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}

    def add(self, name: str, *values: float) -> None:
        """More samples of one name, said aloud."""
        self._values.setdefault(name, []).extend(values)
        shown = f"{values[0]:,.2f}" if len(values) == 1 else f"{len(values)} samples"
        print(f"  {name}: {shown}", flush=True)

    def median(self, name: str) -> float:
        """NaN without samples."""
        return statistics.median(self._values.get(name, [math.nan]))

    def percentile(self, name: str, percent: int) -> float:
        """The value that ``percent`` of the samples do not exceed."""
        values = sorted(self._values[name])
        return values[min(len(values) - 1, math.ceil(len(values) * percent / 100) - 1)]


@contextmanager
def _data_folder() -> Generator[Path]:
    with tempfile.TemporaryDirectory(prefix="cinnabar-bench-") as folder:
        Path(folder).chmod(0o711)  # Postgres runs as a user of its own, who must get in
        yield Path(folder)


async def measure(wanted: set[str], rounds: int, scale: float) -> list[Result]:
    """Runs what ``wanted`` needs."""
    samples = Samples()
    with_peers = bool(wanted & NEEDS_PEERS) and peers.present()
    if wanted & NEEDS_PEERS and not peers.present():
        print("the peers' scripts are not here: ratios are left out")
    with _data_folder() as folder:
        if wanted & NEEDS_GRADERS:
            await _with_graders(folder / "graders", wanted, samples, rounds, scale, with_peers)
        if wanted & NEEDS_QUEUE_ALONE:
            found = await dispatch.measure(folder / "dispatch", wanted, rounds, scale)
            for name, values in found.items():
                samples.add(name, *values)
        if wanted & NEEDS_STORAGE_ALONE:
            found = await storage.measure(folder / "storage", wanted, rounds, scale)
            for name, values in found.items():
                samples.add(name, *values)
        if wanted & NEEDS_SANDBOX_ALONE:
            for name, values in (await code.measure(scale)).items():
                samples.add(name, *values)
        if wanted & NEEDS_BOXES:
            for name, values in (await sandbox.measure(wanted, rounds, scale)).items():
                samples.add(name, *values)
        if wanted & NEEDS_NOTHING:
            for name, values in (await graders.measure(wanted, rounds, scale)).items():
                samples.add(name, *values)
        if wanted & NEEDS_MODELS:
            for name, values in (await injection.measure(wanted, scale)).items():
                samples.add(name, *values)
        if wanted - NEEDS_GRADERS - NEEDS_ALONE:
            await _without_graders(folder / "faults", wanted, samples, scale)
    return [result for result in _results(samples, with_peers) if result.name in wanted]


async def _with_graders(
    folder: Path, wanted: set[str], samples: Samples, rounds: int, scale: float, with_peers: bool
) -> None:
    async with AsyncExitStack() as exits:
        redis_url = ""
        if with_peers:
            await peers.prepare()
            redis_url = await exits.enter_async_context(peers.valkey())
        config = StackConfig(
            data_dir=folder, objects=False, policy=POLICY, env={"grader": {"GRADER_QUEUES": "text"}}
        )
        stack = await exits.enter_async_context(running(config))
        ledger = await exits.enter_async_context(Ledger.of(stack))
        await throughput.graded_batched(stack, ledger, max(100, int(WARM_UP * scale)))
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", flush=True)
            await _round(stack, ledger, wanted, samples, scale)
            if with_peers:
                for peer in (*QUEUE_PEERS, peers.DOCUMENT_DESIGN):
                    samples.add(f"peer {peer}", (await peers.run(peer, redis_url, PEER_TASKS)).per_second)


async def _round(stack: Stack, ledger: Ledger, wanted: set[str], samples: Samples, scale: float) -> None:
    if wanted & {"submit_to_watch_p50_ms", "submit_to_watch_p99_ms"}:
        samples.add("watch", *await throughput.submit_to_watch(stack, int(WATCHED * scale)))
    if wanted & {"graded_per_second_batched", "graded_ratio_to_fastest_peer"}:
        samples.add("batched", await throughput.graded_batched(stack, ledger, int(GRADED * scale)))
    if any(name.startswith("grpc_submits") for name in wanted):
        samples.add("grpc", await throughput.grpc_submits(stack, ledger, int(SUBMITS * scale)))
    if any(name.startswith("rest_submits") for name in wanted):
        samples.add("rest", await throughput.rest_submits(stack, ledger, int(SUBMITS * scale)))


async def _without_graders(folder: Path, wanted: set[str], samples: Samples, scale: float) -> None:
    async with running(StackConfig(data_dir=folder, objects=False, graders=0, policy=POLICY)) as stack:
        if "redelivery_after_kill_ms" in wanted:
            samples.add("redelivery", *await faults.redelivery_after_kill(stack, KILLS))
        if "enqueue_to_delivery_p50_ms" in wanted:
            samples.add("delivery", *await delivery.enqueue_to_delivery(stack, int(DELIVERIES * scale)))
        if "redelivery_after_silence_s" in wanted:
            samples.add(
                "silence", *await faults.redelivery_after_silence(stack, max(1, int(SILENCES * scale)))
            )
        if "rebuild_after_flush_s" in wanted:
            samples.add("rebuild", await faults.rebuild_after_flush(stack, int(FLUSHED * scale)))


def _results(samples: Samples, with_peers: bool) -> Sequence[Result]:
    fastest, best = None, math.nan
    document = None
    if with_peers:
        best, fastest = max((samples.median(f"peer {peer}"), peer) for peer in QUEUE_PEERS)
        document = samples.median(f"peer {peers.DOCUMENT_DESIGN}")

    def rate(name: str, key: str, peer: str | None, of_peer: float | None) -> Result:
        value = samples.median(key)
        ratio = value / of_peer if of_peer else None
        return Result(name=name, value=value, unit="1/s", better="higher", peer=peer, ratio=ratio)

    def ratio(name: str, key: str, peer: str | None, of_peer: float | None, bar: float) -> list[Result]:
        if not of_peer:
            return []
        value = samples.median(key) / of_peer
        return [Result(name=name, value=value, unit="x", better="higher", bar=bar, peer=peer, ratio=value)]

    design = "the document's design" if document else None
    found = [
        rate("graded_per_second_batched", "batched", fastest, best if fastest else None),
        *ratio("graded_ratio_to_fastest_peer", "batched", fastest, best if fastest else None, 3),
        rate("rest_submits_per_second", "rest", design, document),
        *ratio("rest_submits_ratio_to_document_design", "rest", design, document, 1),
        rate("grpc_submits_per_second", "grpc", design, document),
        *ratio("grpc_submits_ratio_to_document_design", "grpc", design, document, 1.5),
    ]
    for name, bar in (
        ("dispatch_per_second", 20_000),
        ("storage_creates_per_second", 10_000),
        ("storage_grade_commits_per_second", 6_000),
        ("rules_grades_per_second_per_core", 30_000),
        ("semantic_answers_per_second_per_core", 300),
        (sandbox.RATE, sandbox.RATE_BAR),
    ):
        found.append(Result(name=name, value=samples.median(name), unit="1/s", better="higher", bar=bar))
    for name, unit, bar in ((code.AGREEMENT, "%", code.AGREEMENT_BAR), (code.RATE, "1/s", None)):
        found.append(Result(name=name, value=samples.median(name), unit=unit, better="higher", bar=bar))
    for name, key, percent, unit, bar in (
        ("submit_to_watch_p50_ms", "watch", 50, "ms", 10.0),
        ("submit_to_watch_p99_ms", "watch", 99, "ms", 40.0),
        ("redelivery_after_kill_ms", "redelivery", 50, "ms", 1000.0),
        ("redelivery_after_silence_s", "silence", 100, "s", 20.0),
        ("enqueue_to_delivery_p50_ms", "delivery", 50, "ms", 3.0),
        ("rebuild_after_flush_s", "rebuild", 50, "s", 10.0),
        ("dispatch_cost_ratio_1k_to_1m", "dispatch_cost_ratio_1k_to_1m", 50, "x", 1.3),
        ("redis_bytes_per_waiting_task", "redis_bytes_per_waiting_task", 50, "bytes", 1024.0),
        ("get_cached_p50_ms", "get_cached_p50_ms", 50, "ms", 2.0),
        ("get_replica_p50_ms", "get_replica_p50_ms", 50, "ms", 4.0),
        ("list_page_10_shards_p50_ms", "list_page_10_shards_p50_ms", 50, "ms", 30.0),
        ("storage_cost_ratio_10k_to_2m", "storage_cost_ratio_10k_to_2m", 50, "x", 1.3),
        ("reshard_longest_write_stall_ms", "reshard_longest_write_stall_ms", 100, "ms", 1000.0),
        ("reshard_longest_write_at_rest_ms", "reshard_longest_write_at_rest_ms", 100, "ms", None),
        ("reshard_seconds", "reshard_seconds", 50, "s", None),
        ("semantic_single_p50_ms", "semantic_single_p50_ms", 50, "ms", 10.0),
        *((name, name, 50, "%", bar) for name, bar in injection.BARS.items()),
        (sandbox.OVERHEAD, sandbox.OVERHEAD, 50, "ms", sandbox.OVERHEAD_BAR),
    ):
        if not math.isnan(samples.median(key)):
            value = samples.percentile(key, percent)
            found.append(Result(name=name, value=value, unit=unit, better="lower", bar=bar))
    return [result for result in found if not math.isnan(result.value)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--only", default="", help="names, separated by commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="how much of the usual load")
    parser.add_argument("--output", type=Path, default=results.REPORT, help="where the report goes")
    arguments = parser.parse_args()
    wanted = {name for name in arguments.only.split(",") if name} or set(NAMES)
    if unknown := wanted - set(NAMES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    found = asyncio.run(measure(wanted, arguments.rounds, arguments.scale))
    results.show(found)
    results.write(found, arguments.output)
    if missing := wanted - {result.name for result in found}:
        print(f"not measured: {', '.join(sorted(missing))}")


if __name__ == "__main__":
    main()
