"""Free TCP ports on the loopback, remembered per data folder."""

import json
import random
import socket
from pathlib import Path

HOST = "127.0.0.1"
# Below the range from which Linux takes the ports of outgoing connections (32768 by default), so that the
# port of a server that is down for a moment is not taken by somebody's connection before it is back.
_RANGE = range(15_000, 32_000)
_ATTEMPTS = 2_000
# Between the choice of a port and the server that listens on it, and while that server is down, nothing shows
# that the port is taken. So every port given is claimed under a name that only one process can have and that
# the kernel gives back when the process ends, however it ends: an abstract Unix socket.
_CLAIM = "\0cinnabar-port-{port}"
_claims: dict[int, socket.socket] = {}


class NoFreePort(OSError):
    """No free port was found on the loopback."""


def is_free(port: int) -> bool:
    """Whether a server could listen on ``port`` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _claim(port: int) -> bool:
    """Claim ``port`` for the rest of this process; False when another process has it."""
    if port in _claims:
        return True
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(_CLAIM.format(port=port))
    except OSError:
        claim.close()
        return False
    _claims[port] = claim
    return True


class Ports:
    """Gives each name a port; the same one as last time where that is still free.

    No two processes are given one port, nor is one process given a port twice, unless it remembers it.
    ``file`` is where the ports are remembered; without it nothing is remembered.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._chosen: dict[str, int] = {}
        self._known: dict[str, int] = {}
        if file is not None and file.exists():
            self._known = {str(name): int(port) for name, port in json.loads(file.read_text("utf-8")).items()}

    def of(self, name: str, *, preferred: int | None = None) -> int:
        """The port of ``name``: the one remembered, else ``preferred``, else any. Raises NoFreePort."""
        if name not in self._chosen:
            self._chosen[name] = self._choose(self._known.get(name, preferred))
        return self._chosen[name]

    def save(self) -> None:
        """Remember every port given so far."""
        if self._file is not None:
            self._file.write_text(json.dumps(self._known | self._chosen, indent=2) + "\n", "utf-8")

    def _choose(self, wanted: int | None) -> int:
        if wanted is not None and self._usable(wanted):
            return wanted
        for _ in range(_ATTEMPTS):
            port = random.choice(_RANGE)
            if port not in _claims and port not in self._known.values() and self._usable(port):
                return port
        raise NoFreePort("no free port on the loopback")

    def _usable(self, port: int) -> bool:
        return port not in self._chosen.values() and _claim(port) and is_free(port)
