"""Tells gateways which of the submissions they follow have changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cinnabar_scheduler.ports import Changed

MAX_FOLLOWED = 100_000


class Follower:
    """One gateway's stream: the submissions it follows and the way to it."""

    def __init__(self, tell: Callable[[Changed], None]) -> None:
        self.followed: set[str] = set()
        self.tell = tell

    def change(self, add: Iterable[str], remove: Iterable[str]) -> bool:
        """Follows and forgets submissions; False when it would follow too many."""
        self.followed.update(add)
        self.followed.difference_update(remove)
        return len(self.followed) <= MAX_FOLLOWED


class Followers:
    """All followers of this scheduler."""

    def __init__(self) -> None:
        self._followers: set[Follower] = set()

    def add(self, follower: Follower) -> None:
        """A gateway connected."""
        self._followers.add(follower)

    def remove(self, follower: Follower) -> None:
        """A gateway is gone."""
        self._followers.discard(follower)

    def tell(self, changed: Changed) -> None:
        """Passes a change on to those who follow one of its submissions."""
        for follower in self._followers:
            wanted = [submission for submission in changed.submissions if submission in follower.followed]
            if wanted:
                follower.tell(Changed(wanted, changed.positions))
