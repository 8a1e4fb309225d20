"""The runner as people start it, with the data servers alone: nothing is left behind, data is kept."""

import asyncio
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cinnabar_local import sql
from cinnabar_local.folders import DataFolder, StackIsRunning, read_state
from cinnabar_local.stack import StackConfig, running
from tests.support.waiting import until


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A data folder that Postgres' user can reach; a test finds in it what those before it stored."""
    path = Path(tempfile.mkdtemp(prefix="cinnabar-stack-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


class Runner:
    """``python -m cinnabar_local up``, and what it started."""

    def __init__(self, folder: Path) -> None:
        self.folder = DataFolder(path=folder)
        self.output = folder / "runner.out"
        with self.output.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cinnabar_local", "--data", str(folder), "up", "--data-servers-only"],
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self.family: list[psutil.Process] = []

    async def until_ready(self) -> None:
        """Wait for the addresses, and remember all processes."""

        async def ready() -> bool:
            assert self.process.poll() is None, self.output.read_text("utf-8")
            return "Ctrl-C stops it" in self.output.read_text("utf-8")

        await until(ready, description="the runner is ready", seconds=60.0)
        self.family = psutil.Process(self.process.pid).children(recursive=True)
        # Six servers, of which each Postgres has children of its own.
        assert len(self.family) > 6

    async def until_all_gone(self) -> None:
        """Wait until not one process is left."""

        async def gone() -> bool:
            self.process.poll()
            return not any(_alive(process) for process in self.family)

        await until(gone, description="no process is left", seconds=30.0)


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_stops_everything(number: signal.Signals, folder: Path) -> None:
    runner = Runner(folder)
    await runner.until_ready()
    runner.process.send_signal(number)
    assert await asyncio.to_thread(runner.process.wait, 30) == 0
    await runner.until_all_gone()
    assert read_state(runner.folder) == {}


async def test_a_killed_runner_leaves_no_process_and_the_next_one_starts(folder: Path) -> None:
    runner = Runner(folder)
    await runner.until_ready()
    runner.process.kill()
    await asyncio.to_thread(runner.process.wait, 30)
    await runner.until_all_gone()
    async with running(StackConfig(data_dir=folder, services=False)) as stack:
        assert all(stack.process(name).running for name in stack.names)


async def test_the_second_start_has_the_data_and_the_ports_of_the_first(folder: Path) -> None:
    config = StackConfig(data_dir=folder, services=False, objects=False)
    async with running(config) as stack:
        first = stack.addresses
        async with sql.connected(first.shards[1].primary_url) as connection:
            await connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
    async with running(config) as stack:
        assert stack.addresses == first
        async with sql.connected(stack.addresses.shards[1].primary_url) as connection:
            assert await connection.fetchval("SELECT number FROM kept") == 7


async def test_one_folder_has_one_runner(folder: Path) -> None:
    config = StackConfig(data_dir=folder, services=False, objects=False, shards=1)
    async with running(config):
        with pytest.raises(StackIsRunning):
            async with running(config):
                pytest.fail("the folder was in use")


async def test_supervision_brings_back_data_servers(folder: Path) -> None:
    config = StackConfig(data_dir=folder, services=False, objects=False, shards=1, supervise=True)
    async with running(config) as stack:
        for name in ("valkey", "postgres-0"):
            before = stack.process(name).pid
            await stack.kill(name)

            async def back(name: str = name, before: int | None = before) -> bool:
                return stack.process(name).pid not in (None, before)

            await until(back, description=f"{name} runs again")

        async def answers() -> bool:
            try:
                async with sql.connected(stack.addresses.shards[0].primary_url) as connection:
                    return await connection.fetchval("SELECT 1") == 1
            except sql.Unreachable:
                return False

        await until(answers, description="the primary accepts queries")


async def test_passwords_are_in_a_file_that_only_the_owner_reads(folder: Path) -> None:
    async with running(StackConfig(data_dir=folder, services=False, objects=False, shards=1)) as stack:
        for file in (folder / "credentials.json", stack.folder.state_file, folder / "valkey" / "valkey.conf"):
            assert file.stat().st_mode & 0o077 == 0
        password = stack.addresses.redis_url.split(":")[2].split("@")[0]
        commands = [" ".join(process.cmdline()) for process in psutil.Process().children(recursive=True)]
        assert not any(password in command for command in commands)


async def test_up_in_the_background_status_and_down(folder: Path) -> None:
    async def command(*arguments: str) -> tuple[int | None, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cinnabar_local", "--data", str(folder), *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        return process.returncode, output.decode()

    assert await command("status") == (1, "nothing runs\n")
    assert await command("down") == (0, "nothing runs\n")
    code, output = await command("up", "--detach", "--data-servers-only")
    try:
        state = read_state(DataFolder(path=folder))
        assert code == 0, output
        assert state["addresses"]["s3_endpoint"] in output
        again, refusal = await command("up", "--data-servers-only")
        assert (again, "runs in" in refusal) == (1, True)
        code, output = await command("status")
        assert code == 0
        assert all(name in output for name in state["processes"])
    finally:
        assert await command("down") == (0, "stopped\n")
    assert await command("status") == (1, "nothing runs\n")
