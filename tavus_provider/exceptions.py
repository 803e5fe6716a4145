"""
The exceptions of this package. There is one class per reaction of the caller.

::

    TavusError
    ├── TavusValidationError       a value is invalid; nothing was sent; correct the value, do not retry
    ├── PlanRejectedError          a limit, a digest or a deadline forbids this plan; nothing was deleted
    ├── LedgerUnavailableError     the ledger cannot be read or written; deleting stops; a retry may help
    ├── ItemNotFoundError          Tavus does not know the id
    │   └── ReplicaNotFoundError   Tavus does not know the id of a replica
    ├── TavusRequestRejectedError  Tavus rejected the request; it was not applied; do not retry
    │   └── TavusAuthError         Tavus rejected the API key; no further request with it can succeed
    ├── TavusRetryableError        unreachable or rate limited; the request was not applied; retry later
    ├── TavusOutcomeUnknownError   the delete may or may not have been applied
    └── TavusInvalidResponseError  the response to a read cannot be used; delete nothing because of it

An exception of the HTTP library is never chained to one of these (as ``__cause__`` or
``__context__``): it holds the request, and the request holds the API key.
"""

from __future__ import annotations

from typing import ClassVar

from tavus_provider.outcomes import Outcome


class TavusError(Exception):
    """
    Base class of all exceptions that this package raises.

    :param message: what was tried, what happened, and what to do next; must not contain the API key
    :param status: HTTP status of the response, or ``None`` if there was no response
    :param attempts: number of requests that were sent for this call
    :param request_id: request id that the server returned, if any
    """

    outcome: ClassVar[Outcome] = Outcome.NOT_ATTEMPTED
    """The outcome to report for an object whose delete raised this exception."""

    key_rejected = False
    """Whether Tavus rejected the API key, so that no further request can succeed."""

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
    """A value is invalid. Nothing was sent."""


class PlanRejectedError(TavusError):
    """A plan must not be applied. Nothing was deleted."""


class LedgerUnavailableError(TavusError):
    """The ledger cannot be read or written. Nothing is deleted without a ledger record."""


class ItemNotFoundError(TavusError):
    """Tavus does not know the object: it never existed, was deleted, or belongs to another account."""

    outcome = Outcome.ALREADY_GONE


class ReplicaNotFoundError(ItemNotFoundError):
    """Tavus does not know the replica."""


class TavusRequestRejectedError(TavusError):
    """Tavus rejected the request. It was not applied, and repeating it cannot succeed."""

    outcome = Outcome.FAILED


class TavusAuthError(TavusRequestRejectedError):
    """Tavus rejected the API key (401) or does not allow it to do this (403)."""

    key_rejected = True


class TavusRetryableError(TavusError):
    """The request was certainly not applied. A later attempt may succeed."""

    outcome = Outcome.FAILED


class TavusOutcomeUnknownError(TavusError):
    """The request was sent, but no usable response was received. It may have been applied."""

    outcome = Outcome.UNKNOWN


class TavusInvalidResponseError(TavusError):
    """The response to a read cannot be used. Nothing may be deleted because of it."""
