"""Asking a model under everybody's rules, within one bound of time."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cinnabar_grader.free_text import Criterion
from cinnabar_grader.graders import LeaseToken
from cinnabar_grader.llm.chat import (
    ASSISTANT,
    USER,
    ChatModel,
    ChatReply,
    ChatRequest,
    ProviderAway,
    ProviderBusy,
    ProviderRejects,
    ReplyUnreadable,
    Turn,
)
from cinnabar_grader.llm.ports import (
    Call,
    Denied,
    Ending,
    Failure,
    ModelCalls,
    NotMade,
    Permit,
    Shared,
    Success,
    Throttled,
    Useless,
    Wait,
)
from cinnabar_grader.llm.prompt import Prompt, tokens_of
from cinnabar_grader.llm.replies import BadReply, Reason, Reply, decoded, encoded, read

log = logging.getLogger(__name__)
RETRIES = 2
"""Times that a call is made again when the provider has an error of its own."""
BACKOFF_SECONDS = (0.25, 4.0)
"""Bounds of the pause before that where the provider names none; doubled each time, half of it by chance."""
UNNAMED_SECONDS = 1.0
"""Patience after a 429 that asks for none in particular."""
_QUOTED = 2_000
"""Characters of a bad reply that the model is shown again."""
_MOST_TOKENS = 10_000_000
"""What a provider may say that it used; more is no number to reckon with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """Who is asked, and for how much."""

    name: str
    timeout: float
    """Seconds that a task may take in all, with every wait and every second try."""
    max_output_tokens: int
    input_price: float = 0.0
    output_price: float = 0.0
    """Per million tokens, which makes them millionths per token."""

    def cost(self, input_tokens: int, output_tokens: int) -> int:
        """In millionths, rounded up."""
        return math.ceil(input_tokens * self.input_price + output_tokens * self.output_price)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One thing to ask."""

    lease: LeaseToken
    model: str
    prompt: Prompt
    criteria: Sequence[Criterion]
    share_key: bytes
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of it. Tokens are 0 when it is shared."""

    reply: Reply
    shared: bool
    input_tokens: int = 0
    output_tokens: int = 0


class Unanswered(Exception):
    """There is no reply to be had."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


class Asking:
    """Asks one model through `ModelCalls`: waits, tries again, and has a bad reply mended once."""

    def __init__(
        self,
        calls: ModelCalls,
        chat: ChatModel,
        provider: Provider,
        *,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """``jitter`` gives 0..1."""
        self.provider = provider
        self.answering: bool | None = None
        """Whether the provider answered the last call that was made; None before the first."""
        self._calls = calls
        self._chat = chat
        self._jitter = jitter

    async def ask(self, question: Question) -> Asked:
        """The reply, at the latest `Provider.timeout` from now. Raises Unanswered, LeaseNotHeld."""
        return await _One(self, self._calls, self._chat, self._jitter, question).run()


class _One:
    """One question on its way."""

    def __init__(
        self,
        asking: Asking,
        calls: ModelCalls,
        chat: ChatModel,
        jitter: Callable[[], float],
        question: Question,
    ) -> None:
        self._asking = asking
        self._provider = asking.provider
        self._calls, self._chat, self._jitter = calls, chat, jitter
        self._question = question
        self._turns = question.prompt.turns
        self._tokens = question.prompt.tokens
        self._failures = 0
        self._mended = False
        self._used = (0, 0)
        self._until = asyncio.get_running_loop().time() + asking.provider.timeout

    async def run(self) -> Asked:
        while True:
            left = self._left(Reason.UNAVAILABLE if self._failures else Reason.TIMEOUT)
            tokens = self._tokens + self._provider.max_output_tokens
            call = Call(
                provider=self._provider.name,
                tokens=tokens,
                cost_micros=self._provider.cost(self._tokens, self._provider.max_output_tokens),
                share_key=self._question.share_key,
                timeout=left,
            )
            answer = await self._calls.begin(self._question.lease, call)
            match answer:
                case Shared(result):
                    return self._shared(result)
                case Denied(reason):
                    # Whoever has just seen it fail knows more than that it does.
                    raise Unanswered(Reason.UNAVAILABLE if self._failures else Reason[reason.name])
                case Wait(_, seconds):
                    await self._pause(seconds, Reason.BUSY)
                case Permit():
                    asked = await self._make(answer)
                    if asked is not None:
                        return asked

    async def _make(self, permit: Permit) -> Asked | None:
        """Makes the call and says how it ended; None when it is worth another try."""
        ending: Ending = NotMade()
        pause = 0.0
        try:
            try:
                async with asyncio.timeout(self._left(Reason.TIMEOUT)):
                    reply = await self._chat.complete(self._request())
            except TimeoutError:
                ending = Failure()
                raise Unanswered(Reason.TIMEOUT) from None
            except ProviderAway as error:
                ending = Failure()
                log.info("model provider failed", extra={"error": str(error)})
                pause = self._failed(error.retry_after)
            except ProviderBusy as error:
                pause = UNNAMED_SECONDS if error.retry_after is None else error.retry_after
                ending = Throttled(pause)
            except ProviderRejects as error:
                ending = Useless()
                log.warning("model provider takes no request", extra={"status": error.status})
                raise Unanswered(Reason.REJECTED) from None
            except ReplyUnreadable as error:
                ending = Useless()
                log.info("model provider unreadable", extra={"error": str(error)})
                self._mend(BadReply(Reason.MALFORMED, "That was not valid JSON."), "")
            else:
                tokens, cost = self._charge(reply)
                ending = Useless(tokens, cost)
                try:
                    found = read(reply, self._question.criteria, self._question.prompt.secrets)
                except BadReply as bad:
                    self._mend(bad, reply.text)
                else:
                    ending = Success(tokens, cost, encoded(found))
                    return Asked(found, False, *self._used)
        finally:
            if not isinstance(ending, NotMade):
                self._asking.answering = not isinstance(ending, Failure)
            # Also when this task is cancelled: others wait for what the permit holds.
            await asyncio.shield(self._calls.end(permit, ending))
        if pause:
            await self._pause(pause, Reason.UNAVAILABLE if self._failures else Reason.BUSY)
        return None

    def _request(self) -> ChatRequest:
        return ChatRequest(
            model=self._question.model,
            turns=self._turns,
            schema=self._question.prompt.schema,
            max_output_tokens=self._provider.max_output_tokens,
            temperature=self._question.temperature,
            seed=self._question.seed,
        )

    def _shared(self, result: bytes) -> Asked:
        try:
            return Asked(decoded(result, self._question.criteria), True)
        except BadReply as error:
            raise Unanswered(error.reason) from None

    def _failed(self, retry_after: float | None) -> float:
        """Seconds before the next try. Raises Unanswered after the last."""
        self._failures += 1
        if self._failures > RETRIES:
            raise Unanswered(Reason.UNAVAILABLE)
        if retry_after is not None:
            return retry_after
        shortest, longest = BACKOFF_SECONDS
        bound = min(longest, shortest * 2.0 ** (self._failures - 1))
        return bound * (1 + self._jitter()) / 2

    def _mend(self, bad: BadReply, said: str) -> None:
        """Asks for it again, once. Raises Unanswered after that, and when the model was talked over."""
        if self._mended or bad.reason is Reason.CANARY:
            raise Unanswered(bad.reason)
        self._mended = True
        said = said[:_QUOTED] or "(nothing)"
        again = f"{bad.hint} Reply again, with one JSON object of the form that was asked for."
        self._turns = (*self._turns, Turn(ASSISTANT, said), Turn(USER, again))
        self._tokens += len(said.encode(errors="replace")) // 2 + 64

    def _charge(self, reply: ChatReply) -> tuple[int, int]:
        """Tokens and cost of a reply: as the provider says, or estimated when it says nothing."""
        said = reply.input_tokens, reply.output_tokens
        if said == (0, 0):
            said = self._tokens, tokens_of(len(reply.text.encode(errors="replace")))
        read_, written = (min(max(0, tokens), _MOST_TOKENS) for tokens in said)
        self._used = self._used[0] + read_, self._used[1] + written
        return read_ + written, self._provider.cost(read_, written)

    def _left(self, reason: Reason) -> float:
        left = self._until - asyncio.get_running_loop().time()
        if left <= 0:
            raise Unanswered(reason)
        return left

    async def _pause(self, seconds: float, reason: Reason) -> None:
        if seconds >= self._left(reason):
            raise Unanswered(reason)  # better now than then
        await asyncio.sleep(seconds)
