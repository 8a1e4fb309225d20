"""The numbers of a scheduler for Prometheus."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from cinnabar_common.metrics import Sample, Source, exposition, families
from cinnabar_scheduler.admission import AdmissionCounters
from cinnabar_scheduler.conservation import Snapshot
from cinnabar_scheduler.load import Load, Loads
from cinnabar_scheduler.model_calls import BreakerState
from cinnabar_scheduler.model_permits import ModelCalls
from cinnabar_scheduler.ports import QueueUnavailable
from cinnabar_scheduler.tally import Tally

SCRAPE_SECONDS = 2.0


def admission_samples(counters: AdmissionCounters) -> Iterable[Sample]:
    """What admission decided."""
    for decision, count in (
        ("admitted", counters.admitted),
        ("replayed", counters.replayed),
        ("key_reused", counters.keys_reused),
        ("in_progress", counters.in_progress),
        ("limited", counters.limited),
    ):
        yield Sample(
            "cinnabar_admissions_total",
            "Requests by what admission decided.",
            count,
            {"decision": decision},
        )
    yield Sample(
        "cinnabar_admissions_degraded_total", "Requests decided without Redis.", counters.degraded_total
    )
    yield Sample("cinnabar_admission_degraded", "Whether Redis is missing now.", float(counters.degraded))


def leader_samples(*, leads: bool) -> Iterable[Sample]:
    """Whether this scheduler leads: the sum over all schedulers is to be 1."""
    yield Sample("cinnabar_leader", "Whether this scheduler does the leader's work.", float(leads))


def conservation_samples(last: Snapshot | None) -> Iterable[Sample]:
    """The latest count of all tasks that this scheduler made; nothing before the first."""
    if last is None:
        return
    yield Sample("cinnabar_tasks_accepted", "Tasks accepted, ever.", last.stored.accepted)
    for place, count in last.by_place().items():
        yield Sample("cinnabar_tasks", "Tasks by place, as last counted.", count, {"place": place})
    yield Sample(
        "cinnabar_conservation_balanced",
        "Whether accepted = open + dead_lettered + cancelled + graded.",
        float(last.balanced),
    )
    yield Sample("cinnabar_sweep_missing", "Open tasks that the last sweep had to queue.", last.missing)
    yield Sample("cinnabar_sweep_orphaned", "Tasks that the last sweep had to remove.", last.orphaned)


def model_samples(calls: ModelCalls) -> Iterable[Sample]:
    """What graders that asked here were told, and the providers as all schedulers know them."""
    for (provider, answer), count in sorted(calls.answered.items()):
        yield Sample(
            "cinnabar_model_calls_total",
            "Calls of language models that were asked for, by the answer.",
            count,
            {"provider": provider, "answer": answer},
        )
    for state in calls.seen:
        labels = {"provider": state.provider}
        away = state.breaker is not BreakerState.CLOSED
        yield Sample("cinnabar_model_breaker_open", "Whether the breaker is not closed.", float(away), labels)
        yield Sample("cinnabar_model_calls_under_way", "Calls under way.", state.calls, labels)


class Metrics:
    """The text of a scrape. ``sources`` are asked in the event loop and must not wait."""

    def __init__(self, loads: Loads, tally: Tally, sources: Sequence[Source] = ()) -> None:
        self._loads = loads
        self._tally = tally
        self._sources = sources

    async def text(self) -> bytes:
        """All numbers, in Prometheus' text format.

        Without Redis those of the queues are absent and ``cinnabar_redis_up`` is 0.
        """
        try:
            async with asyncio.timeout(SCRAPE_SECONDS):
                loads = [await self._loads.of(queue) for queue in await self._loads.queues()]
            up = True
        except (QueueUnavailable, TimeoutError):
            loads, up = [], False
        samples = [sample for source in self._sources for sample in source()]
        return exposition([_redis(up), *_of_loads(loads), *_of_tally(self._tally), *families(samples)])


def _redis(up: bool) -> Metric:
    return GaugeMetricFamily("cinnabar_redis_up", "Whether Redis answered this scrape.", value=float(up))


_BY_LOAD: tuple[tuple[str, str, Callable[[Load], float | None]], ...] = (
    ("ready", "Tasks ready and waiting for a grader.", lambda load: load.counts.ready),
    ("delayed", "Tasks waiting for their time or for a retry.", lambda load: load.counts.delayed),
    ("leased", "Tasks under lease.", lambda load: load.counts.leased),
    ("oldest_age_seconds", "Age of the oldest ready task.", lambda load: load.oldest_age_seconds),
    ("workers", "Workers of this scheduler that serve the queue.", lambda load: load.workers),
    ("credits", "Credits granted by them and not spent.", lambda load: load.credits),
    ("work_seconds", "Predicted work for one credit.", lambda load: load.work_seconds),
    (
        "throughput",
        "Outcomes per second through this scheduler, lately.",
        lambda load: load.time and load.time.throughput,
    ),
)


def _of_loads(loads: Sequence[Load]) -> Iterable[Metric]:
    for name, description, value_of in _BY_LOAD:
        family = GaugeMetricFamily(f"cinnabar_queue_{name}", description, labels=["queue"])
        for load in loads:
            value = value_of(load)
            if value is not None:
                family.add_metric([load.queue], value)
        yield family
    times = GaugeMetricFamily(
        "cinnabar_queue_service_time_seconds",
        "Time from lease to outcome, as lately measured by this scheduler.",
        labels=["queue", "statistic"],
    )
    for load in loads:
        if load.time is not None:
            for statistic, value in (
                ("mean", load.time.mean),
                ("p50", load.time.p50),
                ("p90", load.time.p90),
            ):
                times.add_metric([load.queue, statistic], value)
    yield times


def _of_tally(tally: Tally) -> Iterable[Metric]:
    for name, description, counts in (
        ("tasks_leased", "Tasks handed to workers.", tally.leased),
        ("leases_expired", "Leases that ran out without a heartbeat.", tally.expired),
        ("leases_lost", "Leases of workers whose stream was lost.", tally.lost),
        ("tasks_dead_lettered", "Tasks given up, for whatever reason.", tally.given_up),
    ):
        family = CounterMetricFamily(f"cinnabar_{name}", description, labels=["queue"])
        for queue, count in sorted(counts.items()):
            family.add_metric([queue], count)
        yield family
    outcomes = CounterMetricFamily(
        "cinnabar_outcomes",
        "Reported outcomes by what became of them; already_graded are duplicates that the fence refused.",
        labels=["queue", "fate"],
    )
    for (queue, fate), count in sorted(tally.outcomes.items()):
        outcomes.add_metric([queue, fate.replace(" ", "_")], count)
    yield outcomes
