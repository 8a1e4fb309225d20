"""Programs that ask the kernel for what they must not have."""

# ruff: noqa: E501 - lines of programs

from __future__ import annotations

from cinnabar_grader.sandbox import Ending
from tests.support.hostile import Hostile, forbidden, known, machine

_FORBIDDEN: dict[str, Hostile] = {
    "mount": forbidden("mount", "b'none'", "b'/box'", "b'tmpfs'", 0, 0),
    "umount": forbidden("umount2", "b'/proc'", 2),
    "pivot-root": forbidden("pivot_root", "b'/box'", "b'/box'"),
    "chroot": forbidden("chroot", "b'/box'"),
    "unshare-user": forbidden("unshare", 0x10000000),
    "unshare-mount": forbidden("unshare", 0x00020000),
    "setns": forbidden("setns", 0, 0),
    "clone-user-namespace": forbidden("clone", 0x10000000 | 17, 0, 0, 0, 0),
    "clone-net-namespace": forbidden("clone", 0x40000000 | 17, 0, 0, 0, 0),
    "ptrace-traceme": forbidden("ptrace", 0, 0, 0, 0),
    "ptrace-attach-1": forbidden("ptrace", 16, 1, 0, 0),
    "ptrace-parent": forbidden("ptrace", 16, "os.getppid()", 0, 0),
    "process-vm-readv": forbidden("process_vm_readv", 1, 0, 0, 0, 0, 0),
    "process-vm-writev": forbidden("process_vm_writev", 1, 0, 0, 0, 0, 0),
    "pidfd-getfd": forbidden("pidfd_getfd", "os.pidfd_open(1)", 1, 0),
    "bpf": forbidden("bpf", 0, 0, 0),
    "perf-event-open": forbidden("perf_event_open", 0, 0, -1, -1, 0),
    "userfaultfd": forbidden("userfaultfd", 0),
    "keyring-add": forbidden("add_key", "b'user'", "b'name'", "b'data'", 4, -3),
    "keyring-request": forbidden("request_key", "b'user'", "b'name'", 0, -3),
    "keyring-keyctl": forbidden("keyctl", 0, -3, 1),
    "kexec": forbidden("kexec_load", 0, 0, 0, 0),
    "init-module": forbidden("init_module", 0, 0, "b''"),
    "finit-module": forbidden("finit_module", 0, "b''", 0),
    "delete-module": forbidden("delete_module", "b'ext4'", 0),
    "reboot": forbidden("reboot", 0xFEE1DEAD, 672274793, 0x1234567, 0),
    "swapon": forbidden("swapon", "b'/box/swap'", 0),
    "acct": forbidden("acct", "b'/box/acct'"),
    "quotactl": forbidden("quotactl", 0, 0, 0, 0),
    "open-by-handle": forbidden("open_by_handle_at", -100, 0, 0),
    "fsopen": forbidden("fsopen", "b'tmpfs'", 0),
    "open-tree": forbidden("open_tree", -100, "b'/'", 1),
    "move-mount": forbidden("move_mount", -100, "b'/'", -100, "b'/box'", 0),
    "mount-setattr": forbidden("mount_setattr", -100, "b'/'", 0, 0, 0),
    "sethostname": forbidden("sethostname", "b'mine'", 4),
    "settimeofday": forbidden("settimeofday", 0, 0),
    "clock-settime": forbidden("clock_settime", 0, 0),
    "iopl": forbidden("iopl", 3) if known("iopl") else forbidden("reboot", 0, 0, 0, 0),
}


def _refused(text: str, asks: str = "") -> Hostile:
    return Hostile(text=text, asks=asks)


_REFUSED: dict[str, Hostile] = {
    "io-uring": _refused("refused(call, 'io_uring_setup', 8, ctypes.create_string_buffer(256))"),
    "clone3-namespaces": _refused(
        "arguments = ctypes.create_string_buffer(struct.pack('<11Q', 0x10000000, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0))\n"
        "refused(call, 'clone3', arguments, 88)"
    ),
    "memfd-exec": _refused("refused(os.memfd_create, 'program')"),
    "memfd-secret": _refused("refused(call, 'memfd_secret', 0)"),
    "socket-ipv4": _refused("refused(socket.create_connection, ('1.1.1.1', 53), 2)"),
    "socket-ipv6": _refused("refused(socket.socket, socket.AF_INET6)"),
    "socket-udp": _refused("refused(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)"),
    "socket-raw": _refused("refused(socket.socket, socket.AF_INET, socket.SOCK_RAW, 1)"),
    "socket-packet": _refused("refused(socket.socket, socket.AF_PACKET, socket.SOCK_RAW, 3)"),
    "socket-netlink": _refused("refused(socket.socket, socket.AF_NETLINK, socket.SOCK_RAW, 0)"),
    "socket-alg": _refused("refused(socket.socket, 38, socket.SOCK_SEQPACKET)"),
    "socket-vsock": _refused("refused(socket.socket, 40, socket.SOCK_STREAM)"),
    "socket-of-the-grader": _refused(
        "one = socket.socket(socket.AF_UNIX)\nrefused(one.connect, chr(0) + sys.stdin.read())",
        asks="socket",
    ),
    "name-of-a-host": _refused("refused(socket.getaddrinfo, 'example.com', 80)"),
    "terminal-input": _refused("refused(fcntl.ioctl, 0, 0x5412, b'x')"),
    "personality": _refused("refused(call, 'personality', 0x0040000)"),
    "second-filter": _refused("refused(call, 'seccomp', 1, 0, 0)"),
    "kernel-log": _refused("refused(call, 'syslog', 3, ctypes.create_string_buffer(64), 64)"),
    "file-handles": _refused(
        "refused(call, 'name_to_handle_at', -100, b'/', ctypes.create_string_buffer(256), 0, 0)"
    ),
    "fanotify": _refused("refused(call, 'fanotify_init', 0, 0)"),
    "compare-processes": _refused("refused(call, 'kcmp', 1, os.getpid(), 0, 0, 0)"),
    "move-pages": _refused("refused(call, 'move_pages', 1, 0, 0, 0, 0, 0)"),
    "advise-others": _refused("refused(call, 'process_madvise', 0, 0, 0, 0, 0)"),
    "set-user": _refused("refused(os.setuid, 0)"),
    "set-groups": _refused("refused(os.setgroups, [0])"),
    "capabilities": _refused(
        "head, data = struct.pack('Ii', 0x20080522, 0), b'\\xff' * 24\nrefused(lambda: libc.capset(head, data) and"
        " (_ for _ in ()).throw(OSError('capset')))"
    ),
    "raise-limits": _refused(
        "for what in (resource.RLIMIT_NPROC, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):\n"
        "    refused(resource.setrlimit, what, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))"
    ),
    "limits-of-process-1": _refused(
        "before = resource.prlimit(os.getpid(), resource.RLIMIT_NOFILE)\n"
        "refused(resource.prlimit, 1, resource.RLIMIT_NOFILE, (1 << 20, 1 << 20))"
    ),
    "nice": _refused("refused(os.setpriority, os.PRIO_PROCESS, 0, -20)"),
    "real-time": _refused("refused(os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(50))"),
    "lock-memory": _refused(
        "area = mmap.mmap(-1, 1 << 20)\naddress = ctypes.addressof(ctypes.c_char.from_buffer(area))\n"
        "refused(lambda: libc.mlock(ctypes.c_void_p(address), ctypes.c_size_t(1 << 20)) and"
        " (_ for _ in ()).throw(OSError('mlock')))"
    ),
    "new-privileges": _refused(
        "libc.prctl(38, 0, 0, 0, 0)\n(held if libc.prctl(39, 0, 0, 0, 0) == 1 else escaped)('no_new_privs')"
    ),
    "bounding-set": _refused("(held if libc.prctl(24, 21, 0, 0, 0) else escaped)('PR_CAPBSET_DROP')"),
    "securebits": _refused("(held if libc.prctl(28, 1, 0, 0, 0) else escaped)('PR_SET_SECUREBITS')"),
    "message-queues": _refused(
        "(held if libc.mq_open(b'/queue', os.O_CREAT | os.O_RDWR, 0o600, 0) < 0 else escaped)()"
    ),
}

# Machine code: `mov eax, 20; int 0x80; ret`, getpid as a 32-bit program asks for it.
_INT_80 = r"""
area = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
area.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
held("tries")
escaped(ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(area)))())
"""
_X86 = {
    "calls-of-x32": Hostile(
        text="held('tries')\nescaped(libc.syscall(ctypes.c_long(0x40000000 + 39)))",
        endings=(Ending.FORBIDDEN,),
    ),
    "calls-of-i386": Hostile(text=_INT_80, endings=(Ending.FORBIDDEN, Ending.SIGNALED), signals=(11,)),
}

PROGRAMS: dict[str, Hostile] = _FORBIDDEN | _REFUSED | (_X86 if machine() == "x86_64" else {})
