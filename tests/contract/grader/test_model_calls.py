"""What graders share about models: breaker, limits, budgets, results; over every adapter."""

from hashlib import sha256

import pytest

from cinnabar_grader.adapters.memory_model_calls import Owner
from cinnabar_grader.graders import LeaseToken
from cinnabar_grader.llm.ports import (
    BREAKER_FAILURES,
    RECOVERY_SECONDS,
    BreakerState,
    Call,
    DenialReason,
    Denied,
    Ending,
    Failure,
    LeaseNotHeld,
    NotMade,
    Permit,
    Shared,
    Success,
    Throttled,
    Useless,
    Wait,
    WaitReason,
)
from tests.support.model_calls import (
    FEW,
    LOST,
    PLAIN,
    POOR,
    RICH,
    SLOW,
    STRICT,
    ModelCallsHarness,
)

TIMEOUT = 10.0
KEY = sha256(b"answer").digest()


def call(provider: str = PLAIN, *, tokens: int = 10, cost: int = 0, key: bytes = b"") -> Call:
    return Call(provider=provider, tokens=tokens, cost_micros=cost, share_key=key, timeout=TIMEOUT)


async def permit(harness: ModelCallsHarness, lease: LeaseToken, wanted: Call | None = None) -> Permit:
    answer = await harness.calls.begin(lease, wanted or call())
    assert isinstance(answer, Permit), answer
    return answer


async def made(
    harness: ModelCallsHarness, lease: LeaseToken, ending: Ending, wanted: Call | None = None
) -> BreakerState:
    return await harness.calls.end(await permit(harness, lease, wanted), ending)


async def opened(harness: ModelCallsHarness) -> LeaseToken:
    """A breaker that has just opened."""
    lease = await harness.lease(RICH)
    for _ in range(BREAKER_FAILURES - 1):
        assert await made(harness, lease, Failure()) is BreakerState.CLOSED
    assert await made(harness, lease, Failure()) is BreakerState.OPEN
    return lease


async def test_five_failures_in_a_row_open_the_breaker_for_a_minute(harness: ModelCallsHarness) -> None:
    lease = await opened(harness)
    denied = await harness.calls.begin(lease, call())
    assert isinstance(denied, Denied)
    assert denied.reason is DenialReason.BREAKER_OPEN
    assert denied.retry_after == pytest.approx(RECOVERY_SECONDS, abs=1)
    await harness.advance(RECOVERY_SECONDS - 1)
    assert isinstance(await harness.calls.begin(lease, call()), Denied)


@pytest.mark.parametrize("ending", [Success(), Useless()], ids=["success", "useless"])
async def test_an_answer_starts_the_count_again(harness: ModelCallsHarness, ending: Ending) -> None:
    lease = await harness.lease(RICH)
    for _ in range(3):
        for _ in range(BREAKER_FAILURES - 1):
            assert await made(harness, lease, Failure()) is BreakerState.CLOSED
        assert await made(harness, lease, ending) is BreakerState.CLOSED


@pytest.mark.parametrize("ending", [Throttled(), NotMade()], ids=["throttled", "not made"])
async def test_what_is_neither_answer_nor_failure_does_not_count(
    harness: ModelCallsHarness, ending: Ending
) -> None:
    lease = await harness.lease(RICH)
    for _ in range(BREAKER_FAILURES - 1):
        assert await made(harness, lease, Failure()) is BreakerState.CLOSED
    assert await made(harness, lease, ending) is BreakerState.CLOSED
    assert await made(harness, lease, Failure()) is BreakerState.OPEN


async def test_the_failures_of_one_provider_are_not_those_of_another(harness: ModelCallsHarness) -> None:
    lease = await opened(harness)
    await permit(harness, lease, call(FEW))


async def test_the_first_call_after_recovery_is_the_only_probe(harness: ModelCallsHarness) -> None:
    lease = await opened(harness)
    await harness.advance(RECOVERY_SECONDS)
    probe = await permit(harness, lease)
    assert probe.probe
    denied = await harness.calls.begin(lease, call())
    assert isinstance(denied, Denied)
    assert denied.reason is DenialReason.BREAKER_OPEN
    assert denied.retry_after is not None
    assert 0 < denied.retry_after <= 2 * TIMEOUT
    assert await harness.calls.end(probe, Success()) is BreakerState.CLOSED
    assert not (await permit(harness, lease)).probe
    assert await made(harness, lease, Failure()) is BreakerState.CLOSED, "the count starts again"


@pytest.mark.parametrize("ending", [Useless(), Throttled()], ids=["useless", "throttled"])
async def test_a_probe_that_is_answered_at_all_closes(harness: ModelCallsHarness, ending: Ending) -> None:
    lease = await opened(harness)
    await harness.advance(RECOVERY_SECONDS)
    assert await made(harness, lease, ending) is BreakerState.CLOSED


async def test_a_failed_probe_opens_it_anew(harness: ModelCallsHarness) -> None:
    lease = await opened(harness)
    await harness.advance(RECOVERY_SECONDS)
    assert await made(harness, lease, Failure()) is BreakerState.OPEN
    await harness.advance(RECOVERY_SECONDS - 1)
    assert isinstance(await harness.calls.begin(lease, call()), Denied)
    await harness.advance(1)
    assert (await permit(harness, lease)).probe


async def test_a_probe_that_was_not_made_leaves_it_to_the_next(harness: ModelCallsHarness) -> None:
    lease = await opened(harness)
    await harness.advance(RECOVERY_SECONDS)
    assert await made(harness, lease, NotMade()) is BreakerState.OPEN
    assert (await permit(harness, lease)).probe


async def test_a_probe_that_nobody_ends_leaves_it_to_the_next(harness: ModelCallsHarness) -> None:
    lease = await opened(harness)
    await harness.advance(RECOVERY_SECONDS)
    lost = await permit(harness, lease)
    await harness.advance(TIMEOUT * 2)
    assert (await permit(harness, lease)).probe
    await harness.calls.end(lost, Success())
    assert isinstance(await harness.calls.begin(lease, call()), Denied), "the lost one decides nothing"


async def test_calls_from_before_decide_nothing_while_it_is_open(harness: ModelCallsHarness) -> None:
    lease = await harness.lease(RICH)
    early = [await permit(harness, lease) for _ in range(BREAKER_FAILURES + 2)]
    for one in early[:BREAKER_FAILURES]:
        await harness.calls.end(one, Failure())
    assert await harness.calls.end(early[-2], Success()) is BreakerState.OPEN
    await harness.advance(5)
    assert await harness.calls.end(early[-1], Failure()) is BreakerState.OPEN
    await harness.advance(RECOVERY_SECONDS - 5)
    assert (await permit(harness, lease)).probe, "the late failure did not prolong it"


async def test_ending_twice_changes_nothing(harness: ModelCallsHarness) -> None:
    lease = await harness.lease(RICH)
    one = await permit(harness, lease)
    for _ in range(BREAKER_FAILURES + 1):
        assert await harness.calls.end(one, Failure()) is BreakerState.CLOSED
    await permit(harness, lease)


async def test_a_lost_lease_calls_nothing(harness: ModelCallsHarness) -> None:
    with pytest.raises(LeaseNotHeld):
        await harness.calls.begin(LOST, call())


async def test_calls_at_once(harness: ModelCallsHarness) -> None:
    lease = await harness.lease(RICH)
    first, _ = [await permit(harness, lease, call(FEW)) for _ in range(2)]
    wait = await harness.calls.begin(lease, call(FEW))
    assert isinstance(wait, Wait)
    assert wait.reason is WaitReason.CONCURRENCY
    assert wait.retry_after > 0
    await harness.calls.end(first, Success())
    await permit(harness, lease, call(FEW))


async def test_calls_that_nobody_ends_take_no_place_for_ever(harness: ModelCallsHarness) -> None:
    lease = await harness.lease(RICH)
    for _ in range(2):
        await permit(harness, lease, call(FEW))
    await harness.advance(TIMEOUT * 2)
    await permit(harness, lease, call(FEW))


@pytest.mark.parametrize(("tokens", "passed"), [(1, 3), (400, 2)], ids=["requests", "tokens"])
async def test_requests_and_tokens_of_a_minute(harness: ModelCallsHarness, tokens: int, passed: int) -> None:
    lease = await harness.lease(RICH)
    for _ in range(passed):
        await made(harness, lease, Success(tokens), call(SLOW, tokens=tokens))
    wait = await harness.calls.begin(lease, call(SLOW, tokens=tokens))
    assert isinstance(wait, Wait)
    assert wait.reason is WaitReason.RATE
    assert 0 < wait.retry_after <= 60
    await harness.advance(wait.retry_after + 0.01)
    await permit(harness, lease, call(SLOW, tokens=tokens))


async def test_a_throttled_call_holds_everybody_back(harness: ModelCallsHarness) -> None:
    lease, other = await harness.lease(RICH), await harness.lease(POOR)
    await made(harness, lease, Throttled(7))
    wait = await harness.calls.begin(other, call())
    assert isinstance(wait, Wait)
    assert wait.reason is WaitReason.RATE
    assert wait.retry_after == pytest.approx(7, abs=1)
    await harness.advance(7.01)
    await permit(harness, other)


@pytest.mark.parametrize(
    ("owner", "wanted", "level"),
    [
        (POOR, call(tokens=1001), "tenant"),
        (POOR, call(cost=501), "tenant"),
        (Owner(STRICT.tenant, STRICT.course, "a2"), call(tokens=1001), "course"),
        (STRICT, call(tokens=101), "assignment"),
    ],
    ids=["tenant", "money", "course", "assignment"],
)
async def test_a_call_above_a_budget_is_denied(
    harness: ModelCallsHarness, owner: Owner, wanted: Call, level: str
) -> None:
    denied = await harness.calls.begin(await harness.lease(owner), wanted)
    assert isinstance(denied, Denied)
    assert (denied.reason, denied.level) == (DenialReason.BUDGET_EXHAUSTED, level)


async def test_budgets_are_reserved_before_and_settled_after(harness: ModelCallsHarness) -> None:
    lease = await harness.lease(POOR)
    first = await permit(harness, lease, call(tokens=600, cost=10))
    assert isinstance(await harness.calls.begin(lease, call(tokens=600)), Denied), "reserved"
    await harness.calls.end(first, Success(tokens=100, cost_micros=10))
    await made(harness, lease, Useless(tokens=300, cost_micros=10), call(tokens=600))
    await permit(harness, lease, call(tokens=600))
    denied = await harness.calls.begin(lease, call(tokens=1))
    assert isinstance(denied, Denied), "400 are spent, 600 reserved"


@pytest.mark.parametrize("ending", [Failure(), Throttled(), NotMade()], ids=["failure", "throttled", "none"])
async def test_calls_without_an_answer_cost_nothing(harness: ModelCallsHarness, ending: Ending) -> None:
    lease = await harness.lease(POOR)
    for _ in range(3):
        await made(harness, lease, ending, call(tokens=1000))


async def test_what_nobody_ends_is_released(harness: ModelCallsHarness) -> None:
    lease = await harness.lease(POOR)
    await permit(harness, lease, call(tokens=1000))
    await harness.advance(TIMEOUT * 2)
    await permit(harness, lease, call(tokens=1000))


async def test_the_budget_of_one_assignment_is_not_that_of_another(harness: ModelCallsHarness) -> None:
    lease = await harness.lease(STRICT)
    await made(harness, lease, Success(tokens=100), call(tokens=100))
    assert isinstance(await harness.calls.begin(lease, call(tokens=1)), Denied)
    neighbour = await harness.lease(Owner(STRICT.tenant, STRICT.course, "a2"))
    await permit(harness, neighbour, call(tokens=900))
    denied = await harness.calls.begin(neighbour, call(tokens=1))
    assert isinstance(denied, Denied)
    assert denied.level == "course"


async def test_the_same_is_asked_once(harness: ModelCallsHarness) -> None:
    lease, other = await harness.lease(RICH), await harness.lease(RICH)
    asking = await permit(harness, lease, call(key=KEY))
    wait = await harness.calls.begin(other, call(key=KEY))
    assert isinstance(wait, Wait)
    assert wait.reason is WaitReason.IN_FLIGHT
    assert wait.retry_after > 0
    await harness.calls.end(asking, Success(tokens=5, result=b"5 points"))
    assert await harness.calls.begin(other, call(key=KEY)) == Shared(b"5 points")
    assert await harness.calls.begin(lease, call("another", key=KEY)) == Shared(b"5 points")


async def test_what_is_known_needs_neither_provider_nor_budget(harness: ModelCallsHarness) -> None:
    lease = await harness.lease(POOR)
    await made(harness, lease, Success(tokens=1000, result=b"r"), call(tokens=1000, key=KEY))
    for _ in range(BREAKER_FAILURES):
        await made(harness, await harness.lease(RICH), Failure())
    assert await harness.calls.begin(lease, call(key=KEY)) == Shared(b"r")
    other = sha256(b"another answer").digest()
    assert isinstance(await harness.calls.begin(lease, call(key=other)), Denied)


async def test_nothing_is_shared_between_tenants(harness: ModelCallsHarness) -> None:
    lease, stranger = await harness.lease(RICH), await harness.lease(POOR)
    asking = await permit(harness, lease, call(key=KEY))
    theirs = await permit(harness, stranger, call(key=KEY))
    await harness.calls.end(asking, Success(result=b"ours"))
    await harness.calls.end(theirs, Useless())
    await permit(harness, stranger, call(key=KEY))


@pytest.mark.parametrize("ending", [Failure(), Useless(), Success(), NotMade()])
async def test_without_a_result_the_next_one_asks(harness: ModelCallsHarness, ending: Ending) -> None:
    lease = await harness.lease(RICH)
    await made(harness, lease, ending, call(key=KEY))
    await permit(harness, lease, call(key=KEY))


async def test_who_asks_and_never_ends_is_not_waited_for_for_ever(harness: ModelCallsHarness) -> None:
    lease = await harness.lease(RICH)
    await permit(harness, lease, call(key=KEY))
    await harness.advance(TIMEOUT * 2)
    await permit(harness, lease, call(key=KEY))
