"""Storage services as processes of their own, to be killed."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from cinnabar.storage.v1 import storage_service_pb2_grpc as rpc
from cinnabar_common.channels import channel
from cinnabar_local.group import ProcessGroup, serving
from cinnabar_local.ports import Ports
from cinnabar_local.probes import grpc_serving
from cinnabar_local.process import ProcessSpec
from tests.support.servers import ShardUrls
from tests.support.storage_service import Storage


@asynccontextmanager
async def storage_processes(
    shards: Sequence[ShardUrls], names: Sequence[str], folder: Path, **settings: str
) -> AsyncGenerator[tuple[ProcessGroup, dict[str, Storage]]]:
    """One for each name, on the same shards; settings by their name without prefix, in lower case."""
    ports = Ports()
    targets = {name: f"127.0.0.1:{ports.of(name)}" for name in names}
    specs = [
        ProcessSpec(
            name=name,
            command=(sys.executable, "-m", "cinnabar_storage"),
            env={
                "STORAGE_SHARDS": ",".join(shard.setting for shard in shards),
                "STORAGE_LISTEN": target,
                "STORAGE_POOL_WAIT_SECONDS": "20",
                **{f"STORAGE_{setting.upper()}": value for setting, value in settings.items()},
            },
            ready=partial(grpc_serving, target),
        )
        for name, target in targets.items()
    ]
    async with AsyncExitStack() as exits:
        group = await exits.enter_async_context(serving(*specs, logs=folder))
        storages: dict[str, Storage] = {}
        for name, target in targets.items():
            opened = await exits.enter_async_context(channel(target))
            storages[name] = Storage(
                writer=rpc.StorageWriterServiceStub(opened),
                reader=rpc.StorageReaderServiceStub(opened),
                address=target,
                shards=list(shards),
            )
        yield group, storages
