"""The tables of a shard. Migrations make them; this is what they add up to.

There are no foreign keys: each would cost the hot path a lookup and a row lock
on the parent for every row. Rows that belong together are written by one
statement, nothing is deleted but the task that its grade replaces, and so there
is nothing that a foreign key would catch.

Ids are ordered by their bytes, on every server alike, because pages of several
shards are merged by id: hence the collation.
"""

from cinnabar_storage.adapters.sql.tables import again, beside, buckets, homework, trail
from cinnabar_storage.adapters.sql.tables.schema import metadata

__all__ = ["again", "beside", "buckets", "homework", "metadata", "trail"]
