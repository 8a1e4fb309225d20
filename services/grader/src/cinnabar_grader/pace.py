"""How much work to take ahead, by how late the event loop is."""

from __future__ import annotations

LAG_LIMIT_SECONDS = 0.05
SMALLEST_SHARE = 2.0**-12
# A sample weighs so much against all before it: with 20 in a second, the last second is most of it. One
# long slice on a busy machine is no overload, a loop that is always late is.
_NEWEST = 0.1


class Pace:
    """A share of the wanted credits, 1 while the loop is on time.

    The lag of the loop is sampled steadily; once a second the share is halved when the moving mean
    of the lag is beyond the limit, and doubled when it is below half of it. In between it stays.
    """

    def __init__(self, *, samples_per_second: int, limit_seconds: float = LAG_LIMIT_SECONDS) -> None:
        self._period = samples_per_second
        self._limit = limit_seconds
        self._samples = 0
        self.lag_seconds = 0.0
        """Moving mean of how late a timer comes."""
        self.share = 1.0

    def observe(self, lag_seconds: float) -> bool:
        """Takes a sample; returns whether the share changed."""
        self.lag_seconds += _NEWEST * (max(0.0, lag_seconds) - self.lag_seconds)
        self._samples += 1
        if self._samples < self._period:
            return False
        self._samples = 0
        before = self.share
        if self.lag_seconds > self._limit:
            self.share = max(SMALLEST_SHARE, self.share / 2)
        elif self.lag_seconds < self._limit / 2:
            self.share = min(1.0, self.share * 2)
        return self.share != before
