"""The proxy that breaks networks: each of its modes, against a real server on the loopback."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from tests.support.tcp_proxy import Mode, TcpProxy, proxies
from tests.support.waiting import until

PATIENCE_SECONDS = 5.0
SILENCE_SECONDS = 0.2
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def echo() -> AsyncGenerator[str]:
    """A server that sends back what it gets and ends when its client does; yields its address."""
    served: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.add(writer)
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.write(b"bye")
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in served:
            writer.transport.abort()


@asynccontextmanager
async def proxied() -> AsyncGenerator[TcpProxy]:
    """A proxy before an echo."""
    async with echo() as address:
        proxy = TcpProxy(address)
        try:
            yield proxy
        finally:
            await proxy.close()


@asynccontextmanager
async def connected(proxy: TcpProxy) -> AsyncGenerator[Stream]:
    """A connection to the proxy."""
    host, _, port = proxy.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def exchange(stream: Stream, data: bytes) -> bytes:
    """Sends and reads as much back."""
    reader, writer = stream
    writer.write(data)
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await reader.readexactly(len(data))


async def is_silent(stream: Stream) -> bool:
    """Whether nothing comes, not even the end."""
    try:
        async with asyncio.timeout(SILENCE_SECONDS):
            await stream[0].read(1)
    except TimeoutError:
        return True
    return False


async def test_what_is_sent_arrives_whole_and_the_end_of_each_direction_too() -> None:
    data = bytes(range(256)) * 20_000
    async with proxied() as proxy, connected(proxy) as (reader, writer):
        answer = asyncio.create_task(reader.read(-1))
        writer.write(data)
        writer.write_eof()
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await answer == data + b"bye"
        assert proxy.counts.forwarded == 2 * len(data) + len(b"bye")


async def test_a_cut_resets_what_is_connected_and_what_connects() -> None:
    async with proxied() as proxy, connected(proxy) as stream:
        assert await exchange(stream, b"hello") == b"hello"
        proxy.set_mode(Mode.CUT)
        with pytest.raises(ConnectionResetError):
            await exchange(stream, b"lost")
        async with connected(proxy) as other:
            with pytest.raises(ConnectionResetError):
                await exchange(other, b"lost")
        assert proxy.counts.reset == 2
        proxy.set_mode(Mode.OPEN)
        async with connected(proxy) as again:
            assert await exchange(again, b"hello") == b"hello"


async def test_a_blackhole_accepts_and_forwards_nothing_until_it_ends() -> None:
    async with proxied() as proxy, connected(proxy) as stream:
        assert await exchange(stream, b"before") == b"before"
        proxy.set_mode(Mode.BLACKHOLE)
        forwarded = proxy.counts.forwarded
        async with connected(proxy) as other:
            for each in (stream, other):
                each[1].write(b"held")
                assert await is_silent(each)
            assert proxy.counts.forwarded == forwarded
            assert proxy.counts.reset == 0
            proxy.set_mode(Mode.OPEN)
            for each in (stream, other):
                async with asyncio.timeout(PATIENCE_SECONDS):
                    assert await each[0].readexactly(4) == b"held"


async def test_a_delay_holds_each_direction_back() -> None:
    async with proxied() as proxy, connected(proxy) as stream:
        proxy.set_mode(Mode.DELAY, delay_seconds=0.1)
        began = asyncio.get_running_loop().time()
        assert await exchange(stream, b"slow") == b"slow"
        assert asyncio.get_running_loop().time() - began >= 0.2
        proxy.set_mode(Mode.OPEN)
        assert await exchange(stream, b"again") == b"again"


async def test_a_server_that_is_away_shows_as_a_reset() -> None:
    async with echo() as address:
        proxy = TcpProxy(address)
    async with connected(proxy) as stream:
        with pytest.raises(ConnectionResetError):
            await exchange(stream, b"anybody?")
    await proxy.close()


async def test_closing_ends_connections_and_listening() -> None:
    async with proxied() as proxy, connected(proxy) as stream:
        assert await exchange(stream, b"hello") == b"hello"
        await proxy.close()
        with pytest.raises(ConnectionResetError):
            await exchange(stream, b"lost")
        with pytest.raises(ConnectionRefusedError):
            async with connected(proxy):
                pass


async def test_only_the_links_that_were_named_are_detoured() -> None:
    async with echo() as address, proxies(("gateway-0", "storage-0")) as detours:
        assert detours.detour("gateway-1", "storage-0", address) == address
        between = detours.detour("gateway-0", "storage-0", address)
        assert between != address
        assert detours.detour("gateway-0", "storage-0", address) == between
        async with connected(detours["gateway-0", "storage-0"]) as stream:
            assert await exchange(stream, b"hello") == b"hello"
        with pytest.raises(KeyError):
            assert detours["gateway-1", "storage-0"]


async def test_connections_that_ended_are_forgotten() -> None:
    async with proxied() as proxy:
        async with connected(proxy) as stream:
            assert await exchange(stream, b"hello") == b"hello"
            assert proxy.open_connections == 1
        await until(lambda: proxy.open_connections == 0, description="the connection is forgotten")
