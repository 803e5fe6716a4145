"""The end of an active conversation. Ending it twice does no harm, so it is sent again after any failure."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tavus_provider.client.change_request import ChangeRequest
from tavus_provider.client.kinds import KINDS
from tavus_provider.client.retry import Retry
from tavus_provider.client.transport import Response, Transport
from tavus_provider.exceptions import (
    ItemNotFoundError,
    TavusError,
    TavusOutcomeUnknownError,
    TavusRequestRejectedError,
    TavusRetryableError,
)
from tavus_provider.keys import Kind, check_id
from tavus_provider.models import Conversation

ENDED: Final = "ended"
"""The status of a conversation that has ended (Tavus API reference)."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ending:
    """
    The result for a conversation that has ended.

    :param detail: one sentence for a report: what Tavus returned, or what a later look-up shows
    :param attempts: number of POST requests
    """

    conversation_id: str
    detail: str
    attempts: int = 1


class EndRequest(ChangeRequest):
    """
    A POST that ends a conversation, for the retry loop.

    :param look_up: reads the conversation, to settle a response that does not say that it has ended. Tavus
        does not document the response for a conversation that had ended before.
    :raises TavusValidationError: if ``conversation_id`` is invalid; nothing was sent
    """

    def __init__(
        self, transport: Transport, conversation_id: str, *, look_up: Callable[[str], Conversation]
    ) -> None:
        kind = Kind.CONVERSATION
        path = f"{KINDS[kind].path}/{check_id(kind, conversation_id)}/end"
        super().__init__(transport, "POST", path, kind=kind)
        self._id = conversation_id
        self._look_up = look_up

    def attempt(self, number: int) -> Ending | Retry:
        """Send the POST once; see :class:`tavus_provider.client.retry.Retryable`."""
        sent = self._send(number)
        if isinstance(sent, Response):
            return Ending(self._id, f"{self._what} returned {sent.status}", number)
        if retry := self._retry_rejected_key(sent):
            return retry
        error = sent.error
        if isinstance(error, TavusOutcomeUnknownError):
            self._unknown = error
        if not error.key_rejected and not isinstance(error, TavusRetryableError):
            shown = self._read_status()
            if shown == ENDED:
                return Ending(self._id, f"{error}; a look-up shows that the conversation has ended", number)
            if isinstance(error, ItemNotFoundError) and shown is not None:
                error = TavusRequestRejectedError(
                    f"{error}, but a look-up shows that the conversation is {shown}",
                    status=error.status,
                    attempts=number,
                )
        if isinstance(error, ItemNotFoundError):
            raise error
        if isinstance(error, TavusRequestRejectedError):
            if self._unknown is None:
                raise error
            self._raise_final(error, number, key_rejected=error.key_rejected)
        self._last_error = error
        return Retry(sent.response)

    def _read_status(self) -> str | None:
        """Return the status of the conversation now; ``None`` if Tavus does not show it."""
        try:
            return self._look_up(self._id).status
        except ItemNotFoundError:
            return None
        except TavusError as error:
            log.warning("Could not find out whether conversation %s has ended: %s", self._id, error)
        return None
