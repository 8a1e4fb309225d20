"""Passwords and keys of one data folder: made once, kept in a file that only its owner reads."""

import json
import os
import secrets
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path


def _secret() -> str:
    return secrets.token_urlsafe(24)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Random until somebody stores them. All are safe inside a URL."""

    postgres_superuser: str = field(default_factory=_secret, repr=False)
    postgres_cinnabar: str = field(default_factory=_secret, repr=False)
    postgres_replicator: str = field(default_factory=_secret, repr=False)
    redis: str = field(default_factory=_secret, repr=False)
    s3_access_key: str = field(default_factory=lambda: secrets.token_hex(10), repr=False)
    s3_secret_key: str = field(default_factory=_secret, repr=False)
    gateway_token_key: str = field(default_factory=_secret, repr=False)
    storage_subject_key: str = field(default_factory=_secret, repr=False)


def credentials_in(folder: Path) -> Credentials:
    """Those of ``folder``; what is not there yet is made. Raises ValueError when the file is damaged."""
    file = folder / "credentials.json"
    if file.exists():
        try:
            kept = json.loads(file.read_text("utf-8"))
            credentials = Credentials(**kept)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{file} is damaged; delete the data folder to start anew") from error
        if len(kept) == len(fields(Credentials)):
            return credentials
    else:
        credentials = Credentials()
    write_private(file, json.dumps(asdict(credentials), indent=2) + "\n")
    return credentials


def write_private(file: Path, text: str) -> None:
    """Write ``text`` to ``file`` with mode 0600, replacing what was there."""
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    with os.fdopen(
        os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
    ) as out:
        out.write(text)
    partial.replace(file)
