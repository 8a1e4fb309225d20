"""Whatever is lost, late or down: no answer from a cache is older than its bound, or than its token."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import deque
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from cinnabar_storage.adapters.memory.cache import MemoryCache
from cinnabar_storage.cached.announcements import Announcements
from cinnabar_storage.cached.cache import Cache, Loaded
from cinnabar_storage.cached.invalidation import CacheKey
from cinnabar_storage.cached.shared import Hit, Message, Miss, SharedCacheUnavailable
from cinnabar_storage.records import Lsn
from tests.support.scheduler_queue import ManualClock
from tests.support.storage_cache import LASTING, MAX_AGE, at, cache_key, cache_of, settled

KEYS = [cache_key("a"), cache_key("b")]
MAX_LAG = 5.0
MAX_READ = 3.0

PROCESSES = 3
# Reads are what is looked at; everything else happens now and then between them.
Step = st.tuples(
    st.sampled_from(
        ["read"] * 10
        + ["slow read"] * 3
        + ["read with token"] * 4
        + ["write"] * 5
        + ["send"] * 4
        + ["deliver"] * 4
        + ["catch up"] * 3
        + ["pass time"] * 4
        + ["finish reads"] * 2
        + ["lose a message", "reconnect", "go down", "lose answers", "come back", "come back", "flush"]
    ),
    st.integers(0, PROCESSES - 1),
    st.sampled_from([0, 0, 0, 1]),
    st.sampled_from([0, 0, 1, 2]),
    st.sampled_from([0.001, 0.3, 0.3, 0.699, 0.999, 1.0, 2.0]),
)


class World(MemoryCache):
    """The shared cache, whose messages wait until a test delivers them, and which may be down."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(max_age_seconds=MAX_AGE, lasting_seconds=LASTING, clock=clock)
        self.up = True
        self.answers_lost = False
        self.inboxes: list[deque[Message]] = []

    def _check(self) -> None:
        if not self.up:
            raise SharedCacheUnavailable("down")

    async def get(self, key: CacheKey) -> Hit | Miss:
        self._check()
        return await super().get(key)

    async def put(self, key: CacheKey, value: bytes, position: object, lease_ms: int) -> bool:
        self._check()
        return await super().put(key, value, position, lease_ms)  # pyright: ignore[reportArgumentType]

    async def tell(self, message: Message) -> None:
        self._check()
        await super().tell(message)
        for inbox in self.inboxes:
            inbox.append(message)
        if self.answers_lost:
            raise SharedCacheUnavailable("the answer is lost")


@dataclass
class Process:
    """One storage process: its cache, what it hears, and the changes that it knows of."""

    cache: Cache
    announcements: Announcements
    inbox: deque[Message] = field(default_factory=deque[Message])
    knows: dict[CacheKey, int] = field(default_factory=dict[CacheKey, int])


@dataclass
class Read:
    """A read under way and what its answer must show."""

    task: asyncio.Task[bytes | None]
    key: CacheKey
    at_least: int
    begun: float


class Caches:
    """Three processes over one shard with a replica. Versions of a key are the positions of its writes."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.exits = AsyncExitStack()
        self.clock = ManualClock()
        self.world = World(self.clock)
        self.processes: list[Process] = []
        self.lsn = 10
        self.versions: dict[CacheKey, list[int]] = {key: [1] for key in KEYS}
        self.written: deque[tuple[float, int]] = deque()
        self.replica = 10
        self.shown: list[tuple[float, int]] = [(0.0, 10)]
        self.slow = False
        self.gate = asyncio.Event()
        self.reads: list[Read] = []

    def start(self) -> None:
        async def begin() -> None:
            for _ in range(PROCESSES):
                cache = await self.exits.enter_async_context(cache_of(self.world, self.clock).running())
                told = Announcements(cache, self.world, max_age_seconds=MAX_AGE, clock=self.clock)
                self.processes.append(Process(cache, told))
            self.world.inboxes = [process.inbox for process in self.processes]

        self.runner.run(begin())

    def stop(self) -> None:
        self.finish_reads()
        self.runner.run(self.exits.aclose())
        self.runner.close()

    # What there is

    def version(self, key: CacheKey, lsn: int) -> int:
        versions = self.versions[key]
        return versions[bisect_right(versions, lsn) - 1]

    def replicate(self, lsn: int) -> None:
        self.replica = max(self.replica, lsn)
        self.shown.append((self.clock.monotonic(), self.replica))

    async def load(self, key: CacheKey, min_lsn: Lsn) -> Loaded:
        position = self.replica if self.replica >= min_lsn else self.lsn
        loaded = Loaded(b"%d" % self.version(key, position), at(position))
        if self.slow:
            await self.gate.wait()
        return loaded

    # What happens

    def step(self, what: str, who: int, key: CacheKey, number: int, seconds: float) -> None:
        process = self.processes[who]
        match what:
            case "read":
                self.read(process, key, 0, slow=False)
            case "slow read":
                self.read(process, key, 0, slow=True)
            case "read with token":
                self.read(process, key, self.lsn - number, slow=number == 1)
            case "write":
                self.write(process, KEYS if number == 2 else [key])
            case "send":
                self.runner.run(process.announcements.send_once())
            case "deliver":
                self.deliver(process)
            case "lose a message":
                self.deliver(process, lost=1)
            case "reconnect":
                process.inbox.clear()
                process.announcements.hear(None)
            case "pass time":
                self.pass_time(seconds)
            case "catch up":
                self.replicate(self.lsn)
            case "finish reads":
                self.finish_reads()
            case "flush":
                self.world.flush()
            case _:
                self.world.up = what != "go down"
                self.world.answers_lost = what == "lose answers"

    def write(self, process: Process, keys: list[CacheKey]) -> None:
        self.lsn += 1
        self.written.append((self.clock.monotonic(), self.lsn))
        for key in keys:
            self.versions[key].append(self.lsn)
            process.knows[key] = self.lsn
        process.announcements.changed(keys, at(self.lsn))

    def deliver(self, process: Process, *, lost: int = 0) -> None:
        for _ in range(min(lost, len(process.inbox))):
            process.inbox.popleft()
        while process.inbox:
            message = process.inbox.popleft()
            process.announcements.hear(message)
            for key in message.keys:
                process.knows[key] = max(message.position.lsn, process.knows.get(key, 0))

    def pass_time(self, seconds: float) -> None:
        if any(self.clock.monotonic() + seconds - read.begun > MAX_READ for read in self.reads):
            self.finish_reads()
        self.clock.advance(seconds)
        while self.written and self.written[0][0] <= self.clock.monotonic() - MAX_LAG:
            self.replicate(self.written.popleft()[1])

    def read(self, process: Process, key: CacheKey, token: int, *, slow: bool) -> None:
        now = self.clock.monotonic()
        bound = self.shown[bisect_right(self.shown, (now - MAX_AGE, 1 << 62)) - 1][1]
        # What this process has heard of counts as soon as a read past the cache would show it.
        heard = min(process.knows.get(key, 0), self.replica)
        at_least = max(self.version(key, max(bound, token)), self.version(key, max(heard, 1)))

        async def begin() -> None:
            self.slow = slow
            task = asyncio.create_task(
                process.cache.get("thing", key, at(token), lambda lsn: self.load(key, lsn))
            )
            self.reads.append(Read(task, key, at_least, now))
            await settled()
            self.slow = False

        self.runner.run(begin())
        self.check_finished()

    def finish_reads(self) -> None:
        async def finish() -> None:
            self.gate.set()
            for read in self.reads:
                async with asyncio.timeout(5):
                    await asyncio.wait((read.task,))
            self.gate = asyncio.Event()

        self.runner.run(finish())
        self.check_finished()
        assert not self.reads

    def check_finished(self) -> None:
        for read in [read for read in self.reads if read.task.done()]:
            self.reads.remove(read)
            answer = read.task.result()
            assert answer is not None
            assert int(answer) >= read.at_least


@settings(max_examples=150)
@given(st.lists(Step, min_size=20, max_size=80))
def test_no_answer_is_older_than_it_may_be(steps: list[tuple[str, int, int, int, float]]) -> None:
    caches = Caches()
    caches.start()
    try:
        for what, who, key, number, seconds in steps:
            caches.step(what, who, KEYS[key], number, seconds)
    finally:
        caches.stop()
