"""The consistency tokens of a client: what it has written, in the service's own opaque words."""

from __future__ import annotations

from collections.abc import Iterable

CONSISTENCY_TOKEN = "cinnabar-consistency-token"
MAX_TOKENS = 150
"""Tokens that are kept. There are never more than calls were under way at once, and a few."""


class Tokens:
    """What every call carries so that it sees what those before it wrote.

    An answer's token stands for all that were sent with its call, so these are dropped for it. Calls that
    run at once each give one; the next call carries them all, and its answer makes one of them again.
    """

    def __init__(self, token: str = "", *, carried: bool = True) -> None:
        """``token`` as ``exported`` by another; nothing is carried or kept unless ``carried``."""
        self._carried = carried
        self._tokens: dict[str, None] = {}
        self.add(token)

    @property
    def exported(self) -> str:
        """All of them as one word; "" for none."""
        return ",".join(self._tokens)

    def add(self, token: str) -> None:
        """Carries this too: a token, or several with commas between."""
        if self._carried:
            self._tokens.update(dict.fromkeys(part for part in token.split(",") if part))
            while len(self._tokens) > MAX_TOKENS:
                del self._tokens[next(iter(self._tokens))]

    def drop(self, tokens: Iterable[str]) -> None:
        """Carries these no more."""
        for token in tokens:
            self._tokens.pop(token, None)

    def sent(self) -> Sent:
        """Those that a call carries that begins now."""
        return Sent(self)


class Sent:
    """The tokens of one call."""

    def __init__(self, tokens: Tokens) -> None:
        self._all = tokens
        self._mine = tuple(filter(None, tokens.exported.split(",")))

    @property
    def value(self) -> str:
        """As the call carries them; "" for none."""
        return ",".join(self._mine)

    def answered(self, token: str) -> None:
        """An answer came with this token, "" for none. A stream gives one after the other."""
        if token:
            self._all.drop(self._mine)
            self._all.add(token)
            self._mine = (token,)

    def refused(self) -> None:
        """The service says that one of them is not its own: without all of them the next call is served."""
        self._all.drop(self._mine)
