"""Programs that want more than their share, or never to end."""

# ruff: noqa: E501 - lines of programs

from __future__ import annotations

import zlib
from dataclasses import replace

from cinnabar_grader.sandbox import Ending
from tests.support.hostile import COMPILE, LIMITS, SHORT, Hostile

_SOME_LIMIT = (Ending.TIME_LIMIT, Ending.MEMORY_LIMIT, Ending.OUTPUT_LIMIT)
_STARVED = (Ending.MEMORY_LIMIT,)
_TIME = (Ending.TIME_LIMIT,)
_FLOOD = (Ending.OUTPUT_LIMIT,)


def _endless(text: str, says: bytes = b"held") -> Hostile:
    return Hostile(text=text, endings=_TIME, says=says, limits=SHORT)


_PROCESSES: dict[str, Hostile] = {
    "fork-bomb": Hostile(
        text="held()\nwhile True:\n    try: os.fork()\n    except OSError: pass",
        endings=(Ending.TIME_LIMIT, Ending.MEMORY_LIMIT),
        limits=SHORT,
    ),
    "fork-bomb-of-shells": Hostile(
        text="",
        argv=("/bin/sh", "-c", "echo held; f() { f | f & f; }; f"),
        endings=(Ending.TIME_LIMIT, Ending.MEMORY_LIMIT, Ending.EXITED, Ending.SIGNALED),
        signals=(9, 11, 15),
        limits=SHORT,
    ),
    "fork-bomb-of-daemons": Hostile(
        text="held()\nsys.stderr.close()\nwhile True:\n    try:\n        if os.fork() == 0: os.setsid()\n"
        "    except OSError: pass",
        endings=(Ending.TIME_LIMIT, Ending.MEMORY_LIMIT),
        limits=SHORT,
    ),
    "count-of-processes": Hostile(
        text="count = 0\ntry:\n    while count < 200:\n        if os.fork() == 0: time.sleep(60)\n"
        "        count += 1\nexcept OSError: pass\n(held if count <= 24 else escaped)(count)\nos._exit(0)",
        limits=replace(LIMITS, memory_bytes=512 << 20),
    ),
    "thread-bomb": Hostile(
        text="import threading\nheld()\nthreading.stack_size(65536)\nthreads = 0\ntry:\n    while threads < 1000:\n"
        "        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n        threads += 1\n"
        "except RuntimeError: pass\n(held if threads < 30 else escaped)(threads)\nsys.stdout.flush()\nos._exit(0)",
    ),
    "zombies": Hostile(
        text="for _ in range(15):\n    if os.fork() == 0: os._exit(0)\nheld()",
    ),
    "daemon": Hostile(
        text="held()\nsys.stdout.flush()\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        "        signal.signal(signal.SIGHUP, signal.SIG_IGN)\n        time.sleep(1000)\n    os._exit(0)",
    ),
    "daemon-that-forgets-its-parent": Hostile(
        text="held()\nif os.fork() == 0:\n    libc.prctl(1, 0, 0, 0, 0)\n    os.setsid()\n    os.close(0)\n"
        "    os.close(1)\n    os.close(2)\n    time.sleep(1000)",
    ),
    "signal-everybody": Hostile(
        text="signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "try: os.kill(-1, signal.SIGTERM)\nexcept OSError: pass\nheld('alive')",
    ),
    "signal-process-1": Hostile(
        text="for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGSEGV):\n"
        "    try: os.kill(1, number)\n    except OSError: pass\ntime.sleep(0.1)\nheld('alive')",
    ),
    "signal-the-parent": Hostile(
        text="for number in (signal.SIGKILL, signal.SIGSTOP):\n"
        "    try: os.kill(os.getppid(), number)\n    except OSError: pass\ntime.sleep(0.1)\nheld('alive')",
    ),
    "signal-the-grader": Hostile(
        text="for pid in map(int, sys.stdin.read().split()):\n    refused(os.kill, pid, signal.SIGKILL)",
        asks="processes",
    ),
    "stop-itself": _endless("held()\nos.kill(os.getpid(), signal.SIGSTOP)"),
    "deaf-to-signals": _endless(
        "for number in range(1, 65):\n    try: signal.signal(number, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\nheld()\nwhile True: time.sleep(10)"
    ),
    "kill-itself": Hostile(
        text="held()\nos.kill(os.getpid(), signal.SIGKILL)", endings=(Ending.SIGNALED,), signals=(9,)
    ),
    "die-by-a-signal-without-a-name": Hostile(
        text="held()\nsys.stdout.flush()\nos.kill(os.getpid(), 44)", endings=(Ending.SIGNALED,), signals=(44,)
    ),
    "exec-loop": _endless("held()\nos.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])"),
}

_TIME_WASTERS: dict[str, Hostile] = {
    "spin": _endless("held()\nwhile True: pass"),
    "spin-in-many": _endless("held()\nfor _ in range(6): os.fork()  if _ < 3 else None\nwhile True: pass"),
    "sleep": _endless("held()\nwhile True: time.sleep(1000)"),
    "sleep-without-output": _endless(
        "held()\nsys.stdout.flush()\nfor one in (0, 1, 2): os.close(one)\nwhile True: time.sleep(1000)"
    ),
    "blocking-fifo": _endless("held()\nos.mkfifo('fifo')\nopen('fifo')"),
    "lock-on-itself": _endless(
        "import threading\nheld()\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()"
    ),
    "shed-cpu-time-on-children": Hostile(
        text="held()\nwhile True:\n    if os.fork() == 0:\n        end = time.process_time() + 0.1\n"
        "        while time.process_time() < end: pass\n        os._exit(0)\n    os.wait()",
        endings=_TIME,
        limits=replace(SHORT, wall_seconds=30),
    ),
    "alarm-clock": _endless("held()\nsignal.setitimer(signal.ITIMER_REAL, 1000)\nsignal.pause()"),
    "catastrophic-expression": _endless("import re\nheld()\nre.match('(a+)+$', 'a' * 64 + 'b')"),
    "unread-input": Hostile(text="held()", stdin=b"x" * (4 << 20)),
}

_FLOODS: dict[str, Hostile] = {
    "flood": Hostile(text="while True: sys.stdout.write('held' * 1000)", endings=_FLOOD),
    "flood-of-errors": Hostile(text="held()\nwhile True: sys.stderr.write('x' * 1000)", endings=_FLOOD),
    "flood-by-many": Hostile(
        text="held()\nsys.stdout.flush()\nfor _ in range(3): os.fork()\nwhile True: os.write(1, b'x' * 65536)",
        endings=_FLOOD,
    ),
    "flood-of-a-last-breath": Hostile(
        text="held()\nsys.stdout.flush()\nfcntl.fcntl(1, 1031, 1 << 20)\nfor _ in range(40): os.write(1, b'x' * 65536)\n"
        "os._exit(0)",
        endings=_FLOOD,
    ),
}

_MEMORY: dict[str, Hostile] = {
    "memory": Hostile(text="held()\nwaste = [bytearray(1 << 20) for _ in range(100_000)]", endings=_STARVED),
    "memory-of-many": Hostile(
        text="held()\nsys.stdout.flush()\nfor _ in range(4): os.fork()\n"
        "waste = [os.urandom(1 << 20) for _ in range(60)]\ntime.sleep(30)",
        endings=_STARVED,
    ),
    "memory-shared": Hostile(
        text="held()\nsys.stdout.flush()\narea = mmap.mmap(-1, 4 << 30)\n"
        "for place in range(0, 4 << 30, 4096): area[place] = 1",
        endings=_STARVED,
    ),
    "zip-bomb": Hostile(
        text="import zlib\nheld()\nsys.stdout.flush()\n"
        "waste = zlib.decompress(zlib.decompress(open('bomb', 'rb').read()))",
        files={"bomb": zlib.compress(zlib.compress(bytes(160 << 20), 1), 1)},
        endings=_STARVED,
    ),
    "null-pointer": Hostile(
        text="held()\nsys.stdout.flush()\nctypes.string_at(0)",
        endings=(Ending.SIGNALED,),
        signals=(11,),
    ),
    "unkillable-by-want": Hostile(
        text="try: write('/proc/self/oom_score_adj', '-1000')\nexcept OSError as error: held(error)\n"
        "else: escaped()",
    ),
    "pipes-full": Hostile(
        text="pipes = []\ntry:\n    while True:\n        pipes.append(os.pipe())\n"
        "        os.set_blocking(pipes[-1][1], False)\n        os.write(pipes[-1][1], bytes(65536))\n"
        "except OSError as error: held(error)",
        limits=replace(LIMITS, memory_bytes=192 << 20),
    ),
    "descriptors": Hostile(
        text="files = []\ntry:\n    while len(files) < 5000: files.append(open('/dev/null'))\n"
        "except OSError as error: held(error)\nelse: escaped()",
    ),
}

_DISK: dict[str, Hostile] = {
    "large-file": Hostile(
        text="held()\nsys.stdout.flush()\nsignal.signal(signal.SIGXFSZ, signal.SIG_DFL)\n"
        "with open('large', 'wb') as file:\n    for _ in range(64): file.write(bytes(1 << 20))\nescaped()",
        endings=_FLOOD,
    ),
    "sparse-file": Hostile(text="file = open('sparse', 'wb')\nrefused(file.truncate, 1 << 40)"),
    "many-large-files": Hostile(
        text="try:\n    for number in range(100):\n        with open(f'part{number}', 'wb') as file:\n"
        "            file.write(bytes(3 << 20))\nexcept OSError as error: held(error)\nelse: escaped()",
    ),
    "fill-tmp": Hostile(
        text="place = os.environ['TMPDIR']\ntry:\n    for number in range(100):\n"
        "        with open(f'{place}/part{number}', 'wb') as file:\n            file.write(bytes(3 << 20))\n"
        "except OSError as error: held(error)\nelse: escaped()",
    ),
    "many-files": Hostile(
        text="held()\nsys.stdout.flush()\ntry:\n    for number in range(1_000_000): os.close(os.open(f'f{number}', 65))\n"
        "except OSError as error: held(error)\nelse: escaped()",
        endings=(Ending.EXITED, *_SOME_LIMIT),
    ),
    "deep-folders": Hostile(
        text="for _ in range(1000):\n    os.mkdir('d')\n    os.chdir('d')\nheld()",
        endings=(Ending.EXITED, Ending.TIME_LIMIT),
    ),
    "core-dump": Hostile(
        text="held()\nsys.stdout.flush()\nos.abort()",
        endings=(Ending.SIGNALED,),
        signals=(6,),
        collect=("core",),
    ),
}

_TEMPLATES = b"""
template<unsigned long n> struct Deep { typedef typename Deep<n + 1>::type type; };
Deep<0>::type value;
"""
_WARNINGS = b"int main(void) { return 0; }\n" + b"".join(
    b"#warning %d %s\n" % (number, b"w" * 60) for number in range(3_000)
)
_COMPILERS: dict[str, Hostile] = {
    "endless-include": Hostile(
        text="",
        argv=("gcc", "-c", "main.c"),
        files={"main.c": b'#include "main.c"\n#include "main.c"\n'},
        endings=(Ending.EXITED, *_SOME_LIMIT),
        says=b"",
        needs="gcc",
        limits=COMPILE,
    ),
    "include-dev-zero": Hostile(
        text="",
        argv=("gcc", "-c", "main.c"),
        files={"main.c": b"#include </dev/zero>\n"},
        endings=(Ending.EXITED, *_SOME_LIMIT),
        says=b"",
        needs="gcc",
        limits=COMPILE,
    ),
    "include-outside": Hostile(
        text="",
        argv=("gcc", "-c", "main.c"),
        files={"main.c": b"#include </etc/shadow>\n"},
        says=b"",
        needs="gcc",
        limits=COMPILE,
    ),
    "huge-binary": Hostile(
        text="",
        argv=("gcc", "main.c"),
        files={"main.c": b"char waste[1u << 31] = {1}; int main(void) { return waste[5]; }\n"},
        endings=(Ending.EXITED, *_SOME_LIMIT),
        says=b"",
        needs="gcc",
        limits=COMPILE,
    ),
    "endless-templates": Hostile(
        text="",
        argv=("g++", "-ftemplate-depth=1000000000", "-c", "main.cpp"),
        files={"main.cpp": _TEMPLATES},
        endings=(*_SOME_LIMIT, Ending.EXITED),
        says=b"",
        needs="g++",
        limits=COMPILE,
    ),
    "flood-of-warnings": Hostile(
        text="",
        argv=("gcc", "-c", "main.c"),
        files={"main.c": _WARNINGS},
        endings=_FLOOD,
        says=b"",
        needs="gcc",
        limits=COMPILE,
    ),
}

PROGRAMS: dict[str, Hostile] = _PROCESSES | _TIME_WASTERS | _FLOODS | _MEMORY | _DISK | _COMPILERS
