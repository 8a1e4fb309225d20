"""What clients were told during a campaign, and what they may not be told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import grpc

from cinnabar_client import ApiError

RETRYABLE = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    }
)


@dataclass(frozen=True, slots=True)
class Request:
    """What makes a submission the same one when it is sent again."""

    tenant: str
    author: str
    request_id: str


@dataclass(slots=True)
class Ledger:
    """Every promise that was made to a client, and every answer that breaks the contract.

    ``accepted``     the name that was given for each request that was answered with OK
    ``scores``       what each of them must earn when it is graded
    ``deadlines``    those that are given up when they have no grade by a time of their own
    ``cancelled``    submissions whose cancellation was answered with OK
    ``seen_final``   submissions that a watcher saw in a final state, with its score
    ``longest``      seconds from the first try of a request to its answer, the most there were of each kind
    ``forbidden``    answers that no valid request may get, in words
    """

    accepted: dict[Request, str] = field(default_factory=dict[Request, str])
    scores: dict[str, float] = field(default_factory=dict[str, float])
    deadlines: set[str] = field(default_factory=set[str])
    cancelled: set[str] = field(default_factory=set[str])
    seen_final: dict[str, tuple[str, float]] = field(default_factory=dict[str, tuple[str, float]])
    statuses: Counter[str] = field(default_factory=Counter[str])
    forbidden: list[str] = field(default_factory=list[str])
    sent: Counter[str] = field(default_factory=Counter[str])
    repeats: int = 0
    longest: dict[str, float] = field(default_factory=dict[str, float])
    recent: list[str] = field(default_factory=list[str])

    def forbid(self, what: str) -> None:
        """An answer that breaks the contract; told at once, for it to stand next to the faults."""
        self.forbidden.append(what)
        print(f"chaos: FORBIDDEN {what}", flush=True)  # noqa: T201

    def accept(self, how: str, request: Request, name: str, score: float) -> None:
        """An OK answer: ``name`` is the submission; the same request must always get the same one."""
        self.sent[how] += 1
        self.statuses["OK"] += 1
        first = self.accepted.setdefault(request, name)
        if first != name:
            self.forbid(f"{request} was answered with {first} and with {name}")
            return
        if name in self.scores:
            self.repeats += 1
            return
        self.scores[name] = score
        self.recent.append(name)
        del self.recent[:-200]

    def insisted(self, how: str, seconds: float) -> None:
        """How long one client had to try."""
        self.longest[how] = max(self.longest.get(how, 0.0), seconds)

    def answered(self, how: str) -> None:
        """An OK answer to anything else."""
        self.sent[how] += 1
        self.statuses["OK"] += 1

    def refuse(self, how: str, error: ApiError, *, allowed: Sequence[str] = ()) -> bool:
        """Any other answer; returns whether it is worth another try.

        ``allowed`` are reasons that are right for this call at times (cancelling what is graded).
        """
        self.statuses[error.code.name] += 1
        if error.reason in allowed:
            return False
        if error.code in RETRYABLE or (
            error.code is grpc.StatusCode.ABORTED and error.retry_after is not None
        ):
            return True
        self.forbid(f"{how}: {error.code.name} {error.reason}: {error.message}")
        return False

    @property
    def names(self) -> set[str]:
        """All submissions that were accepted."""
        return set(self.scores)
