"""
Read the conversations that a decision needs.

Where no rule asks about the past, these are the active ones. The number of ended conversations then does not
matter: Tavus filters by status (``GET /v2/conversations?status=active``, Tavus API reference). The filter is
trusted only as far as the server shows that it works, and that no other status hides a conversation.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Protocol

from tavus_provider.exceptions import TavusAuthError, TavusInvalidResponseError, TavusRequestRejectedError
from tavus_provider.models import Conversation
from tavus_provider.retention.known_use import KnownUse

if TYPE_CHECKING:
    from tavus_provider.client.listing import Page
    from tavus_provider.models import UnreadableRow

    Row = Conversation | UnreadableRow

log = logging.getLogger(__name__)

ACTIVE: Final = "active"
ENDED: Final = "ended"
MAX_COUNTS: Final = 4
"""How often the conversations are counted, because some began or ended meanwhile."""

FIRST_PAGE: Final = 100
"""How many of the newest conversations are read to find those that began since a plan was made."""
MARGIN: Final = timedelta(minutes=5)
"""How much later a conversation may appear in the list than its date says."""


class ConversationClient(Protocol):
    """The client methods that read conversations."""

    def list_conversations(
        self,
        *,
        latest_only: bool = False,
        status: str | None = None,
        observe: Callable[[Sequence[Conversation | UnreadableRow]], object] = ...,
    ) -> Sequence[Conversation | UnreadableRow]: ...
    def get_conversations_page(
        self, *, status: str | None = None, number: int = 1, limit: int = 1
    ) -> Page[Conversation | UnreadableRow]: ...
    def wait(self, seconds: float) -> bool: ...


class _UnreliableFilterError(Exception):
    """The filter by status is not to be trusted; the message says why."""


def read_active_conversations(client: ConversationClient) -> list[Row]:
    """
    Return the active conversations; or all, if the server does not show that all others have ended.

    Of conversations with the same use of a replica, only the latest is returned.

    :raises TavusError: if they cannot be read completely
    """
    try:
        _check_counts(client)
        return _read_active(client)
    except _UnreliableFilterError as error:
        log.info("All conversations are read, not only active ones: %s", error)
    return list(client.list_conversations(latest_only=True))


def read_past_conversations(
    client: ConversationClient, *, known: KnownUse | None, now: Callable[[], datetime]
) -> tuple[list[Row], KnownUse | None]:
    """
    Return all conversations, of those with the same use of a replica only the latest.

    :param known: what the plan read. Then only what can have changed since is read, if the server shows what
        this is, and else everything.
    :param now: returns the wall clock: when a conversation ended that was active for the plan
    :returns: the conversations; and if everything was read and can be handed over, what is known by that
    :raises TavusError: if they cannot be read completely
    """
    if known is not None:
        try:
            return _read_changes(client, known, now=now), None
        except _UnreliableFilterError as error:
            log.info("All conversations are read again: %s", error)
    order = _Order()
    newest = _read_newest(client)
    rows = list(client.list_conversations(latest_only=True, observe=order.check))
    # Asked in two ways, an active conversation is not missed because of one of them.
    try:
        for status in (ACTIVE, ENDED):  # a server that ignores the filter would return all of them again
            _count(client, status)
        active = _read_active(client, latest_only=False)
    except _UnreliableFilterError as error:
        log.info("Active conversations are not read again apart from the others: %s", error)
        return rows, None
    everything = [*rows, *active]
    if newest is None or not order.is_newest_first:
        return everything, None
    ended = tuple(row for row in rows if isinstance(row, Conversation) and row.status == ENDED)
    return everything, KnownUse(
        since=newest,
        ended=ended,
        active=tuple(row for row in active if isinstance(row, Conversation)),
    )


def _read_changes(client: ConversationClient, known: KnownUse, *, now: Callable[[], datetime]) -> list[Row]:
    """
    Return the conversations that a plan read, as they are now, and those that began since.

    :raises _UnreliableFilterError: if it is unknown which ones can have changed
    """
    _check_counts(client)
    # One page is one look at the list, so nothing can move meanwhile.
    page = _get_page(client, limit=FIRST_PAGE)
    created = _newest_first(page.rows)
    if not created or created[-1] >= known.since - MARGIN:
        raise _UnreliableFilterError(
            f"the first {FIRST_PAGE} in the list do not reach from the newest to those that the plan read"
        )
    active = _read_active(client, latest_only=False)
    still_active = {row.key for row in active}
    moment = now()
    ended = [
        replace(row, status=ENDED, used_at=moment) for row in known.active if row.key not in still_active
    ]
    return [*known.ended, *ended, *page.rows, *active]


def _read_newest(client: ConversationClient) -> datetime | None:
    """Return when the first conversation in the list was created."""
    try:
        rows = _get_page(client).rows
    except _UnreliableFilterError:
        return None
    return next(iter(_newest_first(rows)), None)


def _newest_first(rows: Sequence[Row]) -> list[datetime]:
    """Return when each row was created; nothing if one is unreadable, or newer than the row before it."""
    created = [row.created_at for row in rows if isinstance(row, Conversation) and row.created_at is not None]
    in_order = len(created) == len(rows) and all(one >= other for one, other in pairwise(created))
    return created if in_order else []


class _Order:
    """Notes whether all pages of a list show it to be ordered from the newest to the oldest."""

    def __init__(self) -> None:
        self.is_newest_first = True

    def check(self, rows: Sequence[Row]) -> None:
        if rows and not _newest_first(rows):
            self.is_newest_first = False


def _read_active(client: ConversationClient, *, latest_only: bool = True) -> list[Row]:
    try:
        rows = list(client.list_conversations(status=ACTIVE, latest_only=latest_only))
    except TavusAuthError:
        raise
    except (TavusRequestRejectedError, TavusInvalidResponseError) as error:
        reason = str(error)
    else:
        _check_filter(rows, ACTIVE)
        return rows
    raise _UnreliableFilterError(reason)


def _check_counts(client: ConversationClient) -> None:
    """
    Check that every conversation is active or ended.

    :raises _UnreliableFilterError: if the server does not show it
    """
    previous = None
    for number in range(1, MAX_COUNTS + 1):
        # In this order, a conversation that begins or ends before the total is counted can only be missing in
        # the sum. Deletes could make up for a hidden one; they show in the second numbers, unless as many
        # conversations begin and as many end within these five requests.
        ended = _count(client, ENDED)
        active = _count(client, ACTIVE)
        total = _count(client)
        if total == active + ended and ended == _count(client, ENDED) and active == _count(client, ACTIVE):
            break
        if (ended, active, total) == previous:
            raise _UnreliableFilterError(f"{total} exist, but {active} active and {ended} ended ones")
        previous = (ended, active, total)
        if number < MAX_COUNTS:
            client.wait(float(number))
    else:
        raise _UnreliableFilterError(
            f"their numbers change: {total} exist, {active} active and {ended} ended ones"
        )
    # A server may limit total_count, or count only the rows of the page.
    if client.get_conversations_page(number=total + 1, limit=1).rows:
        raise _UnreliableFilterError(f"more than {total} exist, which is the server's total_count")


def _count(client: ConversationClient, status: str | None = None) -> int:
    page = _get_page(client, status=status)
    if status is not None:
        _check_filter(page.rows, status)
    return page.total_count


def _get_page(client: ConversationClient, *, status: str | None = None, limit: int = 1) -> Page[Row]:
    try:
        return client.get_conversations_page(status=status, limit=limit)
    except TavusAuthError:
        raise
    except (TavusRequestRejectedError, TavusInvalidResponseError) as error:
        reason = str(error)
    raise _UnreliableFilterError(reason)


def _check_filter(rows: Sequence[Row], status: str) -> None:
    """
    Check that a list filtered by status has no other rows.

    :raises _UnreliableFilterError: if it has
    """
    for row in rows:
        if row.status != status:
            shown = row.status or "of unknown status"
            raise _UnreliableFilterError(
                f"the server returned one that is {shown} in a list of {status} ones"
            )
