"""Which system calls a program may make, as a program for the kernel's filter (classic BPF).

Three answers besides "go on":

- what no honest program does kills the process with SIGSYS, and the run ends as FORBIDDEN;
- what honest runtimes try, and do without, fails with an errno: ENOSYS where that makes them take
  another way, EPERM or EAFNOSUPPORT where it is what they expect;
- calls that are newer than the list (`syscalls.LAST`) do not exist: ENOSYS.

Everything else is allowed: what it can reach is the business of namespaces, limits and cgroups.
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Sequence

from cinnabar_grader.sandbox.syscalls import LAST, NUMBERS

KILLED = (
    "_sysctl", "acct", "add_key", "bpf", "chroot", "clock_settime", "create_module", "delete_module",
    "finit_module", "fsconfig", "fsmount", "fsopen", "fspick", "get_kernel_syms", "init_module", "ioperm",
    "iopl", "kexec_file_load", "kexec_load", "keyctl", "mount", "mount_setattr", "move_mount",
    "nfsservctl", "open_by_handle_at", "open_tree", "perf_event_open", "pidfd_getfd", "pivot_root",
    "process_vm_readv", "process_vm_writev", "ptrace", "query_module", "quotactl", "quotactl_fd", "reboot",
    "request_key", "setdomainname", "sethostname", "setns", "settimeofday", "swapoff", "swapon", "umount2",
    "unshare", "uselib", "userfaultfd",
)  # fmt: skip
REFUSED = {
    **dict.fromkeys(("clone3", "io_uring_setup", "io_uring_enter", "io_uring_register"), errno.ENOSYS),
    **dict.fromkeys(("listmount", "memfd_secret", "modify_ldt", "statmount", "sysfs", "ustat"), errno.ENOSYS),
    **dict.fromkeys(
        (
            "adjtimex", "clock_adjtime", "fanotify_init", "fanotify_mark", "kcmp", "lookup_dcookie",
            "lsm_set_self_attr", "mbind", "memfd_create", "migrate_pages", "move_pages",
            "name_to_handle_at", "process_madvise", "seccomp", "set_mempolicy", "set_mempolicy_home_node",
            "syslog", "vhangup",
        ),
        errno.EPERM,
    ),
}  # fmt: skip
SHARED_MEMORY = dict.fromkeys(("shmget", "semget", "msgget", "mq_open"), errno.ENOSYS)
"""Refused where the box has no IPC namespace of its own: what they make would outlive the run."""

# include/uapi/linux/sched.h: CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID, NET.
_NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
_AF_UNIX = 1
_TERMINAL_INPUT = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
"""PER_LINUX, PER_LINUX32, each with UNAME26, and the question which it is."""

_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_X32 = 0x40000000
# offsetof(struct seccomp_data, …); arguments are 8 bytes, the lower half first.
_NUMBER, _MACHINE, _ARGUMENTS = 0, 4, 16
# BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_K with JEQ, JGT, JGE and JSET, BPF_RET|BPF_K
_LOAD, _EQUAL, _ABOVE, _FROM, _BITS, _RETURN = 0x20, 0x15, 0x25, 0x35, 0x45, 0x06
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000

_Step = tuple[int, int, int, int]


def supported() -> bool:
    """Whether the filter knows this machine's calls."""
    return platform.machine() in _MACHINES


def program(*, ipc: bool, machine: str | None = None) -> bytes:
    """The filter as an array of ``struct sock_filter``. ``ipc``: the box has an IPC namespace of its own."""
    column, audit = _MACHINES[machine or platform.machine()]

    def number(name: str) -> int | None:
        return NUMBERS[name][column]

    steps: list[_Step] = [
        (_LOAD, 0, 0, _MACHINE),
        (_EQUAL, 1, 0, audit),
        _end(_KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER),
    ]
    if machine == "x86_64" or column == 0:
        steps += [(_FROM, 0, 1, _X32), _end(_KILL_PROCESS)]
    steps += [(_ABOVE, 0, 1, LAST), _end(_ERRNO | errno.ENOSYS)]
    refused = REFUSED if ipc else REFUSED | SHARED_MEMORY
    answers = dict.fromkeys(KILLED, _KILL_PROCESS)
    answers |= {name: _ERRNO | code for name, code in refused.items()}
    for name, answer in answers.items():
        if (call := number(name)) is not None:
            steps += [(_EQUAL, 0, 1, call), _end(answer)]
    for name, check in _checks().items():
        if (call := number(name)) is not None:
            steps += [(_EQUAL, 0, len(check), call), *check]
    steps.append(_end(_ALLOW))
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def _checks() -> dict[str, Sequence[_Step]]:
    """Calls that depend on an argument; each list of steps ends with an answer."""
    sockets = (_argument(0), (_EQUAL, 1, 0, _AF_UNIX), _end(_ERRNO | errno.EAFNOSUPPORT), _end(_ALLOW))
    return {
        "clone": (_argument(0), (_BITS, 0, 1, _NAMESPACES), _end(_KILL_PROCESS), _end(_ALLOW)),
        "socket": sockets,
        "socketpair": sockets,
        "ioctl": _one_of(1, _TERMINAL_INPUT, found=_ERRNO | errno.EPERM, otherwise=_ALLOW),
        "personality": _one_of(0, _PERSONALITIES, found=_ALLOW, otherwise=_ERRNO | errno.EPERM),
    }


def _one_of(index: int, values: Sequence[int], *, found: int, otherwise: int) -> Sequence[_Step]:
    tests = ((_EQUAL, len(values) - place, 0, value) for place, value in enumerate(values))
    return (_argument(index), *tests, _end(otherwise), _end(found))


def _argument(index: int) -> _Step:
    return (_LOAD, 0, 0, _ARGUMENTS + 8 * index)


def _end(answer: int) -> _Step:
    return (_RETURN, 0, 0, answer)
