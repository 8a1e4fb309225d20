"""The worker's side of the stream, without a stream."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cinnabar_grader.graders import (
    Failed,
    FailureCode,
    LeaseToken,
    Progress,
    Released,
    Task,
    TestResult,
    TestVerdict,
)
from cinnabar_grader.worker import Close, Grant, Heartbeat, Message, Report, WorkerSession


def tasks(*tokens: str, queue: str = "q") -> list[Task]:
    return [Task(LeaseToken(token), queue, None, None) for token in tokens]


def outcomes(*tokens: str) -> list[Failed]:
    return [Failed(LeaseToken(token), FailureCode.INTERNAL, "") for token in tokens]


def tokens_of(*names: str) -> list[LeaseToken]:
    return [LeaseToken(name) for name in names]


def reported(messages: Iterable[Message]) -> list[str]:
    return [
        outcome.token for message in messages if isinstance(message, Report) for outcome in message.outcomes
    ]


@pytest.fixture
def session() -> WorkerSession:
    """Welcomed, one queue of 8 credits, which are granted."""
    session = WorkerSession({"q": 8})
    session.welcomed(max_credits=100)
    session.open("q")
    assert session.take() == [Grant("q", 8)]
    return session


def test_says_nothing_before_the_welcome() -> None:
    session = WorkerSession({"q": 8})
    session.open("q")
    session.beat()
    assert session.take() == []


def test_grants_only_queues_whose_grader_is_ready() -> None:
    session = WorkerSession({"fast": 4, "slow": 2})
    session.welcomed(max_credits=0)
    session.open("fast")
    session.open("unknown")
    assert session.take() == [Grant("fast", 4)]
    session.open("slow")
    assert session.take() == [Grant("slow", 2)]
    assert session.take() == []


def test_the_terms_bound_the_credits() -> None:
    session = WorkerSession({"q": 8})
    session.welcomed(max_credits=3)
    session.open("q")
    assert session.take() == [Grant("q", 3)]


def test_a_task_from_lease_to_receipt(session: WorkerSession) -> None:
    assert session.leased(tasks("a", "b")) == {"q"}
    assert [task.token for task in session.start("q", 1)] == ["a"]
    session.finished(outcomes("a"))
    assert session.take() == [Report(outcomes("a")), Grant("q", 1)]
    assert session.held == 2
    session.receipted(tokens_of("a"))
    assert session.held == 1
    assert [task.token for task in session.start("q", 9)] == ["b"]
    assert session.start("q", 9) == []


def test_outcomes_that_came_meanwhile_go_out_together_in_bounded_reports() -> None:
    session = WorkerSession({"q": 5000})
    session.welcomed(max_credits=0)
    session.open("q")
    session.take()
    names = [str(number) for number in range(2500)]
    session.leased(tasks(*names))
    session.start("q", 5000)
    session.finished(outcomes(*names))
    sizes: list[int] = []
    while messages := session.take():
        sizes += [len(message.outcomes) for message in messages if isinstance(message, Report)]
    assert sizes == [1000, 1000, 500]


def test_heartbeats_name_every_lease_and_only_when_it_is_time(session: WorkerSession) -> None:
    session.beat()
    assert session.take() == [Heartbeat([])]  # an idle worker says that it lives
    assert session.take() == []
    session.leased(tasks("a", "b", "c"))
    session.start("q", 1)
    assert not any(isinstance(message, Heartbeat) for message in session.take())
    session.beat()
    assert session.take() == [Heartbeat(tokens_of("a", "b", "c"))]
    assert session.take() == []


@pytest.mark.parametrize("moment", ["waiting", "running", "finished", "reported"])
def test_a_cancelled_lease_is_forgotten(session: WorkerSession, moment: str) -> None:
    session.leased(tasks("a"))
    if moment != "waiting":
        session.start("q", 1)
    if moment in ("finished", "reported"):
        session.finished(outcomes("a"))
    if moment == "reported":
        assert reported(session.take()) == ["a"]
    session.cancelled(tokens_of("a", "unknown"))
    assert session.held == 0
    assert session.start("q", 1) == []
    session.finished(outcomes("a"))
    assert reported(session.take()) == []


def test_cancelled_work_frees_its_credits(session: WorkerSession) -> None:
    session.leased(tasks("a", "b", "c"))
    session.cancelled(tokens_of("a", "b", "c"))
    assert session.take() == [Grant("q", 3)]


def test_unreceipted_outcomes_hold_back_credits(session: WorkerSession) -> None:
    for round_ in range(4):
        names = [f"{round_}-{number}" for number in range(8)]
        session.leased(tasks(*names))
        session.start("q", 8)
        session.finished(outcomes(*names))
        granted = [message for message in session.take() if isinstance(message, Grant)]
        assert granted == ([Grant("q", 8)] if round_ < 3 else [])
    session.receipted(tokens_of("0-0", "0-1"))
    assert session.take() == [Grant("q", 2)]


def test_a_throttled_worker_takes_less_ahead_and_never_nothing(session: WorkerSession) -> None:
    session.throttle(0.25)
    names = [str(number) for number in range(8)]
    session.leased(tasks(*names))
    session.start("q", 8)
    session.finished(outcomes(*names[:7]))
    assert session.take() == [Report(outcomes(*names[:7]))]
    session.receipted(tokens_of(*names[:7]))
    assert session.take() == [Grant("q", 1)]
    session.throttle(0.0001)
    session.finished(outcomes(*names[7:]))
    assert session.take() == [Report(outcomes("7"))]
    session.receipted(tokens_of("7"))
    assert session.take() == []  # one is open
    session.leased(tasks("last"))
    session.start("q", 8)
    session.finished(outcomes("last"))
    assert session.take() == [Report(outcomes("last")), Grant("q", 1)]
    session.throttle(1.0)
    assert session.take() == [Grant("q", 7)]


def test_a_cancelled_task_knows_it(session: WorkerSession) -> None:
    a, b = tasks("a", "b")
    session.leased([a, b])
    assert session.start("q", 8) == [a, b]
    session.cancelled(tokens_of("b", "unknown"))
    assert (a.cancelled, b.cancelled) == (False, True)


def test_leases_of_unknown_queues_are_handed_back(session: WorkerSession) -> None:
    assert session.leased(tasks("a", queue="other")) == set()
    assert session.take() == [Report([Released(LeaseToken("a"))])]


def test_a_lease_that_is_held_already_is_not_taken_twice(session: WorkerSession) -> None:
    session.leased(tasks("a"))
    assert session.leased(tasks("a")) == set()
    assert len(session.start("q", 9)) == 1


def test_drain_hands_back_what_waits_and_closes_after_the_last_receipt(session: WorkerSession) -> None:
    session.leased(tasks("a", "b"))
    session.start("q", 1)
    session.drain()
    assert session.take() == [Report([Released(LeaseToken("b"))])]
    assert session.leased(tasks("late")) == set()
    assert reported(session.take()) == ["late"]
    session.finished(outcomes("a"))
    assert reported(session.take()) == ["a"]
    session.receipted(tokens_of("a", "late"))
    assert session.take() == []
    session.receipted(tokens_of("b"))
    assert session.take() == [Close()]
    assert session.closed
    assert session.leased(tasks("too late")) == set()
    assert session.take() == []


def test_abandon_closes_at_once(session: WorkerSession) -> None:
    session.leased(tasks("a", "b"))
    session.start("q", 1)
    session.abandon()
    assert session.take() == [Close()]


def test_progress_is_told_when_it_is_time_and_only_the_newest_of_what_runs(session: WorkerSession) -> None:
    session.leased(tasks("a", "b", "c", "d"))
    session.start("q", 3)
    for token in ("a", "b", "c", "d", "unknown"):
        session.progressed(Progress(LeaseToken(token), []))
    newest = Progress(LeaseToken("a"), [TestResult("t", TestVerdict.ACCEPTED, 1, 1)])
    session.progressed(newest)
    session.finished(outcomes("b"))
    session.cancelled(tokens_of("c"))
    assert reported(session.take()) == ["b"]
    assert session.progressing
    session.tell()
    assert [message for message in session.take() if isinstance(message, Progress)] == [newest]
    assert not session.progressing
    session.tell()
    assert session.take() == []


def test_progress_of_many_tasks_is_told_by_turns() -> None:
    session = WorkerSession({"q": 200})
    session.welcomed(max_credits=0)
    names = [str(number) for number in range(100)]
    session.leased(tasks(*names))
    session.start("q", 100)
    for name in names:
        session.progressed(Progress(LeaseToken(name), []))
    told: list[list[str]] = []
    while session.progressing:
        session.tell()
        told.append([message.token for message in session.take() if isinstance(message, Progress)])
    assert told == [names[:64], names[64:]]


def test_what_runs_can_be_handed_back(session: WorkerSession) -> None:
    a, b, c = tasks("a", "b", "c")
    session.leased([a, b, c])
    session.start("q", 2)
    session.finished(outcomes("b"))
    session.hand_back()
    assert (a.cancelled, b.cancelled) == (True, False)
    session.finished(outcomes("a"))  # too late
    assert session.take() == [Report([*outcomes("b"), Released(LeaseToken("c")), Released(LeaseToken("a"))])]
    session.receipted(tokens_of("a", "b", "c"))
    assert session.take() == [Close()]


def test_more_or_fewer_tasks_are_taken_ahead(session: WorkerSession) -> None:
    session.want("q", 12)
    session.want("unknown", 3)
    assert session.take() == [Grant("q", 4)]
    session.want("q", 2)
    names = [str(number) for number in range(11)]
    session.leased(tasks(*names))
    session.start("q", 99)
    session.finished(outcomes(*names))
    assert session.take() == [Report(outcomes(*names))]
    session.receipted(tokens_of(*names))
    assert session.take() == [Grant("q", 1)]


QUEUES: tuple[str, ...] = ("p", "q")


class Conversation(RuleBasedStateMachine):
    """Any order of what a scheduler, a pipeline and a signal can do."""

    @initialize(wanted=st.integers(1, 12), max_credits=st.integers(1, 12))
    def begin(self, wanted: int, max_credits: int) -> None:
        self.session = WorkerSession(dict.fromkeys(QUEUES, wanted))
        self.session.welcomed(max_credits=max_credits)
        self.limit = min(wanted, max_credits)
        for queue in QUEUES:
            self.session.open(queue)
        self.credits = dict.fromkeys(QUEUES, 0)
        self.leases: set[str] = set()  # as the scheduler sees them
        self.running: list[str] = []
        self.unanswered: list[str] = []
        self.said: list[str] = []
        self.cancelled: set[str] = set()
        self.named = 0
        self.draining = False

    @precondition(lambda self: not self.session.closed)
    @rule(queue=st.sampled_from(QUEUES), count=st.integers(1, 5))
    def lease(self, queue: str, count: int) -> None:
        count = min(count, self.credits[queue])
        names = [str(self.named + number) for number in range(count)]
        self.named += count
        self.credits[queue] -= count
        self.leases.update(names)
        self.session.leased(tasks(*names, queue=queue))

    @rule(queue=st.sampled_from(QUEUES), limit=st.integers(1, 5))
    def start(self, queue: str, limit: int) -> None:
        started = self.session.start(queue, limit)
        assert not self.cancelled.intersection(task.token for task in started)
        assert not (self.draining and started)
        self.running += [task.token for task in started]

    @rule(count=st.integers(1, 5))
    def finish(self, count: int) -> None:
        done, self.running = self.running[:count], self.running[count:]
        self.session.finished(outcomes(*done))

    @rule()
    def write(self) -> None:
        for message in self.session.take():
            match message:
                case Report(results):
                    assert 1 <= len(results) <= 1000
                    self.said += [outcome.token for outcome in results]
                    self.unanswered += [outcome.token for outcome in results]
                case Grant(queue, credits):
                    assert not self.draining
                    self.credits[queue] += credits
                    assert self.credits[queue] <= self.limit
                case Heartbeat(tokens):
                    assert set(tokens) == self.leases
                case Progress(token):
                    assert token in self.running
                case Close():
                    assert self.draining
                    assert not self.leases

    @rule(data=st.data())
    def receipt(self, data: st.DataObject) -> None:
        answered = data.draw(st.permutations(self.unanswered))[: data.draw(st.integers(0, 5))]
        self.unanswered = [token for token in self.unanswered if token not in answered]
        self.leases.difference_update(answered)
        self.session.receipted(map(LeaseToken, answered))

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        open_ = sorted(self.leases)
        gone = data.draw(st.permutations(open_))[:2]
        self.leases.difference_update(gone)
        self.cancelled.update(gone)
        self.session.cancelled(map(LeaseToken, gone))

    @rule()
    def beat(self) -> None:
        self.session.beat()

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def progress(self, data: st.DataObject) -> None:
        self.session.progressed(Progress(LeaseToken(data.draw(st.sampled_from(self.running))), []))

    @rule()
    def tell(self) -> None:
        self.session.tell()

    @precondition(lambda self: self.draining)
    @rule()
    def hand_back(self) -> None:
        self.session.hand_back()

    @rule(share=st.sampled_from((0.0, 0.25, 0.5, 1.0)))
    def throttle(self, share: float) -> None:
        self.session.throttle(share)

    @precondition(lambda self: self.named > 3)
    @rule()
    def drain(self) -> None:
        self.draining = True
        self.session.drain()

    @invariant()
    def nothing_is_said_twice(self) -> None:
        assert len(self.said) == len(set(self.said))
        assert self.session.held == len(self.leases)

    def teardown(self) -> None:
        if not hasattr(self, "session"):
            return
        before = set(self.said)
        for _ in range(3):
            for queue in QUEUES:
                self.start(queue, 10_000)
            self.finish(10_000)
            self.write()
        for token in sorted(self.cancelled - before):
            assert token not in self.said
        self.drain()
        self.write()
        self.leases.difference_update(self.unanswered)
        self.session.receipted(map(LeaseToken, self.unanswered))
        self.unanswered = []
        self.write()
        assert self.session.held == 0
        assert self.session.closed
        self.nothing_is_said_twice()
        assert set(self.said) | self.cancelled == {str(number) for number in range(self.named)}


Conversation.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
test_any_conversation = Conversation.TestCase
