"""Configuration of the scheduler."""

from __future__ import annotations

from dataclasses import dataclass

from cinnabar_common.metrics import valid_listen


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig:
    """Read once at start; field ``x`` is ``SCHEDULER_X``."""

    redis_url: str
    storage_target: str
    listen: str = "0.0.0.0:50052"
    policy_file: str = ""
    lease_seconds: float = 15.0
    max_credits: int = 4096
    silence_limit_seconds: float = 60.0
    metrics_listen: str = ""
    sweep_seconds: float = 10.0
    storage_timeout_seconds: float = 5.0
    redis_timeout_seconds: float = 2.0
    admission_timeout_seconds: float = 0.15
    """Of Redis, when the edge waits for it; what takes longer is decided without."""
    reservation_seconds: float = 10.0
    """How long an idempotency key stays reserved by a request that never ends."""

    def __post_init__(self) -> None:
        if self.lease_seconds < 1:
            raise ValueError("SCHEDULER_LEASE_SECONDS must be at least 1")
        if not valid_listen(self.metrics_listen):
            raise ValueError("SCHEDULER_METRICS_LISTEN must be host:port")
        if self.silence_limit_seconds < self.lease_seconds:
            raise ValueError("SCHEDULER_SILENCE_LIMIT_SECONDS must be at least SCHEDULER_LEASE_SECONDS")
        if self.admission_timeout_seconds <= 0 or self.reservation_seconds <= 0:
            raise ValueError("SCHEDULER_ADMISSION_TIMEOUT_SECONDS and …_RESERVATION_SECONDS must be positive")
