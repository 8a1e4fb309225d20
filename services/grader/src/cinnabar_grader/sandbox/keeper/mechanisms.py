"""The ways to make boxes, best first."""

from __future__ import annotations

from collections.abc import Callable

from cinnabar_grader.sandbox.keeper.bubblewrap import Bubblewrap
from cinnabar_grader.sandbox.keeper.child import Mechanism
from cinnabar_grader.sandbox.keeper.direct import Landlock, Rlimits
from cinnabar_grader.sandbox.keeper.ground import Ground
from cinnabar_grader.sandbox.keeper.settings import Settings

MECHANISMS: dict[str, Callable[[Settings, Ground], Mechanism]] = {
    "bubblewrap": Bubblewrap,
    "landlock": Landlock,
    "rlimits": Rlimits,
}
