"""What a scrape says of replicas."""

from __future__ import annotations

from cinnabar_common.metrics import exposition, families
from cinnabar_storage.adapters.memory.stores import MemoryShard
from cinnabar_storage.metrics import replica_samples
from cinnabar_storage.records import ReplicaState


class Replicated(MemoryShard):
    """A shard with a replica that is behind, and one that does not answer."""

    def replicas(self) -> list[ReplicaState]:
        return [ReplicaState(True, 512, 1.5), ReplicaState(False, None, None)]


def test_each_replica_tells_its_lag_while_it_answers() -> None:
    lines = exposition(families(replica_samples([MemoryShard(), Replicated()]))).decode().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        'cinnabar_replica_in_rotation{replica="0",shard="1"} 1.0',
        'cinnabar_replica_in_rotation{replica="1",shard="1"} 0.0',
        'cinnabar_replica_lag_bytes{replica="0",shard="1"} 512.0',
        'cinnabar_replica_lag_seconds{replica="0",shard="1"} 1.5',
    ]
