"""What a sandbox promises, held against each of its mechanisms on this machine."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from cinnabar_grader.sandbox import Ending, Limits, NoSandbox, choose
from cinnabar_grader.sandbox.choosing import ORDER
from cinnabar_grader.sandbox.client import KeptSandbox
from cinnabar_grader.sandbox.keeper import ground, processes
from tests.support.hostile_campaign import alive, leftovers, traces
from tests.support.waiting import until

ROOT = Path(__file__).parents[3]
SHORT = Limits(wall_seconds=1)
_POOR_GRADER = """
import asyncio, json
from cinnabar_grader.sandbox import choose
from tests.support.hostile_campaign import leftovers
DAEMON = "import os, time; os.fork() or (os.setsid(), os.fork(), time.sleep(900))"
async def main():
    async with choose(namespaces=False, cgroups=False) as sandbox, sandbox.folder({}) as folder:
        run = await folder.run([sandbox.python, "-c", DAEMON])
        facts = sandbox.mechanism, sandbox.strong, sandbox.missing, run.ending.value, leftovers(sandbox)
        print(json.dumps(facts))
asyncio.run(main())
"""
_GRADER = """
import asyncio, sys
from cinnabar_grader.sandbox import Limits, choose
async def main():
    async with choose(slots=2) as sandbox, sandbox.folder({}) as folder:
        print(sandbox.keeper_pid, flush=True)
        await folder.run(["sleep", "1000"], limits=Limits(wall_seconds=900))
asyncio.run(main())
"""


@pytest.fixture(scope="module", params=ORDER)
async def sandbox(request: pytest.FixtureRequest) -> AsyncGenerator[KeptSandbox]:
    async with choose(mechanisms=(request.param,), slots=2, allow_weak=True) as sandbox:
        yield sandbox


async def test_input_goes_in_and_output_comes_out(sandbox: KeptSandbox) -> None:
    program = b"import sys\nprint(input()[::-1])\nprint('aside', file=sys.stderr)\nsys.exit(7)"
    async with sandbox.folder({"main.py": program}) as folder:
        run = await folder.run([sandbox.python, "-I", "main.py"], stdin=b"olleh\n")
    assert (run.ending, run.exit_code, run.signal) == (Ending.EXITED, 7, 0)
    assert (run.stdout, run.stderr) == (b"hello\n", b"aside\n")
    assert 0 < run.cpu_seconds < 5
    assert 0 < run.wall_seconds < 10


async def test_each_run_sees_the_folder_as_it_was_prepared(sandbox: KeptSandbox) -> None:
    async with sandbox.folder({"a/b.txt": b"first"}) as folder:
        await folder.run(["/bin/sh", "-c", "echo changed > a/b.txt; echo new > new.txt"])
        run = await folder.run(["/bin/sh", "-c", "cat a/b.txt; ls"])
    assert run.stdout == b"firsta\n"


async def test_what_is_kept_is_there_for_the_next_run(sandbox: KeptSandbox) -> None:
    async with sandbox.folder({"a.txt": b"first"}) as folder:
        script = "mkdir out; echo built > out/made; rm a.txt; ln -s /etc/passwd link; mkfifo pipe"
        await folder.run(["/bin/sh", "-c", script], keep=True)
        run = await folder.run(
            ["/bin/sh", "-c", "find . -type f; find . -type l; find . -type p; cat out/made"]
        )
    assert run.stdout == b"./out/made\nbuilt\n"


async def test_a_run_that_failed_keeps_nothing(sandbox: KeptSandbox) -> None:
    async with sandbox.folder({}) as folder:
        await folder.run(["/bin/sh", "-c", "echo half > half; exit 1"], keep=True)
        run = await folder.run(["ls"])
    assert run.stdout == b""


async def test_regular_files_are_collected(sandbox: KeptSandbox) -> None:
    async with sandbox.folder({}) as folder:
        run = await folder.run(
            ["/bin/sh", "-c", "mkdir d; echo one > d/one; ln -s d/one two; mkfifo three"],
            collect=("d/one", "two", "three", "d", "four"),
        )
    assert run.files == {"d/one": b"one\n"}


async def test_the_environment_is_what_was_given(sandbox: KeptSandbox) -> None:
    async with sandbox.folder({}) as folder:
        run = await folder.run(["env"], environment={"ONE": "1"})
        home = await folder.run(["/bin/sh", "-c", 'test "$(pwd)" = "$HOME" && echo x > "$TMPDIR/x"'])
    names = {line.partition(b"=")[0] for line in run.stdout.splitlines()}
    assert names - {b"PWD"} == {b"ONE", b"PATH", b"HOME", b"TMPDIR", b"LANG"}
    assert home.exit_code == 0


@pytest.mark.parametrize(
    ("script", "limits", "ending"),
    [
        ("while :; do :; done", Limits(cpu_seconds=0.2), Ending.TIME_LIMIT),
        ("sleep 100", Limits(wall_seconds=0.2), Ending.TIME_LIMIT),
        ("yes", Limits(output_bytes=1000), Ending.OUTPUT_LIMIT),
        ("yes >&2", Limits(output_bytes=1000), Ending.OUTPUT_LIMIT),
        ("exec yes > file", Limits(file_bytes=10_000), Ending.OUTPUT_LIMIT),
        ("kill -SEGV $$", Limits(), Ending.SIGNALED),
    ],
)
async def test_endings(sandbox: KeptSandbox, script: str, limits: Limits, ending: Ending) -> None:
    async with sandbox.folder({}) as folder:
        run = await folder.run(["/bin/sh", "-c", f"exec 2>&1; {script}"], limits=limits)
    assert run.ending is ending
    assert len(run.stdout) <= limits.output_bytes


async def test_want_of_memory_is_an_ending(sandbox: KeptSandbox) -> None:
    async with sandbox.folder({}) as folder:
        command = [sandbox.python, "-I", "-S", "-c", "x = bytearray(1 << 30)"]
        run = await folder.run(command, limits=Limits(memory_bytes=64 << 20))
    assert run.ending is Ending.MEMORY_LIMIT


async def test_what_cannot_be_executed_exits_with_127(sandbox: KeptSandbox) -> None:
    async with sandbox.folder({"broken": b"\x7fELF nonsense"}) as folder:
        missing = await folder.run(["no-such-program"])
        broken = await folder.run(["./broken"])
    assert (missing.ending, missing.exit_code) == (Ending.EXITED, 127)
    assert (broken.ending, broken.exit_code) == (Ending.EXITED, 127)


@pytest.mark.parametrize(
    ("tool", "command", "said"),
    [
        ("gcc", "gcc -o main main.c && ./main", b"3\n"),
        ("g++", "g++ -x c++ -o main main.c && ./main", b"3\n"),
        ("node", "node -e 'console.log(1 + 2)'", b"3\n"),
        ("java", "java -version 2> said && echo 3", b"3\n"),
    ],
)
async def test_languages_work(sandbox: KeptSandbox, tool: str, command: str, said: bytes) -> None:
    if shutil.which(tool) is None:
        assert "CI" not in os.environ, f"{tool} must be there in CI"
        pytest.skip(f"{tool} is not on this machine")
    program = b'#include <stdio.h>\nint main(void) { printf("%d\\n", 1 + 2); return 0; }\n'
    async with sandbox.folder({"main.c": program}) as folder:
        run = await folder.run(["/bin/sh", "-c", command], limits=Limits(memory_bytes=1 << 30))
    assert (run.ending, run.exit_code, run.stdout) == (Ending.EXITED, 0, said), run.stderr


async def test_runs_of_a_folder_overlap_and_see_nothing_of_each_other(sandbox: KeptSandbox) -> None:
    script = "echo $0 > mine; sleep 0.2; ls; cat mine"
    async with sandbox.folder({}) as folder:
        runs = await asyncio.gather(
            *(folder.run(["/bin/sh", "-c", script, str(number)]) for number in range(4))
        )
    assert [run.stdout for run in runs] == [f"mine\n{number}\n".encode() for number in range(4)]


async def test_a_cancelled_run_is_gone_when_it_returns(sandbox: KeptSandbox) -> None:
    async with sandbox.folder({}) as folder:
        started = asyncio.create_task(folder.run(["/bin/sh", "-c", "sleep 900 & sleep 900"]))
        keeper = sandbox.keeper_pid

        def sleeping() -> bool:
            return any(_name(pid) == "sleep" for pid in processes.below(keeper))

        await until(sleeping, "the program runs")
        started.cancel()
        with pytest.raises(asyncio.CancelledError):
            await started
        assert not sleeping()
    assert leftovers(sandbox) == []


@pytest.mark.parametrize("name", ["", "/etc/x", "../x", "a/../x", "a//b", "a/", "./a", "a\0b", "x" * 300])
async def test_names_that_lead_elsewhere_are_refused(sandbox: KeptSandbox, name: str) -> None:
    with pytest.raises(ValueError, match="file's name"):
        async with sandbox.folder({name: b""}):
            raise AssertionError("the folder was made")
    async with sandbox.folder({}) as folder:
        with pytest.raises(ValueError, match="file's name"):
            await folder.run(["true"], collect=(name,))


async def test_arguments_that_cannot_work_are_refused(sandbox: KeptSandbox) -> None:
    async with sandbox.folder({}) as folder:
        for argv, environment in (([], {}), ([""], {}), (["a\0b"], {}), (["true"], {"A=B": ""})):
            with pytest.raises(ValueError, match=r"program|NUL|environment"):
                await folder.run(argv, environment=environment)


async def test_a_keeper_that_died_is_replaced() -> None:
    async with choose(slots=1) as sandbox:
        async with sandbox.folder({}) as folder:
            started = asyncio.create_task(folder.run(["sleep", "900"], limits=Limits(wall_seconds=900)))
            keeper = sandbox.keeper_pid
            await until(lambda: len(list(processes.below(keeper))) > 2, "the program runs")
            inside = [pid for pid in processes.below(keeper) if pid != keeper]
            os.kill(keeper, signal.SIGKILL)
            lost = await started
            assert lost.ending is Ending.FAILED
            await until(lambda: not any(map(alive, inside)), "its boxes died with it")
            assert (await folder.run(["true"])).ending is Ending.FAILED
        await sandbox.check()
        assert sandbox.keeper_pid != keeper
        async with sandbox.folder({}) as folder:
            assert (await folder.run(["true"])).ending is Ending.EXITED


async def test_nothing_is_left_of_a_grader_that_was_killed() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _GRADER, stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    keeper = int(await process.stdout.readline())
    await until(lambda: len(list(processes.below(keeper))) > 2, "the program runs")
    inside = list(processes.below(keeper))
    process.kill()
    await process.wait()
    await until(lambda: not any(map(alive, inside)), "everything died with the grader")
    assert traces(keeper) == []


def test_what_a_killed_keeper_left_is_collected(tmp_path: Path) -> None:
    left, young, live = (tmp_path / f"{ground.PREFIX}{name}" for name in ("left", "young", "live"))
    for path in (left, young, live):
        (path / "system").mkdir(parents=True)
        (path / "lock").touch()
    for path in (left, live):
        os.utime(path, (1, 1))
    with (live / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert ground.collect_stale(tmp_path) == 1
    assert set(tmp_path.iterdir()) == {young, live}


async def test_only_a_strong_sandbox_is_chosen_unless_told_otherwise() -> None:
    with pytest.raises(NoSandbox, match="rlimits: too weak"):
        async with choose(mechanisms=("rlimits",)):
            raise AssertionError("a weak sandbox was opened")
    async with choose(mechanisms=("rlimits",), allow_weak=True) as sandbox:
        assert not sandbox.strong
        assert "a wall around files" in sandbox.missing


async def test_the_best_that_works_is_chosen() -> None:
    async with choose() as sandbox:
        assert (sandbox.mechanism, sandbox.strong) == ("bubblewrap", True)


async def test_a_machine_that_gives_an_ordinary_user_nothing_still_has_landlock() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.ordinary_user", "-c", _POOR_GRADER),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    mechanism, strong, missing, ending, left = json.loads(said)
    assert (mechanism, strong, ending) == ("landlock", True, "exited")
    assert {"pid namespace", "mount namespace", "cgroups"} <= set(missing)
    assert left == []


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
