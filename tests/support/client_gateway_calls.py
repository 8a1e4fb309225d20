"""What all calls of the gateway in memory share: what tests make fail, break off or hang, and pages."""

import asyncio
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from typing import Any

import grpc

from cinnabar_common.errors import SuiteError

Context = grpc.aio.ServicerContext[Any, Any]
TOKEN = "cinnabar-consistency-token"


@dataclass
class MemoryCalls:
    """``failures[method]`` are raised by its next calls (items, for the stream), one each.

    ``drops[method]`` says how many messages the next streams of a method send before they break off.
    ``stuck[method]`` calls never get an answer. ``page`` is how many a page of a list has.
    """

    failures: dict[str, deque[SuiteError]] = field(default_factory=lambda: defaultdict(deque))
    drops: dict[str, deque[int]] = field(default_factory=lambda: defaultdict(deque))
    stuck: Counter[str] = field(default_factory=Counter[str])
    calls: list[str] = field(default_factory=list[str])
    tokens: list[str] = field(default_factory=list[str])
    page: int = 2

    def _enter(self, method: str, context: Context) -> None:
        self.calls.append(method)
        metadata = dict(context.invocation_metadata() or ())
        self.tokens.append(str(metadata.get(TOKEN, "")))
        if self.failures[method]:
            raise self.failures[method].popleft()

    async def _unless_stuck(self, method: str) -> None:
        if self.stuck[method]:
            self.stuck[method] -= 1
            await asyncio.get_running_loop().create_future()

    def _page(self, token: str, total: int) -> tuple[int, str]:
        start = int(token or 0)
        end = start + self.page
        return start, str(end) if end < total else ""
