"""Numbers for Prometheus, taken from plain objects when somebody scrapes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

log = logging.getLogger(__name__)

REQUEST_BYTES = 16 * 1024
REQUEST_SECONDS = 5.0
MAX_SCRAPES = 8


@dataclass(frozen=True, slots=True)
class Sample:
    """A number that a part of a service tells. Names of counters end with "_total"."""

    name: str
    description: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict[str, str])


Source = Callable[[], Iterable[Sample]]
"""Asked in the event loop with every scrape; must not wait."""


def valid_listen(listen: str) -> bool:
    """Whether ``listen`` is "host:port" or empty, which is "nowhere"."""
    _, colon, port = listen.rpartition(":")
    return not listen or bool(colon and port.isdecimal() and int(port) < 65_536)


def families(samples: Iterable[Sample]) -> list[Metric]:
    """Samples by their names."""
    found: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
    for sample in samples:
        labels = sorted(sample.labels)
        family = found.get(sample.name)
        if family is None:
            kind = CounterMetricFamily if sample.name.endswith("_total") else GaugeMetricFamily
            family = found[sample.name] = kind(sample.name, sample.description, labels=labels)
        family.add_metric([sample.labels[label] for label in labels], sample.value)
    return list(found.values())


def exposition(metrics: Sequence[Metric]) -> bytes:
    """The text of a scrape, in Prometheus' format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Fixed(metrics))
    return generate_latest(registry)


class _Fixed(Collector):
    """Families that are known already."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


@asynccontextmanager
async def serving_metrics(listen: str, text: Callable[[], Awaitable[bytes]]) -> AsyncGenerator[int]:
    """Answers ``GET /metrics`` on ``listen`` ("host:port"); yields the port. OSError when it is taken.

    Scrapes that are under way at the end of the block are cut off.
    """
    host, _, port = listen.rpartition(":")
    slots = asyncio.Semaphore(MAX_SCRAPES)
    scrapes: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_SECONDS), slots:
                await _answer(reader, writer, text)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            log.debug("scrape not answered", extra={"error": type(error).__name__})
        finally:
            writer.close()

    # Tasks of our own: asyncio takes it for an error when one of its is cancelled.
    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        scrape = asyncio.create_task(answer(reader, writer), name="scrape")
        scrapes.add(scrape)
        scrape.add_done_callback(scrapes.discard)

    server = await asyncio.start_server(connected, host, int(port), limit=REQUEST_BYTES)
    async with server:
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for scrape in scrapes:
                scrape.cancel()
            await asyncio.gather(*scrapes, return_exceptions=True)


async def _answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, text: Callable[[], Awaitable[bytes]]
) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    method, _, rest = head.partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0]
    if path != b"/metrics":
        status, kind, body = "404 Not Found", "text/plain", b"metrics are at /metrics\n"
    elif method not in (b"GET", b"HEAD"):
        status, kind, body = "405 Method Not Allowed", "text/plain", b"only GET and HEAD\n"
    else:
        status, kind, body = "200 OK", CONTENT_TYPE_LATEST, await text()
    writer.write(
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        "Allow: GET, HEAD\r\nConnection: close\r\n\r\n".encode()
    )
    if method != b"HEAD":
        writer.write(body)
    await writer.drain()
