"""The port to a language model: one question, one reply, and the ways in which there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

SYSTEM, USER, ASSISTANT = "system", "user", "assistant"


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side says; ``role`` is one of the three above."""

    role: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """What a model is asked."""

    model: str
    turns: tuple[Turn, ...]
    schema: Mapping[str, Any]
    """JSON schema that the reply must have."""
    max_output_tokens: int
    temperature: float
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatReply:
    """What a model says. Nothing in it is to be trusted."""

    text: str
    input_tokens: int
    output_tokens: int
    refused: bool = False
    """It says that it will not."""
    truncated: bool = False
    """It had more to say than it may."""


class ProviderAway(Exception):
    """It did not answer, or with an error of its own (5xx). The message is for operators."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds, when it says so."""


class ProviderBusy(Exception):
    """It asks for patience (429), for so many seconds if it says so."""

    def __init__(self, retry_after: float | None = None) -> None:
        super().__init__("throttled")
        self.retry_after = retry_after


class ProviderRejects(Exception):
    """It does not take the request (4xx), whoever asks and however often."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


class ReplyUnreadable(Exception):
    """It answered with what is no reply: too large, no JSON, not of the protocol's form."""


class ChatModel(Protocol):
    """A model somewhere. Safe to be asked many things at once."""

    async def complete(self, request: ChatRequest) -> ChatReply:
        """The reply. Raises ProviderAway, ProviderBusy, ProviderRejects, ReplyUnreadable.

        It has no time limit of its own: the caller cancels it.
        """
        ...
