"""What all requests that change an object have in common: what may have been applied, and the final error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NoReturn

from tavus_provider.client.responses import error_of, is_applied
from tavus_provider.client.retry import Retry
from tavus_provider.client.transport import (
    RequestCancelledError,
    RequestNotSentError,
    Response,
    Transport,
)
from tavus_provider.exceptions import (
    TavusAuthError,
    TavusError,
    TavusOutcomeUnknownError,
    TavusRequestRejectedError,
    TavusRetryableError,
)
from tavus_provider.keys import Kind


@dataclass(frozen=True, slots=True)
class Failure:
    """
    An attempt that is not known to be applied.

    :param response: ``None`` if no final response was received
    """

    error: TavusError
    response: Response | None


class ChangeRequest:
    """
    A request that changes an object. It remembers whether an earlier attempt may have been applied.

    :param kind: the kind of the object
    :param before_send: see :meth:`.Transport.send`
    """

    def __init__(
        self,
        transport: Transport,
        method: Literal["DELETE", "POST"],
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        kind: Kind,
        before_send: Callable[[], bool] | None = None,
    ) -> None:
        self._before_send = before_send
        self._transport = transport
        self._method: Literal["DELETE", "POST"] = method
        self._path = path
        self._query = query
        self._kind = kind
        self._what = f"{method} {path}" + "".join(f"?{name}={value}" for name, value in (query or {}).items())
        self._last_error: TavusError = RequestNotSentError(f"{self._what} was not sent")
        self._unknown: TavusOutcomeUnknownError | None = None
        """The last error after which the request may have been applied."""
        self._key_rejected = False

    def give_up(self, attempts: int, error: TavusRetryableError | None) -> NoReturn:
        """Raise the final error; see :class:`tavus_provider.client.retry.Retryable`."""
        if error is not None and attempts == 0:
            raise RequestCancelledError(f"{self._what} was not sent: {error}")
        if error is not None:
            error = TavusRetryableError(f"{self._what}: {error}", status=error.status)
        self._raise_final(error or self._last_error, attempts)

    def _send(self, number: int) -> Response | Failure:
        """Send the request once. Return the response if it says that the request was applied."""
        response: Response | None = None
        error: TavusError
        try:
            response = self._transport.send(
                self._method, self._path, self._query, before_send=self._before_send
            )
        except (RequestNotSentError, TavusOutcomeUnknownError, TavusRequestRejectedError) as caught:
            error = caught
        else:
            if is_applied(response):
                return response
            error = error_of(self._what, response, kind=self._kind, redact=self._transport.redact)
        error.attempts = number
        return Failure(error, response)

    def _retry_rejected_key(self, failure: Failure) -> Retry | None:
        """Return how to go on after the first 401 of Tavus, which may be a mistake of the server."""
        error = failure.error
        if not isinstance(error, TavusAuthError) or error.status != 401 or self._key_rejected:
            return None
        self._key_rejected = True
        self._last_error = error
        return Retry(failure.response, uses_budget=False)

    def _raise_final(self, last: TavusError, attempts: int, *, key_rejected: bool = False) -> NoReturn:
        kind = TavusOutcomeUnknownError if self._unknown else TavusRetryableError
        shown = self._unknown or last
        final = kind(
            f"{shown}; {count_attempts(attempts)}" + ("; it may have been applied" if self._unknown else ""),
            status=last.status,
            attempts=attempts,
            request_id=shown.request_id,
        )
        final.key_rejected = key_rejected
        raise final


def count_attempts(number: int) -> str:
    """Return the number of attempts as a part of a sentence."""
    return f"{number} attempt{'s' * (number > 1)}"
