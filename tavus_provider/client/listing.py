"""What the two ways to read a complete listing share: its pages, its arguments, its errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from tavus_provider.exceptions import TavusInvalidResponseError

MAX_PAGES: Final = 20_000
"""Most pages to read for one listing: enough for 1.7 million rows."""

T = TypeVar("T")
Collect = Callable[[dict[Any, T], Mapping[str, T]], None]
Run = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[tuple[Any, Any]]]


class PageTooLargeError(TavusInvalidResponseError):
    """A page has more bytes than the client reads, or more rows than the server allows; fewer may help."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """
    One page of a list.

    :param rows: the rows in the order of the list
    :param total_count: what the server says about the length of the list
    """

    rows: Sequence[T]
    total_count: int


@dataclass(frozen=True, slots=True)
class Listing(Generic[T]):
    """The arguments of :func:`.read_list`."""

    what: str
    fetch: Callable[[int, int], Page[T]]
    identify: Callable[[T], str]
    collect: Collect[T]
    first_page: int
    limit: int
    batch_size: int
    run: Run
    wait: Callable[[float], object]


class UnstableError(Exception):
    """This read cannot be shown to be complete; another one may."""


class NoOverlapError(Exception):
    """The pages of this server cannot overlap."""


def incomplete(what: str, reason: str) -> TavusInvalidResponseError:
    """Return the error of a listing that cannot be shown to be complete."""
    return TavusInvalidResponseError(
        f"{what} {reason}: the listing cannot be shown to be complete, so nothing may be deleted based on it"
    )
