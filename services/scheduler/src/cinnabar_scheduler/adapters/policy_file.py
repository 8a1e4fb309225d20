"""The policy in a file that is read again when it changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from cinnabar_scheduler.policy import Policy, PolicyError, parse_policy

log = logging.getLogger(__name__)

CHECK_SECONDS = 1.0


class PolicyUnreadable(Exception):
    """The policy file cannot be used; the last good policy stays in force."""


class PolicyFile:
    """The policy now in force. A file that turns bad changes nothing but the health of "policy".

    ``path`` None: the defaults, for ever.
    """

    def __init__(self, path: Path | None) -> None:
        """Raises PolicyUnreadable: a scheduler does not start on a policy that it cannot read."""
        self._path = path
        self._text: str = ""
        self._problem: str | None = None
        self._on_change: list[Callable[[], None]] = []
        self.current = Policy()
        if path is not None:
            self.check()
            if self._problem is not None:
                raise PolicyUnreadable(self._problem)

    def on_change(self, told: Callable[[], None]) -> None:
        """``told`` is called after every change of ``current``."""
        self._on_change.append(told)

    def check(self) -> bool:
        """Reads the file; returns whether the policy changed."""
        if self._path is None:
            return False
        try:
            text = self._path.read_text("utf-8")
            if self._problem is None and text == self._text:
                return False
            policy = parse_policy(text)
        except (OSError, UnicodeError, PolicyError) as error:
            problem = (error.strerror or "unreadable") if isinstance(error, OSError) else str(error)
            if problem != self._problem:
                log.error("policy refused", extra={"file": self._path.name, "problem": problem})
            self._problem = problem
            return False
        self._text, self._problem = text, None
        if policy == self.current:
            return False
        self.current = policy
        log.info("policy changed", extra={"file": self._path.name})
        for told in self._on_change:
            told()
        return True

    async def healthy(self) -> None:
        """Raises PolicyUnreadable while the file is not what is in force."""
        if self._problem is not None:
            raise PolicyUnreadable(self._problem)

    async def watch(self) -> None:
        """Checks for ever."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            self.check()
