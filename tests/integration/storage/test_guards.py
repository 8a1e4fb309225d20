"""What guards every table whose rows move."""

from cinnabar_local import sql
from cinnabar_storage.adapters.sql.tables import metadata
from tests.support.servers import ShardUrls

_GUARDS = """
SELECT c.relname, t.tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
WHERE NOT t.tgisinternal AND t.tgenabled = 'O' AND t.tgname LIKE 'guard_%'
"""


async def test_every_table_whose_rows_move_is_guarded(migrated_shards: list[ShardUrls]) -> None:
    wanted = {
        (table.name, f"guard_{table.name}_{event}")
        for table in metadata.sorted_tables
        if "moves_by" in table.info
        for event in ("insert", "update", "delete")
    }
    assert wanted
    for shard in migrated_shards:
        async with sql.connected(shard.primary_url) as connection:
            assert {(str(row[0]), str(row[1])) for row in await connection.fetch(_GUARDS)} == wanted
