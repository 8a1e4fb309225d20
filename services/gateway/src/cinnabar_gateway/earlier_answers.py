"""What is kept of the answer to a create, for repetitions: which submission, and where to read it.

As text: the name, and in a second line "shard:position:epoch" for each shard, with commas between.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cinnabar_gateway.consistency import Position, Positions

_POSITION = re.compile(r"(\d{1,5}):(\d{1,19}):(\d{1,19})", re.ASCII)


@dataclass(frozen=True, slots=True)
class EarlierAnswer:
    """The submission that an earlier call created, and from where on it can be read."""

    name: str
    positions: Positions

    def encode(self) -> bytes:
        """As it is kept."""
        where = ",".join(f"{one.shard}:{one.lsn}:{one.epoch}" for one in self.positions)
        return f"{self.name}\n{where}".encode() if where else self.name.encode()

    @classmethod
    def decode(cls, kept: bytes) -> EarlierAnswer:
        """What was kept. What is no position is left out: the primary has the submission in any case."""
        name, _, where = kept.decode(errors="replace").partition("\n")
        matches = (_POSITION.fullmatch(part) for part in where.split(","))
        return cls(name, tuple(Position(*map(int, match.groups())) for match in matches if match))
