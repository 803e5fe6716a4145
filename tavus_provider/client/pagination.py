"""
Complete listings: all pages of a list, or an error. No HTTP: a function fetches the pages.

A listing is complete if every row that existed during the whole read was seen. Rows that are added
meanwhile do not matter; rows that are deleted meanwhile may be in it or not. Pages that overlap show that
(:mod:`.overlapping_windows`).

Some servers allow no overlap: they ignore ``limit``, or return so few rows per page that all windows begin
and end at the same rows. Then the whole list is read twice, one page after the other. It is complete if both
reads returned the same rows in the same order, no row twice, and each page the same ``total_count``, the
number of rows: a row that was deleted between two pages of the first read is missing in the second one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from tavus_provider.client.id_table import IdTable
from tavus_provider.client.listing import (
    MAX_PAGES,
    Collect,
    Listing,
    NoOverlapError,
    Page,
    Run,
    T,
    UnstableError,
    incomplete,
)
from tavus_provider.client.overlapping_windows import WindowReader, read_one_by_one

PAGE_LIMIT: Final = 100
"""Most rows to ask for per page. A server may return fewer."""
MAX_READS: Final = 3
"""How often a listing is read from the start, because it changed in a way that the proof excludes."""


def keep_all(rows: dict[Any, T], new: Mapping[str, T]) -> None:
    """Add all rows of a page to the listing."""
    rows |= new


def read_list(
    what: str,
    fetch: Callable[[int, int], Page[T]],
    *,
    identify: Callable[[T], str],
    collect: Collect[T] = keep_all,
    first_page: int = 1,
    limit: int = PAGE_LIMIT,
    batch_size: int = 1,
    run: Run = read_one_by_one,
    wait: Callable[[float], object] = lambda seconds: None,
) -> list[T]:
    """
    Read all pages of a list.

    :param what: the request, for messages, such as ``GET /v2/replicas``
    :param fetch: returns a page for its number and its limit; raises :class:`PageTooLargeError` for a page
        with too many bytes or rows, which is then read in smaller parts
    :param identify: returns the id of a row. If it begins with :data:`.NO_ID`, the row counts, but another
        row of the same id need not be the same row, so it shows nothing about their order.
    :param collect: adds the rows of a page, by id, to the rows to return
    :param first_page: number of the first page
    :param limit: most rows to ask for per page
    :param batch_size: most pages to hand to ``run`` at once. With 1 each page is read after the one before
        it, which is better while many rows are being deleted.
    :param run: calls a function for several items in parallel, yields items and results in any order
    :param wait: waits for some seconds, because the server may still be about to show a change
    :returns: the collected rows
    :raises TavusInvalidResponseError: if the listing cannot be shown to be complete
    """
    listing = Listing(what, fetch, identify, collect, first_page, limit, batch_size, run, wait)
    for attempt in range(1, MAX_READS + 1):
        # After a failure one page is read after the other: then fewer changes look like a moved row.
        reader = WindowReader(listing, batch_size=batch_size if attempt == 1 else 1)
        try:
            return reader.run()
        except NoOverlapError:
            listing = replace(listing, limit=reader.allowed)
            break
        except UnstableError as error:
            reason = str(error)
        if attempt < MAX_READS:
            wait(float(attempt))
    else:
        raise incomplete(what, reason)
    return _read_twice(listing)  # outside the except block, so that its errors have no other as context


def _read_twice(listing: Listing[T]) -> list[T]:
    """
    Read a list whose pages cannot overlap until two reads in succession are equal.

    :raises TavusInvalidResponseError: if no two reads are
    """
    before: bytes | None = None
    reason = ""
    for attempt in range(MAX_READS + 1):
        if attempt > 1:
            listing.wait(float(attempt))
        try:
            digest, rows = _read_pages(listing)
        except UnstableError as error:
            before, reason = None, str(error)
            continue
        if digest == before:
            return rows
        before, reason = digest, "returned other rows each time it was read, on pages that cannot overlap"
    raise incomplete(listing.what, reason)


def _read_pages(listing: Listing[T]) -> tuple[bytes, list[T]]:
    """
    Read all pages, one after the other, as long as they do not show a change.

    :returns: a digest of the ids in their order, and the collected rows
    :raises UnstableError: if the pages show a change
    """
    collected: dict[Any, T] = {}
    seen, digest = IdTable(), hashlib.sha256()
    first: list[str] = []
    total, number = 0, listing.first_page
    for count in range(MAX_PAGES):
        page = listing.fetch(number, listing.limit)
        number += 1
        rows = {listing.identify(row): row for row in page.rows}
        ids = list(rows)
        if count == 0:
            first, total = ids, page.total_count
        elif count == 1 and listing.first_page == 0 and ids and ids == first:
            continue  # this server counts from 1 and returns its first page for page 0 too
        if page.total_count != total:
            raise UnstableError(f"changed its total_count from {total} to {page.total_count}")
        if not ids:
            if len(seen) == total:
                return digest.digest(), list(collected.values())
            raise UnstableError(f"returned {len(seen)} rows and total_count {total}")
        if sum(seen.set(row_id, count) for row_id in ids) < len(page.rows):
            raise UnstableError("returned a row on two pages")
        for row_id in ids:
            digest.update(f"{len(row_id)} {row_id}".encode("utf-8", "surrogatepass"))
        listing.collect(collected, rows)
    raise incomplete(listing.what, f"has more than {MAX_PAGES} pages")
