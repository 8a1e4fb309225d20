"""Positions in the logs of the shards, and the token in which callers carry them."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass

from cinnabar_common.errors import FieldViolation, InvalidRequest

TOKEN_KEY = "cinnabar-consistency-token"
_MAX_TOKEN_CHARACTERS = 8192
_POSITION = re.compile(r"(\d{1,5}):(\d{1,19})", re.ASCII)
_MAX_LSN = 2**63 - 1


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """``lsn`` bytes into the write-ahead log of ``shard``."""

    shard: int
    lsn: int


Positions = tuple[Position, ...]


def merged(*groups: Iterable[Position]) -> Positions:
    """The furthest position of each shard, by shard."""
    furthest: dict[int, int] = {}
    for group in groups:
        for position in group:
            if position.lsn > furthest.get(position.shard, -1):
                furthest[position.shard] = position.lsn
    return tuple(Position(shard, lsn) for shard, lsn in sorted(furthest.items()))


def covers(reached: Iterable[Position], wanted: Iterable[Position]) -> bool:
    """Whether a read at ``reached`` shows everything that ``wanted`` asks for."""
    furthest = {position.shard: position.lsn for position in reached}
    return all(furthest.get(position.shard, -1) >= position.lsn for position in wanted)


def encode_token(positions: Positions) -> str:
    """The positions as one opaque word; "" for none."""
    if not positions:
        return ""
    text = ",".join(f"{position.shard}:{position.lsn}" for position in positions)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_token(token: str) -> Positions:
    """The positions of a token; none for "".

    Raises InvalidRequest, with the metadata key as the field, for anything that
    ``encode_token`` does not make.
    """
    if not token:
        return ()
    if len(token) <= _MAX_TOKEN_CHARACTERS:
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True).decode()
        except (binascii.Error, ValueError):
            raw = ""
        matches = [_POSITION.fullmatch(part) for part in raw.split(",")]
        positions = [Position(int(match[1]), int(match[2])) for match in matches if match]
        if len(positions) == len(matches) and all(position.lsn <= _MAX_LSN for position in positions):
            return merged(positions)
    raise InvalidRequest([FieldViolation(TOKEN_KEY, "was not made by this service")])
