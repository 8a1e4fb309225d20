"""The protocol of the work stream, event by event."""

from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cinnabar_scheduler.session import MAX_QUEUES, ProtocolViolation, WorkerSession
from cinnabar_scheduler.tasks import Lease, LeaseToken, QueueName
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


def test_a_worker_that_says_nothing_gets_no_leases_until_it_speaks_and_keeps_its_credits() -> None:
    session = WorkerSession(max_credits=10, quiet_seconds=10, silence_limit_seconds=60)
    session.hello("w1", ["free-text"])
    session.ready("free-text", 3)
    session.elapse(9.9)
    assert session.open_credits(QUEUE) == 3
    session.elapse(0.1)
    assert session.quiet
    assert session.open_credits(QUEUE) == 0
    assert session.credits[QUEUE] == 3
    assert session.heard()
    assert not session.heard()
    assert session.open_credits(QUEUE) == 3


def test_a_worker_that_says_nothing_for_too_long_breaks_the_protocol() -> None:
    session = WorkerSession(max_credits=10, silence_limit_seconds=60)
    session.hello("w1", ["free-text"])
    for _ in range(59):
        session.elapse(1)
    session.heard()
    for _ in range(59):
        session.elapse(1)
    with pytest.raises(ProtocolViolation, match="say something every 60 seconds"):
        session.elapse(1)


def test_hello_does_not_take_long() -> None:
    session = WorkerSession(max_credits=10)
    session.elapse(9)
    with pytest.raises(ProtocolViolation, match="hello within 10 s"):
        session.elapse(1)


def test_it_is_known_when_a_lease_was_granted(session: WorkerSession) -> None:
    one, dropped, returned = lease(), lease(), lease()
    session.grant([one, dropped], 17.5)
    session.grant([returned], 18.0)
    session.finish(one.token)
    assert session.taken_at(one.token) == 17.5
    session.settle(one.token)
    session.drop([dropped.token])
    session.finish(returned.token)
    session.settle(returned.token)
    assert not session.leased_at


QUEUES = (QUEUE, QueueName("numeric"))


class Stream(RuleBasedStateMachine):
    """Any order of what a worker, the dispatcher and time can do: no credit is lost, none spent twice."""

    @initialize(limit=st.integers(1, 20))
    def begin(self, limit: int) -> None:
        self.limit = limit
        self.session = WorkerSession(limit, quiet_seconds=10, silence_limit_seconds=60)
        self.session.hello("w1", QUEUES)
        self.granted = dict.fromkeys(QUEUES, 0)
        self.spent = dict.fromkeys(QUEUES, 0)
        self.silence = 0.0
        self.over = False
        self.held: dict[str, Lease] = {}
        self.committing: set[str] = set()

    def speak(self) -> None:
        assert self.session.heard() == (self.silence >= 10)
        self.silence = 0.0

    @precondition(lambda self: not self.over)
    @rule(queue=st.sampled_from(QUEUES), credits=st.integers(-1, 25))
    def grant(self, queue: QueueName, credits: int) -> None:
        self.speak()
        allowed = 1 <= credits <= self.limit - self.session.credits[queue]
        try:
            self.session.ready(queue, credits)
        except ProtocolViolation:
            assert not allowed
        else:
            assert allowed
            self.granted[queue] += credits

    @precondition(lambda self: not self.over)
    @rule(queue=st.sampled_from(QUEUES), wanted=st.integers(1, 5))
    def dispatch(self, queue: QueueName, wanted: int) -> None:
        leases = [lease(queue=queue) for _ in range(min(wanted, self.session.open_credits(queue)))]
        assert not (leases and self.silence >= 10)
        self.session.grant(leases, 1.0)
        self.spent[queue] += len(leases)
        self.held |= {one.token: one for one in leases}

    @precondition(lambda self: not self.over)
    @rule(seconds=st.sampled_from((0.5, 4.0, 10.0, 30.0)))
    def nothing_is_said(self, seconds: float) -> None:
        self.silence += seconds
        try:
            self.session.elapse(seconds)
        except ProtocolViolation:
            self.over = True
        assert self.over == (self.silence >= 60)

    @precondition(lambda self: not self.over)
    @rule(data=st.data(), kind=st.sampled_from(("report", "heartbeat", "drop")))
    def leases_end(self, data: st.DataObject, kind: str) -> None:
        tokens = data.draw(
            st.lists(st.sampled_from([*sorted(self.held), *sorted(self.committing), "9-unknown"]), max_size=4)
        )
        if kind == "drop":
            dropped = self.session.drop(map(LeaseToken, dict.fromkeys(tokens)))
            assert set(dropped) == set(tokens) & set(self.held)
            for token in dropped:
                del self.held[token]
            return
        self.speak()
        if kind == "heartbeat":
            known, unknown = self.session.heartbeat(tokens)
            assert {one.token for one in known} == set(tokens) & set(self.held)
            assert set(unknown) == set(tokens) - set(self.held) - self.committing
            return
        for token in tokens:
            assert (self.session.finish(token) is not None) == (token in self.held)
            if self.held.pop(token, None) is not None:
                self.committing.add(token)

    @rule(count=st.integers(0, 5))
    def settle(self, count: int) -> None:
        for token in sorted(self.committing)[:count]:
            self.session.settle(LeaseToken(token))
            self.committing.remove(token)

    @invariant()
    def credits_are_what_was_granted_and_not_spent(self) -> None:
        for queue in QUEUES:
            assert self.session.credits[queue] == self.granted[queue] - self.spent[queue] >= 0
            quiet = self.silence >= 10
            assert self.session.open_credits(queue) == (0 if quiet else self.session.credits[queue])
        assert set(self.session.held) == set(self.held)
        assert set(self.session.committing) == self.committing
        assert set(self.session.leased_at) == set(self.held) | self.committing


Stream.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
test_any_stream = Stream.TestCase
