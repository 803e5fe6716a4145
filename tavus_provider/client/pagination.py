"""
Complete listings: all pages of a list, or an error.

A listing counts as complete if as many distinct ids were read as ``total_count`` says, and if that count
was the same on every page. Nothing may be deleted based on an incomplete listing.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from queue import SimpleQueue
from typing import Any, Final, Generic, TypeVar

from tavus_provider.exceptions import TavusInvalidResponseError

PAGE_LIMIT: Final = 100
"""Rows asked for per page. A server may return fewer."""
MAX_PAGES: Final = 20_000
MAX_READS: Final = 3
"""How often a listing is read from the start, because its count changed while it was read."""

T = TypeVar("T")
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """
    One page of a list.

    :param rows: the rows by id
    :param size: number of rows on the page, repeated ids included
    :param total: ``total_count`` of the page
    """

    rows: dict[str, T]
    size: int
    total: int


def parse_page(what: str, body: object) -> tuple[Sequence[object], int]:
    """
    Return the rows and the ``total_count`` of the JSON of one page.

    :param what: the request, for messages
    :raises TavusInvalidResponseError: if one of them is missing or invalid
    """
    rows = body.get("data") if isinstance(body, dict) else None
    if not isinstance(rows, list):
        raise TavusInvalidResponseError(f"{what} returned no list of rows in 'data'")
    total = body.get("total_count") if isinstance(body, dict) else None
    if type(total) is not int or total < 0:
        raise TavusInvalidResponseError(
            f"{what} returned total_count {json.dumps(total)[:20]}: expected a whole number, without which "
            "the listing cannot be shown to be complete"
        )
    return rows, total


def keep_all(rows: dict[Any, T], new: dict[str, T]) -> None:
    """Add all rows of a page to the listing."""
    rows |= new


def read_forward(
    what: str,
    read_page: Callable[[int], Page[T]],
    *,
    workers: WorkerThreads,
    first_page: int = 1,
    collect: Callable[[dict[Any, T], dict[str, T]], None] = keep_all,
) -> list[T]:
    """
    Read all pages, several at the same time. Read again from the start if the count changes meanwhile.

    :param what: the request, for messages, such as ``GET /v2/replicas``
    :param first_page: number of the first page
    :param collect: adds the rows of a page to the rows to return
    :raises TavusInvalidResponseError: if the listing cannot be shown to be complete
    """
    for _ in range(MAX_READS):
        seen: set[str] = set()
        rows: dict[Any, T] = {}
        totals: set[int] = set()
        with contextlib.closing(_read_pages(read_page, first_page, workers)) as pages:
            for number, page in pages:
                totals.add(page.total)
                # Videos are counted from page 0. A server that counts from 1 answers 0 with its first page.
                if page.size and page.rows.keys() <= seen and not (number == 1 and first_page == 0):
                    raise TavusInvalidResponseError(
                        f"{what} page {number} repeats rows of earlier pages: the listing is incomplete"
                    )
                seen.update(page.rows)
                collect(rows, page.rows)
                if not page.size or len(seen) >= page.total:
                    break
        if len(totals) == 1 and len(seen) == page.total:
            return list(rows.values())
        if len(totals) == 1:
            break
    raise TavusInvalidResponseError(
        f"{what} returned {len(seen)} rows and total_count {page.total}: "
        "the listing is incomplete, so nothing may be deleted based on it"
    )


def _read_pages(
    read_page: Callable[[int], Page[T]], first_page: int, workers: WorkerThreads
) -> Generator[tuple[int, Page[T]], None, None]:
    """Yield the pages in order. As many as the first page announces are read in parallel."""
    first = read_page(first_page)
    yield first_page, first
    number = first_page + 1
    # A server may return fewer rows than asked for, so the first page shows the page size.
    announced = min(-(-first.total // first.size), MAX_PAGES) if first.size else 0
    early: dict[int, Page[T]] = {}
    with contextlib.closing(workers.map(read_page, range(number, first_page + announced))) as results:
        for read_number, page in results:
            early[read_number] = page
            while number in early:
                yield number, early.pop(number)
                number += 1
    while number < first_page + MAX_PAGES:
        yield number, read_page(number)
        number += 1


def read_backward(what: str, read_page: Callable[[int], Page[T]]) -> list[T]:
    """
    Read all pages while rows are being deleted, from the last page to the first.

    A deleted row moves later rows towards the front, into pages that are not read yet. So no row that
    stays is missed, as long as none is added. If the count grows, the listing is read again.

    :param what: the request, for messages
    :returns: all rows that were listed at the end, and some that were deleted meanwhile
    :raises TavusInvalidResponseError: if the listing cannot be shown to be complete
    """
    for _ in range(MAX_READS):
        rows: dict[str, T] = {}
        number, size, lowest_total = 1, 0, None
        while number > 0:
            page = read_page(number)
            rows |= page.rows
            if lowest_total is None:
                # A server may return fewer rows than asked for, so the first page shows the page size.
                lowest_total, size = page.total, page.size
                if len(rows) == page.total:
                    return list(rows.values())
                number = min(-(-page.total // size), MAX_PAGES) if size else 0
                rows = {}
            elif page.total > lowest_total or page.size != max(
                0, min(size, page.total - (number - 1) * size)
            ):
                break
            else:
                lowest_total, number = page.total, number - 1
        if number == 0 and len(rows) >= page.total:
            return list(rows.values())
    raise TavusInvalidResponseError(
        f"{what} returned {len(rows)} rows and total_count {page.total}, or rows were added "
        "meanwhile: the listing is incomplete, so nothing may be deleted based on it"
    )


class WorkerThreads:
    """
    Threads that read pages. They start when they are needed and end with :meth:`close`.

    :param count: maximum number of threads
    :param stop: is set if a signal or a timeout interrupts the caller, so that the items under way end soon
    """

    def __init__(self, count: int, *, stop: threading.Event | None = None) -> None:
        self._count = count
        self._stop = stop or threading.Event()
        self._pool: ThreadPoolExecutor | None = None
        self._process = os.getpid()

    def close(self) -> None:
        """End the threads. The object can be used again."""
        if self._pool is not None and self._process == os.getpid():
            self._pool.shutdown()
        self._pool = None

    def _started(self) -> ThreadPoolExecutor:
        if self._pool is None or self._process != os.getpid():  # threads do not survive a fork
            self._pool = ThreadPoolExecutor(self._count, thread_name_prefix="tavus-read")
            self._process = os.getpid()
        return self._pool

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item]
    ) -> Generator[tuple[Item, Result], None, None]:
        """
        Call ``function`` for each item in parallel. Yield item and result as they complete.

        Items are taken shortly before they are needed. If the generator ends early (an error, a signal, a
        caller that closes it), no further item is begun, and the items under way are waited for.

        :raises Exception: what ``function`` raised for the first item that failed
        """
        remaining = iter(items)
        running: dict[Future[Result], Item] = {}
        completed: SimpleQueue[Future[Result]] = SimpleQueue()
        pool = self._started()
        try:
            while True:
                # Twice as many as threads, so that no thread waits for this one to submit the next item.
                for item in islice(remaining, 2 * self._count - len(running)):
                    future = pool.submit(function, item)
                    running[future] = item
                    future.add_done_callback(completed.put)
                if not running:
                    return
                future = completed.get()
                yield running.pop(future), future.result()
        except (Exception, GeneratorExit):
            raise
        except BaseException:
            self._stop.set()
            raise
        finally:
            for future in running:
                future.cancel()
            wait(running)
