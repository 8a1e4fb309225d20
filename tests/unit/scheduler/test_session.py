"""The protocol of the work stream, event by event."""

from collections.abc import Callable

import pytest

from cinnabar_scheduler.session import MAX_QUEUES, ProtocolViolation, WorkerSession
from cinnabar_scheduler.tasks import LeaseToken, QueueName
from tests.support.scheduler_queue import QUEUE, lease


@pytest.fixture
def session() -> WorkerSession:
    session = WorkerSession(max_credits=10)
    session.hello("w1", ["free-text", "numeric"])
    return session


def ready(session: WorkerSession) -> None:
    session.ready("free-text", 1)


def heartbeat(session: WorkerSession) -> None:
    session.heartbeat(["1-a"])


def report(session: WorkerSession) -> None:
    session.finish("1-a")


@pytest.mark.parametrize("event", [ready, heartbeat, report])
def test_nothing_comes_before_the_hello(event: Callable[[WorkerSession], None]) -> None:
    with pytest.raises(ProtocolViolation, match="hello first"):
        event(WorkerSession(max_credits=10))


def test_hello_comes_once(session: WorkerSession) -> None:
    with pytest.raises(ProtocolViolation, match="hello only once"):
        session.hello("w1", ["free-text"])


@pytest.mark.parametrize("count", [0, MAX_QUEUES + 1])
def test_hello_names_some_queues_but_not_too_many(count: int) -> None:
    session = WorkerSession(max_credits=10)
    with pytest.raises(ProtocolViolation, match="hello names"):
        session.hello("w1", [f"q{number}" for number in range(count)])
    assert not session.worker


def test_credits_add_up_and_leases_spend_them(session: WorkerSession) -> None:
    assert session.ready("free-text", 3) == QUEUE
    session.ready("free-text", 2)
    session.ready("numeric", 1)
    session.grant([lease(), lease()])
    assert session.credits == {QUEUE: 3, QueueName("numeric"): 1}
    session.ready("free-text", 7)
    assert session.credits[QUEUE] == 10


@pytest.mark.parametrize(
    ("queue", "credits", "rule"),
    [
        ("essay", 1, "ready only for a queue of the hello"),
        ("free-text", 0, "ready grants at least 1 credit"),
        ("free-text", -5, "ready grants at least 1 credit"),
        ("free-text", 9, "at most 10 credits open on a queue"),
    ],
)
def test_a_bad_grant_changes_nothing(session: WorkerSession, queue: str, credits: int, rule: str) -> None:
    session.ready("free-text", 2)
    with pytest.raises(ProtocolViolation, match=rule):
        session.ready(queue, credits)
    assert session.credits[QUEUE] == 2


def test_heartbeats_know_what_is_held(session: WorkerSession) -> None:
    held, reported = lease(), lease()
    session.grant([held, reported])
    session.finish(reported.token)
    assert session.heartbeat([held.token, reported.token, "9-unknown"]) == ([held], ["9-unknown"])


def test_an_outcome_is_taken_over_once(session: WorkerSession) -> None:
    one = lease()
    session.grant([one])
    assert session.finish(one.token) is one
    assert session.finish(one.token) is None
    assert session.finish("9-unknown") is None
    assert session.committing == {one.token: one}
    session.settle(one.token)
    session.settle(LeaseToken("9-unknown"))
    assert not session.committing
    assert not session.held


def test_dropping_takes_only_what_is_held(session: WorkerSession) -> None:
    one, reported = lease(), lease()
    session.grant([one, reported])
    session.finish(reported.token)
    assert session.drop([one.token, reported.token, LeaseToken("9-unknown")]) == [one.token]
    assert session.finish(one.token) is None
    assert reported.token in session.committing
