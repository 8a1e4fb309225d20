"""Times on the command line: a moment, or how long from now."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import click

_FROM_NOW = re.compile(r"\+?(\d+(?:\.\d+)?)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_LONGEST_SECONDS = 1000 * _SECONDS["d"]


class Moment(click.ParamType[dt.datetime]):
    """``2026-05-31T18:00:00+02:00``, or ``90s``, ``15m``, ``2h``, ``1d`` from now on."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dt.datetime:
        """The moment, which knows its time zone."""
        text = str(value).strip()
        if found := _FROM_NOW.fullmatch(text):
            seconds = float(found[1]) * _SECONDS[found[2]]
            if seconds > _LONGEST_SECONDS:
                self.fail("must be at most 1,000 days from now", param, ctx)
            return dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)
        try:
            moment = dt.datetime.fromisoformat(text)
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            self.fail(f"{text!r} is not a time such as 2026-05-31T18:00:00+02:00, 90s or 2h", param, ctx)
        return moment


MOMENT = Moment()
