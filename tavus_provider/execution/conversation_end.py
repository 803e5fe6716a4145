"""End an active conversation before an erasure deletes it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, NamedTuple, Protocol

from tavus_provider.exceptions import ItemNotFoundError, TavusError
from tavus_provider.keys import parse_key
from tavus_provider.planning.erasure import ErasureRow

STALE_AFTER: Final = timedelta(days=1)
"""
Age from which an active conversation is deleted even if it could not be ended. Tavus ends conversations after
an hour at most (``max_call_duration``, Tavus API reference), so its status is wrong.
"""


class EndingResult(Protocol):
    """What the end of a conversation returns."""

    @property
    def detail(self) -> str: ...


class EndingClient(Protocol):
    """The client method that ends conversations."""

    def end_conversation(self, conversation_id: str) -> EndingResult: ...


class EndOfConversation(NamedTuple):
    """
    What became of the end of a conversation.

    :param state: as the ledger records it: ``ended``, ``not_found``, or the outcome of an error
    :param error: why it could not be ended; ``None`` if it is not going on
    """

    state: str
    detail: str
    error: TavusError | None = None


def end_conversation(client: EndingClient, key: str) -> EndOfConversation:
    """End a conversation, and return what became of it."""
    try:
        ending = client.end_conversation(parse_key(key)[1])
    except ItemNotFoundError:
        return EndOfConversation("not_found", "Tavus does not know it")
    except TavusError as error:
        return EndOfConversation(error.outcome.value, str(error), error)
    return EndOfConversation("ended", ending.detail)


def is_stale(row: ErasureRow, *, now: datetime) -> bool:
    """Return whether a conversation is too old to be going on, whatever its status says."""
    created_at = row["created_at"]
    return created_at is not None and now - datetime.fromisoformat(created_at) > STALE_AFTER
