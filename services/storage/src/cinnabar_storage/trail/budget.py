"""How much one process may put into memory that others need too."""

from __future__ import annotations

from cinnabar_common.clock import Clock


class Budget:
    """So many bytes in each stretch of ``seconds``: what lives for so long has at most twice as many."""

    def __init__(self, *, max_bytes: int, seconds: float, clock: Clock) -> None:
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._clock = clock
        self._began = clock.monotonic()
        self._spent = 0
        self.refused = 0
        """Times that there was nothing left."""

    def spend(self, size: int) -> bool:
        """Whether there was so much left; then it is spent."""
        now = self._clock.monotonic()
        if now - self._began >= self._seconds:
            self._began, self._spent = now, 0
        if self._spent + size > self._max_bytes:
            self.refused += 1
            return False
        self._spent += size
        return True
