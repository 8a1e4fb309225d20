"""What the grader needs besides a model: leave to call it.

`ModelCalls` is what the graders of a suite share about the models that they call; its words are those of
`cinnabar.scheduler.v1.ModelCallService`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Protocol, TypeAlias

from cinnabar_grader.graders import LeaseToken

BREAKER_FAILURES = 5
"""Failures in a row that open a breaker."""
RECOVERY_SECONDS = 60.0
"""How long an open breaker lets nobody through."""
MAX_SHARED_BYTES = 64 * 1024
"""Largest result that is kept for those who ask the same."""


class BreakerState(IntEnum):
    """State of a provider's circuit breaker; the numbers of the protocol."""

    CLOSED = 1
    OPEN = 2
    HALF_OPEN = 3


class WaitReason(IntEnum):
    """Why a call cannot be made yet; the numbers of the protocol."""

    IN_FLIGHT = 1
    CONCURRENCY = 2
    RATE = 3


class DenialReason(Enum):
    """Why a call is not made at all; the names of the protocol."""

    BREAKER_OPEN = 1
    BUDGET_EXHAUSTED = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call of a model that is to be made."""

    provider: str
    """Name of the provider: `[a-z0-9-]{1,63}`."""
    tokens: int
    """Most tokens that it may use, in and out together: what is reserved."""
    cost_micros: int = 0
    """What these would cost, in millionths of a unit of money."""
    share_key: bytes = b""
    """SHA-256 of all that the result depends on, but for the tenant; empty: not shared."""
    timeout: float
    """Seconds it may take."""


@dataclass(frozen=True, slots=True)
class Permit:
    """Go ahead, and say what came of it. ``probe``: it decides whether the breaker closes."""

    token: str
    probe: bool = False


@dataclass(frozen=True, slots=True)
class Shared:
    """The same was asked before; ``result`` is what came of it."""

    result: bytes


@dataclass(frozen=True, slots=True)
class Wait:
    """Not now; ask again after so many seconds."""

    reason: WaitReason
    retry_after: float


@dataclass(frozen=True, slots=True)
class Denied:
    """No: fall back."""

    reason: DenialReason
    retry_after: float | None = None
    """Seconds after which it may be otherwise; None when nobody knows."""
    level: str = ""
    """What has no budget left: "tenant", "course" or "assignment"."""


Answer: TypeAlias = "Permit | Shared | Wait | Denied"


@dataclass(frozen=True, slots=True)
class Success:
    """The provider answered. ``result`` is for those who ask the same; empty: nothing to share."""

    tokens: int = 0
    cost_micros: int = 0
    result: bytes = b""


@dataclass(frozen=True, slots=True)
class Failure:
    """The provider did not answer in time, refused the connection, or had an error of its own (5xx)."""


@dataclass(frozen=True, slots=True)
class Useless:
    """The provider answered, with nothing of use: malformed, refused, 4xx."""

    tokens: int = 0
    cost_micros: int = 0


@dataclass(frozen=True, slots=True)
class Throttled:
    """The provider asks for patience, for so many seconds."""

    retry_after: float = 0.0


@dataclass(frozen=True, slots=True)
class NotMade:
    """The call was not made, or nobody waited for its end."""


Ending: TypeAlias = "Success | Failure | Useless | Throttled | NotMade"


class LeaseNotHeld(Exception):
    """The lease of the task is not held any more: nobody wants its grade."""


class ModelCalls(Protocol):
    """What all graders together know and allow about the providers of models.

    The rules, in the order in which they are asked:

    1. What is known to the tenant under the same share key is `Shared`.
    2. The breaker of the provider. CLOSED: calls pass; `BREAKER_FAILURES` failures in a row open it, a
       success or a useless answer starts the count again, all else leaves it. OPEN: `Denied` BREAKER_OPEN for
       `RECOVERY_SECONDS`; the first call after that is the probe, and the breaker HALF_OPEN. HALF_OPEN:
       everybody else is `Denied`. The probe's success, useless answer or throttling closes it, its
       failure opens it anew; one that was not made, or not ended in time, leaves the next call to be the
       probe. How calls end that began before the breaker opened changes nothing while it is not closed.
    3. Budgets of tenant, course and assignment, in tokens and in money: what is spent, reserved and asked
       for must fit, else `Denied` BUDGET_EXHAUSTED with the level.
    4. What is just being asked under the same share key: `Wait` IN_FLIGHT.
    5. The provider's pause after a throttled call, its requests and tokens of a minute: `Wait` RATE. Its
       calls at once: `Wait` CONCURRENCY.
    6. `Permit`: tokens and money are reserved until the call ends, or until a while after its timeout. A
       call that nobody ends counts as neither success nor failure, and its reservation is released.
    """

    async def begin(self, lease: LeaseToken, call: Call) -> Answer:
        """Leave to make a call for the task under ``lease``. Raises LeaseNotHeld."""
        ...

    async def end(self, permit: Permit, ending: Ending) -> BreakerState:
        """Says what came of a call; returns the state of the breaker afterwards.

        Success and useless answers are charged with what they used, all else with nothing; what was
        reserved is released. Repeating it changes nothing; an unknown permit is ignored (CLOSED).
        """
        ...
