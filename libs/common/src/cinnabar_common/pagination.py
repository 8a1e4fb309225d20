"""Opaque page tokens (AIP-158): where to go on, bound to the other parameters."""

from __future__ import annotations

import base64
import binascii
from hashlib import blake2b

from cinnabar_common.errors import FieldViolation, InvalidRequest, PageTokenInvalid

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000
_DIGEST_BYTES = 8


def page_size(requested: int) -> int:
    """0 means 50; more than 1,000 means 1,000. InvalidRequest when negative."""
    if requested < 0:
        raise InvalidRequest([FieldViolation("page_size", "must not be negative")])
    return min(requested, MAX_PAGE_SIZE) or DEFAULT_PAGE_SIZE


def encode_token(cursor: str, *parameters: str) -> str:
    """A token that goes on after ``cursor`` of the list with these parameters."""
    raw = _digest(parameters) + cursor.encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def decode_token(token: str, *parameters: str) -> str:
    """The cursor of a token; "" for the empty token.

    The token carries no authority: the cursor is only ever used inside of a
    query that filters by tenant. Raises PageTokenInvalid when it is malformed
    or was made with other parameters.
    """
    if not token:
        return ""
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        cursor = raw[_DIGEST_BYTES:].decode()
    except (binascii.Error, ValueError) as error:
        raise PageTokenInvalid from error
    if raw[:_DIGEST_BYTES] != _digest(parameters) or not cursor or not cursor.isprintable():
        raise PageTokenInvalid
    return cursor


def _digest(parameters: tuple[str, ...]) -> bytes:
    return blake2b("\0".join(parameters).encode(), digest_size=_DIGEST_BYTES).digest()
