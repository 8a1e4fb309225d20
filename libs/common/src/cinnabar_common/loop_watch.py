"""Notices that the event loop stands still, which the loop itself cannot."""

from __future__ import annotations

import asyncio
import logging
import math
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager

log = logging.getLogger(__name__)

STEPS = 10
"""Silence of the loop is counted by a thread that wakes so many times to the limit."""
LONGEST_STEPS = 3
"""When it slept for longer than so many steps it counts no more: a process that was stopped as a whole, or
got no time from its machine, has not blocked its loop."""
FRAMES = 12


class LoopWatch:
    """Watches the event loop that it runs in, from a thread.

    The loop is blocked when nothing else ran on it for ``limit_seconds``. It counts as blocked for
    ``hold_seconds`` more, as it could not say so meanwhile.
    """

    def __init__(self, *, limit_seconds: float = 5.0, hold_seconds: float = 10.0) -> None:
        self._limit = limit_seconds
        self._hold = hold_seconds
        self._step = limit_seconds / STEPS
        self._beats = 0
        self._beaten_at = math.inf  # nothing is late while nobody watches
        self._cpu = 0.0
        self._blocked_at: float | None = None
        self._stop = threading.Event()
        self._changed: Callable[[], None] = lambda: None

    @property
    def blocked(self) -> bool:
        """Whether the loop stands still, or did so lately. To be asked on the loop, also just after."""
        now = time.monotonic()
        self._note(now)
        return self._blocked_at is not None and now - self._blocked_at <= self._hold

    async def check(self) -> None:
        """RuntimeError while it is blocked, as health asks."""
        if self.blocked:
            raise RuntimeError("the event loop stood still")

    @contextmanager
    def running(self, changed: Callable[[], None] = lambda: None) -> Generator[LoopWatch]:
        """Watches the running loop; ``changed`` is called on it when it ran again after it was blocked."""
        loop = asyncio.get_running_loop()
        self._changed = changed
        self._beaten_at, self._cpu = time.monotonic(), time.thread_time()
        self._stop.clear()
        timer = loop.call_later(self._step, self._beat, loop)
        self._timer = timer
        thread = threading.Thread(
            target=self._watch, args=(threading.get_ident(),), name="loop-watch", daemon=True
        )
        thread.start()
        try:
            yield self
        finally:
            self._timer.cancel()
            self._beaten_at = math.inf
            self._stop.set()
            thread.join()

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        now = time.monotonic()
        late = self._note(now)
        self._beats += 1
        self._beaten_at, self._cpu = now, time.thread_time()
        self._timer = loop.call_later(self._step, self._beat, loop)
        if late:
            self._changed()

    def _note(self, now: float) -> bool:
        """Remembers a block that is just over; on the loop. Returns whether there was one.

        The thread saw it unless it could not run either, because the interpreter was held by what blocked
        the loop: then the loop's own use of the processor tells it from a process that was stopped.
        """
        silence = now - self._beaten_at - self._step
        if silence <= self._limit:
            return False
        seen = self._blocked_at is not None and self._blocked_at > self._beaten_at
        if seen or time.thread_time() - self._cpu > silence / 4:
            self._blocked_at = now
            return True
        return False

    def _watch(self, loop_thread: int) -> None:
        beats, silent, told = -1, 0.0, False
        woken = time.monotonic()
        while not self._stop.wait(self._step):
            slept, woken = time.monotonic() - woken, time.monotonic()
            if self._beats != beats:
                if told:
                    log.error("event loop runs again", extra={"blocked_seconds": round(silent, 1)})
                beats, silent, told = self._beats, 0.0, False
                continue
            silent += min(slept, LONGEST_STEPS * self._step)
            if silent > self._limit:
                self._blocked_at = time.monotonic()
                if not told:
                    told = True
                    log.error("event loop blocked", extra={"stack": stack_of(loop_thread)})


def stack_of(thread: int) -> list[str]:
    """Where a thread is now, innermost last, as "file:line function": places only, no values."""
    frame = sys._current_frames().get(thread)  # pyright: ignore[reportPrivateUsage]  # documented for this
    if frame is None:
        return []
    summary = traceback.StackSummary.extract(traceback.walk_stack(frame), limit=FRAMES, lookup_lines=False)
    return [f"{one.filename}:{one.lineno} {one.name}" for one in reversed(summary)]
