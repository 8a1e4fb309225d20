"""Languages of programs: how they are compiled and run, with the toolchain that was found at start."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias

from cinnabar_grader.code.harness import RUN
from cinnabar_grader.sandbox import Limits

MIB = 1024 * 1024
PROGRAM = "program"  # what compilers of machine code write
_PYTHON_CHECK = """\
import sys, traceback
for path in sys.argv[1:]:
    try:
        compile(open(path, "rb").read(), path, "exec")
    except Exception as error:
        sys.exit("".join(traceback.format_exception_only(type(error), error)))
"""


class Language(StrEnum):
    """Ends the name of the queue of its programs."""

    PYTHON = "python"
    C = "c"
    CPP = "cpp"
    JAVASCRIPT = "javascript"
    JAVA = "java"


@dataclass(slots=True, frozen=True)
class Toolchain:
    """How programs of one language are compiled and run on this machine."""

    language: Language
    main: str
    """Path of the source of an answer that is a bare text; the program begins there."""
    sources: tuple[str, ...]
    """Ends of the names of files that are compiled."""
    compiler: Callable[[Sequence[str]], Sequence[str]]
    """The command that compiles these sources."""
    runner: Callable[[int], Sequence[str]]
    """The command that runs the program in so many bytes of memory; arguments follow."""
    evaluator: Callable[[int], Sequence[str]] = lambda memory: ()
    """The command that runs the source of a harness, which follows; for languages with call tests."""
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    keeps: bool = True
    """Compiling makes files that are needed to run; otherwise it only tells whether the program is one."""
    least_memory: int = 0
    """Bytes without which the runtime itself does not start."""
    least_processes: int = 1
    """Threads that the runtime itself has."""
    exhausted: re.Pattern[bytes] = re.compile(rb"(?!)")
    """What the runtime writes to standard error when memory ends."""

    def compile_command(self, paths: Iterable[str]) -> Sequence[str]:
        """The command that compiles the sources among ``paths``; empty when there are none."""
        sources = sorted(path for path in paths if path.endswith(self.sources))
        return self.compiler(sources) if sources else ()

    def limits(self, limits: Limits) -> Limits:
        """``limits``, but never less than the runtime itself needs."""
        return replace(
            limits,
            memory_bytes=max(limits.memory_bytes, self.least_memory),
            processes=max(limits.processes, self.least_processes),
        )


COMPILING = Limits(
    cpu_seconds=20,
    wall_seconds=60,
    memory_bytes=1024 * MIB,
    processes=64,
    open_files=256,
    file_bytes=64 * MIB,
    output_bytes=MIB,
)
"""What a compiler may use. The standard library of C++ in one header takes some 1.5 s, Java about as much."""

RUNTIME_MEMORY = {Language.JAVA: 128 * MIB, Language.JAVASCRIPT: 96 * MIB}
_JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")  # starts soon, has few threads


Find: TypeAlias = "Callable[[str], str | None]"
"""Gives the path of a program, None when it is not there."""


def toolchains(
    python: str, find: Find = shutil.which, *, packages: bool = False
) -> dict[Language, Toolchain]:
    """What ``find`` finds, and ``python``, which is the Python of the boxes.

    Programs see its ``packages``, or its standard library only.
    """
    found: dict[Language, Toolchain | None] = {
        Language.PYTHON: _python(python, packages=packages),
        Language.C: _machine_code(Language.C, _first(find, "gcc", "cc"), "main.c", (".c",), "-std=c17"),
        Language.CPP: _machine_code(
            Language.CPP, _first(find, "g++", "c++"), "main.cpp", (".cpp", ".cc", ".cxx"), "-std=c++20"
        ),
        Language.JAVASCRIPT: _node(_first(find, "node")),
        Language.JAVA: _java(_first(find, "java"), _first(find, "javac")),
    }
    return {language: toolchain for language, toolchain in found.items() if toolchain is not None}


def _first(find: Find, *names: str) -> str | None:
    """The real path of the first of ``names`` that is there: links may lead out of what a box can see."""
    for name in names:
        if found := find(name):
            return str(Path(found).resolve())
    return None


def python_command(python: str, program: str, *, packages: bool = False) -> tuple[str, ...]:
    """Runs a program in its folder; arguments follow."""
    return (python, "-s", program) if packages else (python, "-s", "-S", "-c", RUN, program)


def _python(python: str, *, packages: bool) -> Toolchain:
    command = (python, "-s") if packages else (python, "-s", "-S")
    return Toolchain(
        Language.PYTHON,
        main="main.py",
        sources=(".py",),
        compiler=lambda sources: (python, "-s", "-S", "-c", _PYTHON_CHECK, *sources),
        runner=lambda memory: python_command(python, "main.py", packages=packages),
        evaluator=lambda memory: (*command, "-c"),
        # The same program must do the same every time it is graded.
        environment={"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1", "PYTHONHASHSEED": "0"},
        keeps=False,
        exhausted=re.compile(rb"^MemoryError\b", re.MULTILINE),
    )


def _machine_code(
    language: Language, compiler: str | None, main: str, sources: tuple[str, ...], standard: str
) -> Toolchain | None:
    if compiler is None:
        return None
    options = ("-O2", "-w", "-fmax-errors=20", "-fdiagnostics-color=never", "-o", PROGRAM)
    return Toolchain(
        language,
        main=main,
        sources=sources,
        compiler=lambda paths: (compiler, standard, *options, *paths, "-lm"),
        runner=lambda memory: (f"./{PROGRAM}",),
        exhausted=re.compile(rb"std::bad_alloc"),
    )


def _node(node: str | None) -> Toolchain | None:
    if node is None:
        return None

    def command(memory: int) -> Sequence[str]:
        return node, f"--max-old-space-size={memory * 3 // 4 // MIB}"

    return Toolchain(
        Language.JAVASCRIPT,
        main="main.js",
        sources=(".js", ".cjs", ".mjs"),
        compiler=lambda sources: (node, "--check", *(s for s in sources if s == "main.js")),
        runner=lambda memory: (*command(memory), "main.js"),
        evaluator=lambda memory: (*command(memory), "-e"),
        environment={"NO_COLOR": "1"},
        keeps=False,
        least_memory=RUNTIME_MEMORY[Language.JAVASCRIPT],
        least_processes=24,
        exhausted=re.compile(rb"JavaScript heap out of memory|Array buffer allocation failed"),
    )


def _java(java: str | None, javac: str | None) -> Toolchain | None:
    if java is None or javac is None:
        return None
    quick = tuple(f"-J{option}" for option in (*_JVM, "-Xmx512m"))
    return Toolchain(
        Language.JAVA,
        main="Main.java",
        sources=(".java",),
        compiler=lambda sources: (javac, *quick, "-encoding", "UTF-8", "-nowarn", "-d", ".", *sources),
        runner=lambda memory: (java, *_JVM, f"-Xmx{memory // 2 // MIB}m", "-cp", ".", "Main"),
        least_memory=RUNTIME_MEMORY[Language.JAVA],
        least_processes=48,
        exhausted=re.compile(rb"java\.lang\.OutOfMemoryError"),
    )
