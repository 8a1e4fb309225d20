"""The running suite: start it, take it apart while it runs, stop it."""

import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cinnabar_local.credentials import credentials_in
from cinnabar_local.folders import DataFolder, data_folder, exclusive, fingerprint, write_state
from cinnabar_local.group import ProcessGroup
from cinnabar_local.identity import unprivileged
from cinnabar_local.ports import Ports
from cinnabar_local.table import Addresses, StackConfig, build_table

__all__ = ["ProcessStatus", "Stack", "StackConfig", "running"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStatus:
    """One process at this moment; ``pid`` is None while it does not run."""

    name: str
    pid: int | None
    running: bool
    log_path: Path


class Stack:
    """Everything that runs, by the names of the table: ``scheduler-0``, ``postgres-1-replica``, ``envoy``.

    Methods that take a name raise KeyError for one that is not there.
    """

    def __init__(self, *, addresses: Addresses, folder: DataFolder, group: ProcessGroup) -> None:
        self.addresses = addresses
        self.folder = folder
        self._group = group

    @property
    def names(self) -> list[str]:
        """All names, in the order of the table."""
        return [process.name for process in self._group]

    def process(self, name: str) -> ProcessStatus:
        """How one process is."""
        process = self._group[name]
        return ProcessStatus(name=name, pid=process.pid, running=process.running, log_path=process.log_path)

    async def start(self, name: str) -> None:
        """Start one that does not run and return when it is ready. Raises StartFailed."""
        await self._group.start(name)

    async def stop(self, name: str) -> None:
        """SIGTERM one and wait for its end. Supervision leaves it stopped."""
        await self._group.stop(name)

    async def kill(self, name: str) -> None:
        """SIGKILL one with its descendants. Under supervision it comes back by itself."""
        await self._group.kill(name)

    def send_signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to one, without its descendants, as an operator would; nothing when it is gone.

        Postgres takes SIGINT as its fast shutdown and SIGQUIT as the immediate one.
        """
        self._group[name].send_signal(number)

    async def exit_code(self, name: str) -> int:
        """Wait for the end of one and return its exit code; -n when signal n killed it."""
        return await self._group[name].wait()

    async def restart(self, name: str) -> None:
        """Stop one if it runs, start it on the same port, return when it is ready. Raises StartFailed."""
        await self._group.restart(name)

    def pause(self, name: str) -> None:
        """SIGSTOP one with its descendants: it keeps its connections and answers nothing."""
        self._group[name].pause()

    def resume(self, name: str) -> None:
        """SIGCONT what was paused."""
        self._group[name].resume()


@asynccontextmanager
async def running(config: StackConfig) -> AsyncGenerator[Stack]:
    """The suite, ready, for the length of a block; afterwards no process of it is left.

    Nor is one left when this process dies, however it dies. The processes belong to the thread that runs the
    event loop: they end with it. Raises StartFailed with the end of a log, StackIsRunning, ProgramMissing.
    """
    identity = unprivileged()
    folder = data_folder(config.data_dir, identity)
    with exclusive(folder):
        ports = Ports(folder.path / "ports.json")
        table = build_table(
            config,
            folder=folder.path,
            ports=ports,
            credentials=credentials_in(folder.path),
            identity=identity,
        )
        ports.save()

        def record(*, ready: bool = True) -> None:
            write_state(folder, _state(group, table.addresses, ready=ready))

        group = ProcessGroup(table.rows, logs=folder.logs, on_spawn=lambda: record(ready=started))
        started = False
        try:
            await group.start_all()
            started = True
            record()
            if config.supervise:
                group.supervise()
            yield Stack(addresses=table.addresses, folder=folder, group=group)
        finally:
            await group.stop_all()


def _state(group: ProcessGroup, addresses: Addresses, *, ready: bool) -> dict[str, Any]:
    runner = os.getpid()
    return {
        "ready": ready,
        "runner": {"pid": runner, "created": fingerprint(runner)},
        "processes": {
            process.name: {
                "pid": process.pid,
                "created": None if process.pid is None else fingerprint(process.pid),
                "log": str(process.log_path),
                "one_shot": process.spec.one_shot,
            }
            for process in group
        },
        "addresses": asdict(addresses),
    }
