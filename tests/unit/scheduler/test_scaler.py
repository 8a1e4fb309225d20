"""What KEDA is told of a queue, and that the example for it is one."""

from typing import Any

import pytest
import yaml

from cinnabar_local.checkout import deploy_folder
from cinnabar_scheduler.load import Load
from cinnabar_scheduler.scaler import Metric, Trigger, trigger
from cinnabar_scheduler.service_times import ServiceTime
from cinnabar_scheduler.tasks import QueueCounts, QueueName, QueueState

QUEUE = QueueName("free-text")
TIME = ServiceTime(mean=2.0, p50=2.0, p90=3.0, variation=0.3, throughput=1.0)


def load(
    counts: QueueCounts, *, time: ServiceTime | None = TIME, slots: float = 4.0, age: float = 0.0
) -> Load:
    return Load(
        queue=QUEUE,
        counts=counts,
        oldest_age_seconds=age,
        workers=1,
        credits=0,
        open_credits=0,
        slots_per_worker=slots,
        time=time,
        estimate=None,
    )


def counts(
    ready: int, leased: int, *, capped: int = 0, state: QueueState = QueueState.RUNNING
) -> QueueCounts:
    return QueueCounts(ready, 1_000, leased, None, capped=capped, state=state)


WORK = Trigger(QUEUE, Metric.WORK_SECONDS, 10.0, 0.0)


@pytest.mark.parametrize(
    ("seen", "seconds"),
    [
        (load(counts(6, 2)), 8 * 2.0 / 4),
        (load(counts(6, 2), slots=0.0), 8 * 2.0),
        # Nobody has measured: one grader is asked for, to measure.
        (load(counts(1_000_000, 0), time=None), 10.0),
        (load(counts(0, 0), time=None), 0.0),
        # More graders would not help tenants at their cap, nor a paused queue.
        (load(counts(100, 2, capped=100)), 2 * 2.0 / 4),
        (load(counts(100, 2, state=QueueState.PAUSED)), 2 * 2.0 / 4),
        (load(counts(100, 0, state=QueueState.DRAINING)), 100 * 2.0 / 4),
    ],
)
def test_work_in_seconds_of_one_grader(seen: Load, seconds: float) -> None:
    assert WORK.value(seen) == seconds
    assert WORK.active(seen) == (seconds > 0)


def test_a_queue_is_active_beyond_its_activation() -> None:
    wanted = trigger({"queue": QUEUE, "metric": "oldest_age_seconds", "activation": "30"})
    assert not wanted.active(load(counts(5, 0), age=30))
    assert wanted.active(load(counts(5, 0), age=31))
    assert not wanted.active(load(counts(0, 0), age=31))


def test_the_example_for_keda_is_one() -> None:
    manifest: dict[str, Any] = yaml.safe_load(
        (deploy_folder() / "k8s" / "keda-scaledobject.yaml").read_text("utf-8")
    )
    assert (manifest["apiVersion"], manifest["kind"]) == ("keda.sh/v1alpha1", "ScaledObject")
    triggers = manifest["spec"]["triggers"]
    assert {each["type"] for each in triggers} == {"external", "external-push"}
    parsed = [trigger(each["metadata"]) for each in triggers]
    assert [each.metric for each in parsed] == [Metric.WORK_SECONDS, Metric.OLDEST_AGE_SECONDS]
    assert {each.queue for each in parsed} == {QUEUE}
    for each in triggers:
        assert all(isinstance(value, str) for value in each["metadata"].values())
        assert set(each["metadata"]) <= {"scalerAddress", "queue", "metric", "target", "activation"}
