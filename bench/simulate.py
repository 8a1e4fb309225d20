"""``python -m bench.simulate``: the real queue under a simulated clock; waiting times and their bounds.

A discrete-event simulation: arrivals and ends of work are events of a clock
that jumps from one to the next, every decision is made by the scripts that
run in production, on a Valkey of its own. Exits with 1 when a published
bound (docs/scheduling.md) is broken.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import itertools
import random
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cinnabar_common.redis_connection import connect
from cinnabar_local.credentials import Credentials
from cinnabar_local.group import serving
from cinnabar_local.ports import Ports
from cinnabar_local.servers import Valkey
from cinnabar_scheduler.adapters.memory import MemoryPolicy
from cinnabar_scheduler.adapters.redis_queue import RedisQueue
from cinnabar_scheduler.policy import Policy, TenantPolicy
from cinnabar_scheduler.tasks import HeadStart, Lease, QueueName, Task

START_MS = 1_800_000_000_000
SERVICE_MS = 200
_names = itertools.count()


@dataclass(slots=True)
class SimulatedClock:
    """Implements Clock; jumps from event to event."""

    now_ms: int = START_MS

    def time(self) -> float:
        return self.now_ms / 1000

    def monotonic(self) -> float:
        return self.now_ms / 1000


@dataclass(frozen=True, slots=True)
class Arrival:
    """Tasks that come together."""

    after_ms: int
    tenant: str
    count: int = 1
    head_start: HeadStart = HeadStart.NORMAL


@dataclass(frozen=True, slots=True)
class Served:
    """One dispatch: when, what, and how many credits were free before it."""

    number: int
    at_ms: int
    ready_ms: int
    tenant: str
    head_start: HeadStart
    free: int

    @property
    def waited_ms(self) -> int:
        """From ready to leased."""
        return self.at_ms - self.ready_ms


Check = Callable[["World"], list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What comes when, how many graders' credits there are, and what must hold."""

    name: str
    arrivals: Sequence[Arrival]
    credits: int
    check: Check
    # Work ends at multiples of this, so that credits come back together.
    together_ms: int = 1
    weights: Mapping[str, int] = field(default_factory=dict[str, int])
    caps: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def policy(self) -> Policy:
        """Its tenants."""
        return Policy(
            tenants={
                tenant: TenantPolicy(
                    weight=self.weights.get(tenant, 1), max_concurrency=self.caps.get(tenant)
                )
                for tenant in {*self.weights, *self.caps}
            }
        )


@dataclass(slots=True)
class World:
    """What happened."""

    scenario: Scenario
    served: list[Served] = field(default_factory=list[Served])
    most_running: dict[str, int] = field(default_factory=lambda: defaultdict[str, int](int))

    async def run(self, queue: RedisQueue, clock: SimulatedClock, dice: random.Random) -> None:
        """Plays the scenario to its end."""
        name, credits = QueueName("simulated"), self.scenario.credits
        arrivals = sorted(self.scenario.arrivals, key=lambda one: one.after_ms)
        coming, running = 0, defaultdict[str, int](int)
        ends: list[tuple[int, int, Lease]] = []
        known: dict[str, Task] = {}
        total = sum(one.count for one in arrivals)
        free = credits
        while len(self.served) < total or ends:
            batch: list[Task] = []
            while coming < len(arrivals) and START_MS + arrivals[coming].after_ms <= clock.now_ms:
                batch += _tasks(arrivals[coming], name)
                coming += 1
            known.update((task.task, task) for task in batch)
            if batch:
                await queue.enqueue(batch)
            while free:
                leased = await queue.lease(name, min(free, 512), free=free)
                for lease in leased.leases:
                    task = known.pop(lease.task)
                    running[lease.tenant] += 1
                    self.most_running[lease.tenant] = max(
                        self.most_running[lease.tenant], running[lease.tenant]
                    )
                    self.served.append(
                        Served(
                            len(self.served),
                            clock.now_ms,
                            task.ready_ms,
                            lease.tenant,
                            task.head_start,
                            free,
                        )
                    )
                    free -= 1
                    end = clock.now_ms + dice.randint(SERVICE_MS // 2, SERVICE_MS * 3 // 2)
                    end = -(-end // self.scenario.together_ms) * self.scenario.together_ms
                    heapq.heappush(ends, (end, len(self.served), lease))
                if not leased.leases:
                    break
            moments = [START_MS + arrivals[coming].after_ms] if coming < len(arrivals) else []
            moments += [ends[0][0]] if ends else []
            if not moments:
                break  # what is left will never be served
            clock.now_ms = min(moments)
            over: list[Lease] = []
            while ends and ends[0][0] <= clock.now_ms:
                over.append(heapq.heappop(ends)[2])
            if over:
                await queue.remove(name, [(lease.task, lease.generation) for lease in over])
                for lease in over:
                    running[lease.tenant] -= 1
                free += len(over)

    def problems(self) -> list[str]:
        """Every bound that was broken: those of all scenarios, and its own."""
        found = [
            f"dispatch {one.number} spent the last free credit on a regrade"
            for one in self.served
            if one.head_start is HeadStart.REGRADE and one.free < 2
        ]
        last: dict[tuple[str, HeadStart], int] = defaultdict(int)
        for one in self.served:
            line = one.tenant, one.head_start
            if one.ready_ms < last[line]:
                found.append(
                    f"dispatch {one.number} of {one.tenant} was overtaken by newer work of its class"
                )
            last[line] = max(last[line], one.ready_ms)
        for tenant, cap in self.scenario.caps.items():
            if self.most_running[tenant] > cap:
                found.append(f"{tenant} had {self.most_running[tenant]} under lease, its cap is {cap}")
        missing = sum(one.count for one in self.scenario.arrivals) - len(self.served)
        if missing:
            found.append(f"{missing} tasks were never served")
        return found + self.scenario.check(self)

    def tell(self) -> None:
        """Prints waiting times by class and tenant."""
        groups: dict[tuple[str, str], list[int]] = defaultdict(list)
        for one in self.served:
            tenant = one.tenant if not one.tenant.startswith("small") else "small-…"
            groups[tenant, one.head_start.name].append(one.waited_ms)
        print(f"\n{self.scenario.name}: {len(self.served):,} dispatches, {self.scenario.credits} credits")
        print(f"  {'tenant':12} {'class':9} {'tasks':>7} {'p50 s':>8} {'p99 s':>8} {'longest s':>10}")
        for (tenant, name), waits in sorted(groups.items()):
            waits.sort()
            middle, late = statistics.median(waits), waits[len(waits) * 99 // 100]
            row = f"{middle / 1000:8.2f} {late / 1000:8.2f} {waits[-1] / 1000:10.2f}"
            print(f"  {tenant:12} {name:9} {len(waits):7,} {row}")


def _tasks(arrival: Arrival, queue: QueueName) -> list[Task]:
    return [
        Task(
            task=f"simulated{next(_names):012d}/q1",
            tenant=arrival.tenant,
            queue=queue,
            generation=1,
            head_start=arrival.head_start,
            ready_ms=START_MS + arrival.after_ms,
            item_key="simulated/q1",
            answer=b"",
        )
        for _ in range(arrival.count)
    ]


def deadline_night(dice: random.Random, scale: float) -> Scenario:
    """One tenant hands in everything at once; many others come with a single task each, all night."""
    others = max(20, int(200 * scale))
    flood = max(500, int(8_000 * scale))
    credits = 16
    small = [Arrival(dice.randrange(40_000), f"small-{number:03}") for number in range(others)]

    def check(world: World) -> list[str]:
        """A tenant with one task is served after at most one task of each other active tenant."""
        found: list[str] = []
        for one in world.served:
            if one.tenant == "huge":
                continue
            before = [
                other
                for other in world.served[: one.number]
                if other.at_ms >= one.ready_ms and other.number != one.number
            ]
            tenants = {other.tenant for other in before}
            if len(before) > len(tenants):
                found.append(f"{one.tenant} waited for {len(before)} dispatches of {len(tenants)} tenants")
        return found

    return Scenario(
        name="deadline night", arrivals=[Arrival(0, "huge", flood), *small], credits=credits, check=check
    )


def regrades_behind_a_full_queue(dice: random.Random, scale: float) -> Scenario:
    """Regrades come first, then more ordinary work than there are graders, for longer than the head start."""
    seconds = 100
    credits = max(4, int(8 * scale))
    # A little more than the graders can do, so that a backlog is always there.
    rate = credits * 1000 / (SERVICE_MS + SERVICE_MS / 2) * 1.05
    homework = [Arrival(dice.randrange(seconds * 1000), "school") for _ in range(int(rate * seconds))]
    regrades = Arrival(1_000, "school", max(20, int(100 * scale)), HeadStart.REGRADE)
    ahead_ms = HeadStart.NORMAL - HeadStart.REGRADE

    def check(world: World) -> list[str]:
        """Where two credits are free nothing goes before a regrade but what is ahead by the head start."""
        found: list[str] = []
        last = max(one.number for one in world.served if one.head_start is HeadStart.NORMAL)
        for one in world.served:
            if one.head_start is not HeadStart.REGRADE:
                continue
            ahead = one.ready_ms + ahead_ms
            unfair = sum(
                other.free >= 2 and other.head_start is HeadStart.NORMAL and other.ready_ms > ahead
                for other in world.served[: one.number]
            )
            if unfair:
                found.append(f"dispatch {one.number}: {unfair} tasks went before it beyond the head start")
            if one.number > last:
                found.append(f"dispatch {one.number}: it waited for all the ordinary work there was")
        return found

    return Scenario(
        name="regrades behind a full queue",
        arrivals=[regrades, *homework],
        credits=credits,
        check=check,
        together_ms=SERVICE_MS,
    )


def weights(dice: random.Random, scale: float) -> Scenario:
    """Three tenants that always have work, of weights 1, 3 and 10."""
    shares = {"one": 1, "three": 3, "ten": 10}
    count = max(700, int(7_000 * scale))

    def check(world: World) -> list[str]:
        """While all have work, each is within one turn of its share, at every moment."""
        served: dict[str, int] = defaultdict(int)
        total = sum(shares.values())
        for number, one in enumerate(world.served, 1):
            served[one.tenant] += 1
            if served["ten"] == count:
                break
            for tenant, weight in shares.items():
                due = number * weight / total
                if abs(served[tenant] - due) > len(shares):
                    return [f"after {number} dispatches {tenant} had {served[tenant]}, due were {due:.1f}"]
        return []

    arrivals = [Arrival(0, tenant, count) for tenant in shares]
    dice.shuffle(arrivals)
    return Scenario(name="weights 1:3:10", arrivals=arrivals, credits=14, check=check, weights=shares)


def caps(dice: random.Random, scale: float) -> Scenario:
    """A tenant with much work and a cap; others must get what it may not have."""
    count = max(200, int(2_000 * scale))

    def check(world: World) -> list[str]:
        found: list[str] = []
        if world.most_running["capped"] != 4:
            found.append(f"the cap of 4 was used up to {world.most_running['capped']}")
        # 16 credits: 12 remain for the other, so its work ends first although both came at once.
        last = {one.tenant: one.at_ms for one in world.served}
        if last["free"] >= last["capped"]:
            found.append("the tenant without a cap was held up by the one at its cap")
        return found

    arrivals = [Arrival(0, "capped", count), Arrival(dice.randrange(1_000), "free", count)]
    return Scenario(name="caps", arrivals=arrivals, credits=16, check=check, caps={"capped": 4})


SCENARIOS = (deadline_night, regrades_behind_a_full_queue, weights, caps)


@asynccontextmanager
async def _valkey(folder: Path) -> AsyncGenerator[str]:
    valkey = Valkey(
        name="valkey", folder=folder / "valkey", port=Ports().of("valkey"), password=Credentials().redis
    )
    async with serving(valkey.process(), logs=folder / "logs"):
        yield valkey.url


async def simulate(urls: Sequence[str], seed: int, scale: float) -> list[World]:
    """Plays all scenarios, each on a database of its own."""
    worlds: list[World] = []
    for number, (url, make) in enumerate(zip(urls, SCENARIOS, strict=True)):
        dice = random.Random(f"{seed}/{number}")
        scenario = make(dice, scale)
        clock, world = SimulatedClock(), World(scenario)
        redis = connect(url, timeout_seconds=10)
        try:
            policies = MemoryPolicy(scenario.policy)
            queue = RedisQueue(redis, clock=clock, lease_seconds=3600, policies=policies)
            assert await queue.begin_rebuild(1)
            assert await queue.finish_rebuild(1)
            await world.run(queue, clock, dice)
        finally:
            await redis.aclose()
        worlds.append(world)
    return worlds


async def _main(seed: int, scale: float) -> int:
    with tempfile.TemporaryDirectory(prefix="cinnabar-simulate-") as folder:
        async with _valkey(Path(folder)) as url:
            databases = [f"{url.rpartition('/')[0]}/{number}" for number in range(len(SCENARIOS))]
            worlds = await simulate(databases, seed, scale)
    broken = 0
    for world in worlds:
        world.tell()
        problems = world.problems()
        broken += len(problems)
        for problem in problems[:10]:
            print(f"  BROKEN: {problem}")
        if not problems:
            print("  all bounds hold")
    return 1 if broken else 0


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.simulate", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0, help="how much of the usual load")
    arguments = parser.parse_args()
    sys.exit(asyncio.run(_main(arguments.seed, arguments.scale)))


if __name__ == "__main__":
    main()
