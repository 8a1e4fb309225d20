"""Programs that read, write or leave behind what they must not."""

# ruff: noqa: E501 - lines of programs

from __future__ import annotations

from cinnabar_grader.sandbox import Ending
from tests.support.hostile import Hostile

_READING: dict[str, Hostile] = {
    "files-of-the-grader": Hostile(
        text="for path in sys.stdin.read().split('\\n'): refused(read, path)", asks="paths"
    ),
    "folders-of-the-grader": Hostile(
        text="for path in sys.stdin.read().split('\\n'): refused(os.listdir, os.path.dirname(path))",
        asks="paths",
    ),
    "link-to-the-grader": Hostile(
        text="for number, path in enumerate(sys.stdin.read().split('\\n')):\n"
        "    os.symlink(path, f'link{number}')\n    refused(read, f'link{number}')",
        asks="paths",
    ),
    "hard-link-to-the-grader": Hostile(
        text="for path in sys.stdin.read().split('\\n'): refused(os.link, path, 'linked')", asks="paths"
    ),
    "way-up": Hostile(
        text="for path in sys.stdin.read().split('\\n'): refused(read, '../' * 40 + path)", asks="paths"
    ),
    "root-of-process-1": Hostile(
        text="for path in sys.stdin.read().split('\\n'): refused(read, '/proc/1/root' + path)", asks="paths"
    ),
    "root-of-everybody": Hostile(
        text="for pid in filter(str.isdigit, os.listdir('/proc')):\n"
        "    for path in sys.stdin.read().split('\\n'):\n"
        "        if path: refused(read, f'/proc/{pid}/root{path}')\nheld()",
        asks="paths",
    ),
    "folder-of-everybody": Hostile(
        text="for path in sys.stdin.read().split('\\n'):\n"
        "    refused(read, f'/proc/{os.getppid()}/cwd/../../../..{path}')",
        asks="paths",
    ),
    "passwords": Hostile(text="refused(read, '/etc/shadow')"),
    "keys-of-the-machine": Hostile(
        text="for path in ('/root/.ssh', '/home', '/etc/ssh', '/var/lib', '/run/secrets', '/srv'):\n"
        "    try: found = os.listdir(path)\n    except OSError as error: held(error)\n"
        "    else: (escaped if found else held)(path)",
    ),
    "environment": Hostile(
        text="print(os.environ)\n(escaped if any('SECRET' in name for name in os.environ) else held)()"
    ),
    "environment-of-everybody": Hostile(
        text="for pid in filter(str.isdigit, os.listdir('/proc')):\n"
        "    try: print(read(f'/proc/{pid}/environ'))\n    except OSError as error: held(error)\nheld()",
    ),
    "arguments-of-everybody": Hostile(
        text="pids = list(filter(str.isdigit, os.listdir('/proc')))\n(held if len(pids) <= 4 else escaped)(pids)"
    ),
    # With bubblewrap, process 1 is of the same user and behind the same filter: whoever takes it over has
    # won nothing, and ends the run.
    "take-over-process-1": Hostile(
        text="held('tries')\ntry:\n    lines = open('/proc/1/maps').readlines()\n"
        "    memory = os.open('/proc/1/mem', os.O_RDWR)\nexcept OSError as error: held(error)\nelse:\n"
        "    for line in lines:\n        if ' r-xp ' in line and '/' in line:\n"
        "            start, end = (int(one, 16) for one in line.split()[0].split('-'))\n"
        "            try: os.pwrite(memory, b'\\xcc' * (end - start), start)\n"
        "            except OSError as error: held(error)\ntry: os.kill(1, signal.SIGCHLD)\nexcept OSError: pass\ntime.sleep(0.1)",
        endings=(Ending.EXITED, Ending.SIGNALED),
        signals=(4, 5, 11),
    ),
    "memory-of-the-parent": Hostile(
        text="refused(lambda: open(f'/proc/{os.getppid() or 1}/mem', 'r+b').read(1))"
    ),
    "descriptors-of-process-1": Hostile(
        text="try: found = os.listdir('/proc/1/fd')\nexcept OSError as error: held(error)\nelse:\n"
        "    for one in found:\n        if int(one) > 2: refused(os.open, f'/proc/1/fd/{one}', os.O_RDWR)\n    held()",
    ),
    "open-descriptors": Hostile(
        text="found = []\nfor one in range(3, 256):\n    try: os.fstat(one)\n    except OSError: continue\n"
        "    found.append(one)\n(escaped if found else held)(found)",
    ),
    "own-input-for-writing": Hostile(text="refused(os.write, os.open('/proc/self/fd/0', os.O_RDWR), b'x')"),
    "memory-of-the-machine": Hostile(
        text="for path in ('/dev/mem', '/dev/kmem', '/dev/port', '/proc/kcore'):\n"
        "    refused(lambda: open(path, 'rb').read(1))",
    ),
    "log-of-the-kernel": Hostile(
        text="for path in ('/dev/kmsg', '/proc/kmsg'): refused(lambda: os.read(os.open(path, 0x800), 10))"
    ),
    "disks": Hostile(
        text="for path in ('/dev/vda', '/dev/sda', '/dev/nvme0n1', '/dev/loop0', '/dev/loop-control',"
        " '/dev/fuse', '/dev/net/tun', '/dev/kvm'):\n    refused(read, path)",
    ),
    "sockets-of-the-machine": Hostile(
        text="for path in ('/run/docker.sock', '/var/run/docker.sock', '/run/dbus/system_bus_socket'):\n"
        "    refused(socket.socket(socket.AF_UNIX).connect, path)",
    ),
}

_WRITING: dict[str, Hostile] = {
    "write-the-system": Hostile(
        text="for path in ('/usr/x', '/usr/bin/x', '/etc/x', '/x', '/lib/x', '/var/x', '/run/x', '/dev/x'):\n"
        "    refused(write, path)",
    ),
    "write-the-interpreter": Hostile(
        text="refused(write, os.path.join(os.path.dirname(os.__file__), 'sitecustomize.py'))\n"
        "refused(write, sys.executable)",
    ),
    "remove-the-system": Hostile(text="refused(os.unlink, '/usr/bin/env')\nrefused(os.rmdir, '/usr')"),
    "rename-the-system": Hostile(text="refused(os.rename, '/usr/bin', '/box/bin')"),
    "cut-the-system": Hostile(text="refused(os.truncate, '/usr/bin/env', 0)"),
    "rights-of-the-system": Hostile(
        text="refused(os.chmod, '/usr/bin/env', 0o777)\nrefused(os.chown, '/usr/bin/env', os.getuid(), -1)"
    ),
    "write-files-of-the-grader": Hostile(
        text="for path in sys.stdin.read().split('\\n'):\n    refused(write, path)\n"
        "    refused(write, os.path.dirname(path) + '/planted')",
        asks="paths",
    ),
    "settings-of-the-kernel": Hostile(
        text="for path in ('/proc/sys/kernel/core_pattern', '/proc/sys/kernel/hostname',"
        " '/proc/sys/vm/overcommit_memory', '/proc/sysrq-trigger', '/proc/sys/user/max_user_namespaces'):\n"
        "    refused(write, path, '1')",
    ),
    "settings-of-devices": Hostile(
        text="for path in ('/sys/power/state', '/sys/kernel/uevent_helper', '/sys/class/net/lo/mtu'):\n"
        "    refused(write, path, '1')",
    ),
    "release-agent": Hostile(
        text="for path in ('/sys/fs/cgroup/release_agent', '/sys/fs/cgroup/memory/release_agent',"
        " '/sys/fs/cgroup/pids/release_agent', '/sys/fs/cgroup/cgroup.procs'):\n    refused(write, path, '1')",
    ),
    "way-out-of-the-cgroup": Hostile(
        text="import glob\nfor path in glob.glob('/sys/fs/cgroup/**/cgroup.procs', recursive=True):\n"
        "    refused(write, path, str(os.getpid()))\nheld()",
    ),
    "map-of-users": Hostile(
        text="refused(write, '/proc/self/uid_map', '0 0 4294967295')\nrefused(write, '/proc/self/gid_map', '0 0 1')"
    ),
    "devices": Hostile(
        text="import stat\nrefused(os.mknod, 'disk', stat.S_IFBLK | 0o666, os.makedev(254, 0))\n"
        "refused(os.mknod, 'memory', stat.S_IFCHR | 0o666, os.makedev(1, 1))",
    ),
    "program-with-rights": Hostile(
        text="import shutil\nshutil.copy('/usr/bin/id', 'mine')\nos.chmod('mine', 0o6755)\n"
        "said = __import__('subprocess').run(['./mine', '-u'], capture_output=True, text=True).stdout.strip()\n"
        "(held if said == str(os.getuid()) and said != '0' else escaped)(said)",
    ),
    "programs-of-root": Hostile(
        text="import glob, stat\n"
        "for path in ('/usr/bin/su', '/usr/bin/mount', '/usr/bin/passwd', '/usr/bin/newuidmap'):\n"
        "    if os.path.exists(path):\n"
        "        done = __import__('subprocess').run([path, '-c', 'id'], stdin=-3, capture_output=True)\n"
        "        (escaped if b'uid=0' in done.stdout else held)(path)\nheld()",
    ),
    "preload": Hostile(
        text="environment = {'LD_PRELOAD': '/box/evil.so', 'PATH': '/usr/bin'}\n"
        "for path in ('/usr/bin/su', '/usr/bin/passwd'):\n    if os.path.exists(path):\n"
        "        done = __import__('subprocess').run([path, '-c', 'id'], env=environment, stdin=-3, capture_output=True)\n"
        "        (escaped if b'uid=0' in done.stdout else held)(path)\nheld()",
    ),
    "shared-memory-of-system-v": Hostile(
        text="key = 0x43494E4E\n"
        "found = libc.syscall(ctypes.c_long(CALLS['shmget']), ctypes.c_long(key), ctypes.c_long(0), ctypes.c_long(0))\n"
        "(held if found < 0 else escaped)('left by another run')\n"
        "libc.syscall(ctypes.c_long(CALLS['shmget']), ctypes.c_long(key), ctypes.c_long(4096), ctypes.c_long(0o1666))",
    ),
    "shared-memory-of-posix": Hostile(
        text="for place in ('/dev/shm', os.environ['TMPDIR'], '.'):\n"
        "    path = place + '/left-behind'\n    (escaped if os.path.exists(path) else held)(path)\n"
        "    try: write(path)\n    except OSError: pass",
    ),
}

_COLLECTED: dict[str, Hostile] = {
    "collect-a-link": Hostile(
        text="os.symlink(sys.stdin.read().split('\\n')[0], 'result')\nheld()",
        asks="paths",
        collect=("result",),
    ),
    "collect-through-a-link": Hostile(
        text="path = sys.stdin.read().split('\\n')[0]\nos.symlink(os.path.dirname(path), 'folder')\nheld()",
        asks="paths",
        collect=("folder/secret",),
    ),
    "collect-a-fifo": Hostile(text="os.mkfifo('result')\nheld()", collect=("result",)),
    "collect-a-socket": Hostile(
        text="socket.socket(socket.AF_UNIX).bind('result')\nheld()", collect=("result",)
    ),
    "collect-a-folder": Hostile(text="os.mkdir('result')\nheld()", collect=("result", "result/none")),
    "collect-too-much": Hostile(
        text="for number in range(5):\n    with open(f'result{number}', 'wb') as file: file.truncate(4 << 20)\nheld()",
        collect=tuple(f"result{number}" for number in range(5)),
        collected=tuple(f"result{number}" for number in range(4)),
    ),
    "collect-unreadable": Hostile(
        text="write('result')\nos.chmod('result', 0)\nos.chmod('.', 0)\nheld()",
        collect=("result",),
    ),
    "collect-while-it-is-swapped": Hostile(
        text="path = sys.stdin.read().split('\\n')[0]\n"
        "def swap():\n    while True:\n        try:\n            os.symlink(path, 'other')\n"
        "            os.rename('other', 'result')\n            write('plain')\n            os.rename('plain', 'result')\n"
        "        except OSError: pass\n"
        "for _ in range(3):\n    if os.fork() == 0: swap()\nheld()\ntime.sleep(0.3)\nos._exit(0)",
        asks="paths",
        collect=("result",),
    ),
    "hide-in-the-name": Hostile(
        text="os.mkdir('a')\nwrite('a/\\n\\x1b[31m..')\nheld()",
        collect=("a/\n\x1b[31m..",),
        collected=("a/\n\x1b[31m..",),
    ),
    "remove-the-working-folder": Hostile(
        text="import shutil\nfor entry in os.listdir('.'): os.unlink(entry)\n"
        "try: os.rmdir(os.getcwd())\nexcept OSError as error: held(error)\nelse: held()",
        endings=(Ending.EXITED,),
        collect=("result",),
    ),
}

PROGRAMS: dict[str, Hostile] = _READING | _WRITING | _COLLECTED
