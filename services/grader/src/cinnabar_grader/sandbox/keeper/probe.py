"""A box is believed when a program inside has tried its walls."""

from __future__ import annotations

import json
import os
from typing import Any

from cinnabar_grader.sandbox.keeper.service import Keeper
from cinnabar_grader.sandbox.runs import Ending, Limits

_LIMITS = Limits(cpu_seconds=5, wall_seconds=20, processes=16)
_INSIDE = """
import ctypes, json, os, socket, sys
def attempt(call, *arguments):
    try:
        call(*arguments)
    except OSError:
        return False
    return True
def status(name):
    for line in open("/proc/self/status"):
        if line.startswith(name + ":"):
            return line.split(":")[1].strip()
def namespace(name):
    try:
        return os.readlink("/proc/self/ns/" + name)
    except OSError:
        return ""
def other(path):
    try:
        open(path).close()
    except OSError:
        return False
    return True
outside, keeper = sys.argv[1], int(sys.argv[2])
try:
    capabilities = int(status("CapEff"), 16)
except OSError:
    capabilities = 0
ask = ctypes.CDLL(None).prctl
facts = dict(
    filtered=ask(21, 0, 0, 0, 0) == 2 and ask(39, 0, 0, 0, 0) == 1,  # PR_GET_SECCOMP, PR_GET_NO_NEW_PRIVS
    capabilities=capabilities,
    namespaces={name: namespace(name) for name in ("user", "pid", "mnt", "ipc", "uts", "net", "cgroup")},
    user=os.getuid(),
    sockets=attempt(socket.socket, socket.AF_INET),
    reads_outside=other(outside),
    reads_settings=other("/etc/shadow"),
    writes_system=attempt(os.open, "/usr/cinnabar-probe", os.O_WRONLY | os.O_CREAT, 0o600),
    signals_keeper=keeper > 1 and attempt(os.kill, keeper, 0),
    writes_here=attempt(os.close, os.open("probe", os.O_WRONLY | os.O_CREAT, 0o600)),
)
print(json.dumps(facts))
"""
_NAMESPACES = {
    "user": "user namespace", "pid": "pid namespace", "mnt": "mount namespace", "ipc": "ipc namespace",
    "uts": "uts namespace", "net": "network namespace", "cgroup": "cgroup namespace",
}  # fmt: skip


async def examined(keeper: Keeper) -> tuple[bool, list[str]]:
    """Whether the box is strong, and what of the full set it lacks. RuntimeError when nothing runs in it."""
    secret = keeper.ground.root / "probe"
    secret.write_text("secret")
    secret.chmod(0o644)
    python = keeper.settings.python
    head = {
        "folder": "probe",
        "argv": [python, "-I", "-S", "-c", _INSIDE, str(secret), str(os.getpid())],
        "environment": {"PATH": "/usr/bin:/bin"},
        "limits": {name: getattr(_LIMITS, name) for name in Limits.__slots__},
        "keep": False,
        "collect": [],
    }
    keeper.open("probe", {})
    seen, _ = await keeper.run(head, b"")
    keeper.close("probe")
    secret.unlink()
    if seen.ending is not Ending.EXITED or seen.status.exit_code:
        said = seen.reason or seen.stderr[-500:].decode("utf-8", "replace")
        raise RuntimeError(f"the probe ended with {seen.ending.value}: {said}")
    return _judged(json.loads(seen.stdout), keeper)


def _judged(facts: dict[str, Any], keeper: Keeper) -> tuple[bool, list[str]]:
    own = {name: os.readlink(f"/proc/self/ns/{name}") for name in _NAMESPACES}
    inside: dict[str, str] = facts["namespaces"]
    missing = [word for name, word in _NAMESPACES.items() if inside[name] in ("", own[name])]
    filtered = facts["filtered"]
    separate = keeper.ground.user(0) is not None
    checks = {
        "system call filter": filtered,
        "own user per run": separate,
        "cgroups": keeper.groups is not None,
        "bound on the sum of files": keeper.ground.private,
    }
    missing += [word for word, there in checks.items() if not there]
    missing += keeper.mechanism.missing
    walls = (
        filtered,
        not facts["sockets"],
        not facts["reads_outside"],
        not facts["reads_settings"],
        not facts["writes_system"],
        not facts["signals_keeper"],
        facts["writes_here"],
        facts["user"] != 0,
        facts["capabilities"] == 0,
    )
    return all(walls), missing
