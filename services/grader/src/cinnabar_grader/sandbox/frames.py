"""What grader and keeper say to each other: a JSON head and byte strings behind it.

On the wire: the head's length (4 bytes, big endian), the head, the byte strings whose lengths the head
lists under "blobs".
"""

from __future__ import annotations

import json
import struct
from asyncio import StreamReader
from collections.abc import Sequence
from typing import Any, TypeAlias

Head: TypeAlias = "dict[str, Any]"
_LENGTH = struct.Struct(">I")
_HEAD_LIMIT = 64 << 20


def encoded(head: Head, blobs: Sequence[bytes] = ()) -> bytes:
    """One frame."""
    text = json.dumps({**head, "blobs": [len(blob) for blob in blobs]}).encode()
    return b"".join((_LENGTH.pack(len(text)), text, *blobs))


async def read(reader: StreamReader) -> tuple[Head, list[bytes]]:
    """The next frame. IncompleteReadError at the end of the stream."""
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    if length > _HEAD_LIMIT:
        raise ValueError("a frame's head is too long")
    head: Head = json.loads(await reader.readexactly(length))
    return head, [await reader.readexactly(size) for size in head["blobs"]]
