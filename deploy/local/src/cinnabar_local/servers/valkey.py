"""Valkey (or Redis) as the queue's server."""

from dataclasses import dataclass
from pathlib import Path

from cinnabar_local import binaries, probes
from cinnabar_local.credentials import write_private
from cinnabar_local.ports import HOST
from cinnabar_local.process import ProcessSpec

DATABASES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Valkey:
    """One Valkey on ``port``. It keeps nothing over a restart: Redis is disposable."""

    name: str
    folder: Path
    port: int
    password: str
    max_memory: str = "1gb"

    @property
    def url(self) -> str:
        """``redis://`` URL of database 0."""
        return f"redis://:{self.password}@{HOST}:{self.port}/0"

    def process(self) -> ProcessSpec:
        """Its row of the process table."""

        async def prepare() -> None:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_private(self._config_file, self._config())

        async def ready() -> None:
            await probes.redis_answers(self.url)

        return ProcessSpec(
            name=self.name,
            command=(str(binaries.valkey_server()), str(self._config_file)),
            folder=self.folder,
            prepare=prepare,
            ready=ready,
        )

    @property
    def _config_file(self) -> Path:
        return self.folder / "valkey.conf"

    def _config(self) -> str:
        lines = (
            f"bind {HOST}",
            f"port {self.port}",
            f"requirepass {self.password}",
            f'dir "{self.folder}"',
            'save ""',
            "appendonly no",
            # A queue that silently drops its keys is worse than one that says it is full.
            f"maxmemory {self.max_memory}",
            "maxmemory-policy noeviction",
            "tcp-backlog 128",
            f"databases {DATABASES}",
        )
        return "\n".join(lines) + "\n"
