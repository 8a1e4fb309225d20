"""What the domain needs to keep files: their rows on a shard, and the store of objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from cinnabar_storage.files.records import FileFacts, Form, StoredObject, Upload
from cinnabar_storage.records import Lsn, Micros


class UploadRows(Protocol):
    """The uploads of one shard; part of `ports.Shard`, with the same errors. Reads go to the primary.

    A submission that refers to uploads attaches them when it is created: see
    `ports.Shard.create_submissions`.
    """

    async def create_upload(self, upload: Upload) -> tuple[Upload | None, Lsn]:
        """Stores an upload; a repetition changes nothing.

        An artifact gets course, assignment and author of its submission; None
        when the tenant has no such submission here.
        """
        ...

    async def uploads(self, tenant: str, upload_ids: Sequence[str]) -> list[Upload]:
        """Those that are here, in any order."""
        ...

    async def uploads_of(self, tenant: str, author: str, limit: int) -> list[Upload]:
        """Up to ``limit`` uploads of an author, artifacts included."""
        ...

    async def verify_uploads(self, tenant: str, keys: Mapping[str, str]) -> set[str]:
        """Makes PENDING uploads VERIFIED, with the key under which each lies now.

        Returns the ids of those that are VERIFIED under the key given: of several
        who verify one upload at once, one wins.
        """
        ...

    async def doom_uploads(self, before: Micros, until: Micros, limit: int) -> list[Upload]:
        """Dooms up to ``limit`` uploads of all tenants that expired ``before`` and that nothing refers to.

        They come again after ``until``, when they have not been dropped by then;
        no two callers get the same ones.
        """
        ...

    async def drop_uploads(self, uploads: Sequence[Upload]) -> None:
        """Forgets them."""
        ...

    async def known_objects(self, keys: Sequence[tuple[str, str, str]]) -> set[str]:
        """Of (tenant, upload id, object key) those keys under which the upload lies."""
        ...


class Objects(Protocol):
    """The store of objects, of which one bucket is ours.

    What is awaited may raise DependencyUnavailable("objects") and
    Overloaded("storage.objects"), and ends within a bound of time.
    """

    def form(self, key: str, facts: FileFacts, *, seconds: int, internal: bool) -> Form:
        """A form that puts exactly this file under this key, for so long. Asks nobody.

        ``internal``: for senders beside this service rather than outside of it.
        """
        ...

    def link(self, key: str, *, seconds: int, internal: bool) -> str:
        """A link to read the object, for so long. Asks nobody.

        ``internal``: for readers beside this service rather than outside of it.
        """
        ...

    async def prepare(self) -> None:
        """Returns when the bucket is there, and makes it when it is not."""
        ...

    async def stat(self, key: str) -> tuple[int, str] | None:
        """Size and media type; None when there is no such object."""
        ...

    async def copy(self, source: str, target: str) -> bool:
        """Copies an object, media type included; False when there is none."""
        ...

    async def facts(self, key: str, *, max_bytes: int) -> FileFacts | None:
        """What an object is, by reading it; None when there is none, or it is larger than ``max_bytes``."""
        ...

    async def delete(self, keys: Sequence[str]) -> None:
        """Deletes objects; those that are not there are deleted already."""
        ...

    async def listed(self, prefix: str, after: str, limit: int) -> list[StoredObject]:
        """Up to ``limit`` objects whose keys begin with ``prefix``, ascending, after the key ``after``."""
        ...
