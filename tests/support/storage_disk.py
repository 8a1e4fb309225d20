"""A disk that is full, under one table of one primary."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

from cinnabar_local import sql
from cinnabar_local.servers import PostgresShard
from tests.support.servers import ShardUrls

_KIBIBYTES = 512


@asynccontextmanager
async def small_disk(server: PostgresShard, shard: ShardUrls, table: str) -> AsyncGenerator[None]:
    """Inside of the block ``table`` lies on a disk of 512 KiB, and its rows have to be large.

    Where a file system may not be mounted, a trigger says instead what Postgres says of a full disk.
    """
    database = urlsplit(shard.primary_url).path
    url = urlsplit(server.primary.superuser_url)._replace(path=database).geturl()
    space = f"small_{uuid4().hex[:8]}"
    async with sql.connected(url) as connection:
        await connection.execute("SET allow_in_place_tablespaces = on")
        await connection.execute(f"CREATE TABLESPACE {space} LOCATION ''")
        oid = await connection.fetchval("SELECT oid::text FROM pg_tablespace WHERE spcname = $1", space)
        folder = server.primary.folder / "data" / "pg_tblspc" / str(oid)
        owner = folder.stat()
        inner = [entry.name for entry in folder.iterdir()]
        size = f"size={_KIBIBYTES}k,uid={owner.st_uid},gid={owner.st_gid},mode=700"
        mounted = await _succeeds("mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder))
        try:
            if mounted:
                _make(folder, inner, owner)
                await connection.execute(f"ALTER TABLE {table} SET TABLESPACE {space}")
            else:
                await connection.execute(
                    "CREATE FUNCTION disk_full() RETURNS trigger LANGUAGE plpgsql AS"
                    " $$ BEGIN RAISE EXCEPTION 'no space' USING ERRCODE = 'disk_full'; END $$"
                )
                await connection.execute(
                    f"CREATE TRIGGER disk_full AFTER INSERT ON {table} EXECUTE FUNCTION disk_full()"
                )
            try:
                yield
            finally:
                if mounted:
                    await connection.execute(f"ALTER TABLE {table} SET TABLESPACE pg_default")
                else:
                    await connection.execute("DROP FUNCTION disk_full CASCADE")
        finally:
            if mounted:  # lazily: connections keep files open for a while
                assert await _succeeds("umount", "--lazy", str(folder))
        await connection.execute(f"DROP TABLESPACE {space}")


def _make(folder: Path, names: list[str], owner: os.stat_result) -> None:
    for name in names:
        (folder / name).mkdir(mode=0o700)
        os.chown(folder / name, owner.st_uid, owner.st_gid)


async def _succeeds(*command: str) -> bool:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    return await process.wait() == 0
