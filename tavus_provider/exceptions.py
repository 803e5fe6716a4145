"""
The error tree. A class exists where a caller would do something different.

::

    TavusError
    ├── TavusValidationError          nothing was sent: correct the named value, a retry cannot help
    ├── PlanRejectedError           nothing was deleted: a limit, a digest or a deadline forbids this plan
    ├── LedgerUnavailableError     what is done cannot be recorded, so nothing (more) is done; may heal
    ├── ReplicaNotFoundError       Tavus does not know the id
    ├── TavusRequestRejectedError               Tavus said no; certainly not applied, a retry cannot help
    │   └── TavusAuthError      401 or 403: no further call with this key can work
    ├── TavusRetryableError              certainly not applied, may heal: no connection, or a rate limit
    ├── TavusOutcomeUnknownError               a delete may or may not have been applied
    └── TavusInvalidResponseError             an answer to a read that cannot be used: nothing may be decided on it

No error of the HTTP library is chained to one of these: it would carry the request, and the
request carries the API key.
"""

from __future__ import annotations

from tavus_provider.outcomes import Outcome


class TavusError(Exception):
    """
    Base of all errors raised by this package.

    ``outcome`` is what the error means for the id that was to be deleted.

    :param message: what was tried, what came back, what to do next; never the API key
    :param status: HTTP status of the answer, if there was one
    :param attempts: how many requests had been sent for this call
    :param request_id: the id which the server gave its answer, if any
    """

    outcome: Outcome = Outcome.NOT_ATTEMPTED

    def __init__(
        self,
        message: str = "",
        *,
        status: int | None = None,
        attempts: int = 0,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.attempts = attempts
        self.request_id = request_id


class TavusValidationError(TavusError):
    """A value was refused before anything was sent."""


class PlanRejectedError(TavusError):
    """A plan may not be carried out; nothing was deleted."""


class LedgerUnavailableError(TavusError):
    """The ledger could not be written or read; nothing is deleted without a record."""


class ReplicaNotFoundError(TavusError):
    """Tavus does not know this replica: it never existed, is gone, or belongs to another account."""

    outcome = Outcome.ALREADY_GONE


class TavusRequestRejectedError(TavusError):
    """Tavus refused the request; it was not applied and repeating it cannot help."""

    outcome = Outcome.FAILED


class TavusAuthError(TavusRequestRejectedError):
    """The API key was refused (401) or may not do this (403)."""


class TavusRetryableError(TavusError):
    """The request was certainly not applied, and a later try may succeed."""

    outcome = Outcome.FAILED


class TavusOutcomeUnknownError(TavusError):
    """The request left, and no trustworthy answer came back: it may have been applied."""

    outcome = Outcome.UNKNOWN


class TavusInvalidResponseError(TavusError):
    """A read did not give an answer that can be trusted; nothing may be deleted on its ground."""
