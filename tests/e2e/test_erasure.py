"""A student is erased from the real suite: no table, object or key knows them any more."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest_asyncio
from minio import Minio
from redis.asyncio import Redis

from cinnabar.grader.v1.grade_pb2 import Answer
from cinnabar_client import Client
from cinnabar_local import sql
from cinnabar_local.stack import Stack
from tests.support.client_cli import run
from tests.support.waiting import until

QUIZ = {
    "items": [
        {"item": "name", "points": 1, "text": {"accepted": ["tcp"]}},
        {"item": "essay", "points": 2, "text": {"accepted": ["window"]}},
    ]
}


@pytest_asyncio.fixture
async def teacher(stack: Stack, tenant: str) -> AsyncGenerator[Client]:
    async with Client(stack.addresses.envoy, token=f"dev.{tenant}.instructor.prof") as client:
        await client.create_assignment("net", QUIZ | {"assignment": "quiz"})
        yield client


async def hand_in(teacher: Client, student: str, secret: str) -> str:
    """A submission of a text and of a file, graded."""
    parent = "courses/net/assignments/quiz"
    file = await teacher.upload(parent, "essay", f"{secret} in a file".encode(), author=student)
    made = await teacher.submit(
        parent,
        [
            Answer(item="name", text=f"{secret} in a text"),
            Answer(item="essay", file=Answer.File(upload=file.name)),
        ],
        author=student,
    )
    await teacher.wait_graded(made.name)
    return made.name


def traces(text: str, words: tuple[str, ...]) -> Iterator[str]:
    for word in words:
        if word in text or word.encode().hex() in text:
            yield word


async def rows_with(stack: Stack, words: tuple[str, ...]) -> set[str]:
    """Tables, of all shards, with a row in which one of the words stands."""
    found: set[str] = set()
    for shard in stack.addresses.shards:
        async with sql.connected(shard.primary_url) as connection:
            tables = await connection.fetchval(
                "SELECT string_agg(relname, ',') FROM pg_class"
                " WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
            )
            for table in str(tables).split(","):
                text = await connection.fetchval(f"SELECT string_agg(t::text, E'\\n') FROM {table} AS t")
                found |= {f"{table}: {word}" for word in traces(str(text or ""), words)}
    return found


def objects_with(stack: Stack, words: tuple[str, ...]) -> set[str]:
    """Objects with one of the words in name or content."""
    address = stack.addresses
    client = Minio(
        address.s3_endpoint.removeprefix("http://"),
        access_key=address.s3_access_key,
        secret_key=address.s3_secret_key,
        secure=False,
    )
    found: set[str] = set()
    for bucket in client.list_buckets():
        for one in client.list_objects(bucket.name, recursive=True):
            assert one.object_name is not None
            answer = client.get_object(bucket.name, one.object_name)
            text = f"{one.object_name} {answer.read().decode('latin-1')}"
            answer.close()
            answer.release_conn()
            found |= {f"{one.object_name}: {word}" for word in traces(text, words)}
    return found


async def keys_with(stack: Stack, words: tuple[str, ...]) -> set[str]:
    """Keys of Redis with one of the words in name or value."""
    found: set[str] = set()
    opened: Any = Redis.from_url(stack.addresses.redis_url)  # pyright: ignore[reportUnknownMemberType]
    async with opened as redis:
        async for key in redis.scan_iter(count=1000):
            kind = (await redis.type(key)).decode()
            match kind:
                case "string":
                    value: object = await redis.get(key)
                case "hash":
                    value = await redis.hgetall(key)
                case "list":
                    value = await redis.lrange(key, 0, -1)
                case "set":
                    value = await redis.smembers(key)
                case "zset":
                    value = await redis.zrange(key, 0, -1)
                case "stream":
                    value = await redis.xrange(key)
                case "none":
                    continue
                case _:
                    raise AssertionError(kind)
            found |= {f"{key!r}: {word}" for word in traces(f"{key!r} {value!r}", words)}
    return found


async def test_nothing_is_left_of_a_student(stack: Stack, tenant: str, teacher: Client) -> None:
    student, other = f"{tenant}-ann", f"{tenant}-bob"
    secrets = (f"{tenant}-mine", f"{tenant}-theirs")
    names = [await hand_in(teacher, student, secrets[0]) for _ in range(2)]
    kept = await hand_in(teacher, other, secrets[1])
    await teacher.get_submission(names[0])
    mine = (student, secrets[0])
    before = await rows_with(stack, mine)
    assert {"submissions: " + student, "submissions: " + secrets[0], "uploads: " + student} <= before
    assert objects_with(stack, mine)
    assert await keys_with(stack, (tenant,))  # what the other tests of keys look at is not nothing

    operator = f"dev.{tenant}.operator.olga"
    done = await run(
        stack.addresses.envoy,
        *("ops", "erase", student, "--reason", "left", "--yes", "--wait", "30", "--json"),
        token=operator,
    )
    assert done.code == 0, done.err
    proof = done.document
    assert (proof["state"], proof["submissions"], proof["grades"], proof["objects"]) == (
        "ERASED",
        "2",
        "4",
        "2",
    )
    assert proof["actor"] == "operator/olga"
    assert int(proof["redactedEvents"]) >= 4
    assert len(proof["subject"]) == 64

    assert await rows_with(stack, mine) == set()
    assert await asyncio.to_thread(objects_with, stack, mine) == set()

    async def forgotten() -> bool:
        return await keys_with(stack, mine) == set()

    await until(forgotten, description="Redis forgets")
    # The others are as they were, and everything is accounted for.
    graded = await teacher.get_submission(kept)
    assert (graded.author, len(graded.results)) == (other, 2)
    assert await rows_with(stack, (other,))
    found = [one.name async for one in teacher.list_submissions("courses/net/assignments/quiz")]
    assert found == [kept]

    async def counted() -> bool:
        numbers = await teacher.statistics("courses/net/assignments/quiz")
        return numbers.submissions.count == 1

    await until(counted, description="the statistics follow")
    balanced = await run(stack.addresses.envoy, "ops", "conservation", "--wait", "20", token=operator)
    assert balanced.code == 0, balanced.out
    verified = await run(stack.addresses.envoy, "ops", "audit", "verify", "--json", token=operator)
    assert (verified.code, json.loads(verified.out).get("breaks", [])) == (0, []), verified.err
