"""Configuration of a grader process."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from cinnabar_common import queues as names
from cinnabar_common.names import ID_RULE, is_id


@dataclass(frozen=True, slots=True, kw_only=True)
class GraderConfig:
    """Read once in ``__main__``; field ``x`` is ``GRADER_X``."""

    scheduler_target: str
    """Addresses of schedulers, "host:port[,host:port…]"; one stream to each."""
    listen: str = "0.0.0.0:50054"
    """Where health and reflection are served."""
    queues: tuple[str, ...] = names.KNOWN
    """Which queues to work on; those that cannot be served here are left out."""
    credits: tuple[str, ...] = ()
    """"queue=number" where another number of tasks should be taken ahead than what the workers need."""
    semantic_threads: int = 1
    """Threads of one pass of the free-text model."""
    min_workers: int = 3
    """Fewest tasks under way at once, for each kind that mostly waits. Worker processes, which use a core
    each, start with no more than half of the cores."""
    max_workers: int = 20
    """Most of them. There are never more worker processes than cores, or than memory holds."""
    code_runs: int = 0
    """Runs of programs at once; the number of cores when 0."""
    code_task_seconds: float = 180.0
    """When the runs of one program took so long together, the rest of its tests is not run."""
    code_python: str = ""
    """Python that programs are run with, and its packages; that of this process without any when empty."""
    code_trees: tuple[str, ...] = ()
    """Folders that programs can read besides the system's: absolute paths."""
    code_cgroup: str = ""
    """A cgroup v2 folder that was delegated to this process; one is looked for when empty."""
    code_weak_sandbox: bool = False
    """Run programs also where there is no sandbox that holds programs that mean harm."""
    scale_up: float = 0.8
    """Load per worker above which there is one more."""
    scale_down: float = 0.3
    """Load per worker below which there is one less."""
    scale_seconds: float = 30.0
    """How often that is looked at."""
    backlog_seconds: float = 5.0
    """In how long there should be workers enough to work off what waits."""
    batch_seconds: float = 60.0
    """How long a worker process may take for a batch before it is killed."""
    silence_seconds: float = 15.0
    """How long the event loop of a worker process may stand still before it is killed."""
    process_mib: int = 1536
    """A worker process with more memory is replaced; in MiB."""
    process_batches: int = 100_000
    """A worker process that did so many batches is replaced."""
    drain_seconds: float = 10.0
    """How long running work may take to finish after SIGTERM; what does not is handed back."""
    worker: str = ""
    """Id of the worker; made of host, process id and a random part when empty."""

    llm_url: str = ""
    """OpenAI-compatible endpoint, up to "/chat/completions"; without it "llm" is graded by fallbacks."""
    llm_key: str = field(default="", repr=False)
    """Its API key; "file:/path" reads it from a file."""
    llm_model: str = ""
    """Model of items that name none."""
    llm_provider: str = "llm"
    """Name of the provider, under which graders share its breaker and the policy has its limits."""
    llm_timeout_seconds: float = 30.0
    """How long a task may wait for models in all."""
    llm_max_output_tokens: int = 1024
    """Most tokens of a reply."""
    llm_input_price: float = 0.0
    """What a million tokens cost that are read."""
    llm_output_price: float = 0.0
    """What a million tokens cost that are written."""
    llm_schema: bool = True
    """The endpoint knows JSON schemas (`response_format` json_schema); else any JSON is asked for."""
    llm_tokens_field: str = "max_tokens"
    """Its name for the limit of a reply; some want "max_completion_tokens"."""

    def __post_init__(self) -> None:
        problems: list[str] = []
        if not self.addresses:
            problems.append("GRADER_SCHEDULER_TARGET names no address")
        if not self.queues:
            problems.append("GRADER_QUEUES names no queue")
        problems += [
            f"GRADER_QUEUES: {queue!r} is not a queue" for queue in self.queues if not is_queue(queue)
        ]
        for entry in self.credits:
            queue, _, number = entry.partition("=")
            if not is_queue(queue) or not number.isdecimal() or int(number) < 1:
                problems.append(f"GRADER_CREDITS: {entry!r} is not queue=number")
        if self.semantic_threads < 1:
            problems.append("GRADER_SEMANTIC_THREADS must be 1 or more")
        if not 0 <= self.code_runs <= 256:
            problems.append("GRADER_CODE_RUNS must be 0 to 256")
        if not 1 <= self.code_task_seconds <= 3600:
            problems.append("GRADER_CODE_TASK_SECONDS must be 1 to 3600")
        if not all(path.startswith("/") for path in self.code_trees):
            problems.append("GRADER_CODE_TREES must be absolute paths")
        if not 1 <= self.min_workers <= self.max_workers <= 1000:
            problems.append("GRADER_MIN_WORKERS and GRADER_MAX_WORKERS must be 1 to 1000, in this order")
        if not 0 <= 2 * self.scale_down <= self.scale_up:
            problems.append("GRADER_SCALE_DOWN must be 0 or more, and at most half of GRADER_SCALE_UP")
        for name in ("scale_seconds", "backlog_seconds", "batch_seconds", "silence_seconds"):
            if not 0 < getattr(self, name) <= 3600:
                problems.append(f"GRADER_{name.upper()} must be more than 0 and at most 3600")
        if self.process_mib < 64:
            problems.append("GRADER_PROCESS_MIB must be 64 or more")
        if self.process_batches < 1:
            problems.append("GRADER_PROCESS_BATCHES must be 1 or more")
        if not 0 <= self.drain_seconds <= 3600:
            problems.append("GRADER_DRAIN_SECONDS must be 0 to 3600")
        if self.worker and not is_id(self.worker):
            problems.append(f"GRADER_WORKER {ID_RULE}")
        problems += self._llm_problems()
        if problems:
            raise ValueError("; ".join(problems))

    def _llm_problems(self) -> list[str]:
        problems: list[str] = []
        url = urlsplit(self.llm_url)
        if self.llm_url and (url.scheme not in ("http", "https") or not url.hostname or url.username):
            problems.append("GRADER_LLM_URL must be an http or https URL without a user")
        if self.llm_url and not self.llm_model:
            problems.append("GRADER_LLM_MODEL is required with GRADER_LLM_URL")
        if not is_id(self.llm_provider):
            problems.append(f"GRADER_LLM_PROVIDER {ID_RULE}")
        if not 0 < self.llm_timeout_seconds <= 600:
            problems.append("GRADER_LLM_TIMEOUT_SECONDS must be more than 0 and at most 600")
        if not 1 <= self.llm_max_output_tokens <= 100_000:
            problems.append("GRADER_LLM_MAX_OUTPUT_TOKENS must be 1 to 100000")
        for name, price in (("INPUT", self.llm_input_price), ("OUTPUT", self.llm_output_price)):
            if not (math.isfinite(price) and 0 <= price <= 1e6):
                problems.append(f"GRADER_LLM_{name}_PRICE must be 0 to 1000000")
        if not re.fullmatch("[a-z_]{1,64}", self.llm_tokens_field):
            problems.append("GRADER_LLM_TOKENS_FIELD must be a name of a-z and _")
        return problems

    @property
    def addresses(self) -> tuple[str, ...]:
        """Each scheduler once, in the order given."""
        parts = (part.strip() for part in self.scheduler_target.split(","))
        return tuple(dict.fromkeys(part for part in parts if part))

    @property
    def configured_credits(self) -> dict[str, int]:
        """What ``credits`` says."""
        return {queue: int(number) for queue, _, number in (entry.partition("=") for entry in self.credits)}

    @property
    def runs(self) -> int:
        """Runs of programs at once."""
        return self.code_runs or len(os.sched_getaffinity(0))


def is_queue(name: str) -> bool:
    """Whether tasks can be in a queue of this name: a known one, or that of a custom kind."""
    custom = name.removeprefix(names.CUSTOM_PREFIX)
    return name in names.KNOWN or (custom != name and is_id(custom) and is_id(name))
