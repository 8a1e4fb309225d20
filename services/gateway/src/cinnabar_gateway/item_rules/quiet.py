"""Parsing what others wrote without hearing the warnings that are meant for them."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Generator
from contextlib import contextmanager

# Filters of warnings belong to the whole process: two threads that change them and put them back at once
# would leave them changed.
_ONE_AT_A_TIME = threading.Lock()


@contextmanager
def quiet() -> Generator[None]:
    """Without warnings; one thread at a time, for as long as a parser runs."""
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
