"""Configuration of the storage service."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from cinnabar_common.metrics import valid_listen


@dataclass(frozen=True, kw_only=True, slots=True)
class StorageConfig:
    """Read once at start; field ``x`` is the variable ``STORAGE_X``."""

    shards: tuple[str, ...]
    """Per shard "primary-url|replica-url|…"; URLs are ``postgresql://user:password@host:port/database``."""
    listen: str = "127.0.0.1:50053"
    pool_size: int = 8
    """Connections to each primary, which is how many statements run there at once."""
    replica_pool_size: int = 4
    """Connections to each replica."""
    pool_wait_seconds: float = 2.0
    """How long a call waits for a free connection before it is refused as overload."""
    connect_seconds: float = 3.0
    statement_seconds: float = 10.0
    replica_statement_seconds: float = 3.0
    """After this a read gives up on its replica and goes to the primary."""
    count_seconds: float = 30.0
    """How long counting the tasks of a shard may take, on a connection that is kept for it."""
    replica_poll_seconds: float = 0.1
    """How often replicas are asked how far they are."""
    replica_max_lag_seconds: float = 5.0
    """A replica that is further behind gets no reads."""
    position_wait_seconds: float = 0.02
    """How long a read waits for a replica to reach its position before it goes to the primary."""
    redis_url: str = ""
    """Of the cache that all storage processes share; without it only revisions are cached, each by itself."""
    redis_timeout_seconds: float = 0.25
    """After this a read goes on without the shared cache, as all reads of the next second do."""
    cache_entries: int = 1000
    """In this process, of what may change: submissions, and which revision of an assignment is current."""
    cache_bytes: int = 64 * 1024 * 1024
    cache_max_age_seconds: float = 1.0
    """How old an answer from the cache can be at worst, whatever is broken, where it may change."""
    cache_ttl_seconds: float = 3600.0
    """How long revisions are cached, here and in Redis. They never change."""
    cache_max_value_bytes: int = 256 * 1024
    """What is larger is not put into Redis."""
    cache_shared_bytes: int = 64 * 1024 * 1024
    """How much this process puts into Redis within each of the ages above, so that the queue has its room."""
    revision_cache_entries: int = 1000
    revision_cache_bytes: int = 64 * 1024 * 1024
    metrics_listen: str = ""
    """Where Prometheus finds /metrics, "host:port"; empty for nowhere."""
    follow_poll_seconds: float = 0.5
    """How often followers of the audit look whether there is something new for them."""
    follow_seconds: float = 30.0
    """How long a step of a follower may take, on a connection that is kept for them."""
    s3_endpoint: str = ""
    """Where files lie, "http://host:port" or "https://host"; without it there are no uploads."""
    s3_public_endpoint: str = ""
    """The same as clients reach it, when that is another address: links and forms for them lead there."""
    s3_region: str = "us-east-1"
    s3_bucket: str = "cinnabar"
    """Made when it is not there."""
    s3_access_key: str = ""
    s3_secret_key: str = ""
    s3_connect_seconds: float = 1.0
    s3_seconds: float = 4.0
    """How long one request may take, reading an object included: less than callers wait for storage."""
    s3_threads: int = 8
    """Requests at once."""
    s3_max_pending: int = 256
    """Requests that wait or run; more are refused as overload."""
    upload_seconds: int = 900
    """How long a form takes a file, and how long the file then waits for its submission, together."""
    link_seconds: int = 300
    """How long a link can be read."""
    collect_seconds: float = 60.0
    """How often expired uploads are looked for."""
    regrade_claim_seconds: float = 5.0
    """A regrade that no gateway has advanced for so long is given to the next that asks."""
    map_poll_seconds: float = 1.0
    """How often the shards are asked what they own; also done at once when one of them disagrees."""
    move_poll_seconds: float = 1.0
    """How often moves of buckets are looked for, and whether the process that makes them still lives."""
    move_clean_seconds: float = 3.0
    """How long the rows of a bucket stay where it was before."""
    fence_wait_seconds: float = 3.0
    """How long a call waits for a bucket that is about to change shards."""
    subject_key: str = field(default="", repr=False)
    """Secret of at least 32 characters under which proofs of erasures name their subjects; keep it.

    Without it no student can be erased.
    """
    retention_file: str = ""
    """TOML file that says how long submissions are kept; without it for ever."""
    retention_seconds: float = 3600.0
    """How long after a round over all submissions the next begins."""
    start_wait_seconds: float = 10.0
    """How long the start waits for the schema, and ``migrate`` for Postgres to accept connections."""

    def __post_init__(self) -> None:
        if not self.shards:
            raise ValueError("STORAGE_SHARDS names no shard")
        if bad := [
            str(index)
            for index, shard in enumerate(self.shards)
            if not all(url.startswith(("postgresql://", "postgres://")) for url in shard.split("|"))
        ]:
            raise ValueError(f"STORAGE_SHARDS: shard {', '.join(bad)} is not postgresql://…|postgresql://…")
        self._check_s3()
        if self.subject_key and len(self.subject_key) < 32:
            raise ValueError("STORAGE_SUBJECT_KEY must have at least 32 characters")
        if not valid_listen(self.metrics_listen):
            raise ValueError("STORAGE_METRICS_LISTEN must be host:port")
        for name in ("pool_size", "replica_pool_size", "revision_cache_entries", "cache_entries"):
            if getattr(self, name) < 1:
                raise ValueError(f"STORAGE_{name.upper()} must be at least 1")
        for name in (
            *("pool_wait", "connect", "statement", "replica_statement"),
            *(
                "count",
                "replica_poll",
                "follow_poll",
                "follow",
                "start_wait",
                "map_poll",
                "fence_wait",
                "move_poll",
                "move_clean",
                "regrade_claim",
            ),
            *("redis_timeout", "cache_max_age", "cache_ttl"),
        ):
            if getattr(self, f"{name}_seconds") <= 0:
                raise ValueError(f"STORAGE_{name.upper()}_SECONDS must be above 0")

    def _check_s3(self) -> None:
        for name in ("s3_endpoint", "s3_public_endpoint"):
            endpoint: str = getattr(self, name)
            parts = urlsplit(endpoint)
            if endpoint and (
                parts.scheme not in ("http", "https") or not parts.netloc or parts.path not in ("", "/")
            ):
                raise ValueError(f"STORAGE_{name.upper()} must be http://host:port or https://host:port")
        for name in ("s3_access_key", "s3_secret_key", "s3_bucket", "s3_region"):
            if self.s3_endpoint and not getattr(self, name):
                raise ValueError(f"STORAGE_{name.upper()} is required with STORAGE_S3_ENDPOINT")
        for name in ("s3_connect_seconds", "s3_seconds", "collect_seconds", "s3_threads", "s3_max_pending"):
            if getattr(self, name) <= 0:
                raise ValueError(f"STORAGE_{name.upper()} must be above 0")
        for name in ("upload_seconds", "link_seconds"):
            if not 1 <= getattr(self, name) <= 604_800:  # a week is what signatures can last
                raise ValueError(f"STORAGE_{name.upper()} must be 1 to 604800")

    def urls(self) -> list[tuple[str, ...]]:
        """Per shard the primary's URL and those of its replicas."""
        return [tuple(shard.split("|")) for shard in self.shards]
