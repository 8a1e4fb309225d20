"""What Prometheus gets from a real scheduler."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress

from prometheus_client.parser import text_string_to_metric_families

from cinnabar.scheduler.v1 import work_service_pb2 as pb
from cinnabar_local.ports import Ports
from tests.support.scheduler_process import Suite
from tests.support.scheduler_worker import failed, graded, released, worker
from tests.support.servers import ValkeyServer
from tests.support.waiting import until

HOST = "127.0.0.1"
FREE_TEXT = {"queue": "free-text"}


async def fetch(port: int, request: str = "GET /metrics HTTP/1.1") -> tuple[str, dict[str, str], str]:
    """(status, headers, body) of one request."""
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(f"{request}\r\nHost: {HOST}\r\n\r\n".encode())
        head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
        writer.close()
    status, *lines = head.split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return status.removeprefix("HTTP/1.1 "), headers, body


class Scrape:
    """The numbers of one scrape."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self._samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def value(self, name: str, labels: Mapping[str, str] = FREE_TEXT) -> float | None:
        """One number; None when it is not there."""
        return self._samples.get((name, frozenset(labels.items())))


async def scrape(port: int) -> Scrape:
    status, headers, body = await fetch(port)
    assert status == "200 OK"
    assert headers["content-type"].startswith("text/plain; version=")
    return Scrape(body)


def fate(name: str) -> dict[str, str]:
    return FREE_TEXT | {"fate": name}


async def test_the_numbers_are_those_of_what_happened(parts: Suite) -> None:
    port = Ports().of("metrics")
    scheduler = await parts.scheduler(metrics_listen=f"{HOST}:{port}")
    before = await scrape(port)
    assert before.value("cinnabar_leader", {}) in (0, 1)
    assert before.value("cinnabar_admission_degraded", {}) == 0
    assert before.value("cinnabar_redis_up", {}) == 1
    assert before.value("cinnabar_queue_ready") == 0
    assert before.value("cinnabar_queue_service_time_seconds", FREE_TEXT | {"statistic": "p50"}) is None
    async with worker(scheduler.target) as one:
        await one.hello()
        await scheduler.enqueue(parts.storage.add_tasks(6, revision=parts.storage.add_revision()))
        a, b, c, d, _ = await one.take(5)
        receipts = await one.report(
            graded(a.lease_token),
            failed(b.lease_token),
            released(c.lease_token),
            pb.Outcome(lease_token=d.lease_token),
            graded("1-nobody"),
        )
        assert receipts == [
            pb.Receipt.COMMITTED,
            pb.Receipt.RETRYING,
            pb.Receipt.RETURNED,
            pb.Receipt.REJECTED,
            pb.Receipt.STALE_LEASE,
        ]
        del one.receipts[a.lease_token]  # the next one is waited for
        assert await one.report(graded(a.lease_token)) == [pb.Receipt.STALE_LEASE]
        now = await scrape(port)
        assert now.value("cinnabar_queue_leased") == 1
        assert now.value("cinnabar_queue_workers") == 1
        assert now.value("cinnabar_queue_credits") == 0
        assert (now.value("cinnabar_queue_ready") or 0) >= 2
        assert (now.value("cinnabar_queue_oldest_age_seconds") or 0) > 0
        assert (now.value("cinnabar_queue_throughput") or 0) > 0
        assert now.value("cinnabar_tasks_leased_total") == 5
        for name, count in (("committed", 1), ("retrying", 1), ("returned", 1), ("rejected", 1)):
            assert now.value("cinnabar_outcomes_total", fate(name)) == count, name
        assert now.value("cinnabar_outcomes_total", {"queue": "", "fate": "stale_lease"}) == 2
        for statistic in ("mean", "p50", "p90"):
            labels = FREE_TEXT | {"statistic": statistic}
            assert (now.value("cinnabar_queue_service_time_seconds", labels) or 0) > 0
    lost = {"at": 0.0}

    async def noticed() -> bool:
        lost["at"] = (await scrape(port)).value("cinnabar_leases_lost_total") or 0
        return lost["at"] == 1

    await until(noticed, "the lease of the worker that left")
    assert '"level": "error"' not in scheduler.log()


async def test_only_scrapes_are_answered(parts: Suite) -> None:
    port = Ports().of("metrics")
    await parts.scheduler(metrics_listen=f"{HOST}:{port}")
    assert (await fetch(port, "GET / HTTP/1.1"))[0] == "404 Not Found"
    assert (await fetch(port, "POST /metrics HTTP/1.1"))[0] == "405 Method Not Allowed"
    status, headers, body = await fetch(port, "HEAD /metrics HTTP/1.1")
    assert (status, body) == ("200 OK", "")
    assert int(headers["content-length"]) > 0
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(b"x" * 100_000)
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
    assert (await fetch(port))[0] == "200 OK"


async def test_a_scrape_does_not_fail_without_redis(parts: Suite, valkey_server: ValkeyServer) -> None:
    port = Ports().of("metrics")
    scheduler = await parts.scheduler(metrics_listen=f"{HOST}:{port}", redis_timeout_seconds="0.5")
    for stopped in (False, True):
        if stopped:
            valkey_server.processes["valkey"].pause()
        else:
            await valkey_server.processes.kill("valkey")
        try:
            gone = await scrape(port)
        finally:
            if stopped:
                valkey_server.processes["valkey"].resume()
            else:
                await valkey_server.processes.start("valkey")
        assert gone.value("cinnabar_redis_up", {}) == 0
        assert gone.value("cinnabar_queue_ready") is None

        async def back() -> bool:
            return (await scrape(port)).value("cinnabar_queue_ready") == 0

        await until(back, "the numbers of the queues are there again")
    assert '"level": "error"' not in scheduler.log()
