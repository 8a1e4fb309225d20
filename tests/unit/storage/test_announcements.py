"""Numbered messages between caches: what is missed is noticed, what waits is bounded."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio

from cinnabar_common.errors import DependencyUnavailable
from cinnabar_storage.adapters.memory.cache import MemoryCache
from cinnabar_storage.cached.announcements import HEARTBEAT_SECONDS, MAX_KEYS, MAX_WAITING, Announcements
from cinnabar_storage.cached.cache import Cache
from cinnabar_storage.cached.lru import Entry
from cinnabar_storage.cached.shared import Message, SharedCacheUnavailable
from tests.support.scheduler_queue import ManualClock
from tests.support.storage_cache import MAX_AGE, at, cache_key, cache_of, memory_cache
from tests.support.waiting import until

A, B = cache_key("a"), cache_key("b")


class Channel(MemoryCache):
    """Keeps what is sent; may be down."""

    up = True

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(max_age_seconds=MAX_AGE, lasting_seconds=1, clock=clock)
        self.sent: list[Message] = []

    async def tell(self, message: Message) -> None:
        if not self.up:
            raise SharedCacheUnavailable("down")
        self.sent.append(message)
        await super().tell(message)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def channel(clock: ManualClock) -> Channel:
    return Channel(clock)


@pytest_asyncio.fixture
async def cache(channel: Channel, clock: ManualClock) -> AsyncGenerator[Cache]:
    async with cache_of(channel, clock).running() as running:
        yield running


@pytest.fixture
def announcements(cache: Cache, channel: Channel, clock: ManualClock) -> Announcements:
    return Announcements(cache, channel, max_age_seconds=MAX_AGE, clock=clock)


def fill(cache: Cache, clock: ManualClock) -> None:
    for key in (A, B):
        cache.changing.put(key, Entry(b"x", at(1), clock.monotonic() + MAX_AGE))


async def test_changes_of_many_writes_are_one_message_per_shard(
    announcements: Announcements, channel: Channel
) -> None:
    announcements.changed([A], at(5))
    announcements.changed([B], at(7))
    announcements.changed([A], at(3, shard=1))
    announcements.changed([], at(9))
    assert await announcements.send_once()
    assert [(message.number, message.position, message.keys) for message in channel.sent] == [
        (1, at(7), (A, B)),
        (2, at(3, shard=1), (A,)),
    ]
    assert await announcements.send_once()
    assert channel.sent[2].keys == (), "nothing to tell but that it is there"
    assert channel.sent[2].number == 3


async def test_what_changed_here_is_gone_here_before_it_is_sent(
    announcements: Announcements, cache: Cache, clock: ManualClock
) -> None:
    fill(cache, clock)
    announcements.changed([A], at(5))
    assert cache.changing.get(A, clock.monotonic()) is None
    assert cache.changing.get(B, clock.monotonic()) is not None


async def test_large_batches_are_parted(announcements: Announcements, channel: Channel) -> None:
    announcements.changed([cache_key(str(number)) for number in range(2 * MAX_KEYS + 1)], at(5))
    while len(channel.sent) < 3:
        assert await announcements.send_once()
    assert [len(message.keys) for message in channel.sent] == [MAX_KEYS, MAX_KEYS, 1]


async def test_what_could_not_be_sent_is_sent_again_with_other_numbers(
    announcements: Announcements, channel: Channel, clock: ManualClock
) -> None:
    channel.up = False
    announcements.changed([A], at(5))
    for _ in range(3):
        assert not await announcements.send_once()
        clock.advance(MAX_AGE / 4)
    channel.up = True
    assert await announcements.send_once()
    assert [(message.number, message.keys) for message in channel.sent] == [(4, (A,))]


async def test_what_is_too_old_to_matter_is_given_up_and_told_as_everything(
    announcements: Announcements, channel: Channel, clock: ManualClock
) -> None:
    channel.up = False
    announcements.changed([A], at(5))
    assert not await announcements.send_once()
    clock.advance(MAX_AGE)
    announcements.changed([B], at(6))
    channel.up = True
    assert await announcements.send_once()
    assert [(message.keys, message.everything) for message in channel.sent] == [((B,), True)]
    assert announcements.statistics.keys_lost == 1


async def test_what_waits_is_bounded(announcements: Announcements, channel: Channel) -> None:
    channel.up = False
    batch = [cache_key(str(number)) for number in range(MAX_KEYS)]
    for number in range(MAX_WAITING // MAX_KEYS + 3):
        announcements.changed(batch, at(number))
    assert announcements.statistics.keys_lost == 3 * MAX_KEYS
    channel.up = True
    assert await announcements.send_once()
    assert channel.sent[0].everything


@pytest.mark.parametrize(
    ("messages", "gaps", "forgets"),
    [
        ([Message("x", 1, at(1)), Message("x", 3, at(1))], 1, True),
        ([Message("x", 4, at(1)), Message("y", 9, at(1)), Message("x", 5, at(1))], 0, False),
        ([Message("x", 4, at(1)), Message("x", 2, at(1))], 1, True),
        ([Message("x", 4, at(1), everything=True)], 0, True),
        ([None], 0, True),
    ],
)
async def test_missed_messages_make_it_forget(
    announcements: Announcements,
    cache: Cache,
    clock: ManualClock,
    messages: list[Message | None],
    gaps: int,
    forgets: bool,
) -> None:
    fill(cache, clock)
    for message in messages:
        announcements.hear(message)
    assert (len(cache.changing) == 0) == forgets
    assert announcements.statistics.gaps == gaps


async def test_what_others_changed_goes_and_what_one_changed_oneself_is_not_news(
    announcements: Announcements, channel: Channel, cache: Cache, clock: ManualClock
) -> None:
    fill(cache, clock)
    announcements.hear(Message("x", 1, at(5), (A,)))
    assert cache.changing.get(A, clock.monotonic()) is None
    announcements.changed([B], at(6))
    await announcements.send_once()
    fill(cache, clock)
    announcements.hear(channel.sent[0])
    assert len(cache.changing) == 2
    assert announcements.statistics.keys_heard == 1


async def test_it_is_in_step_while_it_hears_itself(
    announcements: Announcements, channel: Channel, clock: ManualClock
) -> None:
    with pytest.raises(DependencyUnavailable):
        await announcements.check()
    await announcements.send_once()
    announcements.hear(channel.sent[0])
    await announcements.check()
    clock.advance(4 * HEARTBEAT_SECONDS)
    assert not announcements.in_step


async def test_two_processes(clock: ManualClock) -> None:
    shared = memory_cache(clock)
    async with (
        cache_of(shared, clock).running() as one,
        cache_of(shared, clock).running() as two,
        Announcements(one, shared, max_age_seconds=MAX_AGE, clock=clock).running() as here,
        Announcements(two, shared, max_age_seconds=MAX_AGE, clock=clock).running() as there,
    ):
        await until(lambda: here.in_step and there.in_step, "both hear themselves")
        fill(two, clock)
        here.changed([A], at(5))
        await until(lambda: len(two.changing) == 1, "the change arrives")
        assert two.changing.get(B, clock.monotonic()) is not None
        gaps = there.statistics.gaps
        shared.cut()
        await until(lambda: there.statistics.gaps > gaps, "the loss of the connection is noticed")
        fill(two, clock)
        here.changed([B], at(6))
        await until(lambda: two.changing.get(B, clock.monotonic()) is None, "it listens again")
