"""What the environment must say."""

from __future__ import annotations

import pytest

from cinnabar_common.config import ConfigError, load
from cinnabar_storage.config import StorageConfig


def problems(**env: str) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        load(StorageConfig, prefix="STORAGE_", env=env)
    return refused.value.problems


def test_shards_and_their_replicas_come_from_one_variable() -> None:
    config = load(
        StorageConfig,
        prefix="STORAGE_",
        env={"STORAGE_SHARDS": "postgresql://a/x|postgresql://b/x,postgresql://c/x"},
    )
    assert config.urls() == [("postgresql://a/x", "postgresql://b/x"), ("postgresql://c/x",)]


def test_shards_are_needed() -> None:
    assert problems() == ["STORAGE_SHARDS is required"]
    assert problems(STORAGE_SHARDS="") == ["STORAGE_SHARDS names no shard"]


def test_urls_are_checked_without_being_shown() -> None:
    [problem] = problems(STORAGE_SHARDS="postgresql://a/x,mysql://user:secret@b/x,postgresql://c/x|")
    assert problem == "STORAGE_SHARDS: shard 1, 2 is not postgresql://…|postgresql://…"


@pytest.mark.parametrize(
    "name",
    [
        *("POOL_SIZE", "REVISION_CACHE_ENTRIES", "STATEMENT_SECONDS"),
        *("CACHE_ENTRIES", "CACHE_MAX_AGE_SECONDS", "CACHE_TTL_SECONDS", "REDIS_TIMEOUT_SECONDS"),
    ],
)
def test_bounds_cannot_be_switched_off(name: str) -> None:
    assert "must be" in problems(**{"STORAGE_SHARDS": "postgresql://a/x", f"STORAGE_{name}": "0"})[0]


def test_metrics_need_an_address() -> None:
    [problem] = problems(STORAGE_SHARDS="postgresql://a/x", STORAGE_METRICS_LISTEN="9464")
    assert problem == "STORAGE_METRICS_LISTEN must be host:port"


def test_a_misspelled_setting_is_noticed() -> None:
    assert problems(STORAGE_SHARDS="postgresql://a/x", STORAGE_POOLSIZE="3") == [
        "STORAGE_POOLSIZE is not a setting"
    ]


def test_s3_is_one_address_with_a_key_or_nothing() -> None:
    shards = {"STORAGE_SHARDS": "postgresql://a/x"}
    assert "http://host:port" in problems(**shards, STORAGE_S3_ENDPOINT="minio:9000")[0]
    assert "http://host:port" in problems(**shards, STORAGE_S3_PUBLIC_ENDPOINT="http://minio/bucket")[0]
    [problem] = problems(**shards, STORAGE_S3_ENDPOINT="http://minio:9000", STORAGE_S3_ACCESS_KEY="k")
    assert problem == "STORAGE_S3_SECRET_KEY is required with STORAGE_S3_ENDPOINT"
    assert "604800" in problems(**shards, STORAGE_UPLOAD_SECONDS="604801")[0]
    assert "above 0" in problems(**shards, STORAGE_S3_THREADS="0")[0]
