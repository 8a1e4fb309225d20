"""Files over presigned forms and links, past every service. Synchronous: for a thread of its own.

A form or a link is a credential: neither is ever logged, nor part of an error.
"""

from __future__ import annotations

import hashlib
import http.client
import secrets
import time
from collections.abc import Iterable
from contextlib import closing
from urllib.parse import urlsplit

_CHUNK_BYTES = 256 * 1024
_SUCCESS = range(200, 300)


class TransferFailed(ConnectionError):
    """The store of objects did not take or give the file.

    ``status`` is what it answered, 0 when it could not be reached or broke off.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


def send(url: str, fields: Iterable[tuple[str, str]], content: bytes, *, seconds: float) -> None:
    """Sends ``content`` with a form: its fields in order, then the file. Raises TransferFailed.

    ``seconds`` bounds each step on the network, not the whole.
    """
    boundary = secrets.token_hex(16)
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields
    ]
    content_type = dict(fields).get("Content-Type", "application/octet-stream")
    parts.append(
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="file"\r\n'
        f"Content-Type: {content_type}\r\n\r\n".encode()
    )
    parts += [content, f"\r\n--{boundary}--\r\n".encode()]
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    with closing(_connection(url, seconds)) as connection:
        try:
            connection.request("POST", _target(url), body=b"".join(parts), headers=headers)
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            raise TransferFailed(f"the file was not taken: {type(error).__name__}") from None
    if status not in _SUCCESS:
        raise TransferFailed(f"the file was not taken: HTTP {status}", status)


def fetch(url: str, *, size_bytes: int, sha256: bytes, seconds: float) -> bytes:
    """The file behind a link, which is ``size_bytes`` long and has this checksum.

    Takes at most about ``seconds``. Raises TransferFailed, also when it is another file.
    """
    deadline = time.monotonic() + seconds
    chunks: list[bytes] = []
    size = 0
    with closing(_connection(url, seconds)) as connection:
        try:
            connection.request("GET", _target(url))
            response = connection.getresponse()
            if response.status != http.client.OK:
                raise TransferFailed(f"the file was not given: HTTP {response.status}", response.status)
            while size <= size_bytes and (chunk := response.read(_CHUNK_BYTES)):
                chunks.append(chunk)
                size += len(chunk)
                if time.monotonic() > deadline:
                    raise TransferFailed("the file was not given in time")
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, TransferFailed):
                raise
            raise TransferFailed(f"the file was not given: {type(error).__name__}") from None
    content = b"".join(chunks)
    if size != size_bytes or hashlib.sha256(content).digest() != sha256:
        raise TransferFailed("the file is not the one that was announced")
    return content


def _connection(url: str, seconds: float) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise TransferFailed("no address of a store of objects")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(parts.hostname, parts.port, timeout=seconds)


def _target(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
