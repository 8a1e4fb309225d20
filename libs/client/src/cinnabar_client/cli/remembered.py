"""What the command line has written, remembered from one command to the next: a consistency token.

One small file for each address and credential, in ``CINNABAR_HOME`` or else where programs keep their state:
``$XDG_STATE_HOME/cinnabar`` or ``~/.local/state/cinnabar``. Its name tells neither. Without such a place
commands work all the same; the next one may be answered from a replica that is a moment behind.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

HOME_VARIABLE = "CINNABAR_HOME"
MAX_BYTES = 64 * 1024
"""A longer file is not one of ours."""


class Remembered:
    """The token of the callers with one credential at one address."""

    def __init__(self, address: str, credential: str, environment: Mapping[str, str] = os.environ) -> None:
        name = sha256(f"{address}\0{credential}".encode()).hexdigest()[:32]
        folder = _folder(environment)
        self._path = None if folder is None else folder / f"consistency-{name}"

    def read(self) -> str:
        """The token; "" for none."""
        if self._path is None:
            return ""
        try:
            with self._path.open("rb") as file:
                raw = file.read(MAX_BYTES + 1)
            token = raw.decode("ascii").strip()
        except (OSError, UnicodeDecodeError):  # not there, or not ours to read
            return ""
        return token if len(raw) <= MAX_BYTES and token.isprintable() else ""

    def write(self, token: str) -> None:
        """Replaces it in one step; "" removes it. Does nothing where nothing can be written."""
        if self._path is None:
            return
        # Remembering is a favour: a home that is read-only must not fail what the command has done.
        with contextlib.suppress(OSError):
            if not token:
                self._path.unlink(missing_ok=True)
                return
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Made for its owner alone, from the beginning.
            handle, fresh = tempfile.mkstemp(dir=self._path.parent, prefix=".consistency-")
            try:
                with os.fdopen(handle, "w", encoding="ascii") as file:
                    file.write(token)
                Path(fresh).replace(self._path)
            except BaseException:
                Path(fresh).unlink(missing_ok=True)
                raise


def _folder(environment: Mapping[str, str]) -> Path | None:
    if own := environment.get(HOME_VARIABLE):
        return Path(own)
    if state := environment.get("XDG_STATE_HOME"):
        return Path(state) / "cinnabar"
    home = environment.get("HOME")
    return Path(home) / ".local" / "state" / "cinnabar" if home else None
