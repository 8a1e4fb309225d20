"""The keeper's loop: takes orders of the grader, runs boxes, answers."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from contextlib import ExitStack
from typing import Any, TypeAlias

from cinnabar_grader.sandbox import frames
from cinnabar_grader.sandbox.keeper import files
from cinnabar_grader.sandbox.keeper.cgroups import Group, Groups
from cinnabar_grader.sandbox.keeper.child import Mechanism
from cinnabar_grader.sandbox.keeper.ground import Ground, RunFolder
from cinnabar_grader.sandbox.keeper.launch import Launch
from cinnabar_grader.sandbox.keeper.orphans import Orphans
from cinnabar_grader.sandbox.keeper.settings import Settings
from cinnabar_grader.sandbox.keeper.watch import Seen, Watch
from cinnabar_grader.sandbox.runs import Ending, Limits

FILES_FACTOR = 4
"""All files of a run may have this many times what one of them may have."""
FILE_COUNT = 10_000
_PAGE = 4096
_F_ADD_SEALS = 1033
_ALL_SEALS = 0x000F  # F_SEAL_SEAL, SHRINK, GROW, WRITE
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
_EXTRA_PROCESSES = 2
"""In a run's cgroup besides the program's: the mechanism's own."""
_SETTLE_SECONDS = 5.0
Outcome: TypeAlias = "tuple[Seen, dict[str, bytes]]"
"""What came of a run, and the files that were asked for, by name."""
_SETTLE_TICK_SECONDS = 0.002


class Keeper:
    """Serves one grader until it goes."""

    def __init__(
        self, settings: Settings, ground: Ground, groups: Groups | None, mechanism: Mechanism
    ) -> None:
        self.settings = settings
        self.ground = ground
        self.groups = groups
        self.mechanism = mechanism
        self._folders: dict[str, dict[str, bytes]] = {}
        self._free: asyncio.Queue[int] = asyncio.Queue()
        self.slots = 1 if mechanism.alone else settings.slots
        for slot in range(self.slots):
            self._free.put_nowait(slot)
        self._orphans = Orphans(lost=mechanism.sealed)
        self._orphans.watch()
        self._runs: dict[int, asyncio.Task[Outcome]] = {}
        self._count = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until the other side is gone; then nothing runs any more."""
        try:
            while True:
                try:
                    head, blobs = await frames.read(reader)
                except (asyncio.IncompleteReadError, ConnectionError):
                    return
                self._take(head, blobs, writer)
        finally:
            running = list(self._runs.values())
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def open(self, folder: str, content: dict[str, bytes]) -> None:
        """A folder under a name that is free."""
        self._folders[folder] = content

    def close(self, folder: str) -> None:
        """Forgets a folder."""
        self._folders.pop(folder, None)

    def _take(self, head: frames.Head, blobs: list[bytes], writer: asyncio.StreamWriter) -> None:
        match head["order"]:
            case "open":
                self.open(head["folder"], dict(zip(head["names"], blobs, strict=True)))
            case "close":
                self.close(head["folder"])
            case "run":
                number = head["run"]
                task = asyncio.create_task(self.run(head, blobs[0]), name=f"run-{number}")
                self._runs[number] = task
                # Not by the task itself: one that is cancelled before its first step would say nothing.
                task.add_done_callback(lambda done: self._answer(number, done, writer))
            case "cancel":
                if task := self._runs.get(head["run"]):
                    task.cancel()
            case other:
                raise ValueError(f"no such order: {other!r}")

    def _answer(self, number: int, task: asyncio.Task[Outcome], writer: asyncio.StreamWriter) -> None:
        del self._runs[number]
        collected: dict[str, bytes] = {}
        if task.cancelled():
            seen = Seen(reason="cancelled")
        elif (error := task.exception()) is not None:
            seen = Seen(reason=f"{type(error).__name__}: {error}")
        else:
            seen, collected = task.result()
        answer: dict[str, Any] = {
            "run": number,
            "ending": seen.ending.value,
            "exit_code": seen.status.exit_code,
            "signal": seen.status.signal,
            "cpu_seconds": seen.cpu_seconds,
            "wall_seconds": seen.wall_seconds,
            "memory_bytes": seen.memory_bytes,
            "reason": seen.reason,
            "names": list(collected),
        }
        if not writer.is_closing():  # what waits there is bounded: a run's output is, and so are the runs
            writer.write(frames.encoded(answer, (seen.stdout, seen.stderr, *collected.values())))

    async def run(self, head: frames.Head, stdin: bytes) -> Outcome:
        """One run, from an order to what came of it and the files that were asked for."""
        limits = Limits(**head["limits"])
        content = self._folders.get(head["folder"])
        if content is None:
            return Seen(reason="the folder is gone"), {}
        slot = await self._free.get()
        try:
            return await self._in_slot(slot, head, content, stdin, limits)
        finally:
            self._free.put_nowait(slot)

    async def _in_slot(
        self, slot: int, head: frames.Head, content: dict[str, bytes], stdin: bytes, limits: Limits
    ) -> Outcome:
        room = FILES_FACTOR * limits.file_bytes
        size = room + sum(-len(one) // _PAGE * -_PAGE for one in content.values())
        self._count += 1
        folder = self.ground.new_run(slot, size=size, count=FILE_COUNT + 2 * len(content))
        group = None
        try:
            files.put(folder.box, content, folder.user)
            if self.groups is not None:
                group = self.groups.new(
                    str(self._count),
                    memory_bytes=limits.memory_bytes,
                    processes=limits.processes + _EXTRA_PROCESSES,
                )
            seen = await self._watched(slot, head, stdin, limits, folder, group)
            return seen, self._harvest(head, seen, folder, room, limits)
        finally:
            self._orphans.collect()
            if group is not None:
                await _removed(group)
            folder.remove()

    async def _watched(
        self,
        slot: int,
        head: frames.Head,
        stdin: bytes,
        limits: Limits,
        folder: RunFolder,
        group: Group | None,
    ) -> Seen:
        with ExitStack() as exits:
            read: list[int] = []
            written: list[int] = []
            with ExitStack() as of_child:
                for _ in range(2):
                    ours, theirs = os.pipe2(os.O_CLOEXEC)
                    exits.callback(os.close, ours)
                    of_child.callback(os.close, theirs)
                    if folder.user is not None:  # or a program could not open its own /dev/stderr
                        os.fchown(theirs, folder.user, folder.user)
                    read.append(ours)
                    written.append(theirs)
                doors = group.doors() if group is not None else ()
                for door in doors:
                    of_child.callback(os.close, door)
                given = _sealed(stdin)
                of_child.callback(os.close, given)
                launch = Launch(
                    argv=head["argv"],
                    environment={**ENVIRONMENT, **self.mechanism.places(folder), **head["environment"]},
                    folder=folder,
                    limits=limits,
                    stdin=given,
                    stdout=written[0],
                    stderr=written[1],
                    doors=doors,
                )
                child = self.mechanism.start(launch, slot)
                self._orphans.awaited.add(child.pid)
            exits.callback(self._orphans.awaited.discard, child.pid)
            exits.callback(child.close)
            return await Watch(child, limits, group, read[0], read[1]).over()

    def _harvest(
        self, head: frames.Head, seen: Seen, folder: RunFolder, room: int, limits: Limits
    ) -> dict[str, bytes]:
        """Reads back what was asked for; every process of the run is gone."""
        found: dict[str, bytes] = {}
        for name in head["collect"]:
            content = files.take(folder.opened, name, min(limits.file_bytes, room))
            if content is not None:
                found[name] = content
                room -= len(content)
        if head["keep"] and seen.ending is Ending.EXITED and seen.status.exit_code == 0:
            before = self._folders.get(head["folder"], {})
            kept = files.everything(folder.opened, room + sum(map(len, before.values())), FILE_COUNT)
            if kept is None:
                seen.ending = Ending.OUTPUT_LIMIT
            elif head["folder"] in self._folders:
                self._folders[head["folder"]] = kept
        return found


def _sealed(content: bytes) -> int:
    """A file in memory that only reads: a program that never reads its input holds nobody up."""
    writable = os.memfd_create("stdin", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with os.fdopen(os.dup(writable), "wb") as file:
            file.write(content)
        fcntl.fcntl(writable, _F_ADD_SEALS, _ALL_SEALS)
        return os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(writable)


async def _removed(group: Group) -> None:
    """A process that is being killed stays in its cgroup for a moment."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        try:
            group.remove()
        except OSError:
            if time.monotonic() > deadline:
                raise
            group.kill()
            await asyncio.sleep(_SETTLE_TICK_SECONDS)
        else:
            return
