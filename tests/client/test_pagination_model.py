"""
Model tests of complete listings.

A list changes between any two page reads, and pages that are read in parallel are read in any order. All
interleavings of a few changes with the reads of a short list are explored; longer lists and strange servers
are drawn by hypothesis. A listing that is accepted never lacks a row that existed during the whole read.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tavus_provider.client.listing import Page
from tavus_provider.client.pagination import read_list
from tavus_provider.exceptions import TavusInvalidResponseError

FULL = bool(os.environ.get("MODEL_TEST_FULL"))
"""Explore all cases: minutes instead of seconds."""


class Choices:
    """The choices of one run: those given, and the first alternative afterwards."""

    def __init__(self, given: list[int]) -> None:
        self._given = given
        self._taken: list[tuple[int, int]] = []

    def choose(self, alternatives: int) -> int:
        at = len(self._taken)
        chosen = self._given[at] if at < len(self._given) else 0
        self._taken.append((chosen, alternatives))
        return chosen

    def next_run(self) -> list[int] | None:
        """Return the choices of the next run; ``None`` after the last one."""
        taken = self._taken
        while taken and taken[-1][0] + 1 == taken[-1][1]:
            taken.pop()
        return [*(chosen for chosen, _ in taken[:-1]), taken[-1][0] + 1] if taken else None


def all_runs() -> Iterator[Choices]:
    given: list[int] | None = []
    while given is not None:
        choices = Choices(given)
        yield choices
        given = choices.next_run()


class ChangingList:
    """
    A list on a server, which may change before each read of a page.

    :param changes: how many changes may happen: an insert or a delete at front, middle or end
    :param anywhere: at any place instead
    """

    def __init__(
        self,
        choices: Choices,
        count: int,
        *,
        changes: int,
        anywhere: bool = False,
        inserts_only: bool = False,
    ) -> None:
        self.choices = choices
        self.rows = [f"r{number}" for number in range(count)]
        self.survivors = set(self.rows)
        self.changes = changes
        self.anywhere = anywhere
        self.inserts_only = inserts_only
        self.reads = 0
        self.history: list[str] = []

    def fetch(self, page: int, limit: int) -> Page[str]:
        while self.changes:
            possible = self.possible_changes()
            chosen = self.choices.choose(len(possible) + 1)
            if not chosen:
                break
            self.changes -= 1
            self.change(*possible[chosen - 1])
        self.reads += 1
        start = (page - 1) * limit
        rows = self.rows[start : start + limit]
        self.history.append(f"page {page} limit {limit}: {rows}")
        return Page(rows, len(self.rows))

    def run(self, function, windows):
        """Read pages in any order."""
        waiting = list(windows)
        while waiting:
            window = waiting.pop(self.choices.choose(len(waiting)) if len(waiting) > 1 else 0)
            yield window, function(window)

    def possible_changes(self) -> list[tuple[str, int]]:
        count = len(self.rows)
        places = range(count + 1) if self.anywhere else sorted({0, count // 2, count})
        changes = [("insert", place) for place in places]
        if count and not self.inserts_only:
            places = range(count) if self.anywhere else sorted({0, count // 2, count - 1})
            changes += [("delete", place) for place in places]
        return changes

    def change(self, kind: str, place: int) -> None:
        self.history.append(f"{kind} at {place}")
        if kind == "insert":
            self.rows.insert(place, f"new{self.changes}")
        else:
            self.survivors.discard(self.rows.pop(place))


def complete(world: ChangingList, *, limit: int, batch_size: int) -> list[str]:
    return read_list(
        "GET /list", world.fetch, identify=str, limit=limit, batch_size=batch_size, run=world.run
    )


def naive(world: ChangingList, *, limit: int, batch_size: int) -> list[str]:
    """The former algorithm: complete if ``total_count`` did not change, and that many ids were read."""
    for _ in range(3):
        seen: dict[str, None] = {}
        totals = set()
        number, announced = 1, 1
        while number <= announced:
            numbers = [number] if number == 1 else range(number, announced + 1)
            pages = dict(world.run(lambda number: world.fetch(number, limit), numbers))
            for number in sorted(pages):
                page = pages[number]
                totals.add(page.total_count)
                if number > 1 and page.rows and set(page.rows) <= seen.keys():
                    raise TavusInvalidResponseError("repeats rows")
                seen |= dict.fromkeys(page.rows)
                if not page.rows or len(seen) >= page.total_count:
                    break
            announced = -(-page.total_count // limit) if number == 1 else announced
            number += 1
        if len(totals) == 1 and len(seen) == page.total_count:
            return list(seen)
        if len(totals) == 1:
            break
    raise TavusInvalidResponseError("incomplete")


@dataclass
class Exploration:
    interleavings: int = 0
    rejected: int = 0
    violations: list[str] = field(default_factory=list)


def explore(
    algorithm: Callable[..., list[str]], count: int, *, limit: int, batch_size: int = 1, **options
) -> Exploration:
    """Run the algorithm with all possible choices."""
    result = Exploration()
    for choices in all_runs():
        world = ChangingList(choices, count, **options)
        result.interleavings += 1
        try:
            listed = set(algorithm(world, limit=limit, batch_size=batch_size))
        except TavusInvalidResponseError:
            result.rejected += 1
            continue
        if not world.survivors <= listed:
            result.violations.append("\n".join([*world.history, f"missed {world.survivors - listed}"]))
    return result


# Pages of 4 rows cannot be compared beyond row 12, so longer lists have pages of 5 rows.
THREE_CHANGES = [
    *(pytest.param(count, 4, 1, id=f"{count} rows, pages of 4") for count in range(9)),
    *(pytest.param(count, 5, 1, id=f"{count} rows, pages of 5") for count in (9, 11)),
    *(pytest.param(count, 5, 2, id=f"{count} rows, pages of 5, 2 in parallel") for count in (10,)),
]
MORE = [
    *(pytest.param(count, 5, 1, id=f"{count} rows, pages of 5") for count in (5, 6, 7, 8, 10, 12, 13)),
    *(
        pytest.param(count, 5, 2, id=f"{count} rows, pages of 5, 2 in parallel")
        for count in (8, 9, 11, 12, 13)
    ),
    *(pytest.param(count, 5, 3, id=f"{count} rows, pages of 5, 3 in parallel") for count in (13, 14)),
]


@pytest.mark.parametrize(("count", "limit", "batch_size"), THREE_CHANGES + (MORE if FULL else []))
def test_accepted_listing_is_complete_for_all_interleavings_of_three_changes(
    count, limit, batch_size, record_property
):
    result = explore(complete, count, limit=limit, batch_size=batch_size, changes=3)
    record_property("interleavings", result.interleavings)
    assert not result.violations, result.violations[0]
    # Not required, but so few changes need not make a read fail.
    assert not result.rejected


@pytest.mark.parametrize(
    ("count", "limit", "batch_size"), [(6, 4, 1), (8, 4, 1), (12, 5, 1), (11, 5, 2), (13, 5, 3), (14, 5, 3)]
)
def test_accepted_listing_is_complete_for_all_interleavings_of_two_changes_anywhere(
    count, limit, batch_size, record_property
):
    anywhere = FULL or batch_size < 3
    result = explore(complete, count, limit=limit, batch_size=batch_size, changes=2, anywhere=anywhere)
    record_property("interleavings", result.interleavings)
    assert not result.violations, result.violations[0]
    assert not result.rejected


@pytest.mark.parametrize(
    ("count", "limit", "batch_size", "changes"),
    [(5, 4, 1, 4), (8, 5, 1, 4), (12, 5, 1, 4), (10, 5, 2, 4), (13, 5, 3, 3)],
)
def test_growth_alone_never_fails(count, limit, batch_size, changes, record_property):
    result = explore(complete, count, limit=limit, batch_size=batch_size, changes=changes, inserts_only=True)
    record_property("interleavings", result.interleavings)
    assert not result.violations, result.violations[0]
    assert not result.rejected


def test_model_finds_the_page_swap_in_the_naive_algorithm():
    """One row is deleted and one added between two pages: the count stays, and a row is missed."""
    result = explore(naive, 6, limit=3, changes=2)
    swaps = [text for text in result.violations if "insert" in text and "delete" in text]
    assert any(
        text.splitlines()
        == [
            "page 1 limit 3: ['r0', 'r1', 'r2']",
            "insert at 6",
            "delete at 0",
            "page 2 limit 3: ['r4', 'r5', 'new1']",
            "missed {'r3'}",
        ]
        for text in swaps
    ), result.violations[:3]


# --- longer lists, many changes, strange servers


class Server:
    """
    A server whose list changes at random before each read.

    :param changes: most changes before a read
    :param kinds: what may change, any of insert, delete, to_front, to_end, shuffle
    :param places: where rows are inserted and deleted, any of front, middle, end, anywhere
    :param first_page: number of its first page
    :param clamp: most rows per page
    :param total: what ``total_count`` says: right, high, page, capped
    :param fault: none, ignores page, ignores limit, repeats rows
    """

    def __init__(
        self,
        seed: int,
        count: int,
        *,
        changes: int,
        kinds: list[str],
        places: list[str],
        first_page: int = 1,
        clamp: int = 100,
        total: str = "right",
        fault: str = "none",
    ) -> None:
        self.random = random.Random(seed)
        self.rows = [f"r{number}" for number in range(count)]
        self.survivors = set(self.rows)
        self.changes = changes
        self.kinds = kinds
        self.places = places
        self.first_page = first_page
        self.clamp = clamp
        self.total = total
        self.fault = fault
        self.reads = 0

    def change(self) -> None:
        rows = self.rows
        kind = self.random.choice(self.kinds)
        place = {
            "front": 0,
            "middle": len(rows) // 2,
            "end": len(rows),
            "anywhere": self.random.randint(0, len(rows)),
        }[self.random.choice(self.places)]
        if kind == "insert":
            rows.insert(place, f"new{self.random.getrandbits(40)}")
        elif rows:
            row = rows.pop(min(place, len(rows) - 1))
            if kind == "delete":
                self.survivors.discard(row)
            else:
                rows.insert(0 if kind == "to_front" else len(rows), row)

    def fetch(self, page: int, limit: int) -> Page[str]:
        self.reads += 1
        assert self.reads < 3_000, "the number of requests is not bounded"
        if self.reads < 500:  # a list that grows faster than it is read has no end
            for _ in range(self.random.randint(0, self.changes)):
                self.change()
        size = self.clamp if self.fault == "ignores limit" else min(limit, self.clamp)
        index = 0 if self.fault == "ignores page" else max(0, page - self.first_page)
        rows = self.rows[index * size : index * size + size]
        if self.fault == "repeats rows" and len(rows) > 1:
            rows = [rows[0], *rows][:size]
        total = {
            "right": len(self.rows),
            "high": len(self.rows) + 7,
            "page": len(rows),
            "capped": min(100, len(self.rows)),
        }[self.total]
        return Page(rows, total)

    def run(self, function, windows):
        windows = list(windows)
        self.random.shuffle(windows)
        for window in windows:
            yield window, function(window)

    def read(self, *, batch_size: int = 1, first_page: int = 1, limit: int = 100) -> list[str]:
        return read_list(
            "GET /list",
            self.fetch,
            identify=str,
            first_page=first_page,
            limit=limit,
            batch_size=batch_size,
            run=self.run,
        )


seeds = st.integers(0, 2**32)
counts = st.integers(0, 1500)
batch_sizes = st.sampled_from([1, 4, 16])
some_places = st.lists(st.sampled_from(["front", "middle", "end", "anywhere"]), min_size=1, max_size=2)
clamps = st.sampled_from([100, 64, 50, 30, 25, 20])


@given(
    seed=seeds,
    count=counts,
    batch_size=batch_sizes,
    changes=st.sampled_from([1, 2, 5]),
    kinds=st.sampled_from([["insert"], ["delete"], ["insert", "delete"], ["insert", "delete", "delete"]]),
    places=some_places,
    clamp=clamps,
    total=st.sampled_from(["right", "high", "page", "capped"]),
    fault=st.sampled_from(["none", "none", "ignores page", "ignores limit", "repeats rows"]),
)
@settings(max_examples=2000 if FULL else 300, deadline=None)
def test_accepted_listing_is_complete(
    *, seed, count, batch_size, changes, kinds, places, clamp, total, fault
):
    server = Server(
        seed, count, changes=changes, kinds=kinds, places=places, clamp=clamp, total=total, fault=fault
    )
    try:
        listed = set(server.read(batch_size=batch_size))
    except TavusInvalidResponseError:
        return
    assert server.survivors <= listed


@given(
    seed=seeds,
    count=counts,
    batch_size=batch_sizes,
    changes=st.integers(0, 20),
    places=some_places,
    clamp=clamps,
    total=st.sampled_from(["right", "page"]),
)
@settings(max_examples=1000 if FULL else 150, deadline=None)
def test_growth_alone_never_fails_in_long_lists(*, seed, count, batch_size, changes, places, clamp, total):
    server = Server(
        seed,
        count,
        changes=min(changes, clamp // 4),  # faster growth than reading cannot end
        kinds=["insert"],
        places=places,
        clamp=clamp,
        total=total,
    )
    assert server.survivors <= set(server.read(batch_size=batch_size))


@given(seeds, counts, batch_sizes, st.integers(0, 40), some_places)
@settings(max_examples=1000 if FULL else 150, deadline=None)
def test_deletes_alone_do_not_fail(seed, count, batch_size, changes, places):
    server = Server(seed, count, changes=changes, kinds=["delete"], places=places)
    assert server.survivors <= set(server.read(batch_size=batch_size))


@given(
    seed=seeds,
    count=counts,
    batch_size=batch_sizes,
    first_page=st.sampled_from([0, 1]),
    changes=st.integers(0, 3),
    clamp=st.sampled_from([100, 50, 20]),
)
@settings(max_examples=500 if FULL else 100, deadline=None)
def test_pages_may_be_counted_from_zero_or_one(*, seed, count, batch_size, first_page, changes, clamp):
    server = Server(
        seed,
        count,
        changes=changes,
        kinds=["insert", "delete"],
        places=["anywhere"],
        first_page=first_page,
        clamp=clamp,
    )
    assert server.survivors <= set(server.read(batch_size=batch_size, first_page=0))


@given(seeds, counts, st.sampled_from(["to_front", "to_end"]), st.sampled_from(["right", "page"]))
@settings(max_examples=1000 if FULL else 150, deadline=None)
def test_rows_that_move_to_the_front_or_end_are_not_missed(seed, count, kind, total):
    server = Server(seed, count, changes=1, kinds=[kind], places=["anywhere"], total=total)
    try:
        listed = set(server.read())
    except TavusInvalidResponseError:
        return
    assert server.survivors <= listed
