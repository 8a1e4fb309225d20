"""A TCP proxy that stands between two processes and can break the connection between them."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import Enum

_CHUNK = 64 * 1024
_BACKLOG = 128
# SO_LINGER on, 0 seconds: closing sends RST and drops what was not sent.
_RESET = struct.pack("ii", 1, 0)


class Mode(Enum):
    """What becomes of connections and of what they carry."""

    OPEN = "open"
    """Everything goes through."""
    CUT = "cut"
    """Connections are reset, and so are new ones."""
    BLACKHOLE = "blackhole"
    """Connections stay, new ones are accepted, nothing goes through; it does once the mode ends."""
    DELAY = "delay"
    """Whatever was read at once waits ``delay_seconds``, in each direction; bytes keep their order."""


@dataclass(slots=True)
class Counts:
    """What went through: connections accepted, connections reset, bytes forwarded in both directions."""

    accepted: int = 0
    reset: int = 0
    forwarded: int = 0


class TcpProxy:
    """Forwards ``address`` (``host:port``, listening from the start) to ``target``.

    To be made and used within one running event loop; ``close`` ends it and every connection through it.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
        self._listener.setblocking(False)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.counts = Counts()
        self._mode = Mode.OPEN
        self._delay = 0.0
        self._passable = asyncio.Event()
        self._passable.set()
        self._pairs: dict[asyncio.Task[None], list[socket.socket]] = {}
        self._accepting = asyncio.create_task(self._accept(), name=f"proxy to {target}")

    @property
    def mode(self) -> Mode:
        """What it does now."""
        return self._mode

    @property
    def open_connections(self) -> int:
        """Connections that go through it."""
        return len(self._pairs)

    def set_mode(self, mode: Mode, *, delay_seconds: float = 0.0) -> None:
        """From now on do this, with the connections that there are as well."""
        self._mode, self._delay = mode, delay_seconds if mode is Mode.DELAY else 0.0
        if mode is Mode.BLACKHOLE:
            self._passable.clear()
        else:
            self._passable.set()
        if mode is Mode.CUT:
            for connection in list(self._pairs):
                self._cut(connection)

    async def close(self) -> None:
        """Resets all connections and listens no more. Idempotent."""
        self._accepting.cancel()
        tasks = [self._accepting, *self._pairs]
        for connection in list(self._pairs):
            self._cut(connection)
        await asyncio.gather(*tasks, return_exceptions=True)
        self._listener.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            near, _ = await loop.sock_accept(self._listener)
            near.setblocking(False)
            self.counts.accepted += 1
            if self._mode is Mode.CUT:
                self._reset([near])
                near.close()
                continue
            ends = [near]
            task = asyncio.create_task(self._serve(near, ends), name="proxied connection")
            self._pairs[task] = ends
            task.add_done_callback(self._forget)

    def _cut(self, connection: asyncio.Task[None]) -> None:
        self._reset(self._pairs[connection])
        connection.cancel()

    def _forget(self, task: asyncio.Task[None]) -> None:
        for end in self._pairs.pop(task):
            end.close()

    async def _serve(self, near: socket.socket, ends: list[socket.socket]) -> None:
        loop = asyncio.get_running_loop()
        await self._passable.wait()
        far = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        far.setblocking(False)
        ends.append(far)
        try:
            await loop.sock_connect(far, self._target)
            for end in ends:
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(near, far), name="proxied there")
                group.create_task(self._pump(far, near), name="proxied back")
        except* OSError:
            # An end broke: the other one gets to know it the same way.
            self._reset(ends)

    async def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        """Copies until ``source`` ends, then half-closes ``sink``. Raises OSError."""
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(source, _CHUNK):
            if self._delay:
                await asyncio.sleep(self._delay)
            await self._passable.wait()
            await loop.sock_sendall(sink, data)
            self.counts.forwarded += len(data)
        await self._passable.wait()
        sink.shutdown(socket.SHUT_WR)

    def _reset(self, ends: list[socket.socket]) -> None:
        """Closing ``ends`` will send RST."""
        self.counts.reset += 1
        for end in ends:
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


class Proxies:
    """One proxy for each pair of processes that asks for one; ``detour`` fits ``StackConfig.detour``."""

    def __init__(self, links: frozenset[tuple[str, str]]) -> None:
        self._links = links
        self._proxies: dict[tuple[str, str], TcpProxy] = {}

    def __getitem__(self, link: tuple[str, str]) -> TcpProxy:
        """The proxy between caller and callee. Raises KeyError."""
        return self._proxies[link]

    def detour(self, caller: str, callee: str, address: str) -> str:
        """The proxy's address when caller → callee is one of the links, else ``address``."""
        link = (caller, callee)
        if link not in self._links:
            return address
        if link not in self._proxies:
            self._proxies[link] = TcpProxy(address)
        return self._proxies[link].address

    async def close(self) -> None:
        """Closes all."""
        for proxy in self._proxies.values():
            await proxy.close()


@asynccontextmanager
async def proxies(*links: tuple[str, str]) -> AsyncGenerator[Proxies]:
    """Proxies for ``links`` (caller, callee), for the length of a block."""
    all_of_them = Proxies(frozenset(links))
    try:
        yield all_of_them
    finally:
        await all_of_them.close()
