"""The scheduler's other ports in memory."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from cinnabar_common.errors import DependencyUnavailable
from cinnabar_common.names import UploadName
from cinnabar_scheduler.ports import (
    ArtifactForm,
    ArtifactState,
    Changed,
    CheckedArtifact,
    FileFacts,
    FileLink,
    OpenTasks,
    StoreUnavailable,
)
from cinnabar_scheduler.tasks import (
    Committed,
    DeadLetter,
    FencedOutcome,
    LeaseToken,
    Position,
    QueueName,
    QueueState,
    Task,
    TaskCounts,
)


@dataclass(slots=True)
class MemoryStore:
    """Implements Store. ``outages`` calls fail before the next one works."""

    items_by_key: dict[str, bytes] = field(default_factory=dict[str, bytes])
    open_by_shard: list[list[Task]] = field(default_factory=lambda: [[], []])
    # The epoch in which tasks last moved to each shard.
    came: list[int] = field(default_factory=lambda: [1, 1])
    outages: int = 0
    largest_page: int = 10_000
    unavailable: set[str] = field(default_factory=set[str])
    lost_shards: set[int] = field(default_factory=set[int])
    wanted: dict[QueueName, QueueState] = field(default_factory=dict[QueueName, QueueState])
    outcomes: list[FencedOutcome] = field(default_factory=list[FencedOutcome])
    pages: list[int] = field(default_factory=list[int])
    item_calls: int = 0

    async def commit(self, outcomes: Sequence[FencedOutcome]) -> tuple[list[Committed], list[Position]]:
        self._reach()
        results: list[Committed] = []
        for outcome in outcomes:
            if outcome.task in self.unavailable:
                results.append(Committed.UNAVAILABLE)
            elif any(
                known.task == outcome.task and known.generation == outcome.generation
                for known in self.outcomes
            ):
                results.append(Committed.ALREADY_GRADED)
            else:
                self.outcomes.append(outcome)
                results.append(Committed.COMMITTED)
        return results, [Position(0, len(self.outcomes))]

    async def items(self, revisions: Sequence[tuple[str, str]]) -> dict[str, bytes]:
        self._reach()
        self.item_calls += 1
        wanted = {revision for _, revision in revisions}
        return {key: item for key, item in self.items_by_key.items() if key.partition("/")[0] in wanted}

    async def shard_count(self) -> int:
        self._reach()
        return len(self.open_by_shard)

    async def arrivals(self) -> tuple[int, list[int]]:
        self._reach()
        return max(self.came), list(self.came)

    def move(self, shard: int, to: int) -> None:
        """The open tasks of one shard move to another."""
        self.open_by_shard[to] += self.open_by_shard[shard]
        self.open_by_shard[shard] = []
        self.came[to] = max(self.came) + 1

    async def open_tasks(
        self, shard: int, after: tuple[str, str] | None, limit: int, epoch: int = 0
    ) -> OpenTasks:
        self._reach()
        self.pages.append(limit)
        if limit > self.largest_page:
            raise StoreUnavailable
        after_id = "/".join(after) if after else ""
        tasks = sorted(
            (one for one in self.open_by_shard[shard] if one.task > after_id), key=lambda one: one.task
        )[:limit]
        if len(tasks) < limit:
            return OpenTasks(tasks, None)
        submission, _, item = tasks[-1].task.partition("/")
        return OpenTasks(tasks, (submission, item))

    def end(self, task: str) -> None:
        """The task is open no more."""
        for shard, tasks in enumerate(self.open_by_shard):
            self.open_by_shard[shard] = [one for one in tasks if one.task != task]

    async def open_generations(self, tasks: Sequence[tuple[str, str]]) -> list[int | None]:
        self._reach()
        lost = {one.task for shard in self.lost_shards for one in self.open_by_shard[shard]}
        known = {(one.tenant, one.task): one.generation for shard in self.open_by_shard for one in shard}
        return [None if task in lost else known.get((tenant, task), 0) for tenant, task in tasks]

    async def set_control(self, queue: QueueName, state: QueueState, actor: str) -> None:
        self._reach()
        self.wanted[queue] = state

    async def controls(self) -> dict[QueueName, QueueState]:
        self._reach()
        return dict(self.wanted)

    async def count_tasks(self) -> TaskCounts:
        self._reach()
        if self.lost_shards:
            raise StoreUnavailable
        ended = [one.outcome for one in self.outcomes]
        dead = sum(isinstance(one, DeadLetter) for one in ended)
        still = sum(map(len, self.open_by_shard))
        return TaskCounts(still + len(ended), still, dead, 0, len(ended) - dead)

    def _reach(self) -> None:
        if self.outages:
            self.outages -= 1
            raise StoreUnavailable


@dataclass(slots=True)
class RecordingBus:
    """Implements Bus; keeps what was told. Serves for the callbacks of this process too."""

    changed: list[Changed] = field(default_factory=list[Changed])
    cancelled: list[LeaseToken] = field(default_factory=list[LeaseToken])

    async def publish_changed(self, changed: Changed) -> None:
        self.changed.append(changed)

    async def publish_cancelled(self, tokens: Sequence[LeaseToken]) -> None:
        self.cancelled += tokens


class MemoryFiles:
    """Files in memory: ``links`` by (tenant, submission, upload); ``artifacts`` are there as announced.

    ``away`` makes it refuse as storage does without a store of objects, ``unseen`` only the looks.
    """

    def __init__(self) -> None:
        self.links: dict[tuple[str, str, str], str] = {}
        self.artifacts: dict[str, tuple[str, str, FileFacts]] = {}
        self.away = False
        self.unseen = False

    def _reach(self) -> None:
        if self.away:
            raise DependencyUnavailable("objects")

    async def file_link(self, tenant: str, submission: str, upload: str) -> FileLink | None:
        """See FileStore."""
        self._reach()
        url = self.links.get((tenant, submission, upload))
        return FileLink(url, 1_000) if url is not None else None

    async def prepare_artifact(
        self, tenant: str, submission: str, item: str, facts: FileFacts
    ) -> ArtifactForm:
        """See FileStore."""
        self._reach()
        upload = f"artifact-{len(self.artifacts)}"
        self.artifacts[upload] = (submission, item, facts)
        return ArtifactForm(UploadName("net", "a1", upload), "memory:", (("key", upload),), 1_000)

    async def check_artifacts(
        self, tenant: str, submission: str, item: str, uploads: Sequence[str]
    ) -> list[CheckedArtifact]:
        """See FileStore."""
        self._reach()
        if self.unseen:
            return [CheckedArtifact(ArtifactState.UNAVAILABLE, None) for _ in uploads]
        found = [self.artifacts.get(upload) for upload in uploads]
        return [
            CheckedArtifact(ArtifactState.READY, one[2])
            if one is not None and one[:2] == (submission, item)
            else CheckedArtifact(ArtifactState.REFUSED, None)
            for one in found
        ]
