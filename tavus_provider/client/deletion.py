"""One delete of a replica, which cannot be undone: sent again only while it is not known to be applied."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, NoReturn

from tavus_provider.client.responses import error_of, is_deleted
from tavus_provider.client.retry import Retry
from tavus_provider.client.transport import (
    RequestCancelledError,
    RequestNotSentError,
    Response,
    Transport,
)
from tavus_provider.exceptions import (
    ReplicaNotFoundError,
    TavusAuthError,
    TavusError,
    TavusOutcomeUnknownError,
    TavusRequestRejectedError,
    TavusRetryableError,
)
from tavus_provider.models import Replica, check_bool, check_replica_id
from tavus_provider.outcomes import Outcome

REPLICAS: Final = "/v2/replicas"
"""Tavus also serves replicas under ``/v2/faces``. This is the documented path."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Deletion:
    """
    The result of a delete that was applied.

    :param outcome: ``deleted`` if Tavus confirmed the delete, ``confirmed`` if only a later request
        showed that the replica is gone
    :param detail: one sentence for a report
    :param attempts: number of DELETE requests
    """

    replica_id: str
    outcome: Literal[Outcome.DELETED, Outcome.CONFIRMED]
    detail: str
    attempts: int = 1


class DeleteRequest:
    """
    A DELETE for the retry loop. It remembers whether an earlier attempt may have been applied.

    :param hard: also delete the training footage
    :param look_up: reads the replica, to settle an attempt whose outcome is unknown
    :raises TavusValidationError: if ``replica_id`` or ``hard`` is invalid; nothing was sent
    """

    def __init__(
        self, transport: Transport, replica_id: str, *, hard: bool, look_up: Callable[[str], Replica]
    ) -> None:
        self.replica_id = replica_id
        self._path = f"{REPLICAS}/{check_replica_id(replica_id)}"
        self._query = {"hard": "true"} if check_bool("hard", hard) else None
        self._what = f"DELETE {self._path}" + ("?hard=true" if hard else "")
        self._transport = transport
        self._look_up = look_up
        self._last_error: TavusError = RequestNotSentError(f"{self._what} was not sent")
        self._unknown: TavusOutcomeUnknownError | None = None
        """The last error after which the delete may have been applied."""
        self._key_rejected = False

    def attempt(self, number: int) -> Deletion | Retry:
        """Send the DELETE once; see :class:`tavus_provider.client.retry.Retryable`."""
        response: Response | None = None
        error: TavusError
        try:
            response = self._transport.send("DELETE", self._path, self._query)
        except (RequestNotSentError, TavusOutcomeUnknownError, TavusRequestRejectedError) as caught:
            error = caught
        else:
            if is_deleted(response):
                detail = f"{self._what} returned {response.status}"
                return Deletion(self.replica_id, Outcome.DELETED, detail, number)
            error = error_of(self._what, response, redact=self._transport.redact)
        error.attempts = number
        if isinstance(error, TavusAuthError) and error.status == 401 and not self._key_rejected:
            self._key_rejected = True  # once: a single 401 may be a mistake of the server
            self._last_error = error
            return Retry(response, uses_budget=False)
        if isinstance(error, ReplicaNotFoundError | TavusRequestRejectedError) and self._unknown is None:
            raise error
        if isinstance(error, ReplicaNotFoundError):
            detail = f"{self._what}: Tavus no longer knows the replica; {_count_attempts(number)}"
            return Deletion(self.replica_id, Outcome.CONFIRMED, detail, number)
        if isinstance(error, TavusRequestRejectedError):
            # A rejection of this attempt does not prove that an earlier one was not applied.
            self._raise_final(error, number, key_rejected=error.key_rejected)
        if isinstance(error, TavusOutcomeUnknownError):
            self._unknown = error
            if self._is_gone():
                detail = f"{error}; a later look-up shows that it is gone"
                return Deletion(self.replica_id, Outcome.CONFIRMED, detail, number)
        self._last_error = error
        return Retry(response)

    def give_up(self, attempts: int, error: TavusRetryableError | None) -> NoReturn:
        """Raise the final error; see :class:`tavus_provider.client.retry.Retryable`."""
        if error is not None and attempts == 0:
            raise RequestCancelledError(f"{self._what} was not sent: {error}")
        if error is not None:
            error = TavusRetryableError(f"{self._what}: {error}", status=error.status)
        self._raise_final(error or self._last_error, attempts)

    def _raise_final(self, last: TavusError, attempts: int, *, key_rejected: bool = False) -> NoReturn:
        kind = TavusOutcomeUnknownError if self._unknown else TavusRetryableError
        shown = self._unknown or last
        final = kind(
            f"{shown}; {_count_attempts(attempts)}" + ("; it may have been applied" if self._unknown else ""),
            status=last.status,
            attempts=attempts,
            request_id=shown.request_id,
        )
        final.key_rejected = key_rejected
        raise final

    def _is_gone(self) -> bool:
        """Read the replica. Only a clear "not found" counts; an error settles nothing."""
        try:
            self._look_up(self.replica_id)
        except ReplicaNotFoundError:
            return True
        except TavusError as error:
            log.warning("Could not find out whether %s is gone: %s", self.replica_id, error)
        return False


def _count_attempts(number: int) -> str:
    return f"{number} attempt{'s' * (number > 1)}"
