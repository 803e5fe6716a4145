"""TavusClient: list, read and delete the objects of one Tavus account."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Any, Final, Self, TypeVar

from tavus_provider.client.config import ClientConfig, ClientOptions
from tavus_provider.client.deletion import REPLICAS, DeleteRequest, Deletion
from tavus_provider.client.pagination import Page, PageTooLargeError, keep_all, read_list
from tavus_provider.client.rate_limiter import RateLimiter
from tavus_provider.client.responses import (
    error_of,
    is_key_rejected,
    is_not_found,
    is_rejected_on_the_way,
    parse_json,
    parse_page,
)
from tavus_provider.client.retry import Retry, RetryPolicy, is_retryable_status
from tavus_provider.client.transport import (
    NoResponseError,
    RequestCancelledError,
    RequestNotSentError,
    Response,
    Transport,
)
from tavus_provider.client.workers import WorkerThreads
from tavus_provider.exceptions import (
    TavusError,
    TavusInvalidResponseError,
    TavusRetryableError,
)
from tavus_provider.models import (
    Conversation,
    Persona,
    Replica,
    UnreadableRow,
    Video,
    check_replica_id,
    parse_rows,
)

__all__ = ["AccessCheck", "Deletion", "TavusClient"]

ACCESS_CHECK_SECONDS: Final = 5.0

T = TypeVar("T", Replica, Persona, Conversation, Video)
A = TypeVar("A", Conversation, Video)
Query = Mapping[str, str | int]


class AccessCheck(StrEnum):
    """The result of :meth:`TavusClient.check_access`."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    """Tavus rejected the API key."""
    RATE_LIMITED = "rate_limited"
    UNREACHABLE = "unreachable"
    INVALID_RESPONSE = "invalid_response"
    """The response is not one of the Tavus API."""


class TavusClient:
    """
    Call the Tavus API. Needs no Airflow.

    Every method may raise the errors of :mod:`tavus_provider.exceptions`. No error, log line or ``repr``
    contains the API key. The client is safe to share between threads. Use it as a context manager, or call
    :meth:`close`; it can be used again afterwards.

    :param config: origin, API key and options
    :param proxy: URL of an HTTP proxy; proxies of the environment are not used
    :param ca_bundle: path of a file of trusted certificates; ``None`` for those of ``certifi``
    :param rate_limiter: ``None`` for the one that all clients of this account share in this process
    :raises TavusValidationError: if ``proxy`` or ``ca_bundle`` cannot be used
    """

    def __init__(
        self,
        config: ClientConfig,
        *,
        proxy: str | None = None,
        ca_bundle: str | None = None,
        rate_limiter: RateLimiter | None = None,
    ) -> None:
        self._stop = threading.Event()
        self._transport = Transport(
            config, proxy=proxy, ca_bundle=ca_bundle, rate_limiter=rate_limiter, stop=self._stop
        )
        self._retry = RetryPolicy(self._transport.rate_limiter, stop=self._stop)
        self._workers = WorkerThreads(config.options.concurrency, stop=self._stop)

    def __repr__(self) -> str:
        return f"TavusClient({self.origin!r})"

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("a TavusClient holds the API key and cannot be pickled")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads and close all connections."""
        self._workers.close()
        self._transport.close()

    def stop(self) -> None:
        """
        End all waits, and send no further request.

        Requests under way end with their response or their timeout. A delete that was not sent raises
        :class:`TavusRetryableError`. A client that was stopped cannot be used again.
        """
        self._stop.set()

    def wait(self, seconds: float) -> bool:
        """Wait, or until the client is stopped. Return whether it was stopped."""
        return self._transport.rate_limiter.sleep(seconds, self._stop)

    @property
    def origin(self) -> str:
        """Scheme, host and port of the API, such as ``https://tavusapi.com``."""
        return self._transport.origin

    @property
    def options(self) -> ClientOptions:
        """Timeout, concurrency and request rate of this client."""
        return self._transport.options

    @property
    def clock_skew(self) -> float | None:
        """Seconds by which Tavus's clock was ahead at its last response; ``None`` if it sent no date.

        Responses of a cache, which have an ``Age``, do not count.
        """
        return self._transport.clock_skew

    @property
    def clock_evidence(self) -> str | None:
        """The headers and the time that ``clock_skew`` was computed from, as a part of a sentence."""
        return self._transport.clock_evidence

    def check_access(self) -> AccessCheck:
        """Send one small request, without retries, to find out whether the API key is accepted."""
        try:
            response = self._transport.send("GET", REPLICAS, {"limit": 1}, timeout=ACCESS_CHECK_SECONDS)
        except TavusError:
            return AccessCheck.UNREACHABLE
        if is_key_rejected(response):
            return AccessCheck.REJECTED
        if response.status == 429:
            return AccessCheck.RATE_LIMITED
        try:
            parse_page("", parse_json("", response, redact=self._transport.redact))
        except TavusError:
            return AccessCheck.INVALID_RESPONSE
        return AccessCheck.ACCEPTED

    def list_replicas(self, *, while_deleting: bool = False) -> list[Replica | UnreadableRow]:
        """
        Return all replicas of type ``user``.

        :param while_deleting: set this while replicas are being deleted. The result has all replicas that
            exist at the end, and some that were deleted meanwhile. Pages are read one after the other.
        :raises TavusInvalidResponseError: if the listing cannot be shown to be complete
        :raises TavusRetryableError: if Tavus cannot be reached
        :raises TavusAuthError: if the API key is rejected
        """
        query = {"verbose": "true", "replica_type": "user"}
        return self._list(Replica, REPLICAS, query, parallel=not while_deleting)

    def list_personas(self) -> list[Persona | UnreadableRow]:
        """Return all personas (PALs) of any type. Raises the errors of :meth:`list_replicas`."""
        return self._list(Persona, "/v2/personas")

    def list_conversations(
        self,
        *,
        latest_only: bool = False,
        status: str | None = None,
        observe: Callable[[Sequence[Conversation | UnreadableRow]], object] = lambda rows: None,
    ) -> list[Conversation | UnreadableRow]:
        """
        Return all conversations, active and ended. Raises the errors of :meth:`list_replicas`.

        :param latest_only: return only the latest of those with the same replica, persona and status. A
            retention decision needs no others, and memory then grows with the number of replicas.
        :param status: return only those with this status, ``active`` or ``ended``. The server filters, and
            one that ignores the filter returns others too; see the status of the rows.
        :param observe: called with the rows of each page, in their order; by several threads, and for some
            pages more than once
        """
        query = {} if status is None else {"status": status}
        return self._list_activities(Conversation, query, latest_only=latest_only, observe=observe)

    def get_conversations_page(
        self, *, status: str | None = None, number: int = 1, limit: int = 1
    ) -> Page[Conversation | UnreadableRow]:
        """
        Return one page of conversations. Raises the errors of :meth:`list_replicas`.

        :param status: as for :meth:`list_conversations`
        :param number: number of the page, from 1
        :param limit: most rows of the page
        """
        query = {} if status is None else {"status": status}
        return self._get_page(Conversation, "/v2/conversations", query, number=number, limit=limit)

    def list_videos(self, *, latest_only: bool = False) -> list[Video | UnreadableRow]:
        """
        Return all videos. Raises the errors of :meth:`list_replicas`.

        :param latest_only: as for :meth:`list_conversations`
        """
        # Tavus numbers the pages of videos from 0.
        return self._list_activities(Video, {}, latest_only=latest_only, first_page=0)

    def get_replica(self, replica_id: str) -> Replica:
        """
        Return one replica.

        :raises TavusValidationError: if ``replica_id`` is not a valid id; nothing was sent
        :raises ReplicaNotFoundError: if Tavus does not know it
        :raises TavusInvalidResponseError: if the response is about another replica, or cannot be read
        """
        path = f"{REPLICAS}/{check_replica_id(replica_id)}"
        what = f"GET {path}"
        response = self._get(path, {"verbose": "true"})
        if is_not_found(response):
            raise error_of(what, response, redact=self._transport.redact)
        replica = Replica.from_api(parse_json(what, response, redact=self._transport.redact))
        if replica.replica_id != replica_id:
            raise TavusInvalidResponseError(f"{what} returned another replica, {replica.replica_id}")
        return replica

    def delete_replica(self, replica_id: str, *, hard: bool = False) -> Deletion:
        """
        Delete one replica. This cannot be undone, neither after a soft nor after a hard delete.

        The DELETE is sent at most three times, and only while it is not known to be applied. If a response
        does not show whether it was applied, the replica is looked up, and only a clear "not found" counts.

        Source: https://docs.tavus.io/api-reference/phoenix-replica-model/delete-replica (200, or 204 as
        seen in the field; ``400 Invalid replica_id`` for an id that does not exist).

        :param hard: also delete the training footage (``?hard=true``)
        :raises TavusValidationError: if ``replica_id`` or ``hard`` is invalid; nothing was sent
        :raises ReplicaNotFoundError: if Tavus did not know it before anything was applied
        :raises TavusRequestRejectedError: if Tavus rejected the request; certainly not applied
        :raises TavusRetryableError: if it certainly was not applied, and a later attempt may succeed
        :raises TavusOutcomeUnknownError: if it may have been applied
        """
        request = DeleteRequest(self._transport, replica_id, hard=hard, look_up=self.get_replica)
        return self._retry.run(request)

    def _get(self, path: str, query: Query) -> Response:
        return self._retry.run(_ReadRequest(self._transport, path, query))

    def _list_activities(
        self,
        kind: type[A],
        query: Query,
        *,
        latest_only: bool,
        first_page: int = 1,
        observe: Callable[[Sequence[A | UnreadableRow]], object] = lambda rows: None,
    ) -> list[A | UnreadableRow]:
        return self._list(
            kind,
            f"/v2/{kind.kind}s",
            query,
            first_page=first_page,
            collect=_keep_latest if latest_only else keep_all,
            observe=observe,
        )

    def _get_page(
        self, model: type[T], path: str, query: Query, *, number: int, limit: int, first_page: int = 1
    ) -> Page[T | UnreadableRow]:
        what = f"GET {path} page {number}"
        response = self._get(path, {**query, "limit": limit, "page": number})
        if response.too_large and response.status == 200:
            raise PageTooLargeError(f"{what} with limit={limit}: {response.body_error}", status=200)
        rows, total_count = parse_page(what, parse_json(what, response, redact=self._transport.redact))
        return Page(parse_rows(model, rows, start=(number - first_page) * limit), total_count)

    def _list(
        self,
        model: type[T],
        path: str,
        query: Query | None = None,
        *,
        first_page: int = 1,
        parallel: bool = True,
        collect: Callable[[dict[Any, T | UnreadableRow], Mapping[str, T | UnreadableRow]], None] = keep_all,
        observe: Callable[[Sequence[T | UnreadableRow]], object] = lambda rows: None,
    ) -> list[T | UnreadableRow]:
        def fetch(number: int, limit: int) -> Page[T | UnreadableRow]:
            page = self._get_page(model, path, query or {}, number=number, limit=limit, first_page=first_page)
            observe(page.rows)
            return page

        concurrency = self.options.concurrency if parallel else 1
        return read_list(
            f"GET {path}",
            fetch,
            identify=lambda row: row.key,
            collect=collect,
            first_page=first_page,
            # Twice as many as there are threads, so that less time is lost on the slowest page of a batch.
            batch_size=1 if concurrency == 1 else 2 * concurrency,
            run=self._workers.map,
            wait=lambda seconds: self._transport.rate_limiter.sleep(seconds, self._stop),
        )


class _ReadRequest:
    """A GET for the retry loop."""

    def __init__(self, transport: Transport, path: str, query: Query) -> None:
        self._transport = transport
        self._path = path
        self._query = query
        self._response: Response | None = None
        self._error: TavusError | None = None
        self._key_rejected = False

    def attempt(self, number: int) -> Response | Retry:
        """Send the GET once; see :class:`tavus_provider.client.retry.Retryable`."""
        self._response = self._error = None
        error: TavusError
        try:
            response = self._transport.send("GET", self._path, self._query)
        except (RequestNotSentError, NoResponseError) as caught:
            error = caught
        else:
            self._response = replace(response, attempts=number)
            if response.status == 401 and is_key_rejected(response) and not self._key_rejected:
                self._key_rejected = True  # once: a single 401 may be a mistake of the server
                return Retry(self._response, uses_budget=False)
            retryable = (
                response.truncated
                or is_rejected_on_the_way(response)
                or (response.body_error is None and is_retryable_status(response.status))
            )
            return Retry(self._response) if retryable else self._response
        self._error = error
        if isinstance(error, NoResponseError) and error.response_began:
            return self.give_up(number, None)
        return Retry()

    def give_up(self, attempts: int, error: TavusRetryableError | None) -> Response:
        """Return the last response, or raise; see :class:`tavus_provider.client.retry.Retryable`."""
        # After a 429 the reason why the client does not wait says more than the response.
        if self._response is not None and (error is None or self._response.status != 429):
            return self._response
        what = f"GET {self._path}"
        if error is None:
            tries = f"{attempts} attempt{'s' * (attempts > 1)}"
            raise TavusRetryableError(f"{self._error}; {tries}", attempts=attempts)
        if attempts == 0:
            raise RequestCancelledError(f"{what} was not sent: {error}")
        raise TavusRetryableError(f"{what}: {error}", status=error.status, attempts=attempts)


def _keep_latest(rows: dict[Any, A | UnreadableRow], new: Mapping[str, A | UnreadableRow]) -> None:
    """Keep only the latest of the rows that mean the same use of a replica, and all unreadable rows."""
    for key, row in new.items():
        if isinstance(row, UnreadableRow):
            rows[key] = row
            continue
        other = rows.get(row.usage_key)
        if other is None or isinstance(other, UnreadableRow) or row.sort_key > other.sort_key:
            rows[row.usage_key] = row
