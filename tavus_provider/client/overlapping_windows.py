"""
Read a list by windows that overlap, and show that nothing is missing.

A page is a window on the list at the moment when it was read. Rows that are added or deleted move the
others, so the positions of two windows prove nothing. Their rows do:

1.  Each window shares a row with an earlier one (it is *linked*), or begins at the start of the list.
2.  One window reaches the end of the list: it is shorter than its limit.

Follow the links from that last window back to the start. Let ``x`` be a row that existed during the whole
read. Every shared row existed at the times of both of its windows, so ``x`` was before it, or after it, at
both times. If ``x`` is before the first shared row, it is in the first window; if it is after the last one,
it is in the last window; otherwise there are two successive shared rows with ``x`` between them, and the
window that has both has ``x``. Nothing is assumed about when the windows were read, so they may be read in
parallel, nor about where rows are added and deleted. It is assumed that two rows never change places, that
an id is not used again, and that page ``first_page`` begins at the start of the list.

So windows overlap by at least one row. The API can only address multiples of ``limit``: of all limits, the
one is chosen whose window reaches farthest and still overlaps. That is optimal, and a list of ``n`` rows
takes about ``n / 87`` requests instead of ``n / 100``. If an added row moved the list between parallel
reads, the next window is read again. If deleted rows moved it, a window farther back is read, with a
distance that grows until the windows are linked, at the latest at the start of the list.

``total_count`` is not needed for this proof, and it may be wrong. It is a second witness: the listing is not
complete either if fewer rows were seen than the lowest ``total_count``. It also shows how many windows can be
read in parallel, and that a short window is not the end, because the server returns fewer rows than asked
for. A list of several windows ends with a look at its start, for rows that changed their place.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic

from tavus_provider.client.id_table import IdTable
from tavus_provider.client.listing import (
    MAX_PAGES,
    Listing,
    NoOverlapError,
    Page,
    PageTooLargeError,
    T,
    UnstableError,
    incomplete,
)
from tavus_provider.models import NO_ID

MIN_PAGES: Final = 32
"""Minimum of the limit of pages. Above it, a read may take eight times as many pages as its rows fill."""
MAX_LOOKS: Final = 3
"""How often start and end of the list are looked at, because fewer rows were seen than ``total_count``."""

_NOT_LINKED: Final = 2**32 - 1
"""Instead of the number of a window: for rows that were only seen by a look at the start."""


@dataclass(frozen=True, slots=True)
class _Window:
    """
    A page to read.

    :param number: number of the page
    :param start: position of its first row, if the list does not change
    """

    number: int
    limit: int
    start: int

    @property
    def end(self) -> int:
        return self.start + self.limit


def read_one_by_one(
    function: Callable[[_Window], Any], windows: Iterable[_Window]
) -> Generator[tuple[_Window, Any], None, None]:
    """Read pages one after the other; the default of :func:`read_list`."""
    for window in windows:
        yield window, function(window)


class WindowReader(Generic[T]):
    """One read of a list from its start to its end."""

    def __init__(self, listing: Listing[T], *, batch_size: int) -> None:
        self._listing = listing
        self._batch_size = batch_size
        # Whether a server counts the pages of videos from 0 or 1 is known after the second page.
        self._width = 1 if listing.first_page == 0 else batch_size
        """Number of pages to read at the same time."""
        self._pages_from_one = False
        """Whether the server counts pages from 1 although ``first_page`` is 0, its first page too."""
        self._limit = listing.limit
        """Most rows per page that the server returns, as far as known."""
        self.allowed = listing.limit
        """Most rows per page that may be asked for, as far as known."""
        self._largest = 0
        """Most rows on a page so far."""
        self._overlap = 1
        self._rows: dict[Any, T] = {}
        self._seen = IdTable()
        """The rows of all linked windows, with the number of the last window of each."""
        self._linked = 0
        """Number of linked windows."""
        self._last: dict[str, int] = {}
        """Positions in the list of the rows of the last linked window."""
        self._first_id: str | None = None
        """The row at the start of the list."""
        self._end = 0
        """Where the last linked window ended."""
        self._at_front = False
        """Whether no row behind the last linked window was seen."""
        self._total = 0
        self._lowest_total: int | None = None
        self._pages = 0
        """Number of pages read."""
        self._useful = 0
        """Number of linked windows with new rows."""

    def run(self) -> list[T]:
        """
        Return the collected rows.

        :raises UnstableError: if the listing cannot be shown to be complete
        :raises NoOverlapError: if the pages of this server cannot overlap
        """
        self._read_to_end()
        count = len(self._seen)
        if self._useful > 1:
            self._look_at_start()
        if count >= (self._lowest_total or 0):
            return list(self._rows.values())
        # Rows may have been added before rows that were deleted unseen, or total_count is late or wrong.
        for look in range(MAX_LOOKS if self._useful > 1 else 0):
            if look:
                self._listing.wait(float(look))
                self._read_to_end()
                self._look_at_start()
            if len(self._seen) >= self._total:
                return list(self._rows.values())
        raise UnstableError(f"returned {len(self._seen)} rows and total_count {self._total}")

    def _read_to_end(self) -> None:
        distance = self._overlap
        while True:
            windows = self._plan(distance)
            for index, (window, page) in enumerate(self._read(windows)):
                if page is None:
                    self._ask_for_fewer(window)
                    break
                rows = {self._listing.identify(row): row for row in page.rows}
                if self._finds_pages_from_one(window, rows):
                    break
                if not self._is_linked(window, rows):
                    if self._linked == 1 and (
                        len(page.rows) < window.limit or self._limit < self._listing.limit
                    ):
                        self._check_limit(self._limit)
                    self._overlap = max(1, min(2 * self._overlap, self._limit // 2))
                    self._width = max(1, self._width // 2)
                    # A window that was read after the last linked one: rows were deleted. Otherwise the
                    # windows were read in another order, and to read this one again is enough.
                    distance = 4 * max(distance, self._overlap) if index == 0 else self._overlap
                    break
                distance = self._overlap
                if self._is_end(window, len(page.rows), self._link(window, page, rows)):
                    return
            else:
                self._width = min(self._batch_size, 2 * self._width)

    def _plan(self, distance: int) -> list[_Window]:
        """Return the next window, ``distance`` before the end of the last one, and some that follow."""
        if not self._linked:
            return [self._window(0, self._limit)]
        repairing = distance > self._overlap
        windows = [self._next(self._end, distance, repairing=repairing)]
        while len(windows) < self._width and not repairing and windows[-1].end < self._total:
            window = self._next(windows[-1].end, self._overlap)
            # The last window is read after all others: rows may move there meanwhile.
            if window.end >= self._total or window.end <= windows[-1].end:
                break
            windows.append(window)
        if not repairing and windows[0].end <= self._end:
            raise NoOverlapError
        return windows

    def _next(self, end: int, distance: int, *, repairing: bool = False) -> _Window:
        """Return the window that reaches farthest and begins at least ``distance`` before ``end``."""
        while True:
            start = max(0, end - distance)
            limit = max(range(1, self._limit + 1), key=lambda limit: (start // limit + 1) * limit)
            window = self._window(start // limit, limit)
            if window.end > end or repairing or distance == 1:
                return window
            distance -= 1

    def _window(self, index: int, limit: int) -> _Window:
        # Page 0 of a server that counts from 1 is its first page: the start is always asked for in this way.
        number = self._listing.first_page + index + (1 if index and self._pages_from_one else 0)
        return _Window(number, limit, index * limit)

    def _read(self, windows: Sequence[_Window]) -> list[tuple[_Window, Page[T] | None]]:
        """Read windows at the same time; ``None`` for a page that is too large."""

        def read(window: _Window) -> Page[T] | None:
            try:
                return self._listing.fetch(window.number, window.limit)
            except PageTooLargeError:
                if window.limit == 1:
                    raise
                return None

        self._pages += len(windows)
        if self._pages > MAX_PAGES:
            raise incomplete(self._listing.what, f"has more than {MAX_PAGES} pages")
        pages = dict((read_one_by_one if len(windows) == 1 else self._listing.run)(read, windows))
        for window, page in pages.items():
            if page is None:
                continue
            self._total = page.total_count
            if self._lowest_total is None or self._total < self._lowest_total:
                self._lowest_total = self._total
            if len(page.rows) > window.limit:
                raise NoOverlapError
        if self._pages > MIN_PAGES + self._batch_size + 8 * len(self._seen) // self._limit:
            raise UnstableError(f"returned only {len(self._seen)} different rows on {self._pages} pages")
        return [(window, pages[window]) for window in windows]

    def _ask_for_fewer(self, window: _Window) -> None:
        """Remember that a window is too large."""
        self._limit = self.allowed = window.limit // 2

    def _finds_pages_from_one(self, window: _Window, rows: Mapping[str, T]) -> bool:
        found = (
            self._listing.first_page == 0
            and not self._pages_from_one
            and window.start > 0
            and next(iter(rows), None) == self._first_id is not None
        )
        self._pages_from_one |= found
        return found

    def _is_linked(self, window: _Window, rows: Mapping[str, T]) -> bool:
        """
        Whether a window begins at the start of the list, or shares a row with a linked window.

        :raises UnstableError: if rows changed their place
        """
        if window.start == 0:
            return True
        last, position, shared = self._last, -1, False
        for row_id in rows:
            if row_id.startswith(NO_ID):
                continue
            if row_id in last:
                if last[row_id] < position:
                    raise UnstableError("returned rows in an order that changed meanwhile")
                position, shared = last[row_id], True
            elif shared and self._at_front and row_id in self._seen:
                raise UnstableError("returned a row again that it had returned before, at another place")
        # A row of an older window counts only as the first row: elsewhere it is rather one that was moved.
        return shared or (bool(rows) and self._linked_window(next(iter(rows))) is not None)

    def _linked_window(self, row_id: str) -> int | None:
        """Return the number of the last linked window with a row."""
        if row_id.startswith(NO_ID):
            return None
        number = self._seen.get(row_id)
        return None if number == _NOT_LINKED else number

    def _link(self, window: _Window, page: Page[T], rows: dict[str, T]) -> int:
        """Add a linked window. Return the number of new rows."""
        self._adapt_overlap(window, page)
        self._linked += 1
        new = [row_id for row_id in rows if self._seen.set(row_id, self._linked)]
        self._at_front = bool(new) and new[-1] == next(reversed(rows))
        if new:
            self._useful += 1
        if window.start == 0:
            self._first_id = next(iter(rows), None)
        self._last = {}
        for position, row in enumerate(page.rows, window.start):
            self._last.setdefault(self._listing.identify(row), position)
        self._end = window.start + len(page.rows)
        self._listing.collect(self._rows, rows)
        return len(new)

    def _adapt_overlap(self, window: _Window, page: Page[T]) -> None:
        """Overlap by twice the rows by which the list moved between the last two windows, at least by one."""
        for position, row in enumerate(page.rows, window.start):
            before = self._last.get(self._listing.identify(row))
            if before is not None:
                wanted = max(2 * (before - position), self._overlap * 7 // 8)
                self._overlap = max(1, min(wanted, self._limit // 2))
                return

    def _is_end(self, window: _Window, size: int, new: int) -> bool:
        """Whether a linked window reaches the end of the list."""
        largest = self._largest
        self._largest = max(largest, size)
        if size == window.limit:
            return False
        enough = len(self._seen) >= (self._lowest_total or 0)
        if window.limit <= largest or size < largest or not size:
            # The server can return more rows than these. Still, if total_count is higher, read on.
            return enough or not new
        # This may also be all that the server returns per page, whatever the limit.
        self._limit = size
        if self._total > len(self._seen):
            self._check_limit(size)
        return enough and self._total == len(self._seen) and not _is_usual_limit(size)

    def _check_limit(self, size: int) -> None:
        """
        Ask for one row less than the server returns.

        :raises NoOverlapError: if it returns more than that, because it ignores the limit
        """
        if size > 1:
            self._read([self._window(0, size - 1)])

    def _look_at_start(self) -> None:
        """
        Read the start of the list again, up to the first known row.

        :raises UnstableError: if rows changed their place
        """
        index = 0
        while index < max(2, self._useful):
            window = self._window(index, self._limit)
            page = self._read([window])[0][1]
            if page is None:
                self._ask_for_fewer(window)
                index = 0
                continue
            rows = {self._listing.identify(row): row for row in page.rows}
            numbers = [number for row_id in rows if (number := self._linked_window(row_id))]
            if numbers != sorted(numbers):
                raise UnstableError("returned rows in an order that changed meanwhile")
            for row_id in rows:
                if row_id not in self._seen:
                    self._seen.set(row_id, _NOT_LINKED)
            self._listing.collect(self._rows, rows)
            if numbers or len(page.rows) < window.limit:
                return
            index += 1


def _is_usual_limit(size: int) -> bool:
    """Whether servers often return this number of rows per page: 10, 12, 16, 20, 24, 25 and the like."""
    return size >= 10 and (size % 5 == 0 or size % 12 == 0 or size & (size - 1) == 0)
