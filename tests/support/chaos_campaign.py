"""One campaign: traffic, faults one step after the other, quiet, and the account of it all."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from cinnabar_local import sql
from cinnabar_local.stack import Stack
from tests.support.chaos_faults import Faults
from tests.support.chaos_homework import Load
from tests.support.chaos_ledger import Ledger
from tests.support.chaos_metrics import Counters, scraping
from tests.support.chaos_oracle import DEAD, OPEN, Account, account, longest_stall, longest_wait, open_since
from tests.support.chaos_quiet import leftovers, nothing_queued
from tests.support.chaos_schedule import Fault, Kind, Step
from tests.support.chaos_traffic import Probe, flowing, probing
from tests.support.chaos_watch import MEBIBYTE, Logs, Watch, read_logs, watching
from tests.support.waiting import until

# A step that has not been recovered from by then ends the campaign.
GIVE_UP_SECONDS = 120.0
SETTLE_SECONDS = 90.0
_SERVICES = frozenset({"gateway", "scheduler", "storage", "grader"})
_WEIGHED = _SERVICES | {"valkey", "envoy"}


@dataclass(slots=True)
class Recovered:
    """A fault that was injected, and the seconds from its end until everything older was graded."""

    fault: Fault
    seconds: float


@dataclass(slots=True)
class Report:
    """What there is to say about a campaign."""

    seed: int
    ledger: Ledger
    watch: Watch
    counters: Counters
    recovered: list[Recovered] = field(default_factory=list[Recovered])
    caught: dict[Kind, int] = field(default_factory=dict[Kind, int])
    seconds: float = 0.0
    settled: float = 0.0
    found: Account = field(default_factory=lambda: Account((), (), (), Counter()))
    leftovers: list[str] = field(default_factory=list[str])
    logs: Logs = field(default_factory=Logs)

    @property
    def longest_recovery(self) -> float:
        """Seconds."""
        return max((each.seconds for each in self.recovered), default=0.0)

    def lines(self) -> list[str]:
        """For people."""
        ledger, found = self.ledger, self.found
        statuses = ", ".join(f"{code} {count}" for code, count in ledger.statuses.most_common())
        cancelled = len(found.tasks) - len(found.in_state(DEAD)) - len(found.in_state(OPEN))
        sent = ", ".join(f"{how} {count}" for how, count in sorted(ledger.sent.items()))
        faults = len(self.recovered)
        longest = ", ".join(f"{how} {seconds:.1f}" for how, seconds in sorted(ledger.longest.items()))
        lines = [
            f"seed {self.seed}, {self.seconds:.0f} s, {faults} faults, quiet after {self.settled:.1f} s",
            *self._fault_lines(),
            f"submissions accepted {len(found.submissions)} ({sent})",
            f"grades {len(found.grades)}, cancelled tasks {cancelled}",
            f"dead letters {len(found.in_state(DEAD))}, open {len(found.in_state(OPEN))}",
            self._deliveries(),
            f"idempotent repeats answered {ledger.repeats}",
            f"longest stall {longest_stall(found):.1f} s, from accept to grade {longest_wait(found):.1f} s",
            f"statuses seen by clients: {statuses}",
            f"longest that a client had to try, in seconds: {longest}",
            f"memory in MiB (after the last start, at the end, most): {self._memory()}",
        ]
        lines += [f"dead letter: {task}" for task in found.in_state(DEAD)[:20]]
        lines += [f"log: {line}" for line in self.logs.bad[:20]]
        lines += [
            f"log: {service} {level}: {event} ({count})"
            for (service, level, event), count in sorted(self.logs.events.items())
            if level in ("warning", "error", "critical")
        ]
        return lines

    def _deliveries(self) -> str:
        total = self.counters.total
        refused = sum(total(f"cinnabar_outcomes_total/{fate}") for fate in ("already_graded", "superseded"))
        return (
            f"duplicates refused by the fence {refused}, stale leases told "
            f"{total('cinnabar_outcomes_total/stale_lease')}, deliveries "
            f"{total('cinnabar_tasks_leased_total')}, leases expired "
            f"{total('cinnabar_leases_expired_total')}, lost {total('cinnabar_leases_lost_total')}"
        )

    def _memory(self) -> str:
        watch = self.watch
        return ", ".join(
            f"{name} {first // MEBIBYTE} {watch.last[name] // MEBIBYTE} {watch.most[name] // MEBIBYTE}"
            for name, (_, first) in sorted(watch.first.items())
            if name.partition("-")[0] in _WEIGHED
        )

    def _fault_lines(self) -> list[str]:
        times: dict[str, list[float]] = defaultdict(list)
        for each in self.recovered:
            target = each.fault.target
            place = target if ">" in target else target.rstrip("0123456789").rstrip("-")
            times[f"{each.fault.kind.value} {place}"].append(each.seconds)
        caught = ", ".join(f"{kind.value} {count}" for kind, count in self.caught.items())
        return [
            f"  {name}: {len(seconds)}, recovered after {', '.join(f'{s:.1f}' for s in seconds)} s"
            for name, seconds in sorted(times.items())
        ] + ([f"  struck in the middle of a rebuild: {caught}"] if caught else [])


async def campaign(
    stack: Stack,
    faults: Faults,
    steps: Sequence[Step],
    *,
    seed: int,
    load: Load,
    marker: str,
) -> Report:
    """Runs it. Raises AssertionError when the suite does not come back at all.

    ``marker`` is in answers and may be in no log.
    """
    began = time.monotonic()
    async with watching(stack, faults.down) as watch, scraping(stack) as counters:
        async with flowing(stack, seed=seed, load=load) as ledger:
            report = Report(seed, ledger, watch, counters, caught=faults.caught)
            async with probing(stack, ledger, seed=seed) as probe:
                await probe.graded()
                for step in steps:
                    await asyncio.sleep(step.gap)
                    await _step(stack, faults, step, probe, report)
            last = time.monotonic()
        await until(
            lambda: _nothing_open(stack, time.time() + 3600),
            description="nothing is open any more",
            seconds=SETTLE_SECONDS,
        )
        await until(
            lambda: nothing_queued(stack), description="nothing is queued any more", seconds=SETTLE_SECONDS
        )
        report.settled = time.monotonic() - last
    report.seconds = time.monotonic() - began
    report.found = await account(stack.addresses.shards)
    report.leftovers = await leftovers(stack, report.found)
    services = [name for name in stack.names if name.partition("-")[0] in _SERVICES and "migrate" not in name]
    report.logs = read_logs(stack.folder.logs, services, marker=marker)
    return report


async def _step(stack: Stack, faults: Faults, step: Step, probe: Probe, report: Report) -> None:
    """Breaks, mends, and returns when everything that was accepted before the end is graded."""

    async def one(fault: Fault) -> None:
        await faults.begin(fault)
        await asyncio.sleep(fault.hold)
        await faults.end(fault)

    print("chaos:", "; ".join(str(fault) for fault in step.faults), flush=True)  # noqa: T201
    async with asyncio.TaskGroup() as group:
        for fault in step.faults:
            group.create_task(one(fault), name=f"chaos {fault}")
    ended, at = time.monotonic(), time.time()
    async with asyncio.timeout(GIVE_UP_SECONDS):
        await probe.graded()
    await until(lambda: _nothing_open(stack, at), description="all older is graded", seconds=GIVE_UP_SECONDS)
    seconds = time.monotonic() - ended
    print(f"chaos: recovered after {seconds:.1f} s", flush=True)  # noqa: T201
    report.recovered += [Recovered(fault, seconds) for fault in step.faults]


async def _nothing_open(stack: Stack, since: float) -> bool:
    try:
        return await open_since(stack.addresses.shards, since) == 0
    except sql.Unreachable:
        return False
