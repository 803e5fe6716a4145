"""
Read the conversations that a decision needs.

Where no rule asks about the past, these are the active ones. The number of ended conversations then does not
matter: Tavus filters by status (``GET /v2/conversations?status=active``, Tavus API reference). The filter is
trusted only as far as the server shows that it works, and that no other status hides a conversation.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol

from tavus_provider.exceptions import TavusAuthError, TavusInvalidResponseError, TavusRequestRejectedError

if TYPE_CHECKING:
    from tavus_provider.client.pagination import Page
    from tavus_provider.models import Conversation, UnreadableRow

    Row = Conversation | UnreadableRow

log = logging.getLogger(__name__)

ACTIVE: Final = "active"
ENDED: Final = "ended"
MAX_COUNTS: Final = 4
"""How often the conversations are counted, because some began or ended meanwhile."""


class ConversationClient(Protocol):
    """The client methods that read conversations."""

    def list_conversations(
        self, *, latest_only: bool = False, status: str | None = None
    ) -> Sequence[Conversation | UnreadableRow]: ...
    def get_conversations_page(
        self, *, status: str | None = None, number: int = 1, limit: int = 1
    ) -> Page[Conversation | UnreadableRow]: ...
    def wait(self, seconds: float) -> bool: ...


class _UnreliableFilterError(Exception):
    """The filter by status is not to be trusted; the message says why."""


def read_conversations(client: ConversationClient, *, with_ended: bool) -> list[Row]:
    """
    Return conversations, of those with the same use of a replica only the latest.

    :param with_ended: whether ended conversations are needed. They are returned as well if it cannot be shown
        that all others are active.
    :raises TavusError: if they cannot be read completely
    """
    if not with_ended:
        try:
            _check_counts(client)
            return _read_active(client)
        except _UnreliableFilterError as error:
            log.info("All conversations are read, not only active ones: %s", error)
        return list(client.list_conversations(latest_only=True))
    rows = list(client.list_conversations(latest_only=True))
    # Asked in two ways, an active conversation is not missed because of one of them.
    try:
        for status in (ACTIVE, ENDED):  # a server that ignores the filter would return all of them again
            _count(client, status)
        rows += _read_active(client)
    except _UnreliableFilterError as error:
        log.info("Active conversations are not read again apart from the others: %s", error)
    return rows


def _read_active(client: ConversationClient) -> list[Row]:
    try:
        rows = list(client.list_conversations(status=ACTIVE, latest_only=True))
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
    try:
        page = client.get_conversations_page(status=status)
    except TavusAuthError:
        raise
    except (TavusRequestRejectedError, TavusInvalidResponseError) as error:
        reason = str(error)
    else:
        if status is not None:
            _check_filter(page.rows, status)
        return page.total_count
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
