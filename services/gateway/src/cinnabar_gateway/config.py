"""Configuration of the gateway."""

from __future__ import annotations

from dataclasses import dataclass, field

from cinnabar_gateway.consistency import TokenKeys

DEVELOPMENT = "development"
_POSITIVE = (
    "call_timeout_seconds",
    "health_timeout_seconds",
    "watch_reread_seconds",
    "commit_batch",
    "commit_lanes",
    "enqueue_batch",
    "max_pending_submissions",
    "max_pending_enqueues",
    "max_pending_bytes",
    "max_watches",
    "stream_window",
    "admission_timeout_seconds",
    "admission_wait_seconds",
    "queue_refresh_seconds",
    "queue_forget_seconds",
    "estimate_fresh_seconds",
    "max_estimated_tenants",
    "progress_wait_seconds",
    "regrade_lanes",
    "regrade_step_tasks",
    "regrade_poll_seconds",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayConfig:
    """Read once at start; field ``x`` is ``GATEWAY_X``."""

    storage_target: str
    """Addresses "host:port[,host:port…]" of the storage services."""
    scheduler_target: str
    """Addresses "host:port[,host:port…]" of the schedulers; each is followed by itself."""
    auth: str
    """Must be "development": callers name themselves, which proves nothing. There is no other way yet."""
    token_key: tuple[str, ...] = field(repr=False)
    """Secrets of at least 32 characters, the same for all gateways: the first signs consistency tokens, all
    of them verify. "file:{path}" reads them from a file."""
    listen: str = "0.0.0.0:50051"
    call_timeout_seconds: float = 5.0
    """Of a call to another service, unless the caller has less time."""
    health_timeout_seconds: float = 2.0
    revision_ttl_seconds: float = 1.0
    """How long a changed assignment may still be answered in its old revision."""
    max_revisions: int = 1000
    commit_batch: int = 1000
    """Submissions in one call to storage."""
    commit_lanes: int = 2
    """Calls to storage that create, at once."""
    enqueue_batch: int = 1000
    """Tasks in one call to the scheduler."""
    max_pending_submissions: int = 50_000
    max_pending_enqueues: int = 50_000
    """Tasks that may wait for the scheduler; recovery enqueues what is dropped."""
    max_pending_bytes: int = 256 * 1024 * 1024
    """Answers that wait for storage."""
    max_watches: int = 10_000
    watch_reread_seconds: float = 2.0
    """How often a watched submission is read although nothing was announced."""
    stream_window: int = 8
    """Messages of one stream that may be unacknowledged."""
    queue_refresh_seconds: float = 1.0
    """How often the schedulers are asked which queues drain."""
    queue_forget_seconds: float = 10.0
    """How long a drain is obeyed while no scheduler answers."""
    estimate_fresh_seconds: float = 1.0
    """How long the estimates of a tenant are used before they are asked for again."""
    max_estimated_tenants: int = 1000
    admission_timeout_seconds: float = 0.25
    """Of asking a scheduler for admission; what takes longer goes on without."""
    admission_wait_seconds: float = 2.0
    """How long a call waits for an equal one that is in progress."""
    progress_wait_seconds: float = 0.5
    """How long a reader waits for the progress of what is being graded."""
    regrade_lanes: int = 2
    """Regrades that this gateway works on at once."""
    regrade_step_tasks: int = 1000
    """Tasks that a step of a regrade opens."""
    regrade_poll_seconds: float = 2.0
    """How often it looks for regrades that nobody works on."""
    grace_seconds: float = 5.0
    drain_seconds: float = 0.0
    """How long calls are still taken after health says NOT_SERVING: until the balancer has seen it."""

    def __post_init__(self) -> None:
        if self.auth != DEVELOPMENT:
            raise ValueError(f"GATEWAY_AUTH={self.auth!r} must be {DEVELOPMENT!r}")
        for name in ("storage_target", "scheduler_target"):
            if not all(part.strip() for part in getattr(self, name).split(",")):
                raise ValueError(f"GATEWAY_{name.upper()} must be host:port[,host:port…]")
        try:
            TokenKeys(self.token_key)
        except ValueError as error:
            raise ValueError(f"GATEWAY_TOKEN_KEY {error}") from None
        if not 0 <= self.drain_seconds <= 60:
            raise ValueError("GATEWAY_DRAIN_SECONDS must be 0 to 60")
        if self.regrade_step_tasks > 1000:
            raise ValueError("GATEWAY_REGRADE_STEP_TASKS must be at most 1000")
        for name in _POSITIVE:
            if getattr(self, name) <= 0:
                raise ValueError(f"GATEWAY_{name.upper()} must be more than 0")
