"""The condition of statements that list rows by anything but ids: that they are of buckets asked for."""

from __future__ import annotations

from cinnabar_storage.shards.bucket_map import BucketSet


def held(column: str, count: str, mask: str) -> str:
    """The condition that a row is of a bucket that is asked for, as SQL.

    ``column`` has its id, ``count`` and ``mask`` are the parameters for the
    number of buckets that are asked for and for `BucketSet.mask`. A shard may
    have rows of buckets that are arriving or leaving; when it has none, the rows
    are not looked at one by one: all of what is asked for is owned (see
    `Server.require`), so equal numbers are equal sets.
    """
    asked = f"get_bit({mask}::bytea, bucket_of_id({column})) <> 0"
    return f"((SELECT count(*) FROM buckets) = {count} OR {asked})"


def held_args(buckets: BucketSet) -> tuple[int, bytes]:
    """The arguments for the parameters of `held`."""
    return len(buckets), buckets.mask
