"""A real S3 server for tests, one a session, and buckets on it.

``object_server``   SeaweedFS
``s3_settings``     settings of a storage service with a bucket of its own on it, for the tests of one module
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from cinnabar_local.credentials import Credentials
from cinnabar_local.group import serving
from cinnabar_local.ports import Ports
from cinnabar_local.servers import SeaweedFS
from cinnabar_storage.files.records import FileFacts


@pytest_asyncio.fixture(scope="session")
async def object_server(server_folder: Path) -> AsyncGenerator[SeaweedFS]:
    """One S3 server for the session."""
    credentials = Credentials()
    server = SeaweedFS(
        name="objects",
        folder=server_folder / "objects",
        ports=Ports(),
        access_key=credentials.s3_access_key,
        secret_key=credentials.s3_secret_key,
    )
    async with serving(server.process(), logs=server_folder / "objects-logs"):
        yield server


@pytest.fixture(scope="module")
def s3_settings(object_server: SeaweedFS) -> dict[str, Any]:
    """Fields of StorageConfig."""
    return {
        "s3_endpoint": object_server.endpoint,
        "s3_access_key": object_server.access_key,
        "s3_secret_key": object_server.secret_key,
        "s3_bucket": f"test-{uuid4().hex[:12]}",
    }


def facts_of(content: bytes, content_type: str = "text/plain") -> FileFacts:
    """What an honest student announces."""
    return FileFacts(content_type, len(content), hashlib.sha256(content).digest())
