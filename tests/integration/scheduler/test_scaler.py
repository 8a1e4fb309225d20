"""The external scaler of a real scheduler, asked by a client made from KEDA's interface."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio

from cinnabar_scheduler.scaler import MAX_STREAMS
from tests.support.keda_client import KedaClient, KedaError, keda_client
from tests.support.scheduler_process import Shared
from tests.support.scheduler_worker import worker
from tests.support.waiting import until

QUEUE = {"queue": "free-text"}
# What KEDA itself puts into the metadata of a trigger.
KEDAS_OWN = {"scalerAddress": "scheduler.cinnabar:50051", "tlsCertFile": ""}


@pytest_asyncio.fixture
async def keda(shared: Shared, tmp_path: Path) -> AsyncGenerator[KedaClient]:
    async with keda_client(shared.scheduler.target, tmp_path) as client:
        yield client


async def metric(keda: KedaClient, metadata: dict[str, str], name: str) -> float:
    response = await keda.call("GetMetrics", metadata, name)
    (value,) = response["metricValues"]
    assert value["metricName"] == name
    assert int(value["metricValue"]) >= value["metricValueFloat"]
    return value["metricValueFloat"]


async def test_waiting_tasks_make_a_queue_active(shared: Shared, keda: KedaClient) -> None:
    assert await keda.call("IsActive", QUEUE | KEDAS_OWN) == {"result": False}
    await shared.scheduler.enqueue(shared.storage.add_tasks(5, revision=shared.storage.add_revision()))
    assert await keda.call("IsActive", QUEUE | KEDAS_OWN) == {"result": True}
    depth = QUEUE | {"metric": "depth"}
    assert await metric(keda, depth, "cinnabar-free-text-depth") == 5
    assert await metric(keda, depth, "s2-cinnabar-free-text-depth") == 5
    assert await keda.call("IsActive", depth | {"activation": "4"}) == {"result": True}
    assert await keda.call("IsActive", depth | {"activation": "5"}) == {"result": False}
    age = QUEUE | {"metric": "oldest_age_seconds"}

    async def aged() -> bool:
        return await metric(keda, age, "cinnabar-free-text-oldest-age-seconds") > 0.05

    await until(aged, "the oldest task ages")
    assert await keda.call("IsActive", {"queue": "numeric"}) == {"result": False}
    assert await metric(keda, {"queue": "numeric"}, "cinnabar-numeric-work-seconds") == 0


async def test_work_is_told_in_seconds_as_they_were_measured(shared: Shared, keda: KedaClient) -> None:
    revision = shared.storage.add_revision()
    async with worker(shared.scheduler.target) as one:
        await one.hello()
        await shared.scheduler.enqueue(shared.storage.add_tasks(4, revision=revision))
        await one.grade(await one.take(4))
        stats = await shared.scheduler.stats()
        mean = stats.service_time.mean.ToNanoseconds() / 1e9
        assert 0 < mean < 10
        assert stats.service_time.p50.ToNanoseconds() <= stats.service_time.p90.ToNanoseconds()
        assert stats.service_time.throughput > 0
        await shared.scheduler.enqueue(shared.storage.add_tasks(12, revision=revision))
        leases = await one.take(2)
        stats = await shared.scheduler.stats()
        assert stats.predicted_work.ToNanoseconds() / 1e9 == pytest.approx(12 * mean, rel=0.1)
        # One grader takes two at a time.
        seconds = await metric(keda, QUEUE, "cinnabar-free-text-work-seconds")
        assert seconds == pytest.approx(6 * mean, rel=0.1)
        await one.grade(leases)


async def test_targets(keda: KedaClient) -> None:
    for metadata, name, size in (
        ({}, "work-seconds", 10.0),
        ({"metric": "work_seconds", "target": "2.5"}, "work-seconds", 2.5),
        ({"metric": "oldest_age_seconds"}, "oldest-age-seconds", 5.0),
        ({"metric": "depth", "target": "7"}, "depth", 7.0),
    ):
        response = await keda.call("GetMetricSpec", QUEUE | metadata)
        (spec,) = response["metricSpecs"]
        assert (spec["metricName"], spec["targetSizeFloat"]) == (f"cinnabar-free-text-{name}", size)
        assert int(spec["targetSize"]) == -(-size // 1)


@pytest.mark.parametrize(
    ("metadata", "named"),
    [
        ({}, "scalerMetadata.queue: is required"),
        ({"queue": "Free Text"}, "scalerMetadata.queue"),
        (QUEUE | {"metric": "length"}, "scalerMetadata.metric: must be one of work_seconds"),
        (QUEUE | {"target": "many"}, "scalerMetadata.target"),
        (QUEUE | {"target": "0"}, "scalerMetadata.target"),
        (QUEUE | {"target": "nan"}, "scalerMetadata.target"),
        (QUEUE | {"activation": "-1"}, "scalerMetadata.activation"),
    ],
)
async def test_bad_metadata_is_named_by_every_call(
    keda: KedaClient, metadata: dict[str, str], named: str
) -> None:
    for method in ("IsActive", "GetMetricSpec", "GetMetrics"):
        with pytest.raises(KedaError, match="INVALID_ARGUMENT") as caught:
            await keda.call(method, metadata, "cinnabar-free-text-work-seconds")
        assert caught.value.args[1].startswith(named)
    kind, (code, details) = await keda.next(await keda.stream(metadata))
    assert (kind, code) == ("error", "INVALID_ARGUMENT")
    assert details.startswith(named)


async def test_a_metric_of_another_name_is_not_given(keda: KedaClient) -> None:
    with pytest.raises(KedaError, match="INVALID_ARGUMENT") as caught:
        await keda.call("GetMetrics", QUEUE, "cinnabar-text-work-seconds")
    assert caught.value.args[1] == "metricName: must be cinnabar-free-text-work-seconds"


async def test_activity_is_pushed_as_it_changes(shared: Shared, keda: KedaClient) -> None:
    stream = await keda.stream(QUEUE)
    assert await keda.next(stream) == ("active", False)
    async with worker(shared.scheduler.target) as one:
        await one.hello()
        # Enqueued on another scheduler: it makes no difference whom KEDA asks.
        await shared.other.enqueue(shared.storage.add_tasks(1, revision=shared.storage.add_revision()))
        assert await keda.next(stream) == ("active", True)
        await one.grade(await one.take(1))
        assert await keda.next(stream) == ("active", False)


async def test_streams_are_bounded_and_end_with_their_client(shared: Shared, keda: KedaClient) -> None:
    streams = [await keda.stream(QUEUE) for _ in range(MAX_STREAMS)]
    for stream in streams:
        assert await keda.next(stream) == ("active", False)
    kind, (code, _) = await keda.next(await keda.stream(QUEUE))
    assert (kind, code) == ("error", "RESOURCE_EXHAUSTED")
    for stream in streams:
        await keda.leave(stream)

    async def admitted() -> bool:
        stream = await keda.stream(QUEUE)
        kind, value = await keda.next(stream)
        await keda.leave(stream)
        return (kind, value) == ("active", False)

    await until(admitted, "room for a stream")
    assert '"level": "error"' not in shared.scheduler.log()
