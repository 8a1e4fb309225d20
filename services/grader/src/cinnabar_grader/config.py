"""Configuration of a grader process."""

from __future__ import annotations

from dataclasses import dataclass

from cinnabar_common.names import ID_RULE, is_id

QUEUES = ("choice", "numeric", "text", "free-text")
DEFAULT_CREDITS = {"choice": 256, "numeric": 256, "text": 256, "free-text": 32}
"""Tasks of a queue that one stream takes ahead: some 10 ms of rules, some 0.3 s of the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraderConfig:
    """Read once in ``__main__``; field ``x`` is ``GRADER_X``."""

    scheduler_target: str
    """Addresses of schedulers, "host:port[,host:port…]"; one stream to each."""
    listen: str = "0.0.0.0:50054"
    """Where health and reflection are served."""
    queues: tuple[str, ...] = QUEUES
    """Which queues to work on."""
    credits: tuple[str, ...] = ()
    """"queue=number" where the number of tasks taken ahead differs from the default."""
    semantic_threads: int = 1
    """Threads of one pass of the free-text model."""
    drain_seconds: float = 10.0
    """How long running work may take to finish after SIGTERM."""
    worker: str = ""
    """Id of the worker; made of host, process id and a random part when empty."""

    def __post_init__(self) -> None:
        problems: list[str] = []
        if not self.addresses:
            problems.append("GRADER_SCHEDULER_TARGET names no address")
        if not self.queues:
            problems.append("GRADER_QUEUES names no queue")
        problems += [
            f"GRADER_QUEUES: {queue!r} is not a queue" for queue in self.queues if queue not in QUEUES
        ]
        for entry in self.credits:
            queue, _, number = entry.partition("=")
            if queue not in QUEUES or not number.isdecimal() or int(number) < 1:
                problems.append(f"GRADER_CREDITS: {entry!r} is not queue=number")
        if self.semantic_threads < 1:
            problems.append("GRADER_SEMANTIC_THREADS must be 1 or more")
        if not 0 <= self.drain_seconds <= 3600:
            problems.append("GRADER_DRAIN_SECONDS must be 0 to 3600")
        if self.worker and not is_id(self.worker):
            problems.append(f"GRADER_WORKER {ID_RULE}")
        if problems:
            raise ValueError("; ".join(problems))

    @property
    def addresses(self) -> tuple[str, ...]:
        """Each scheduler once, in the order given."""
        parts = (part.strip() for part in self.scheduler_target.split(","))
        return tuple(dict.fromkeys(part for part in parts if part))

    @property
    def credits_per_queue(self) -> dict[str, int]:
        """Credits to keep open, for each of ``queues``."""
        wanted = DEFAULT_CREDITS | {
            queue: int(number) for queue, _, number in (entry.partition("=") for entry in self.credits)
        }
        return {queue: wanted[queue] for queue in self.queues}
