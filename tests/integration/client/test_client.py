"""The client against a gateway in memory that fails when it is told to."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import grpc
import pytest

from cinnabar.gateway.v1.submission_service_pb2 import CreateSubmissionRequest, Submission
from cinnabar_client import ApiError, Client, InvalidInput, SubmitResult, persist
from cinnabar_common.errors import (
    ConsistencyTokenInvalid,
    CredentialInvalid,
    DependencyUnavailable,
    FieldViolation,
    InvalidRequest,
    Overloaded,
)
from tests.support.client_fixtures import NAME, QUIZ, answers, requests, world

TEXT = {"accepted": ["x"]}


async def gathered(results: AsyncIterator[SubmitResult]) -> list[SubmitResult]:
    return sorted([result async for result in results], key=lambda result: result.index)


def accepted(results: list[SubmitResult]) -> list[str]:
    return [result.submission.name for result in results if result.submission is not None]


async def test_an_assignment_from_plain_data() -> None:
    async with world() as w:
        found = await w.client.get_assignment(NAME)
        assert [item.item for item in found.items] == ["why", "bits"]
        found.display_name = "Another title"
        assert (await w.client.update_assignment(found)).revision_id == "r2"


async def test_lists_go_over_pages() -> None:
    async with world() as w:
        for number in range(4):
            await w.client.create_assignment("net", QUIZ, assignment_id=f"a-{number}")
        assert len([a async for a in w.client.list_assignments("net")]) == 5
        async for result in w.client.submit_many(requests(5)):
            assert result.error is None
        assert len([s async for s in w.client.list_submissions(NAME)]) == 5
        assert len([s async for s in w.client.list_submissions(NAME, author="s-3")]) == 1


async def test_a_refusal_carries_code_reason_message_and_violations() -> None:
    async with world() as w:
        w.gateway.failures["GetSubmission"].append(InvalidRequest([FieldViolation("name", "is odd")]))
        with pytest.raises(ApiError) as caught:
            await w.client.get_submission("x")
        assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
        assert caught.value.reason == "INVALID_REQUEST"
        assert caught.value.message == "name: is odd"
        assert caught.value.violations == (FieldViolation("name", "is odd"),)


async def test_reads_and_creates_are_tried_again_while_unavailable() -> None:
    async with world() as w:
        w.gateway.failures["GetAssignment"].extend([DependencyUnavailable("storage")] * 2)
        await w.client.get_assignment(NAME)
        assert w.gateway.calls.count("GetAssignment") == 3
        w.gateway.failures["CreateSubmission"].append(DependencyUnavailable("storage"))
        await w.client.submit(NAME, answers(), author="s-1")
        assert w.gateway.created == 1


async def test_a_create_without_a_request_id_is_not_repeated() -> None:
    async with world() as w:
        w.gateway.failures["CreateAssignment"].append(DependencyUnavailable("storage"))
        with pytest.raises(ApiError, match="storage cannot be reached"):
            await w.client.create_assignment("net", QUIZ, assignment_id="other")
        assert w.gateway.calls.count("CreateAssignment") == 2  # the fixture's and this one


async def test_a_call_ends_at_its_deadline() -> None:
    async with world(timeout=0.2) as w:
        w.gateway.stuck["GetSubmission"] = 1
        with pytest.raises(ApiError) as caught:
            await w.client.get_submission(NAME)
        assert caught.value.reason == "DEADLINE_PASSED"


async def test_waiting_for_a_grade_ends_at_its_timeout() -> None:
    async with world() as w:
        w.gateway.hold = True
        made = await w.client.submit(NAME, answers(), author="s-1")
        with pytest.raises(TimeoutError):
            await w.client.wait_graded(made.name, timeout=0.2)


async def test_a_stream_that_goes_silent_is_replaced() -> None:
    async with world(timeout=0.2) as w:
        w.gateway.stuck["StreamCreateSubmissions"] = 1
        assert len(accepted(await gathered(w.client.submit_many(requests(5))))) == 5
        assert w.gateway.calls.count("StreamCreateSubmissions") == 2


async def test_a_wrong_address_is_a_clear_error() -> None:
    async with Client("127.0.0.1:1", timeout=1.0) as client:
        with pytest.raises(ApiError) as caught:
            await client.get_assignment(NAME)
    assert caught.value.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


async def test_bad_plain_data_never_leaves() -> None:
    async with world() as w:
        with pytest.raises(InvalidInput, match=r"items\[0\].points: must be a number"):
            await w.client.create_assignment("net", {"items": [{"item": "q", "points": "x", "text": TEXT}]})


async def test_a_read_carries_the_token_of_the_latest_write() -> None:
    async with world() as w:
        made = await w.client.submit(NAME, answers(), author="s-1")
        await w.client.get_submission(made.name)
        assert w.gateway.tokens[-1] == "write-1"
        async for _ in w.client.submit_many(requests(3)):
            pass
        await w.client.get_submission(made.name)
        assert w.gateway.tokens[-1] == "write-4"


async def test_a_write_shows_while_the_stream_that_made_it_is_open() -> None:
    async with world() as w, aclosing(w.client.submit_many(requests(3), batch=1, in_flight=1)) as results:
        first = (await anext(results)).submission
        assert first is not None
        await w.client.get_submission(first.name)
        assert w.gateway.tokens[-1] == "write-1"


async def test_writes_at_once_are_all_carried_and_handed_on() -> None:
    async with world() as w:
        made = await asyncio.gather(*(w.client.submit(NAME, answers(), author=f"s-{n}") for n in range(8)))
        assert set(w.client.consistency_token.split(",")) == {f"write-{n}" for n in range(1, 9)}
        async with Client(
            w.address, token="dev.t.instructor.ann", consistency_token=w.client.consistency_token
        ) as other:
            other.observe("of-a-third")
            await other.get_submission(made[0].name)
            assert w.gateway.tokens[-1] == f"{w.client.consistency_token},of-a-third"


async def test_reads_carry_nothing_when_that_is_switched_off() -> None:
    async with world() as w, Client(w.address, token="dev.t.instructor.ann", read_own_writes=False) as client:
        made = await client.submit(NAME, answers(), author="s-1")
        await client.get_submission(made.name)
        assert w.gateway.tokens[-1] == client.consistency_token == ""


async def test_a_token_that_the_service_does_not_know_is_said_once_and_forgotten() -> None:
    async with world() as w:
        w.client.observe("of-another-suite")
        w.gateway.failures["GetSubmission"].append(ConsistencyTokenInvalid("cinnabar-consistency-token"))
        made = await w.client.submit(NAME, answers(), author="s-1")
        w.client.observe("of-another-suite")
        with pytest.raises(ApiError) as caught:
            await w.client.get_submission(made.name)
        assert caught.value.reason == "CONSISTENCY_TOKEN_INVALID"
        assert (await w.client.get_submission(made.name)).name == made.name
        assert w.gateway.tokens[-1] == ""


async def test_a_list_of_which_a_part_is_missing_gives_the_rest_and_then_says_so() -> None:
    async with world() as w:
        await gathered(w.client.submit_many(requests(5)))
        w.gateway.unreachable = ["shards/1"]
        found: set[str] = set()

        async def everything() -> None:
            async for submission in w.client.list_submissions(NAME):
                found.add(submission.name)

        with pytest.raises(ApiError) as caught:
            await everything()
        assert len(found) == 5
        assert (caught.value.code, caught.value.reason) == (
            grpc.StatusCode.UNAVAILABLE,
            "DEPENDENCY_UNAVAILABLE",
        )
        assert caught.value.metadata == {"unreachable": "shards/1"}


async def test_submit_many_fills_messages_and_keeps_the_window() -> None:
    async with world() as w:
        results = await gathered(w.client.submit_many(requests(45), batch=10, in_flight=2))
        assert len(set(accepted(results))) == 45
        assert [result.index for result in results] == list(range(45))
        assert sum(w.gateway.streams[0]) == 45
        assert max(w.gateway.streams[0]) <= 10


async def test_submit_many_takes_a_live_source() -> None:
    async with world() as w:
        first_is_in = asyncio.Event()

        async def source() -> AsyncIterator[CreateSubmissionRequest]:
            for request in requests(3):
                yield request
                await first_is_in.wait()

        seen = 0
        async for _ in w.client.submit_many(source()):
            seen += 1
            first_is_in.set()
        assert seen == 3


async def test_submit_many_gives_each_its_own_status() -> None:
    async with world() as w:
        good, bad = requests(2)
        del bad.submission.answers[1]
        results = await gathered(w.client.submit_many([good, bad]))
        assert results[0].submission is not None
        assert results[1].error is not None
        assert results[1].error.violations[0].rule == "lacks bits"


async def test_submit_many_tries_again_what_may_pass() -> None:
    async with world() as w:
        w.gateway.failures["item"].extend([Overloaded("storage"), DependencyUnavailable("storage")])
        results = await gathered(w.client.submit_many(requests(5)))
        assert len(accepted(results)) == 5
        assert w.gateway.created == 5


async def test_submit_many_survives_a_lost_stream_without_doubles() -> None:
    async with world() as w:
        w.gateway.drops["StreamCreateSubmissions"].extend([2, 0, 3])
        results = await gathered(w.client.submit_many(requests(100), batch=10, in_flight=4))
        assert len(set(accepted(results))) == 100
        assert w.gateway.created == 100  # the lost acknowledgements were of created ones
        assert len(w.gateway.streams) == 4


async def test_submit_many_gives_up_on_a_refusal_of_the_whole_stream() -> None:
    async with world() as w:
        w.gateway.failures["StreamCreateSubmissions"].append(CredentialInvalid())
        with pytest.raises(ApiError, match="credential"):
            await gathered(w.client.submit_many(requests(3)))


async def test_submit_many_ends_when_patience_does() -> None:
    async with Client("127.0.0.1:1", patience=0.5) as client:
        with pytest.raises(ApiError) as caught:
            await gathered(client.submit_many(requests(3)))
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE


async def test_what_the_source_raises_comes_out_after_what_it_gave() -> None:
    async with world() as w:

        def source() -> Iterator[CreateSubmissionRequest]:
            yield from requests(2)
            raise ValueError("the file is damaged")

        seen: list[SubmitResult] = []

        async def collect() -> None:
            async for result in w.client.submit_many(source()):
                seen.append(result)  # noqa: PERF401  # the list must survive the error

        with pytest.raises(ValueError, match="the file is damaged"):
            await collect()
        assert len(accepted(seen)) == 2


async def test_leaving_submit_many_early_ends_its_stream() -> None:
    async with world() as w:
        before = asyncio.all_tasks()
        async with aclosing(w.client.submit_many(requests(1000), batch=5)) as results:
            async for _ in results:
                break
        assert {task.get_name() for task in asyncio.all_tasks() - before}.isdisjoint(
            {"submissions-feed", "submissions-writer"}
        )


async def test_watch_shows_each_state_once_and_connects_again() -> None:
    async with world() as w:
        w.gateway.hold = True
        w.gateway.drops["WatchSubmission"].extend([1, 1])
        made = await w.client.submit(NAME, answers(), author="s-1")
        seen: list[int] = []
        async for state in w.client.watch(made.name):
            seen.append(state.state)
            await w.gateway.grade(made.name, items=len(seen))
        assert seen == [Submission.QUEUED, Submission.GRADING, Submission.GRADED]
        assert w.gateway.calls.count("WatchSubmission") == 3


async def test_watching_what_is_not_there_is_an_error() -> None:
    async with world() as w:
        with pytest.raises(ApiError) as caught:
            await w.client.wait_graded(f"{NAME}/submissions/none")
        assert caught.value.reason == "RESOURCE_NOT_FOUND"


async def test_wait_all_graded_watches_a_bounded_number_at_once() -> None:
    async with world() as w:
        names = accepted(await gathered(w.client.submit_many(requests(30))))
        finals = [final async for final in w.client.wait_all_graded(names, concurrency=4)]
        assert Counter(final.name for final in finals) == Counter(names)
        assert all(final.score == 5 for final in finals)


async def test_cancel_and_health() -> None:
    async with world() as w:
        w.gateway.hold = True
        made = await w.client.submit(NAME, answers(), author="s-1")
        assert (await w.client.cancel(made.name)).state == Submission.CANCELLED
        assert (await w.client.health()).status == "healthy"
        w.gateway.healthy = False
        report = await w.client.health()
        assert (report.status, report.checks[0].name) == ("unhealthy", "storage")


async def test_persist_repeats_until_it_works() -> None:
    async with world() as w:
        w.gateway.failures["CreateAssignment"].extend([Overloaded("q"), DependencyUnavailable("storage")])
        made = await persist(lambda: w.client.create_assignment("net", QUIZ, assignment_id="late"))
        assert made.name == "courses/net/assignments/late"


async def test_a_client_must_be_entered() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await Client("127.0.0.1:1").get_assignment(NAME)
