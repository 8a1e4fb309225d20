"""The numbers of a storage process for Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from cinnabar_common.metrics import Sample
from cinnabar_storage.cached.announcements import Announcements
from cinnabar_storage.cached.cache import Cache
from cinnabar_storage.ports import Shard


def cache_samples(cache: Cache) -> Iterator[Sample]:
    """What the cache did. A read that misses in this process asks the shared cache, and then Postgres."""
    counts = cache.statistics
    for (kind, level), hits, misses in _asked(counts.hits, counts.misses):
        labels = {"kind": kind, "level": level}
        yield Sample("cinnabar_cache_hits_total", "Reads that a level of the cache answered.", hits, labels)
        yield Sample(
            "cinnabar_cache_misses_total", "Reads that a level of the cache did not answer.", misses, labels
        )
        yield Sample(
            "cinnabar_cache_hit_ratio",
            "Hits by hits and misses, since the start.",
            hits / (hits + misses),
            labels,
        )
    yield from _by_kind("cinnabar_cache_loads_total", "Reads of Postgres for the cache.", counts.loads)
    yield from _by_kind("cinnabar_cache_joins_total", "Reads that shared the read of another.", counts.joins)
    yield Sample(
        "cinnabar_cache_refused_total", "Values that had changed before they were kept.", counts.refused
    )
    yield Sample("cinnabar_cache_outages_total", "Times that the shared cache was silent.", counts.outages)
    for content, level in (("changing", cache.changing), ("lasting", cache.lasting)):
        yield Sample("cinnabar_cache_entries", "Entries in this process.", len(level), {"content": content})
        yield Sample("cinnabar_cache_bytes", "Bytes of values in it.", level.bytes, {"content": content})
        for reason in ("entries", "bytes", "age", "changed"):
            yield Sample(
                "cinnabar_cache_evictions_total",
                "Entries that left this process, by the bound that they met.",
                level.evictions[reason],
                {"content": content, "reason": reason},
            )


def replica_samples(shards: Iterable[Shard]) -> Iterator[Sample]:
    """How the replicas of each shard are; those that do not answer have no lag."""
    for index, shard in enumerate(shards):
        for number, state in enumerate(shard.replicas()):
            labels = {"shard": str(index), "replica": str(number)}
            yield Sample(
                "cinnabar_replica_in_rotation",
                "Whether a replica takes part in reads.",
                float(state.in_rotation),
                labels,
            )
            if state.lag_bytes is None or state.lag_seconds is None:
                continue
            yield Sample(
                "cinnabar_replica_lag_bytes", "Log that it has not replayed.", state.lag_bytes, labels
            )
            yield Sample(
                "cinnabar_replica_lag_seconds",
                "How long ago its primary was where it is.",
                state.lag_seconds,
                labels,
            )


def announcement_samples(announcements: Announcements) -> Iterator[Sample]:
    """What caches told each other."""
    counts = announcements.statistics
    for direction, messages, keys in (
        ("sent", counts.messages_sent, counts.keys_sent),
        ("heard", counts.messages_heard, counts.keys_heard),
    ):
        labels = {"direction": direction}
        yield Sample(
            "cinnabar_cache_messages_total", "Messages between caches, with heartbeats.", messages, labels
        )
        yield Sample("cinnabar_cache_invalidations_total", "Keys told to have changed.", keys, labels)
    yield Sample(
        "cinnabar_cache_invalidations_lost_total", "Keys not told: Redis was silent.", counts.keys_lost
    )
    yield Sample(
        "cinnabar_cache_gaps_total", "Times that messages were missed and all was forgotten.", counts.gaps
    )
    yield Sample(
        "cinnabar_cache_in_step", "Whether messages arrive in this process.", float(announcements.in_step)
    )


def _asked(
    hits: Counter[tuple[str, str]], misses: Counter[tuple[str, str]]
) -> Iterable[tuple[tuple[str, str], int, int]]:
    for asked in sorted({*hits, *misses}):
        if hits[asked] + misses[asked]:
            yield asked, hits[asked], misses[asked]


def _by_kind(name: str, description: str, counts: Counter[str]) -> Iterator[Sample]:
    for kind, count in sorted(counts.items()):
        yield Sample(name, description, count, {"kind": kind})
