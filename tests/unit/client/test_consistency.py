"""Which tokens a client carries."""

from __future__ import annotations

import random
from collections import deque

from cinnabar_client.connection import MAX_CALLS
from cinnabar_client.consistency import MAX_TOKENS, Sent, Tokens


def test_an_answer_replaces_what_its_call_carried() -> None:
    tokens = Tokens()
    first = tokens.sent()
    assert first.value == ""
    first.answered("a")
    second = tokens.sent()
    assert second.value == "a"
    second.answered("b")
    assert tokens.exported == "b"


def test_an_answer_without_a_token_changes_nothing() -> None:
    tokens = Tokens("a,b")
    tokens.sent().answered("")
    assert tokens.exported == "a,b"


def test_calls_that_run_at_once_keep_what_each_of_them_wrote() -> None:
    tokens = Tokens("a")
    one, other = tokens.sent(), tokens.sent()
    one.answered("a+one")
    other.answered("a+other")
    assert tokens.sent().value == "a+one,a+other"
    tokens.sent().answered("all")
    assert tokens.exported == "all"


def test_a_stream_replaces_its_own_token_with_every_message() -> None:
    tokens = Tokens("a")
    stream = tokens.sent()
    stream.answered("s1")
    tokens.sent().answered("s1+call")
    stream.answered("s2")
    stream.answered("s3")
    assert tokens.exported == "s1+call,s3"


def test_what_another_client_wrote_is_carried_too() -> None:
    tokens = Tokens("a")
    tokens.add(Tokens("x,y").exported)
    assert tokens.exported == "a,x,y"


def test_a_refused_token_is_carried_no_more() -> None:
    tokens = Tokens("forged")
    call = tokens.sent()
    tokens.add("good")
    call.refused()
    assert tokens.exported == "good"


def test_nothing_is_carried_when_switched_off() -> None:
    tokens = Tokens("a", carried=False)
    tokens.sent().answered("b")
    tokens.add("c")
    assert tokens.exported == ""


def test_tokens_are_no_more_than_calls_at_once() -> None:
    # A token is a set of writes; the service answers with all that it was sent and its own.
    chance = random.Random(7)
    tokens, under_way, written, most = Tokens(), deque[tuple[Sent, int]](), 0, 0
    for _ in range(5000):
        if len(under_way) < MAX_CALLS and chance.random() < 0.5:
            written += 1
            under_way.append((tokens.sent(), written))
        elif under_way:
            under_way.rotate(chance.randrange(len(under_way)))
            sent, write = under_way.popleft()
            known = {one for token in sent.value.split(",") for one in token.split("+") if one}
            sent.answered("+".join(sorted({*known, str(write)})))
            shown = {one for token in tokens.exported.split(",") for one in token.split("+")}
            assert {*known, str(write)} <= shown
        most = max(most, tokens.exported.count(",") + 1)
    assert MAX_CALLS // 4 < most <= MAX_CALLS + 1
    assert MAX_CALLS + 50 <= MAX_TOKENS
