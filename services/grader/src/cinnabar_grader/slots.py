"""Places for work that mostly waits: so many at once, and the number may change while they are used."""

from __future__ import annotations

import asyncio
from collections import deque


class Slots:
    """Places, given out in the order in which they were asked for.

    Fewer of them takes none away: those that are given back go until the number is right.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._busy = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def size(self) -> int:
        """How many there should be."""
        return self._size

    @property
    def busy(self) -> int:
        """How many are given out; more than `size` for a while when that has shrunk."""
        return self._busy

    def resize(self, size: int) -> None:
        """From now on so many, at least 1."""
        self._size = max(1, size)
        self._give_out()

    async def acquire(self) -> None:
        """Waits for a place; whoever has one says `release` once."""
        if self._busy < self._size and not self._waiting:
            self._busy += 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.release()  # it was given to somebody who is gone
            elif place in self._waiting:
                self._waiting.remove(place)
            raise

    def release(self, place: None = None, /) -> None:
        """Gives a place back."""
        self._busy -= 1
        self._give_out()

    def _give_out(self) -> None:
        while self._waiting and self._busy < self._size:
            place = self._waiting.popleft()
            if not place.done():
                self._busy += 1
                place.set_result(None)
