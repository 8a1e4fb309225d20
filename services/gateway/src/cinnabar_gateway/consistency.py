"""Positions in the logs of the shards, and the signed token in which callers carry them.

A token is base64url, without padding, of

    version (1 byte, 1) | MAC (16 bytes) | per shard: index (2 bytes), position (8), epoch (8); big-endian

where the MAC is HMAC-SHA256 (RFC 2104), cut to 16 bytes, over a label with the version, the tenant and the
positions. So nobody makes up a position, and a token is of no use to another tenant.
"""

from __future__ import annotations

import binascii
import hmac
import struct
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import NamedTuple

from cinnabar_common.errors import ConsistencyTokenInvalid, FieldViolation, InvalidRequest

TOKEN_KEY = "cinnabar-consistency-token"
MAX_TOKENS = 160
"""Tokens that one call may carry."""
MIN_KEY_CHARACTERS = 32
_MAX_TOKEN_CHARACTERS = 8192
_VERSION = b"\x01"
_LABEL = b"cinnabar consistency token\x001\x00"
_MAC_BYTES = 16
_HEAD_BYTES = len(_VERSION) + _MAC_BYTES
_POSITION = struct.Struct(">HQQ")
_TO_URL = bytes.maketrans(b"+/", b"-_")
_FROM_URL = bytes.maketrans(b"-_+/", b"+/--")  # the letters of the other alphabet are no letters here


class Position(NamedTuple):
    """``lsn`` bytes into the write-ahead log of ``shard``; ``epoch`` of the bucket map, 0 when not known."""

    shard: int
    lsn: int
    epoch: int = 0


Positions = tuple[Position, ...]


def merged(*groups: Iterable[Position]) -> Positions:
    """The furthest position and the highest epoch of each shard, by shard."""
    furthest: dict[int, Position] = {}
    for group in groups:
        for position in group:
            known = furthest.get(position.shard)
            if known is None or known == position:
                furthest[position.shard] = position
            else:
                furthest[position.shard] = Position(
                    position.shard, max(position.lsn, known.lsn), max(position.epoch, known.epoch)
                )
    return tuple(furthest[shard] for shard in sorted(furthest))


def covers(reached: Iterable[Position], wanted: Iterable[Position]) -> bool:
    """Whether a read at ``reached`` shows everything that ``wanted`` asks for."""
    furthest = {position.shard: position.lsn for position in reached}
    return all(furthest.get(position.shard, -1) >= position.lsn for position in wanted)


class TokenKeys:
    """The secrets of all gateways: the first signs, every one of them verifies."""

    def __init__(self, keys: Sequence[str]) -> None:
        """ValueError when there is none, or one has less than 32 characters."""
        if not keys or min(map(len, keys)) < MIN_KEY_CHARACTERS:
            raise ValueError(f"must be keys of at least {MIN_KEY_CHARACTERS} characters")
        self._keys = tuple(key.encode() for key in keys)

    def encode(self, tenant: str, positions: Positions) -> str:
        """The positions as one opaque word that is good for ``tenant``; "" for none."""
        if not positions:
            return ""
        payload = b"".join([_POSITION.pack(*position) for position in positions])
        raw = _VERSION + self._mac(self._keys[0], tenant, payload) + payload
        return binascii.b2a_base64(raw, newline=False).translate(_TO_URL).rstrip(b"=").decode()

    def decode(self, tenant: str, tokens: Sequence[str]) -> Positions:
        """What the tokens ask for together.

        ConsistencyTokenInvalid for anything that ``encode`` did not make for this tenant under one of the
        keys; InvalidRequest for too many.
        """
        if len(tokens) > MAX_TOKENS:
            raise InvalidRequest([FieldViolation(TOKEN_KEY, f"must be there at most {MAX_TOKENS} times")])
        if len(tokens) == 1:
            return self._decode(tenant, tokens[0])  # in order already: it was made of merged positions
        return merged(*(self._decode(tenant, token) for token in tokens))

    def _decode(self, tenant: str, token: str) -> Positions:
        raw = b""
        if len(token) <= _MAX_TOKEN_CHARACTERS:
            try:
                padded = token.encode("ascii").translate(_FROM_URL) + b"=" * (-len(token) % 4)
                raw = binascii.a2b_base64(padded, strict_mode=True)
            except ValueError:  # not base64, or not even ASCII
                raw = b""
        mac, payload = raw[len(_VERSION) : _HEAD_BYTES], raw[_HEAD_BYTES:]
        if (
            raw[: len(_VERSION)] != _VERSION
            or not payload
            or len(payload) % _POSITION.size
            or not any(hmac.compare_digest(mac, self._mac(key, tenant, payload)) for key in self._keys)
        ):
            raise ConsistencyTokenInvalid(TOKEN_KEY)
        return tuple([Position(*fields) for fields in _POSITION.iter_unpack(payload)])

    @staticmethod
    def _mac(key: bytes, tenant: str, payload: bytes) -> bytes:
        # No tenant has a zero byte, so it is clear where the positions begin.
        return hmac.digest(key, b"%b%b\0%b" % (_LABEL, tenant.encode(), payload), "sha256")[:_MAC_BYTES]


def split(values: Iterable[str]) -> list[str]:
    """The tokens in the values of a header, which may hold several with commas between (RFC 9110, 5.3)."""
    return [token for value in values for part in value.split(",") if (token := part.strip())]


@dataclass(slots=True)
class Carried:
    """What the call that is being served carries, and what it may give back."""

    keys: TokenKeys
    tenant: str
    positions: Positions
    tokens: int
    answered: bool = False

    def token(self, positions: Positions) -> str:
        """A token for these positions and all that the call came with."""
        return self.keys.encode(self.tenant, merged(self.positions, positions))


_current: ContextVar[Carried] = ContextVar("consistency")


def current() -> Carried:
    """That of the call that is being served. LookupError outside of one."""
    return _current.get()


def enter(carried: Carried) -> None:
    """Makes ``carried`` that of the current task, which serves one call."""
    _current.set(carried)
