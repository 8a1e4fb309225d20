"""A circuit breaker: is a provider worth asking? Pure; the caller brings the time."""

from __future__ import annotations

from dataclasses import dataclass

from cinnabar_grader.llm.ports import BREAKER_FAILURES, RECOVERY_SECONDS, BreakerState


@dataclass(slots=True)
class Breaker:
    """The state of one provider. Times are seconds of any one monotonic clock."""

    limit: int = BREAKER_FAILURES
    recovery_seconds: float = RECOVERY_SECONDS
    failures: int = 0
    """In a row."""
    opened_at: float | None = None
    """None while closed."""
    probe: str = ""
    """Name of the call that decides; empty when nobody probes."""
    probe_until: float = 0.0

    def state(self, now: float) -> BreakerState:
        """OPEN also when a probe would be let through."""
        if self.opened_at is None:
            return BreakerState.CLOSED
        return BreakerState.HALF_OPEN if self._probing(now) else BreakerState.OPEN

    def closed_in(self, now: float) -> float:
        """Seconds for which no call passes; 0 when one may, as a probe if the breaker is not closed."""
        if self.opened_at is None:
            return 0.0
        if self._probing(now):
            return self.probe_until - now
        return max(0.0, self.opened_at + self.recovery_seconds - now)

    def enter(self, name: str, now: float, until: float) -> bool:
        """A call begins that passes; returns whether it is the probe, which it is ``until`` then."""
        if self.opened_at is None:
            return False
        self.probe, self.probe_until = name, until
        return True

    def answered(self, name: str) -> None:
        """The provider answered the call."""
        if self.opened_at is None or self.probe == name:
            self.failures, self.opened_at, self.probe = 0, None, ""

    def throttled(self, name: str) -> None:
        """The provider is there, and asks for patience."""
        if self.opened_at is not None:
            self.answered(name)

    def failed(self, name: str, now: float) -> None:
        """The provider did not answer the call."""
        if self.opened_at is None:
            self.failures += 1
            if self.failures >= self.limit:
                self.opened_at = now
        elif self.probe == name:
            self.failures += 1
            self.opened_at, self.probe = now, ""

    def left(self, name: str) -> None:
        """The call was not made: if it was the probe, the next one is."""
        if self.probe == name:
            self.probe = ""

    def _probing(self, now: float) -> bool:
        return bool(self.probe) and now < self.probe_until
