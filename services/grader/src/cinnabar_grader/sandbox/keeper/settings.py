"""What the grader tells its keeper when it starts it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Travels as JSON on the command line."""

    mechanism: str
    slots: int
    python: str
    """The Python that runs inside the boxes."""
    trees: tuple[str, ...]
    """What is seen inside besides the system: folders, read-only, at their own place."""
    bubblewrap: str = ""
    """The program; "" when there is none."""
    cgroup: str = ""
    """A cgroup v2 folder that was given to the grader; found out when empty."""
    cgroups: bool = True
    """False: work as on a machine without cgroups."""
    namespaces: bool = True
    """False: work as on a machine that does not let us make any."""

    def dumped(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def loaded(cls, text: str) -> Settings:
        """From JSON."""
        fields: dict[str, Any] = json.loads(text)
        fields["trees"] = tuple(fields["trees"])
        return cls(**fields)
