"""Reads: one GET with its retries, and complete listings of parsed rows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tavus_provider.client.listing import Page, PageTooLargeError
from tavus_provider.client.pagination import keep_all, read_list
from tavus_provider.client.responses import (
    is_key_rejected,
    is_limit_rejected,
    is_rate_limited,
    is_rejected_on_the_way,
    parse_json,
    parse_page,
)
from tavus_provider.client.retry import Retry, RetryPolicy, is_read_retryable
from tavus_provider.client.transport import (
    NoResponseError,
    RequestCancelledError,
    RequestNotSentError,
    Response,
    Transport,
)
from tavus_provider.client.workers import WorkerThreads
from tavus_provider.exceptions import TavusError, TavusRetryableError
from tavus_provider.models import (
    Activity,
    RowT,
    UnreadableRow,
    parse_rows,
)

Query = Mapping[str, str | int]


class Reader:
    """
    Send reads for one client.

    :param workers: read the pages of a list in parallel
    :param stop: ends all waits when it is set
    """

    def __init__(
        self, transport: Transport, retry: RetryPolicy, workers: WorkerThreads, *, stop: threading.Event
    ) -> None:
        self._transport = transport
        self._retry = retry
        self._workers = workers
        self._stop = stop

    def get(self, path: str, query: Query) -> Response:
        """Send a GET. Return the last response, whatever its status."""
        return self._retry.run(_ReadRequest(self._transport, path, query))

    def get_page(
        self,
        model: type[RowT],
        path: str,
        query: Query,
        *,
        number: int,
        limit: int,
        first_page: int = 1,
        is_new_limit: bool = False,
    ) -> Page[RowT | UnreadableRow]:
        """
        Return one page of a list.

        :param number: number of the page
        :param limit: most rows of the page
        :param first_page: number of the first page of this list
        :param is_new_limit: whether the server may refuse the page because of its limit
        :raises PageTooLargeError: if fewer rows may help
        """
        what = f"GET {path} page {number}"
        response = self.get(path, {**query, "limit": limit, "page": number})
        if response.too_large and response.status == 200:
            raise PageTooLargeError(f"{what} with limit={limit}: {response.body_error}", status=200)
        if is_new_limit and limit > 1 and is_limit_rejected(response):
            raise PageTooLargeError(
                f"{what} with limit={limit} returned {response.status}", status=response.status
            )
        rows, total_count = parse_page(what, parse_json(what, response, redact=self._transport.redact))
        return Page(parse_rows(model, rows, start=(number - first_page) * limit), total_count)

    def list_rows(
        self,
        model: type[RowT],
        path: str,
        query: Query | None = None,
        *,
        first_page: int = 1,
        parallel: bool = True,
        keep: Callable[[RowT | UnreadableRow], bool] | None = None,
        latest_only: bool = False,
        observe: Callable[[Sequence[RowT | UnreadableRow]], object] = lambda rows: None,
    ) -> list[RowT | UnreadableRow]:
        """
        Return all rows of a list.

        :param parallel: whether pages may be read at the same time
        :param keep: says which rows to return; memory then grows with these, not with the list. It is asked
            about each row, for some rows more than once, after the row was counted for the proof that the
            list is complete.
        :param latest_only: of rows that mean the same use of a replica, return only the latest
        :param observe: called with the rows of each page
        :raises TavusInvalidResponseError: if the listing cannot be shown to be complete
        """

        accepted = 0

        def fetch(number: int, limit: int) -> Page[RowT | UnreadableRow]:
            nonlocal accepted
            page = self.get_page(
                model,
                path,
                query or {},
                number=number,
                limit=limit,
                first_page=first_page,
                # A later page, or one with a limit that worked, is refused for another reason.
                is_new_limit=number == first_page and limit > accepted,
            )
            accepted = max(accepted, limit)
            observe(page.rows)
            return page

        add = _keep_latest if latest_only else keep_all

        def add_kept(rows: dict[Any, Any], new: Mapping[str, Any]) -> None:
            add(rows, {key: row for key, row in new.items() if keep is None or keep(row)})

        concurrency = self._transport.options.concurrency if parallel else 1
        return read_list(
            f"GET {path}",
            fetch,
            identify=lambda row: row.key,
            collect=add_kept,
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
                or (response.body_error is None and is_read_retryable(response.status))
            )
            return Retry(self._response) if retryable else self._response
        self._error = error
        if isinstance(error, NoResponseError) and error.response_began:
            return self.give_up(number, None)
        return Retry()

    def give_up(self, attempts: int, error: TavusRetryableError | None) -> Response:
        """Return the last response, or raise; see :class:`tavus_provider.client.retry.Retryable`."""
        # After a 429 the reason why the client does not wait says more than the response.
        if self._response is not None and (error is None or not is_rate_limited(self._response.status)):
            return self._response
        what = f"GET {self._path}"
        if error is None:
            tries = f"{attempts} attempt{'s' * (attempts > 1)}"
            raise TavusRetryableError(f"{self._error}; {tries}", attempts=attempts)
        if attempts == 0:
            raise RequestCancelledError(f"{what} was not sent: {error}")
        raise TavusRetryableError(f"{what}: {error}", status=error.status, attempts=attempts)


def _keep_latest(
    rows: dict[Any, Activity | UnreadableRow], new: Mapping[str, Activity | UnreadableRow]
) -> None:
    """Keep only the latest of the rows that mean the same use of a replica, and all unreadable rows."""
    for key, row in new.items():
        if isinstance(row, UnreadableRow):
            rows[key] = row
            continue
        other = rows.get(row.usage_key)
        if other is None or isinstance(other, UnreadableRow) or row.sort_key > other.sort_key:
            rows[row.usage_key] = row
