"""The findings of sweeps in the memory of one process, for tests."""

from __future__ import annotations

from cinnabar_scheduler.tasks import Findings


class MemoryBoard:
    """Implements ports.SweepBoard."""

    def __init__(self) -> None:
        self._findings: Findings | None = None

    async def publish(self, findings: Findings) -> None:
        self._findings = findings

    async def last(self) -> Findings | None:
        return self._findings
