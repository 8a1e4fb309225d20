"""The text that Prometheus gets."""

from collections.abc import Sequence

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cinnabar_common.clock import SystemClock
from cinnabar_common.metrics import Sample, Source
from cinnabar_scheduler.adapters.memory import MemoryQueue
from cinnabar_scheduler.admission import AdmissionCounters
from cinnabar_scheduler.conservation import Snapshot
from cinnabar_scheduler.load import Loads
from cinnabar_scheduler.metrics import (
    Metrics,
    admission_samples,
    conservation_samples,
    leader_samples,
)
from cinnabar_scheduler.service_times import ServiceTimes
from cinnabar_scheduler.session import WorkerSession
from cinnabar_scheduler.tally import Tally
from cinnabar_scheduler.tasks import TaskCounts
from tests.support.scheduler_queue import QUEUE, lease, task


async def numbers(
    queue: MemoryQueue,
    sources: Sequence[Source] = (),
    *,
    tally: Tally | None = None,
    sessions: Sequence[WorkerSession] = (),
) -> dict[str, float]:
    """The scrape, by name and labels."""
    loads = Loads(queue, lambda: sessions, ServiceTimes(), SystemClock())
    text = (await Metrics(loads, tally or Tally(), sources).text()).decode()
    return {
        sample.name + "".join(f" {key}={value}" for key, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def queue() -> MemoryQueue:
    return MemoryQueue(clock=SystemClock())


async def test_queues_and_workers(queue: MemoryQueue) -> None:
    session = WorkerSession(10)
    session.hello("w1", [QUEUE])
    session.ready(QUEUE, 3)
    session.grant([lease()])
    await queue.enqueue([task(), task()])
    found = await numbers(queue, sessions=[session])
    assert found[f"cinnabar_queue_ready queue={QUEUE}"] == 2
    assert found[f"cinnabar_queue_workers queue={QUEUE}"] == 1
    assert found[f"cinnabar_queue_credits queue={QUEUE}"] == 2
    assert found["cinnabar_queue_ready queue=numeric"] == 0
    assert found["cinnabar_redis_up"] == 1


async def test_without_redis_the_rest_is_told(queue: MemoryQueue) -> None:
    queue.outage = True
    tally = Tally()
    tally.leased[QUEUE] += 7
    tally.outcomes[QUEUE, "already graded"] += 2
    found = await numbers(queue, tally=tally)
    assert found == {
        "cinnabar_redis_up": 0,
        f"cinnabar_tasks_leased_total queue={QUEUE}": 7,
        f"cinnabar_outcomes_total fate=already_graded queue={QUEUE}": 2,
    }


async def test_what_other_parts_tell(queue: MemoryQueue) -> None:
    queue.outage = True
    counters = AdmissionCounters(admitted=5, limited=3, degraded_total=1, degraded=True)
    stored = TaskCounts(accepted=10, open=4, dead_lettered=1, cancelled=2, graded=3)
    snapshot = Snapshot(stored, queued=3, waiting=1, leased=0, findings=None)
    found = await numbers(
        queue,
        [
            lambda: admission_samples(counters),
            lambda: leader_samples(leads=True),
            lambda: conservation_samples(snapshot),
            lambda: [Sample("cinnabar_extra", "Of a test.", 1.5)],
        ],
    )
    assert found["cinnabar_admissions_total decision=limited"] == 3
    assert found["cinnabar_admissions_total decision=admitted"] == 5
    assert found["cinnabar_admissions_degraded_total"] == 1
    assert found["cinnabar_admission_degraded"] == 1
    assert found["cinnabar_leader"] == 1
    assert found["cinnabar_conservation_balanced"] == 1
    assert found["cinnabar_tasks_accepted"] == 10
    assert found["cinnabar_tasks place=graded"] == 3
    assert found["cinnabar_tasks place=queued"] == 3
    assert found["cinnabar_extra"] == 1.5
    assert not list(conservation_samples(None))
