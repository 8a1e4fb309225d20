"""``python -m cinnabar_storage`` serves; with ``migrate`` it brings the schema of all shards up to date."""

import asyncio
import os
import sys

from cinnabar_common.config import ConfigError, load
from cinnabar_common.logs import configure_logging
from cinnabar_common.server import main
from cinnabar_storage.adapters.sql.migrating import SchemaError
from cinnabar_storage.app import migrate_all, running
from cinnabar_storage.config import StorageConfig
from cinnabar_storage.shards.live_map import NobodyOwnsAnything

if __name__ == "__main__":
    try:
        match sys.argv[1:]:
            case []:
                sys.exit(main(StorageConfig, "STORAGE_", running))
            case ["migrate"]:
                configure_logging()
                asyncio.run(migrate_all(load(StorageConfig, prefix="STORAGE_", env=os.environ)))
            case _:
                sys.exit("usage: python -m cinnabar_storage [migrate]")
    except (ConfigError, NobodyOwnsAnything, SchemaError) as error:
        sys.exit(str(error))
