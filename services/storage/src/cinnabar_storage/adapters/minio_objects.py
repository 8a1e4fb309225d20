"""Objects in S3, by the MinIO client. It is synchronous: what asks the server runs in threads of its own."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TypeVar
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.commonconfig import CopySource
from minio.datatypes import PostPolicy
from minio.deleteobjects import DeleteObject
from minio.error import MinioException, S3Error

from cinnabar_common.errors import DependencyUnavailable, Overloaded
from cinnabar_storage.config import StorageConfig
from cinnabar_storage.files.records import FileFacts, Form, StoredObject
from cinnabar_storage.records import Micros

T = TypeVar("T")
DEPENDENCY = "objects"
QUEUE = "storage.objects"
_CHUNK_BYTES = 256 * 1024
_GONE = frozenset({"NoSuchKey", "NoSuchObject"})
_MADE = frozenset({"BucketAlreadyOwnedByYou", "BucketAlreadyExists"})
_FAILURES = (MinioException, urllib3.exceptions.HTTPError, OSError)


class MinioObjects:
    """Implements upload_ports.Objects; made by :func:`minio_objects`."""

    def __init__(self, config: StorageConfig, executor: ThreadPoolExecutor) -> None:
        self._bucket = config.s3_bucket
        self._seconds = config.s3_seconds
        self._executor = executor
        self._room = config.s3_max_pending
        self._endpoint = config.s3_endpoint
        self._public_endpoint = config.s3_public_endpoint or config.s3_endpoint
        self._client = _client(config, config.s3_endpoint)
        self._public = _client(config, self._public_endpoint)

    def form(self, key: str, facts: FileFacts, *, seconds: int, internal: bool) -> Form:
        checksum = base64.b64encode(facts.sha256).decode()
        pinned = {
            "key": key,
            "Content-Type": facts.content_type,
            # A server that knows it refuses other content at once. One that does not
            # is no danger: what was uploaded is read before it is used.
            "x-amz-checksum-algorithm": "SHA256",
            "x-amz-checksum-sha256": checksum,
        }
        policy = PostPolicy(self._bucket, datetime.now(UTC) + timedelta(seconds=seconds))
        for name, value in pinned.items():
            policy.add_equals_condition(name, value)
        policy.add_content_length_range_condition(facts.size_bytes, facts.size_bytes)
        signed = self._client.presigned_post_policy(policy)
        endpoint = self._endpoint if internal else self._public_endpoint
        return Form(f"{endpoint.rstrip('/')}/{self._bucket}", (*pinned.items(), *signed.items()))

    def link(self, key: str, *, seconds: int, internal: bool) -> str:
        client = self._client if internal else self._public
        return client.presigned_get_object(
            self._bucket,
            key,
            expires=timedelta(seconds=seconds),
            # A student's page must not run in the browser as a page of this address.
            response_headers={"response-content-disposition": "attachment"},
        )

    async def prepare(self) -> None:
        def work() -> None:
            if self._client.bucket_exists(self._bucket):
                return
            try:
                self._client.make_bucket(self._bucket)
            except S3Error as error:
                if error.code not in _MADE:  # else another process was faster
                    raise

        await self._run(work)

    async def stat(self, key: str) -> tuple[int, str] | None:
        def work() -> tuple[int, str] | None:
            try:
                found = self._client.stat_object(self._bucket, key)
            except S3Error as error:
                return _absent(error)
            return found.size or 0, found.content_type or ""

        return await self._run(work)

    async def copy(self, source: str, target: str) -> bool:
        def work() -> bool:
            try:
                self._client.copy_object(self._bucket, target, CopySource(self._bucket, source))
            except S3Error as error:
                _absent(error)
                return False
            return True

        return await self._run(work)

    async def facts(self, key: str, *, max_bytes: int) -> FileFacts | None:
        def work() -> FileFacts | None:
            try:
                response = self._client.get_object(self._bucket, key)
            except S3Error as error:
                return _absent(error)
            deadline, digest, size = time.monotonic() + self._seconds, hashlib.sha256(), 0
            try:
                for chunk in response.stream(_CHUNK_BYTES):
                    size += len(chunk)
                    if size > max_bytes:
                        return None
                    if time.monotonic() > deadline:
                        raise TimeoutError
                    digest.update(chunk)
            finally:
                response.close()
                response.release_conn()
            return FileFacts(response.headers.get("content-type", ""), size, digest.digest())

        return await self._run(work)

    async def delete(self, keys: Sequence[str]) -> None:
        def work() -> None:
            failed = list(self._client.remove_objects(self._bucket, [DeleteObject(key) for key in keys]))
            if failed:
                raise OSError(f"{len(failed)} objects not deleted: {failed[0].code}")

        if keys:
            await self._run(work)

    async def listed(self, prefix: str, after: str, limit: int) -> list[StoredObject]:
        def work() -> list[StoredObject]:
            listing = self._client.list_objects(
                self._bucket, prefix=prefix, recursive=True, start_after=after or None
            )
            return [
                StoredObject(one.object_name, Micros(int(one.last_modified.timestamp() * 1_000_000)))
                for one in islice(listing, limit)
                if one.object_name and one.last_modified
            ]

        return await self._run(work)

    async def _run(self, work: Callable[[], T]) -> T:
        """``work`` in a thread. Each step of it has a time limit, and all of it for those who wait."""
        if self._room == 0:
            raise Overloaded(QUEUE)
        loop = asyncio.get_running_loop()
        self._room -= 1
        done = self._executor.submit(work)
        done.add_done_callback(lambda _: loop.call_soon_threadsafe(self._free))
        try:
            async with asyncio.timeout(self._seconds):
                return await asyncio.wrap_future(done)
        except _FAILURES as error:
            raise DependencyUnavailable(DEPENDENCY) from error

    def _free(self) -> None:
        self._room += 1


def _absent(error: S3Error) -> None:
    """None for an object that is not there; raises the error for anything else."""
    if error.code not in _GONE:
        raise error


def _client(config: StorageConfig, endpoint: str) -> Minio:
    parts = urlsplit(endpoint)
    # A region that is said is not asked for: signing stays a computation.
    return Minio(
        parts.netloc,
        access_key=config.s3_access_key,
        secret_key=config.s3_secret_key,
        region=config.s3_region,
        secure=parts.scheme == "https",
        http_client=urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=config.s3_connect_seconds, read=config.s3_seconds),
            maxsize=config.s3_threads,
            retries=urllib3.Retry(total=1, backoff_factor=0.05, status=0),
        ),
    )


@asynccontextmanager
async def minio_objects(config: StorageConfig) -> AsyncGenerator[MinioObjects | None]:
    """The store of objects of the config, if it names one, for the length of the block."""
    if not config.s3_endpoint:
        yield None
        return
    # It warns of each attempt that failed; what becomes of them all is told to the caller, and by health.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    executor = ThreadPoolExecutor(config.s3_threads, thread_name_prefix="objects")
    try:
        yield MinioObjects(config, executor)
    finally:
        # Threads that hang end by their time limits; nobody waits for them.
        executor.shutdown(wait=False, cancel_futures=True)
