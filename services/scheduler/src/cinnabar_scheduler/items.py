"""The items that tasks are graded by, kept in memory because a revision never changes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from cinnabar_scheduler.ports import Store
from cinnabar_scheduler.tasks import Lease

MAX_ITEMS = 10_000


class ItemSource:
    """Least-recently-used cache of serialized items by item key."""

    def __init__(self, store: Store, *, max_items: int = MAX_ITEMS) -> None:
        self._store = store
        self._max_items = max_items
        self._items: OrderedDict[str, bytes] = OrderedDict()

    def known(self, leases: Sequence[Lease]) -> dict[str, bytes]:
        """The items of leases by key, as far as they are in memory."""
        return {key: self._items[key] for key in {lease.item_key for lease in leases} if key in self._items}

    async def of(self, leases: Sequence[Lease]) -> dict[str, bytes]:
        """The items of leases by key; those that do not exist are left out.

        Raises StoreUnavailable.
        """
        found: dict[str, bytes] = {}
        absent: dict[str, tuple[str, str]] = {}
        for lease in leases:
            key = lease.item_key
            if key in found or key in absent:
                continue
            item = self._items.get(key)
            if item is None:
                absent[key] = (lease.tenant, lease.revision)
            else:
                self._items.move_to_end(key)
                found[key] = item
        if absent:
            loaded = await self._store.items(sorted(set(absent.values())))
            self._items |= loaded
            found |= {key: loaded[key] for key in absent if key in loaded}
            while len(self._items) > self._max_items:
                self._items.popitem(last=False)
        return found
