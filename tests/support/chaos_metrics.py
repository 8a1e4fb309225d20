"""Sums of the schedulers' counters over all their lives: a process that is killed begins at 0 again."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import aiohttp

from cinnabar_local.stack import Stack

_SCRAPE_SECONDS = 0.5
_TIMEOUT = aiohttp.ClientTimeout(total=1.0)
_SAMPLE = re.compile(r"^(cinnabar_\w+_total)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_FATE = re.compile(r'fate="(\w+)"')


class Counters:
    """What was scraped last from each process; what it counted after that and before its death is lost."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, int], Counter[str]] = {}

    def read(self, process: str, pid: int, text: str) -> None:
        """Takes the answer of one scrape; counters are summed over their queues, fates stay apart."""
        found: Counter[str] = Counter()
        for name, labels, value in _SAMPLE.findall(text):
            fate = _FATE.search(labels)
            found[f"{name}/{fate[1]}" if fate else name] += round(float(value))
        self._last[process, pid] = found

    def total(self, name: str) -> int:
        """Of ``cinnabar_<name>_total``, or ``cinnabar_<name>_total/<fate>``; at least so many there were."""
        return sum(found[name] for found in self._last.values())


@asynccontextmanager
async def scraping(stack: Stack) -> AsyncGenerator[Counters]:
    """Scrapes all schedulers for the length of the block, and once at its end."""
    counters = Counters()

    async def scrape() -> None:
        for number, address in enumerate(stack.addresses.metrics):
            name = f"scheduler-{number}"
            pid = stack.process(name).pid
            if pid is None:
                continue
            with suppress(aiohttp.ClientError, OSError, TimeoutError):
                async with session.get(f"http://{address}/metrics") as answer:
                    text = await answer.text()
                if stack.process(name).pid == pid:
                    counters.read(name, pid, text)

    async def scrape_on() -> None:
        while True:
            await scrape()
            await asyncio.sleep(_SCRAPE_SECONDS)

    async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
        scraper = asyncio.create_task(scrape_on(), name="chaos metrics")
        try:
            yield counters
        finally:
            scraper.cancel()
            with suppress(asyncio.CancelledError):
                await scraper
            await scrape()
