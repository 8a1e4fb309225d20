"""Which faults are injected, when and for how long: a pure function of a seed and a duration."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

SERVICES = ("gateway-0", "gateway-1", "scheduler-0", "scheduler-1", "storage-0", "grader-0", "grader-1")
PRIMARIES = ("postgres-0", "postgres-1")
REPLICAS = ("postgres-0-replica", "postgres-1-replica")
VALKEY = "valkey"
SKEWED_GRADER = "grader-1"
SKEW_SECONDS = 600.0
LINKS = (
    ("gateway-0", "storage-0"),
    ("scheduler-0", "valkey"),
    ("scheduler-0", "storage-0"),
    ("scheduler-1", "storage-0"),
    ("grader-0", "scheduler-0"),
    ("storage-0", "postgres-0"),
)


class Kind(Enum):
    """What is done to the target; in brackets what ends it."""

    KILL = "kill -9"
    """SIGKILL (started again)."""
    PAUSE = "SIGSTOP"
    """SIGSTOP: connections stay, nothing is answered (SIGCONT)."""
    FLUSH = "flush"
    """FLUSHALL (nothing)."""
    EMPTY = "restart empty"
    """SIGKILL of Valkey, which keeps nothing (started again on its port, at once)."""
    AWAY = "stopped"
    """Stopped in good order, as for a new release (started again)."""
    FAST = "fast shutdown"
    """A primary's fast shutdown (started again on the same port and data)."""
    IMMEDIATE = "immediate shutdown"
    """A primary's immediate shutdown: a crash, recovered from the WAL (started again)."""
    CUT = "cut"
    """Connections of a link are reset, and refused (open again)."""
    BLACKHOLE = "blackhole"
    """A link accepts and forwards nothing (open again)."""
    DELAY = "delay"
    """A link forwards late, by ``amount`` seconds each way (open again)."""
    CLOCK = "clock skew"
    """The clock of a grader steps by ``amount`` seconds (and back)."""
    FLUSH_IN_REBUILD = "flush in a rebuild"
    """FLUSHALL, and once more while the queues are being rebuilt (nothing)."""
    LEADER_KILLED_IN_REBUILD = "leader killed in a rebuild"
    """FLUSHALL, and SIGKILL of the scheduler that rebuilds, while it does (started again)."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault; ``target`` is a process or a link ``caller>callee``, ``hold`` seconds until it is ended."""

    kind: Kind
    target: str
    hold: float
    amount: float = 0.0

    def __str__(self) -> str:
        amount = f" {self.amount:+g} s" if self.amount else ""
        return f"{self.kind.value} {self.target}{amount} for {self.hold:.1f} s"

    @property
    def processes(self) -> frozenset[str]:
        """The processes that it is about: two faults of one step share none."""
        return frozenset(self.target.split(">"))


@dataclass(frozen=True, slots=True)
class Step:
    """Faults that begin together, ``gap`` seconds after the step before has been recovered from."""

    gap: float
    faults: tuple[Fault, ...]

    @property
    def hold(self) -> float:
        """Seconds until all of its faults are ended."""
        return max(fault.hold for fault in self.faults)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How long faults last (a range of seconds) and how many come together.

    ``recovery`` is what a recovery is taken to last when steps are counted into the duration. Without
    ``every_replica`` one of each service is killed, one is paused, three links break in a round, and
    Valkey is flushed in a rebuild only.
    """

    kill: tuple[float, float]
    pause: tuple[float, float]
    valkey_away: float
    replica_away: tuple[float, float]
    primary_away: tuple[float, float]
    link: tuple[float, float]
    clock: tuple[float, float]
    gap: tuple[float, float]
    together: int
    recovery: float
    every_replica: bool


LONG = Shape(
    kill=(0.0, 2.0),
    pause=(2.0, 8.0),
    valkey_away=20.0,
    replica_away=(4.0, 8.0),
    primary_away=(0.0, 2.0),
    link=(3.0, 8.0),
    clock=(4.0, 8.0),
    gap=(0.2, 1.5),
    together=2,
    recovery=2.0,
    every_replica=True,
)
SHORT = Shape(
    kill=(0.0, 0.5),
    pause=(0.5, 1.0),
    valkey_away=4.0,
    replica_away=(0.5, 1.0),
    primary_away=(0.0, 0.2),
    link=(0.5, 1.0),
    clock=(0.5, 1.0),
    gap=(0.0, 0.2),
    together=5,
    recovery=0.8,
    every_replica=False,
)


def schedule(seed: int, seconds: float, shape: Shape) -> tuple[Step, ...]:
    """The steps for about ``seconds``; with 0 every fault of the deck comes once."""
    generator = random.Random(f"{seed}/{seconds:g}")
    steps: list[Step] = []
    planned = 0.0
    for step in _steps(generator, shape, endless=seconds > 0):
        steps.append(step)
        planned += step.gap + step.hold + shape.recovery
        if 0 < seconds <= planned:
            break
    return tuple(steps)


def _steps(generator: random.Random, shape: Shape, *, endless: bool) -> Iterator[Step]:
    rounds = itertools.count() if endless else range(1)
    for _ in rounds:
        deck = _deck(generator, shape)
        generator.shuffle(deck)
        while deck:
            size = generator.randint(1, shape.together) if endless else shape.together
            yield Step(generator.uniform(*shape.gap), _draw(deck, size))


def _draw(deck: list[Fault], size: int) -> tuple[Fault, ...]:
    """Takes up to ``size`` faults off the deck that do not get in each other's way."""
    drawn = [deck.pop()]
    for fault in reversed(list(deck)):
        if len(drawn) == size or _alone(drawn[0]):
            break
        if not _alone(fault) and not any(fault.processes & other.processes for other in drawn):
            deck.remove(fault)
            drawn.append(fault)
    return tuple(drawn)


def _alone(fault: Fault) -> bool:
    return fault.kind in (Kind.FLUSH_IN_REBUILD, Kind.LEADER_KILLED_IN_REBUILD)


def _deck(generator: random.Random, shape: Shape) -> list[Fault]:
    """Every fault once."""

    def between(bounds: tuple[float, float]) -> float:
        return round(generator.uniform(*bounds), 2)

    def struck() -> Sequence[str]:
        return SERVICES if shape.every_replica else _one_of_each(generator)

    deck = [Fault(Kind.KILL, name, between(shape.kill)) for name in struck()]
    deck += [Fault(Kind.PAUSE, name, between(shape.pause)) for name in struck()]
    deck += [Fault(Kind.AWAY, name, between(shape.kill)) for name in _one_of_each(generator)]
    deck += [
        Fault(Kind.PAUSE, generator.choice(PRIMARIES), between(shape.pause)),
        Fault(Kind.PAUSE, generator.choice(REPLICAS), between(shape.pause)),
        Fault(Kind.EMPTY, VALKEY, 0.0),
        Fault(Kind.AWAY, VALKEY, shape.valkey_away),
        Fault(Kind.FLUSH_IN_REBUILD, VALKEY, 0.0),
        Fault(Kind.LEADER_KILLED_IN_REBUILD, VALKEY, 0.0),
        Fault(Kind.FAST, PRIMARIES[0], between(shape.primary_away)),
        Fault(Kind.IMMEDIATE, PRIMARIES[1], between(shape.primary_away)),
        Fault(Kind.AWAY, generator.choice(REPLICAS), between(shape.replica_away)),
        Fault(Kind.CLOCK, SKEWED_GRADER, between(shape.clock), SKEW_SECONDS),
        Fault(Kind.CLOCK, SKEWED_GRADER, between(shape.clock), -SKEW_SECONDS),
    ]
    if shape.every_replica:  # faults of one process come one after the other, and each takes its time
        deck += [Fault(Kind.FLUSH, VALKEY, 0.0), Fault(Kind.PAUSE, VALKEY, between(shape.pause))]
    links = generator.sample(LINKS, len(LINKS) if shape.every_replica else 3)
    for (caller, callee), kind in zip(links, itertools.cycle((Kind.CUT, Kind.BLACKHOLE, Kind.DELAY))):
        amount = round(generator.uniform(0.1, 0.4), 2) if kind is Kind.DELAY else 0.0
        deck.append(Fault(kind, f"{caller}>{callee}", between(shape.link), amount))
    return deck


def _one_of_each(generator: random.Random) -> list[str]:
    """One replica of each service."""
    replicas = itertools.groupby(SERVICES, key=lambda name: name.rpartition("-")[0])
    return [generator.choice(list(names)) for _, names in replicas]
