"""What every sandbox does: that in memory and the best of this machine."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

import pytest

from cinnabar_grader.sandbox import Ending, Limits, Sandbox, choose
from cinnabar_grader.sandbox.memory import Call, Finish, MemorySandbox

_SCRIPTS = {
    "reverse": "import sys; print(sys.stdin.read()[::-1], end='')",
    "fail": "import sys; print('why', end='', file=sys.stderr); sys.exit(3)",
    "crash": "import os; os.kill(os.getpid(), 11)",
    "sleep": "import time; time.sleep(900)",
    "flood": "print('x' * 5000, end='')",
    "build": "import os; os.remove('old'); open('new', 'w').write('made')",
    "half": "import sys; open('new', 'w').write('half'); sys.exit(1)",
    "list": "import os; print(*sorted(os.listdir('.')), end='')",
    "greet": "import os; print(os.environ['NAME'], end='')",
    "large": "open('new', 'w').write('x' * 2000)",
}


async def _reverse(call: Call) -> Finish:
    return Finish(stdout=call.stdin[::-1])


async def _fail(_: Call) -> Finish:
    return Finish(3, stderr=b"why")


async def _crash(_: Call) -> Finish:
    return Finish(signal=signal.SIGSEGV)


async def _sleep(_: Call) -> Finish:
    await asyncio.Event().wait()
    return Finish()


async def _flood(_: Call) -> Finish:
    return Finish(stdout=b"x" * 5000)


async def _build(call: Call) -> Finish:
    del call.files["old"]
    call.files["new"] = b"made"
    return Finish()


async def _half(call: Call) -> Finish:
    call.files["new"] = b"half"
    return Finish(1)


async def _list(call: Call) -> Finish:
    return Finish(stdout=" ".join(sorted(call.files)).encode())


async def _greet(call: Call) -> Finish:
    return Finish(stdout=call.environment["NAME"].encode())


async def _large(call: Call) -> Finish:
    call.files["new"] = b"x" * 2000
    return Finish()


_FUNCTIONS = {
    "reverse": _reverse,
    "fail": _fail,
    "crash": _crash,
    "sleep": _sleep,
    "flood": _flood,
    "build": _build,
    "half": _half,
    "list": _list,
    "greet": _greet,
    "large": _large,
}


@dataclass(frozen=True)
class World:
    """A sandbox, and how its programs are called."""

    sandbox: Sandbox

    def argv(self, name: str) -> Sequence[str]:
        """The command of a program."""
        if isinstance(self.sandbox, MemorySandbox):
            return [name]
        return [self.sandbox.python, "-I", "-S", "-c", _SCRIPTS[name]]


@pytest.fixture(scope="module", params=["memory", "machine"])
async def world(request: pytest.FixtureRequest) -> AsyncGenerator[World]:
    if request.param == "memory":
        yield World(MemorySandbox(_FUNCTIONS))
        return
    async with choose(slots=2) as sandbox:
        yield World(sandbox)


async def test_input_and_output(world: World) -> None:
    async with world.sandbox.folder({}) as folder:
        run = await folder.run(world.argv("reverse"), stdin=b"abc")
    assert (run.ending, run.exit_code, run.stdout, run.stderr) == (Ending.EXITED, 0, b"cba", b"")


async def test_exit_codes_and_signals(world: World) -> None:
    async with world.sandbox.folder({}) as folder:
        failed = await folder.run(world.argv("fail"))
        crashed = await folder.run(world.argv("crash"))
        missing = await folder.run(["no-such-program"])
    assert (failed.ending, failed.exit_code, failed.stderr) == (Ending.EXITED, 3, b"why")
    assert (crashed.ending, crashed.exit_code, crashed.signal) == (Ending.SIGNALED, 0, 11)
    assert (missing.ending, missing.exit_code) == (Ending.EXITED, 127)


async def test_limits(world: World) -> None:
    async with world.sandbox.folder({}) as folder:
        slow = await folder.run(world.argv("sleep"), limits=Limits(wall_seconds=0.1))
        loud = await folder.run(world.argv("flood"), limits=Limits(output_bytes=100))
    assert slow.ending is Ending.TIME_LIMIT
    assert (loud.ending, loud.exit_code, loud.stdout) == (Ending.OUTPUT_LIMIT, 0, b"x" * 100)


async def test_only_what_is_kept_stays(world: World) -> None:
    async with world.sandbox.folder({"old": b"1"}) as folder:
        await folder.run(world.argv("build"))
        assert (await folder.run(world.argv("list"))).stdout == b"old"
        await folder.run(world.argv("half"), keep=True)
        assert (await folder.run(world.argv("list"))).stdout == b"old"
        await folder.run(world.argv("build"), keep=True)
        assert (await folder.run(world.argv("list"))).stdout == b"new"


async def test_what_is_collected(world: World) -> None:
    async with world.sandbox.folder({"old": b"1"}) as folder:
        run = await folder.run(world.argv("build"), collect=("new", "old", "none"))
        large = await folder.run(world.argv("large"), collect=("new",), limits=Limits(file_bytes=3000))
        larger = await folder.run(world.argv("reverse"), collect=("old",), limits=Limits(file_bytes=1))
    assert run.files == {"new": b"made"}
    assert large.files == {"new": b"x" * 2000}
    assert larger.files == {"old": b"1"}


async def test_the_environment_that_is_given(world: World) -> None:
    async with world.sandbox.folder({}) as folder:
        run = await folder.run(world.argv("greet"), environment={"NAME": "cinnabar"})
    assert run.stdout == b"cinnabar"


async def test_what_cannot_work_is_refused(world: World) -> None:
    with pytest.raises(ValueError, match="file's name"):
        async with world.sandbox.folder({"../up": b""}):
            raise AssertionError("the folder was made")
    async with world.sandbox.folder({}) as folder:
        with pytest.raises(ValueError, match="no program"):
            await folder.run([])
        with pytest.raises(ValueError, match="NUL"):
            await folder.run(["a\0b"])
        with pytest.raises(ValueError, match="file's name"):
            await folder.run(["a"], collect=("/etc/passwd",))


async def test_a_cancelled_run_ends_and_frees_its_place(world: World) -> None:
    async with world.sandbox.folder({}) as folder:
        for _ in range(world.sandbox.slots + 1):
            started = asyncio.create_task(folder.run(world.argv("sleep")))
            await asyncio.sleep(0)
            started.cancel()
            with pytest.raises(asyncio.CancelledError):
                await started
        assert (await folder.run(world.argv("reverse"), stdin=b"ab")).stdout == b"ba"
