"""Storage alone, through its gRPC service: what it takes a second, how soon it answers, what a row costs.

Two Postgres servers with a replica each, fsync on; the service is one process and the client another. The
ten shards of the list are ten databases on these two servers.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from bench import reshard, stored
from bench.stored import AUTHORS, Database, Servers, Service, graded, key, new_submissions
from cinnabar_common.names import BUCKETS

T = TypeVar("T")

BATCH = 500
LANES = 4
ROWS = 20_000
GETS = 500
HOT = 20
PAGE = 100
PAGES = 200
LISTED = 5_000
SHARDS_LISTED = 10
FEW = 10_000
MANY = 2_000_000
COST_ROUNDS = 20
# What lets a checkpoint of production begin, whichever comes first: the default `checkpoint_timeout`, and
# half of the `max_wal_size` of deploy/, where Postgres begins the next one.
CHECKPOINT_SECONDS = 300.0
CHECKPOINT_BYTES = 1 << 30
NAMES = (
    "storage_creates_per_second",
    "storage_grade_commits_per_second",
    "get_cached_p50_ms",
    "get_replica_p50_ms",
    "list_page_10_shards_p50_ms",
    "storage_cost_ratio_10k_to_2m",
    *reshard.NAMES,
)
_WRITES = {"storage_creates_per_second", "storage_grade_commits_per_second"}
_GETS = {"get_cached_p50_ms", "get_replica_p50_ms"}


def _batches(items: Sequence[T]) -> list[Sequence[T]]:
    return [items[start : start + BATCH] for start in range(0, len(items), BATCH)]


async def _seconds(batches: Sequence[Sequence[T]], call: Callable[[Sequence[T]], Awaitable[None]]) -> float:
    """For all batches, LANES at once."""
    waiting = list(reversed(batches))

    async def lane() -> None:
        while waiting:
            await call(waiting.pop())

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(LANES):
            group.create_task(lane())
    return time.perf_counter() - started


async def writes(service: Service, count: int) -> tuple[float, float]:
    """Submissions created a second, and grades committed a second."""
    submissions = new_submissions(count)
    outcomes = [graded(submission) for submission in submissions]
    return (
        count / await _seconds(_batches(submissions), service.create),
        count / await _seconds(_batches(outcomes), service.commit),
    )


async def gets(service: Service, names: list[str], count: int) -> list[float]:
    """Milliseconds of each Get of one submission, one after the other, of the given in turn."""
    times: list[float] = []
    for number in range(count):
        wanted = stored.pb.SubmissionKey(tenant=stored.TENANT, submission_id=names[number % len(names)])
        started = time.perf_counter()
        await service.get([wanted])
        times.append((time.perf_counter() - started) * 1000)
    return times


def _cache(servers: Servers) -> dict[str, str]:
    return {"STORAGE_REDIS_URL": servers.valkey.url}


async def _rates(service: Service, rounds: int, scale: float) -> dict[str, list[float]]:
    count = max(BATCH, int(ROWS * scale))
    await writes(service, min(count, 4 * BATCH))  # warm up
    measured = [await writes(service, count) for _ in range(rounds)]
    return {
        "storage_creates_per_second": [created for created, _ in measured],
        "storage_grade_commits_per_second": [committed for _, committed in measured],
    }


async def _reads(
    service: Service, databases: Sequence[Database], rounds: int, scale: float
) -> dict[str, list[float]]:
    """From the cache the same few again and again; from the replica each once, so that no cache has it."""
    count = max(50, int(GETS * scale))
    submissions = new_submissions(HOT + count * (rounds + 1))
    for batch in _batches(submissions):
        await service.create(batch)
        await service.commit([graded(submission) for submission in batch])
    for database in databases:
        await database.settle()
    names = [submission.submission_id for submission in submissions]
    hot, cold = names[:HOT], names[HOT:]
    samples: dict[str, list[float]] = {name: [] for name in _GETS}
    for number in range(rounds + 1):
        from_replica = await gets(service, cold[number * count : (number + 1) * count], count)
        await gets(service, hot, HOT)
        from_cache = await gets(service, hot, count)
        if number:  # the first one warms up
            samples["get_replica_p50_ms"] += from_replica
            samples["get_cached_p50_ms"] += from_cache
    return samples


async def _pages(servers: Servers, scale: float) -> list[float]:
    """Milliseconds of each page of an assignment whose submissions lie on ten shards."""
    count = max(2 * PAGE, int(LISTED * scale))
    databases = await servers.databases("listed", SHARDS_LISTED)
    async with servers.service(databases) as service:
        for batch in _batches(submissions := new_submissions(count)):
            await service.create(batch)
            await service.commit([graded(submission) for submission in batch])
        for database in databases:
            await database.settle()
        times: list[float] = []
        before, left = "", len(submissions)
        for _ in range(max(20, int(PAGES * scale))):
            started = time.perf_counter()
            before = await service.page(before, PAGE)
            times.append((time.perf_counter() - started) * 1000)
            left -= PAGE
            if left < PAGE:
                before, left = "", len(submissions)
    return times[len(times) // 10 :]


async def _cost_ratio(servers: Servers, scale: float) -> float:
    """Time of a row's create, commit and get with MANY stored over that with FEW, in turn, under full load.

    After a checkpoint Postgres writes a whole page into its log when it first touches it, and more rows
    have more pages: the batches in which that happens cost more, then no batch does until the next
    checkpoint. So both are measured. A round of all authors after a CHECKPOINT touches every page that
    these rows go to; what it takes longer than as many batches after it is the price of a checkpoint. The
    cost of a batch is the median of the batches after it, and its part of that price: one checkpoint is
    shared by as many batches as fit between two of them at this load, by time or by volume of the log.
    """
    few, many = await servers.databases("few"), await servers.databases("many")
    async with servers.service(few) as small, servers.service(many) as large:
        stored_few = max(BATCH, int(FEW * min(1.0, 5 * scale)))
        for databases, count in ((few, stored_few), (many, max(2 * stored_few, int(MANY * scale)))):
            share = count // len(databases)
            width = BUCKETS // len(databases)
            async with asyncio.TaskGroup() as group:
                for number, database in enumerate(databases):
                    buckets = range(number * width, (number + 1) * width)
                    group.create_task(database.fill(number * share + 1, (number + 1) * share, buckets))
        for service in (small, large):
            await _cost(service, 0)  # connections, plans and code are warm
        for database in (*few, *many):
            await database.settle()
        services = (small, large)
        rounds = max(6, int(COST_ROUNDS * scale))
        touching = max(4, int(AUTHORS // BATCH * min(1.0, 5 * scale)))
        after_checkpoint = await _costs(services, range(touching))
        before = await _log_bytes(few)
        steady = await _costs(services, range(rounds))
        # Both lie on the same servers and write the same.
        written = (await _log_bytes(few) - before) / rounds / len(services)
        costs: list[float] = []
        for service in services:
            usual = statistics.median(steady[service])
            price = max(0.0, sum(after_checkpoint[service]) - usual * touching)
            costs.append(usual + price / min(CHECKPOINT_SECONDS / usual, CHECKPOINT_BYTES / written))
    return costs[1] / costs[0]


async def _costs(services: Sequence[Service], numbers: Iterable[int]) -> dict[Service, list[float]]:
    """Seconds of each batch by service; they take turns, and so does who begins."""
    in_turn = list(services)
    costs: dict[Service, list[float]] = {service: [] for service in in_turn}
    for number in numbers:
        in_turn.reverse()
        for service in in_turn:
            costs[service].append(await _cost(service, number))
    return costs


async def _cost(service: Service, number: int) -> float:
    """Seconds of a batch from its create to its get; the next number has the next authors."""
    first = number * BATCH
    submissions = new_submissions(BATCH, [f"author-{n % AUTHORS}" for n in range(first, first + BATCH)])
    outcomes = [graded(submission) for submission in submissions]
    keys = [key(submission) for submission in submissions]
    started = time.perf_counter()
    await service.create(submissions)
    await service.commit(outcomes)
    await service.get(keys)
    return time.perf_counter() - started


async def _log_bytes(databases: Sequence[Database]) -> float:
    """How far the logs of their servers are, on average."""
    return statistics.mean([await database.log_bytes() for database in databases])


async def measure(folder: Path, wanted: set[str], rounds: int, scale: float) -> dict[str, Sequence[float]]:
    """Samples of the ``wanted`` names."""
    samples: dict[str, Sequence[float]] = {}
    async with stored.servers(folder) as servers:
        if wanted & (_WRITES | _GETS):
            databases = await servers.databases("plain")
            async with servers.service(databases, _cache(servers)) as service:
                if wanted & _WRITES:
                    samples |= await _rates(service, rounds, scale)
                if wanted & _GETS:
                    samples |= await _reads(service, databases, rounds, scale)
        if "list_page_10_shards_p50_ms" in wanted:
            samples["list_page_10_shards_p50_ms"] = await _pages(servers, scale)
        if "storage_cost_ratio_10k_to_2m" in wanted:
            samples["storage_cost_ratio_10k_to_2m"] = [await _cost_ratio(servers, scale)]
        if wanted & set(reshard.NAMES):
            samples |= await reshard.measure(servers, scale)
    return {name: values for name, values in samples.items() if name in wanted}
