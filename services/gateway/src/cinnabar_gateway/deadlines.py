"""The deadline of the call that is being served, and what is left for its own calls."""

from __future__ import annotations

import time
from contextvars import ContextVar

_MARGIN_SECONDS = 0.05
_MARGIN_FRACTION = 0.1

_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


def enter(remaining_seconds: float | None) -> float | None:
    """Notes the caller's remaining time; returns the seconds that are ours.

    A margin is kept back so that our own answer still reaches the caller.
    """
    if remaining_seconds is None:
        return None
    ours = remaining_seconds - min(_MARGIN_SECONDS, remaining_seconds * _MARGIN_FRACTION)
    _deadline.set(time.monotonic() + ours)
    return ours


def within(seconds: float) -> float:
    """Seconds for a call to another service: at most ``seconds``, less when the caller has less.

    Work that many callers share runs in tasks of its own, which have no deadline.
    """
    deadline = _deadline.get()
    if deadline is None:
        return seconds
    return max(0.0, min(seconds, deadline - time.monotonic()))
