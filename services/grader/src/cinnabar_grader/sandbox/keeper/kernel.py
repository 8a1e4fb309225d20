"""Calls of the kernel that Python has no name for. All raise OSError."""

from __future__ import annotations

import ctypes
import os
import struct

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2
_LOCKED_FLAGS = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | 1024 | 2048 | (1 << 21)
"""What a bind mount keeps of its source: also NOATIME, NODIRATIME, RELATIME. statvfs says them as mount does,
but for RELATIME (4096 there)."""

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_SECCOMP = 22
_PR_CAPBSET_DROP = 24
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2
# The same on x86_64 and aarch64.
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_LANDLOCK_VERSION = 1
_LANDLOCK_RULE_PATH_BENEATH = 1

_libc = ctypes.CDLL(None, use_errno=True)


def _check(answer: int, what: str) -> int:
    if answer < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return answer


def unshare(flags: int) -> None:
    """Leaves namespaces for new ones."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    """See mount(2)."""
    answer = _libc.mount(
        source.encode(),
        target.encode(),
        kind.encode() if kind else None,
        ctypes.c_ulong(flags),
        data.encode() or None,
    )
    _check(answer, f"mount of {kind or 'bind'}")


def bind_read_only(source: str, target: str) -> None:
    """Mounts a tree a second time, read-only."""
    mount(source, target, None, MS_BIND | MS_REC)
    found = os.statvfs(target).f_flag
    kept = found & _LOCKED_FLAGS & ~(1 << 21)
    if found & 4096:
        kept |= 1 << 21
    mount("none", target, None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | kept)


def unmount(target: str) -> None:
    """Takes a mount away at once; it ends with its last user."""
    _check(_libc.umount2(target.encode(), ctypes.c_int(MNT_DETACH)), "umount2")


def _prctl(option: int, first: int = 0, second: object = 0) -> int:
    return _check(_libc.prctl(option, ctypes.c_ulong(first), second, 0, 0), f"prctl {option}")


def die_with_parent(signal: int) -> None:
    """This process gets ``signal`` when its parent dies; forgotten at a change of user."""
    _prctl(_PR_SET_PDEATHSIG, signal)


def hide_memory() -> None:
    """Nobody of this user may look into this process."""
    _prctl(_PR_SET_DUMPABLE, 0)


def adopt_orphans() -> None:
    """Orphans below this process become its children."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def no_new_privileges() -> None:
    """Nothing that this process starts gets more rights than it has."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def drop_bounding_capabilities() -> None:
    """No capability can come back, whatever is executed. Needs CAP_SETPCAP; stops at the last there is."""
    for capability in range(64):
        try:
            _prctl(_PR_CAPBSET_DROP, capability)
        except OSError as error:
            if capability == 0:
                raise
            if error.errno != 22:
                raise
            return


def filter_calls(program: bytes) -> None:
    """Loads a seccomp program for this process and what it starts."""
    code = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("@HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.create_string_buffer(head, len(head)))


def landlock_version() -> int:
    """The newest interface of Landlock that the kernel has; 0 without."""
    answer: int = _libc.syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _LANDLOCK_VERSION)
    return max(0, answer)


def landlock_ruleset(attributes: bytes) -> int:
    """File descriptor of a new ruleset of ``struct landlock_ruleset_attr``."""
    answer = _libc.syscall(_LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    return _check(answer, "landlock_create_ruleset")


def landlock_allow(ruleset: int, path: str, rights: int) -> None:
    """Allows ``rights`` beneath ``path``."""
    parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = struct.pack("=Qi", rights, parent)
        answer = _libc.syscall(_LANDLOCK_ADD_RULE, ruleset, _LANDLOCK_RULE_PATH_BENEATH, rule, 0)
        _check(answer, "landlock_add_rule")
    finally:
        os.close(parent)


def landlock_restrict(ruleset: int) -> None:
    """From now on this thread, and what it starts, may do what the rules allow."""
    _check(_libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")
