"""The filter of system calls, run step by step as the kernel would, for each processor."""

from __future__ import annotations

import errno
import struct

import pytest

from cinnabar_grader.sandbox import seccomp
from cinnabar_grader.sandbox.syscalls import LAST, NUMBERS

ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
EXECVE = {"x86_64": 59, "aarch64": 221}
READ = {"x86_64": 0, "aarch64": 63}


def answer(program: bytes, audit: int, number: int, *arguments: int) -> int:
    """What the filter says to a call."""
    given = (*arguments, *(0,) * (6 - len(arguments)))
    data = struct.pack("=IIQ6Q", number, audit, 0, *given)
    steps = list(struct.iter_unpack("=HBBI", program))
    place, value = 0, 0
    while True:
        code, yes, no, operand = steps[place]
        place += 1
        match code:
            case 0x20:
                (value,) = struct.unpack_from("=I", data, operand)
            case 0x15:
                place += yes if value == operand else no
            case 0x25:
                place += yes if value > operand else no
            case 0x35:
                place += yes if value >= operand else no
            case 0x45:
                place += yes if value & operand else no
            case 0x06:
                return operand
            case other:
                raise AssertionError(f"no such instruction: {other:#x}")


@pytest.fixture(params=sorted(MACHINES))
def machine(request: pytest.FixtureRequest) -> str:
    return request.param


def ask(machine: str, name: str | int, *arguments: int, ipc: bool = True) -> int:
    column, audit = MACHINES[machine]
    number = NUMBERS[name][column] if isinstance(name, str) else name
    assert number is not None
    return answer(seccomp.program(ipc=ipc, machine=machine), audit, number, *arguments)


def test_what_programs_live_on_is_allowed(machine: str) -> None:
    assert ask(machine, EXECVE[machine]) == ALLOW
    assert ask(machine, READ[machine]) == ALLOW
    assert ask(machine, "clone", 0x003D0F00) == ALLOW  # a thread, as pthread_create makes it
    assert ask(machine, "socketpair", 1, 1, 0) == ALLOW


@pytest.mark.parametrize("name", seccomp.KILLED)
def test_what_no_honest_program_does_kills(machine: str, name: str) -> None:
    if NUMBERS[name][MACHINES[machine][0]] is not None:
        assert ask(machine, name) == KILL


@pytest.mark.parametrize("name", seccomp.REFUSED)
def test_what_honest_runtimes_try_is_refused(machine: str, name: str) -> None:
    if NUMBERS[name][MACHINES[machine][0]] is not None:
        assert ask(machine, name) == ERRNO | seccomp.REFUSED[name]


@pytest.mark.parametrize("flag", [0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000])
def test_a_clone_with_a_namespace_kills(machine: str, flag: int) -> None:
    assert ask(machine, "clone", flag | 17) == KILL


@pytest.mark.parametrize("family", [2, 10, 16, 17, 38, 40, 0, 45])
def test_only_unix_sockets_are_made(machine: str, family: int) -> None:
    assert ask(machine, "socket", family, 1, 0) == ERRNO | errno.EAFNOSUPPORT
    assert ask(machine, "socket", 1, 1, 0) == ALLOW


def test_terminals_get_no_input_from_programs(machine: str) -> None:
    assert ask(machine, "ioctl", 0, 0x5412) == ERRNO | errno.EPERM
    assert ask(machine, "ioctl", 0, 0x541C) == ERRNO | errno.EPERM
    assert ask(machine, "ioctl", 0, 0x5401) == ALLOW


def test_personality_stays_plain(machine: str) -> None:
    assert ask(machine, "personality", 0xFFFFFFFF) == ALLOW
    assert ask(machine, "personality", 0) == ALLOW
    assert ask(machine, "personality", 0x0040000) == ERRNO | errno.EPERM


def test_calls_that_nobody_looked_at_do_not_exist(machine: str) -> None:
    assert ask(machine, LAST + 1) == ERRNO | errno.ENOSYS
    assert ask(machine, LAST) == ALLOW


def test_numbers_of_another_processor_kill(machine: str) -> None:
    program = seccomp.program(ipc=True, machine=machine)
    for audit in (0x40000003, 0x40000028, *(audit for _, audit in MACHINES.values())):
        if audit != MACHINES[machine][1]:
            assert answer(program, audit, READ[machine]) == KILL


def test_numbers_of_x32_kill() -> None:
    assert ask("x86_64", 0x40000000 + 39) == KILL


def test_shared_memory_is_refused_where_it_would_outlive_the_run(machine: str) -> None:
    for name in seccomp.SHARED_MEMORY:
        assert ask(machine, name, ipc=True) == ALLOW
        assert ask(machine, name, ipc=False) == ERRNO | errno.ENOSYS


def test_the_numbers_are_those_of_the_kernel() -> None:
    """Each number is there once: two names for one would mean a slip of the pen."""
    for column in (0, 1):
        numbers = [row[column] for row in NUMBERS.values() if row[column] is not None]
        assert len(set(numbers)) == len(numbers)
