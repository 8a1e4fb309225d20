"""Fixtures of the storage service on real servers."""

from tests.support.storage_service import storage, storage_shards

__all__ = ["storage", "storage_shards"]
