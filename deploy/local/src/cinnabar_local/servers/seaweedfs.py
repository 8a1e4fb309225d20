"""SeaweedFS: S3 for one machine."""

import json
from dataclasses import dataclass
from pathlib import Path

from cinnabar_local import binaries, probes
from cinnabar_local.credentials import write_private
from cinnabar_local.ports import HOST, Ports
from cinnabar_local.process import ProcessSpec

# Each part of ``weed server`` listens twice: on its port and, for gRPC, on another (default +10000).
_PARTS = ("master", "volume", "filer", "s3")


@dataclass(frozen=True, slots=True, kw_only=True)
class SeaweedFS:
    """One ``weed server -s3`` with its data in ``folder``; ``ports`` gives each part its port."""

    name: str
    folder: Path
    ports: Ports
    access_key: str
    secret_key: str

    @property
    def endpoint(self) -> str:
        """``http://host:port`` of S3."""
        return f"http://{HOST}:{self._port('s3')}"

    def process(self) -> ProcessSpec:
        """Its row of the process table."""
        listen = [
            flag
            for part in _PARTS
            for flag in (
                f"-{part}.port={self._port(part)}",
                f"-{part}.port.grpc={self._port(f'{part}-grpc')}",
            )
        ]

        async def prepare() -> None:
            (self.folder / "data").mkdir(parents=True, exist_ok=True)
            write_private(self._identities_file, self._identities())

        async def ready() -> None:
            # Without credentials S3 answers 403, and only when the filer behind it answers as well.
            await probes.http_answers(f"{self.endpoint}/", statuses=frozenset({200, 403}))

        return ProcessSpec(
            name=self.name,
            command=(
                str(binaries.weed()),
                *("server", "-s3", f"-dir={self.folder / 'data'}", f"-ip={HOST}", f"-ip.bind={HOST}"),
                *listen,
                *("-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"),
                *("-master.volumeSizeLimitMB=256", "-volume.max=20", "-s3.iam=false"),
                # A cluster of one has nobody to wait for, neither when it starts nor when it stops.
                *("-master.electionTimeout=300ms", "-volume.preStopSeconds=0"),
                f"-s3.config={self._identities_file}",
            ),
            folder=self.folder,
            prepare=prepare,
            ready=ready,
            # It closes its volumes at once, then the filer waits for its own watchers to leave.
            stop_seconds=1.0,
            killed_to_stop=True,
        )

    def _port(self, part: str) -> int:
        return self.ports.of(f"{self.name}-{part}")

    @property
    def _identities_file(self) -> Path:
        return self.folder / "identities.json"

    def _identities(self) -> str:
        cinnabar = {
            "name": "cinnabar",
            "credentials": [{"accessKey": self.access_key, "secretKey": self.secret_key}],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        }
        return json.dumps({"identities": [cinnabar]}, indent=2) + "\n"
