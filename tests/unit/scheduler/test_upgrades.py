"""When upgrades are opened: never while a breaker stands open, at once when it closes, then now and then."""

from dataclasses import dataclass, field

import pytest

from cinnabar_scheduler.adapters.memory import MemoryQueue
from cinnabar_scheduler.adapters.memory_model_calls import MemoryModelCalls
from cinnabar_scheduler.model_calls import BreakerState, Ending, How, Permit
from cinnabar_scheduler.model_permits import ModelCalls
from cinnabar_scheduler.policy import Policy
from cinnabar_scheduler.ports import StoreUnavailable
from cinnabar_scheduler.tasks import HeadStart, Task
from cinnabar_scheduler.upgrades import UPGRADES_A_ROUND, ModelUpkeep
from tests.support.scheduler_models import PLACE, MemoryLedger
from tests.support.scheduler_queue import QUEUE, ManualClock, task


@dataclass(slots=True)
class Waiting:
    """Implements UpgradeStore: rounds of tasks that are opened one after the other."""

    rounds: list[list[Task]] = field(default_factory=list[list[Task]])
    asked: int = 0
    outages: int = 0

    async def open_upgrades(self, limit: int) -> tuple[list[Task], bool]:
        """See UpgradeStore."""
        assert limit == UPGRADES_A_ROUND
        if self.outages:
            self.outages -= 1
            raise StoreUnavailable
        self.asked += 1
        return (self.rounds.pop(0) if self.rounds else []), bool(self.rounds)


class Parts:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.waiting = Waiting()
        self.queue = MemoryQueue(clock=self.clock, lease_seconds=10)
        self.calls = ModelCalls(MemoryModelCalls(self.clock), MemoryLedger(), Policy, self.clock)
        self.upkeep = ModelUpkeep(self.calls, self.waiting, self.queue, self.clock, upgrade_seconds=30)

    async def call(self, how: How) -> BreakerState:
        answer = await self.calls.begin(
            PLACE, "cloud", tokens=1, cost_micros=0, share_key=b"", timeout_seconds=9
        )
        assert isinstance(answer, Permit)
        return await self.calls.end(answer.token, Ending(how))


@pytest.fixture
def parts() -> Parts:
    return Parts()


def upgrade(name: str) -> Task:
    return task(name, generation=2, head_start=HeadStart.REGRADE)


async def test_upgrades_reach_the_queue_round_after_round(parts: Parts) -> None:
    parts.waiting.rounds = [[upgrade("a"), upgrade("b")], [upgrade("c")]]
    assert [await parts.upkeep.upgrade_when_due() for _ in range(3)] == [2, 1, 0]
    assert (await parts.queue.counts(QUEUE)).ready == 3
    assert parts.waiting.asked == 2  # there was no more, and it is not time yet
    parts.clock.advance(30)
    await parts.upkeep.upgrade_when_due()
    assert parts.waiting.asked == 3


async def test_nothing_is_opened_before_the_breaker_closes_and_then_at_once(parts: Parts) -> None:
    await parts.upkeep.upgrade_when_due()
    for _ in range(5):
        await parts.call(How.FAILURE)
    parts.waiting.rounds = [[upgrade("a")]]
    assert await parts.upkeep.upgrade_when_due() == 0
    parts.clock.advance(60)
    assert await parts.upkeep.upgrade_when_due() == 0  # nobody has tried
    assert await parts.call(How.SUCCESS) is BreakerState.CLOSED
    assert await parts.upkeep.upgrade_when_due() == 1


async def test_what_cannot_be_asked_now_is_asked_again(parts: Parts) -> None:
    parts.waiting.outages = 1
    parts.waiting.rounds = [[upgrade("a")]]
    with pytest.raises(StoreUnavailable):
        await parts.upkeep.upgrade_when_due()
    assert await parts.upkeep.upgrade_when_due() == 1
