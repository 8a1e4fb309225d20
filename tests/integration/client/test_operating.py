"""What operators do with the library and the command line, against a gateway in memory."""

import datetime as dt
from pathlib import Path

import pytest

from cinnabar.gateway.v1.operations_service_pb2 import Conservation, DeadLetter, Queue
from cinnabar.gateway.v1.submission_service_pb2 import Submission
from cinnabar_client import ApiError, InvalidInput
from cinnabar_common.errors import Overloaded, RateLimited, RequestInProgress, SuiteError
from tests.support.client_cli import run
from tests.support.client_fixtures import NAME, World, answers, world

BALANCED = Conservation(accepted=5, open=2, graded=2, cancelled=1, queued=1, leased=1, balanced=True)
REDIS_LACKS_ONE = Conservation(accepted=2, open=2, queued=1, balanced=True)
ONE_VANISHED = Conservation(accepted=2, open=1, queued=1, balanced=False)
SUBMIT = ("submit", "net/quiz", "--author", "s-1", "--answer", "why=because", "--answer", "bits=8 bit")


def limited(retry_seconds: float) -> RateLimited:
    """A rate limit that is used up for so long."""
    return RateLimited(level="user-method", limit=100, period_seconds=60.0, retry_seconds=retry_seconds)


def given_up(w: World, count: int, *, queue: str = "text", reason: str = "model broke") -> list[str]:
    """Dead letters; the names of their tasks."""
    first = len(w.gateway.letters)
    names = [f"{NAME}/submissions/s-{number}" for number in range(first, first + count)]
    w.gateway.letters += [
        DeadLetter(submission=name, item="why", queue=queue, reason=reason) for name in names
    ]
    return [f"{name}/why" for name in names]


async def test_a_queue_is_paused_drained_and_resumed() -> None:
    async with world() as w:
        w.gateway.queues.append(Queue(queue="numeric", ready=3, workers=2, state=Queue.RUNNING))
        assert (await w.client.pause_queue("numeric")).state == Queue.PAUSED
        assert (await w.client.drain_queue("numeric")).state == Queue.DRAINING
        assert (await w.client.resume_queue("numeric")).state == Queue.RUNNING
        with pytest.raises(ApiError) as caught:
            await w.client.pause_queue("none")
        assert caught.value.metadata == {"resource": "queues/none"}
        assert (await run(w, "ops", "pause", "numeric", "--json")).document["state"] == "PAUSED"
        shown = await run(w, "ops", "drain", "numeric")
        assert (shown.code, "DRAINING" in shown.out) == (0, True)
        assert (await run(w, "ops", "resume", "numeric", "--json")).document["state"] == "RUNNING"
        refused = await run(w, "ops", "drain", "none", "--json")
        assert (refused.code, refused.problem["reason"]) == (1, "RESOURCE_NOT_FOUND")
        [queue] = (await run(w, "ops", "queues", "--json")).document["queues"]
        assert (queue["queue"], queue["ready"], queue["state"]) == ("numeric", "3", "RUNNING")


async def test_dead_letters_are_filtered() -> None:
    async with world() as w:
        given_up(w, 2)
        given_up(w, 1, queue="numeric", reason="no unit")
        assert len((await run(w, "ops", "dead-letters", "--json")).lines) == 3
        for arguments in (("--queue", "numeric"), ("--reason", "unit")):
            [line] = (await run(w, "ops", "dead-letters", *arguments, "--json")).lines
            assert line["reason"] == "no unit"
        for scope, count in (("net", 3), ("net/quiz", 3), ("courses/net", 3), ("other", 0), ("net/other", 0)):
            listed = await run(w, "ops", "dead-letters", "--assignment", scope, "--json")
            assert (listed.code, len(listed.lines)) == (0, count)


async def test_named_dead_letters_are_redriven_and_refusals_are_told() -> None:
    async with world() as w:
        task = given_up(w, 1)[0]
        ran = await run(w, "ops", "redrive", task, f"{NAME}/submissions/s-9/why", "--json")
        assert (ran.code, ran.document["redriven"]) == (1, 1)
        [refusal] = ran.document["refused"]
        assert (refusal["item"], refusal["error"]["reason"]) == ("why", "RESOURCE_NOT_FOUND")
        told = await run(w, "ops", "redrive", f"{NAME}/submissions/s-9/why")
        assert told.code == 1
        assert "s-9/why refused: " in told.err
        answer = await w.client.redrive([(f"{NAME}/submissions/s-0", "why")])
        assert (answer.redriven, list(answer.refused), answer.more) == (1, [], False)


async def test_a_filter_is_redriven_once_though_everything_fails_again() -> None:
    async with world() as w:
        given_up(w, 5)
        given_up(w, 2, queue="numeric")
        ran = await run(w, "ops", "redrive", "--queue", "text", "--json")
        assert (ran.code, ran.document) == (0, {"redriven": 5, "refused": []})
        assert len(w.gateway.redriven) == len(set(w.gateway.redriven)) == 5
        assert (await run(w, "ops", "redrive", "--all", "--json")).document["redriven"] == 7
        first = await w.client.redrive_where(queue="text")
        assert (first.redriven, first.more) == (2, True)


@pytest.mark.parametrize(
    ("counted", "code", "words"),
    [
        (BALANCED, 0, "conserved"),
        (REDIS_LACKS_ONE, 1, "not conserved: 2 open, 1 in Redis"),
        (ONE_VANISHED, 1, "not conserved: 2 accepted, 1 found"),
    ],
)
async def test_conservation_is_checked(counted: Conservation, code: int, words: str) -> None:
    async with world() as w:
        w.gateway.counted.append(counted)
        ran = await run(w, "ops", "conservation")
        assert (ran.code, words in ran.out) == (code, True)
        document = (await run(w, "ops", "conservation", "--json")).document
        assert (document["accepted"], document["holds"]) == (str(counted.accepted), code == 0)


async def test_conservation_is_waited_for() -> None:
    async with world() as w:
        w.gateway.counted.extend([REDIS_LACKS_ONE, REDIS_LACKS_ONE, BALANCED])
        assert (await run(w, "ops", "conservation", "--wait", "20")).code == 0
        assert w.gateway.calls.count("GetConservation") == 3
        w.gateway.counted[0] = ONE_VANISHED
        assert (await run(w, "ops", "conservation", "--wait", "0.1")).code == 1


@pytest.mark.parametrize(
    "refusal",
    [
        limited(0.01),
        RequestInProgress("r"),
        Overloaded("storage.create_submissions"),
    ],
    ids=lambda refusal: type(refusal).__name__,
)
async def test_a_call_that_was_turned_away_is_made_again(refusal: SuiteError) -> None:
    async with world() as w:
        w.gateway.failures["CreateSubmission"].extend([refusal, refusal])
        made = await w.client.submit(NAME, answers(), author="s-1", request_id="r")
        assert w.gateway.calls.count("CreateSubmission") == 3
        assert (made.author, w.gateway.created) == ("s-1", 1)
        w.gateway.failures["CreateAssignment"].append(refusal)
        await w.client.create_assignment("net", {"items": []}, assignment_id="other")


async def test_patience_ends() -> None:
    async with world(patience=0.2) as w:
        w.gateway.failures["CreateSubmission"].append(limited(30.0))
        with pytest.raises(ApiError) as caught:
            await w.client.submit(NAME, answers(), author="s-1")
        assert (caught.value.reason, caught.value.retry_after) == ("RATE_LIMITED", 30.0)
        assert w.gateway.calls.count("CreateSubmission") == 1


async def test_times_are_handed_in_from_the_library_and_the_command_line(tmp_path: Path) -> None:
    async with world() as w:
        after = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
        by = after + dt.timedelta(hours=1)
        made = await w.client.submit(NAME, answers(), author="s-0", grade_after=after, grade_by=by)
        assert made.grade_after.ToDatetime(dt.UTC) == after
        assert made.grade_by.ToDatetime(dt.UTC) == by
        with pytest.raises(InvalidInput):
            await w.client.submit(NAME, answers(), grade_by=by.replace(tzinfo=None))
        ran = await run(w, *SUBMIT, "--grade-after", "2h", "--grade-by", by.isoformat(), "--json")
        assert ran.code == 0
        stored = Submission(name=ran.document["name"])
        stored.CopyFrom(w.gateway.submissions[stored.name])
        assert stored.grade_by.ToDatetime(dt.UTC) == by
        assert stored.grade_after.ToDatetime(dt.UTC) - after > dt.timedelta(minutes=59)
        file = tmp_path / "many.jsonl"
        file.write_text('{"author": "s-2", "answers": {"why": "because", "bits": "8 bit"}}\n', "utf-8")
        assert (await run(w, "submit", "net/quiz", "--file", str(file), "--grade-after", "90s")).code == 0
        [late] = [one for one in w.gateway.submissions.values() if one.author == "s-2"]
        assert late.HasField("grade_after")
