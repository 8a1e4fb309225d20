"""What KEDA asks of an external scaler: how much work the graders of a queue have."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum

import grpc

from cinnabar.external import keda_pb2 as pb
from cinnabar.external.keda_pb2_grpc import ExternalScalerServicer
from cinnabar_common.errors import DependencyUnavailable, FieldViolation, InvalidRequest, Overloaded
from cinnabar_common.names import ID_RULE, is_id
from cinnabar_scheduler.load import Load, Loads
from cinnabar_scheduler.ports import QueueUnavailable
from cinnabar_scheduler.tasks import QueueName

MAX_STREAMS = 64
CHECK_SECONDS = 0.5

Stream = grpc.aio.ServicerContext[pb.ScaledObjectRef, pb.IsActiveResponse]


class Metric(Enum):
    """What is scaled by."""

    WORK_SECONDS = "work_seconds"
    OLDEST_AGE_SECONDS = "oldest_age_seconds"
    DEPTH = "depth"


DEFAULT_TARGETS = {Metric.WORK_SECONDS: 10.0, Metric.OLDEST_AGE_SECONDS: 5.0, Metric.DEPTH: 100.0}


@dataclass(frozen=True, slots=True)
class Trigger:
    """The metadata of a trigger: ``target`` of the metric is what one grader is to have.

    The queue is active while it has tasks, and more of the metric than ``activation``.
    """

    queue: QueueName
    metric: Metric
    target: float
    activation: float

    @property
    def metric_name(self) -> str:
        """Name of the metric at KEDA."""
        return f"cinnabar-{self.queue}-{self.metric.value.replace('_', '-')}"

    def value(self, load: Load) -> float:
        """The metric now.

        While no service time has been measured, any work counts as that of one grader: the first one
        measures it.
        """
        if not load.depth:
            return 0.0
        match self.metric:
            case Metric.WORK_SECONDS:
                seconds = load.grader_seconds
                return self.target if seconds is None else seconds
            case Metric.OLDEST_AGE_SECONDS:
                return load.oldest_age_seconds
            case Metric.DEPTH:
                return float(load.depth)

    def active(self, load: Load) -> bool:
        """Whether there is work at all."""
        return load.depth > 0 and (self.activation == 0 or self.value(load) > self.activation)


def trigger(metadata: Mapping[str, str]) -> Trigger:
    """The trigger of ``scalerMetadata``; KEDA's own keys in it are ignored.

    Raises InvalidRequest with every broken rule.
    """
    violations: list[FieldViolation] = []

    def broken(key: str, rule: str) -> None:
        violations.append(FieldViolation(f"scalerMetadata.{key}", rule))

    def number(key: str, default: float, *, least: float, rule: str) -> float:
        try:
            value = float(metadata.get(key) or default)
        except ValueError:
            value = math.nan
        if not least <= value < math.inf:
            broken(key, rule)
        return value

    queue = metadata.get("queue", "")
    if not is_id(queue):
        broken("queue", "is required" if not queue else ID_RULE)
    name = metadata.get("metric") or Metric.WORK_SECONDS.value
    try:
        metric = Metric(name)
    except ValueError:
        metric = Metric.WORK_SECONDS
        broken("metric", f"must be one of {', '.join(each.value for each in Metric)}")
    target = number("target", DEFAULT_TARGETS[metric], least=1e-9, rule="must be a number more than 0")
    activation = number("activation", 0.0, least=0.0, rule="must be a number, 0 or more")
    if violations:
        raise InvalidRequest(violations)
    return Trigger(QueueName(queue), metric, target, activation)


class ScalerService(ExternalScalerServicer):
    """Convert, look at the queue, convert. When ``leaving`` is set every stream ends with UNAVAILABLE."""

    def __init__(self, loads: Loads, leaving: asyncio.Event) -> None:
        self._loads = loads
        self._leaving = leaving
        self._streams = 0

    async def IsActive(self, request: pb.ScaledObjectRef, context: object) -> pb.IsActiveResponse:
        wanted = trigger(request.scalerMetadata)
        return pb.IsActiveResponse(result=wanted.active(await self._load(wanted)))

    async def StreamIsActive(  # pyright: ignore[reportIncompatibleMethodOverride]  # writes with context.write
        self, request: pb.ScaledObjectRef, context: Stream
    ) -> None:
        wanted = trigger(request.scalerMetadata)
        if self._streams >= MAX_STREAMS:
            raise Overloaded("scaler streams")
        self._streams += 1
        try:
            said: bool | None = None
            while not self._leaving.is_set():
                try:
                    active = wanted.active(await self._load(wanted))
                except DependencyUnavailable:
                    if said is None:
                        raise
                    active = said  # what was true before Redis went away is the best that is known
                if active is not said:
                    await context.write(pb.IsActiveResponse(result=active))
                    said = active
                with suppress(TimeoutError):
                    async with asyncio.timeout(CHECK_SECONDS):
                        await self._leaving.wait()
            raise DependencyUnavailable("scheduler")
        finally:
            self._streams -= 1

    async def GetMetricSpec(self, request: pb.ScaledObjectRef, context: object) -> pb.GetMetricSpecResponse:
        wanted = trigger(request.scalerMetadata)
        spec = pb.MetricSpec(
            metricName=wanted.metric_name,
            targetSize=math.ceil(wanted.target),
            targetSizeFloat=wanted.target,
        )
        return pb.GetMetricSpecResponse(metricSpecs=[spec])

    async def GetMetrics(self, request: pb.GetMetricsRequest, context: object) -> pb.GetMetricsResponse:
        wanted = trigger(request.scaledObjectRef.scalerMetadata)
        # KEDA puts the number of the trigger before the name when it talks to Kubernetes.
        if re.sub(r"^s\d+-", "", request.metricName) != wanted.metric_name:
            raise InvalidRequest([FieldViolation("metricName", f"must be {wanted.metric_name}")])
        value = wanted.value(await self._load(wanted))
        return pb.GetMetricsResponse(
            metricValues=[
                pb.MetricValue(
                    metricName=request.metricName, metricValue=math.ceil(value), metricValueFloat=value
                )
            ]
        )

    async def _load(self, wanted: Trigger) -> Load:
        try:
            return await self._loads.of(wanted.queue)
        except QueueUnavailable as error:
            raise DependencyUnavailable("redis") from error
