"""How long submissions are kept, and erasing those that were kept long enough.

The policy is a file, read again before every round::

    default_days = 1825          # left out: for ever

    [tenants.acme]
    days = 730                   # 0: for ever
    [tenants.acme.courses.net-101]
    days = 365

What is erased is erased as for a student, with a proof for each tenant and round.
"""

from __future__ import annotations

import asyncio
import logging
import tomllib
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from cinnabar_common.clock import Clock
from cinnabar_common.errors import SuiteError
from cinnabar_common.names import Bucket, id_bucket, id_floor, new_id
from cinnabar_storage.privacy.erasures import Erasures
from cinnabar_storage.privacy.records import Erasure, NewErasure, OldSubmission
from cinnabar_storage.shards.sharding import Shards

log = logging.getLogger(__name__)

BATCH = 200
"""Submissions that are looked at, and erased, in one step."""
REST = 4
"""After each step it rests so many times as long as the step took."""
ACTOR = "retention"
_DAY_MS = 24 * 3600 * 1000

Leadership = Callable[[], AbstractAsyncContextManager[bool]]
"""Entered, says whether this process alone does this for the length of the block."""


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """Days that submissions are kept; 0 is for ever. The closest rule counts: course, tenant, default."""

    default_days: int = 0
    tenants: Mapping[str, int] = field(default_factory=dict[str, int])
    courses: Mapping[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])

    def days(self, tenant: str, course: str) -> int:
        """For a course of a tenant."""
        of_tenant = self.tenants.get(tenant, self.default_days)
        return self.courses.get((tenant, course), of_tenant)

    def shortest(self) -> int:
        """The fewest days of any rule; 0 when everything is kept for ever."""
        rules = [self.default_days, *self.tenants.values(), *self.courses.values()]
        return min((days for days in rules if days), default=0)


def parse_policy(text: str) -> RetentionPolicy:
    """Raises ValueError, which names what is wrong."""
    try:
        document: dict[str, object] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"not TOML: {error}") from None
    tenants: dict[str, int] = {}
    courses: dict[tuple[str, str], int] = {}
    _only(document, {"default_days", "tenants"}, "")
    for tenant, rules in _tables(document, "tenants", ""):
        at = f"tenants.{tenant}."
        _only(rules, {"days", "courses"}, at)
        if "days" in rules:
            tenants[tenant] = _days(rules, "days", at)
        for course, inner in _tables(rules, "courses", at):
            _only(inner, {"days"}, f"{at}courses.{course}.")
            courses[tenant, course] = _days(inner, "days", f"{at}courses.{course}.")
    default = _days(document, "default_days", "") if "default_days" in document else 0
    return RetentionPolicy(default, tenants, courses)


def _only(table: Mapping[str, object], known: set[str], at: str) -> None:
    if unknown := table.keys() - known:
        raise ValueError(f"{at}{min(unknown)} is not a setting")


def _tables(table: Mapping[str, object], name: str, at: str) -> list[tuple[str, dict[str, object]]]:
    inner = table.get(name, {})
    if not isinstance(inner, dict):
        raise ValueError(f"{at}{name} must be a table")
    found = cast("dict[str, object]", inner)
    for key, value in found.items():
        if not isinstance(value, dict):
            raise ValueError(f"{at}{name}.{key} must be a table")
    return [(key, cast("dict[str, object]", value)) for key, value in found.items()]


def _days(table: Mapping[str, object], name: str, at: str) -> int:
    value = table.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 36_500:
        raise ValueError(f"{at}{name} must be a whole number of days, 0 to 36500")
    return value


class Retention:
    """Erases what was kept long enough, round after round, in one process at a time."""

    def __init__(
        self,
        shards: Shards,
        erasures: Erasures,
        clock: Clock,
        *,
        file: Path,
        leadership: Leadership,
        seconds: float,
        mint: Callable[[Bucket], str] = new_id,
    ) -> None:
        self._shards = shards
        self._erasures = erasures
        self._clock = clock
        self._file = file
        self._leadership = leadership
        self._seconds = seconds
        self._mint = mint

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Retention]:
        """Erases inside of the block."""
        async with asyncio.TaskGroup() as group:
            loop = group.create_task(self._loop(), name="retention")
            try:
                yield self
            finally:
                loop.cancel()

    async def _loop(self) -> None:
        while True:
            try:
                async with self._leadership() as leads:
                    if leads:
                        await self.run_once()
            except SuiteError as error:
                log.info("retention is interrupted", extra={"error": error.message})
            await asyncio.sleep(self._seconds)

    async def run_once(self) -> int:
        """One round over all shards; returns how many submissions were erased.

        A file that cannot be read or is wrong erases nothing. Raises DependencyUnavailable,
        Overloaded: the next round goes on.
        """
        try:
            policy = parse_policy(await asyncio.to_thread(self._file.read_text, "utf-8"))
        except (OSError, ValueError) as error:
            log.error("retention policy is not usable", extra={"error": str(error)})
            return 0
        if not policy.shortest():
            return 0
        return sum([await self._round(index, policy) for index in range(len(self._shards))])

    async def _round(self, index: int, policy: RetentionPolicy) -> int:
        loop = asyncio.get_running_loop()
        now_ms = int(self._clock.time() * 1000)
        end = id_floor(now_ms - policy.shortest() * _DAY_MS)
        open_erasures: dict[str, Erasure] = {}
        erased, after = 0, ""
        while True:
            began = loop.time()
            page = await self._shards[index].old_submissions(after, end, BATCH)
            expired: dict[str, list[str]] = {}
            for one in page:
                if self._is_expired(one, policy, now_ms):
                    expired.setdefault(one.tenant, []).append(one.submission_id)
            for tenant, ids in expired.items():
                if tenant not in open_erasures:
                    open_erasures[tenant] = await self._begin(tenant, ids[0])
                await self._erasures.erase_submissions(open_erasures[tenant], ids)
                erased += len(ids)
            if len(page) < BATCH:
                break
            after = page[-1].submission_id
            await asyncio.sleep(REST * (loop.time() - began))
        for erasure in open_erasures.values():
            await self._erasures.complete(erasure)
        return erased

    @staticmethod
    def _is_expired(one: OldSubmission, policy: RetentionPolicy, now_ms: int) -> bool:
        days = policy.days(one.tenant, one.course)
        return days > 0 and one.submission_id < id_floor(now_ms - days * _DAY_MS)

    async def _begin(self, tenant: str, submission_id: str) -> Erasure:
        """The proof is kept beside the first submission that it is about."""
        bucket = id_bucket(submission_id)
        if bucket is None:
            raise ValueError(submission_id)
        reason = "kept as long as the policy says"
        wanted = NewErasure(self._mint(bucket), tenant, "", "", ACTOR, reason)
        await self._shards.at(bucket, lambda _, shard: shard.begin_erasure(wanted))
        return await self._erasures.get(tenant, wanted.erasure_id)
