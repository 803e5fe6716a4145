"""One delete of an object, which cannot be undone: sent again only while it is not known to be applied."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tavus_provider.client.change_request import ChangeRequest, count_attempts
from tavus_provider.client.kinds import KINDS
from tavus_provider.client.retry import Retry
from tavus_provider.client.transport import Response, Transport
from tavus_provider.exceptions import (
    ItemNotFoundError,
    TavusError,
    TavusOutcomeUnknownError,
    TavusRequestRejectedError,
)
from tavus_provider.keys import parse_key
from tavus_provider.models import check_bool
from tavus_provider.outcomes import Outcome

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Deletion:
    """
    The result of a delete that was applied.

    :param key: the key of the object; for a replica, its id
    :param outcome: ``deleted`` if Tavus confirmed the delete, ``confirmed`` if only a later request
        showed that the object is gone
    :param detail: one sentence for a report
    :param attempts: number of DELETE requests
    """

    key: str
    outcome: Literal[Outcome.DELETED, Outcome.CONFIRMED]
    detail: str
    attempts: int = 1


class DeleteRequest(ChangeRequest):
    """
    A DELETE for the retry loop.

    :param hard: also delete what belongs to the object, such as training footage
    :param look_up: reads the object, to settle an attempt whose outcome is unknown
    :param before_send: see :meth:`.Transport.send`
    :raises TavusValidationError: if ``key`` or ``hard`` is invalid; nothing was sent
    """

    def __init__(
        self,
        transport: Transport,
        key: str,
        *,
        hard: bool,
        look_up: Callable[[str], object],
        before_send: Callable[[], bool] | None = None,
    ) -> None:
        kind, item_id = parse_key(key)
        query = {"hard": "true"} if check_bool("hard", hard) else None
        super().__init__(
            transport, "DELETE", f"{KINDS[kind].path}/{item_id}", query, kind=kind, before_send=before_send
        )
        self._key = key
        self._look_up = look_up

    def attempt(self, number: int) -> Deletion | Retry:
        """Send the DELETE once; see :class:`tavus_provider.client.retry.Retryable`."""
        sent = self._send(number)
        if isinstance(sent, Response):
            detail = f"{self._what} returned {sent.status}"
            return Deletion(self._key, Outcome.DELETED, detail, number)
        if retry := self._retry_rejected_key(sent):
            return retry
        error = sent.error
        if isinstance(error, ItemNotFoundError | TavusRequestRejectedError) and self._unknown is None:
            raise error
        if isinstance(error, ItemNotFoundError):
            detail = f"{self._what}: Tavus no longer knows the {self._kind}; {count_attempts(number)}"
            return Deletion(self._key, Outcome.CONFIRMED, detail, number)
        if isinstance(error, TavusRequestRejectedError):
            # A rejection of this attempt does not prove that an earlier one was not applied.
            self._raise_final(error, number, key_rejected=error.key_rejected)
        if isinstance(error, TavusOutcomeUnknownError):
            self._unknown = error
            if self._is_gone():
                detail = f"{error}; a later look-up shows that it is gone"
                return Deletion(self._key, Outcome.CONFIRMED, detail, number)
        self._last_error = error
        return Retry(sent.response)

    def _is_gone(self) -> bool:
        """Read the object. Only a clear "not found" counts; an error settles nothing."""
        try:
            self._look_up(self._key)
        except ItemNotFoundError:
            return True
        except TavusError as error:
            log.warning("Could not find out whether %s is gone: %s", self._key, error)
        return False
