"""Which objects of an erasure are under legal hold."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from tavus_provider.keys import Kind, fold, is_named

if TYPE_CHECKING:
    from tavus_provider.planning.erasure import ErasureRow, UndeterminedRow


class HoldScope(StrEnum):
    """What a legal hold covers beside the object that it names."""

    RELATED = "related"
    """
    Also what was made with a held replica; and the replica of a held video or conversation, because it is not
    documented whether Tavus deletes these together with the replica. A held row that names no replica may
    have been made with any of them.
    """
    ITEM = "item"
    """Only the object itself."""


class Hold(NamedTuple):
    """
    Why an object is under legal hold.

    :param held_by: as in :class:`.HeldRow`
    """

    held_by: str
    reason: str


def find_holds(
    rows: Iterable[ErasureRow],
    held: frozenset[str],
    *,
    covers: HoldScope,
    undetermined: Iterable[UndeterminedRow],
) -> dict[str, Hold]:
    """
    Return which objects are under legal hold, and why.

    :param rows: all objects of the request, whether they are to be deleted or not
    :param held: ids and keys under legal hold. A bare id holds every object with this id
    :param covers: what a hold covers beside the object that it names
    :param undetermined: rows of which it cannot be seen whether they were made with a replica of the request
    """
    rows = list(rows)
    holds = {row["key"]: Hold(row["key"], "is under legal hold") for row in rows if is_held(row["key"], held)}
    if covers is HoldScope.ITEM:
        return holds
    related: dict[str, Hold] = {}
    made_with = {
        fold(row["replica_id"]): row["key"] for row in rows if row["key"] in holds and row["replica_id"]
    }
    unattributed = next((row["row"] for row in undetermined if _is_unattributed(row, held)), None)
    for row in rows:
        key, replica_id = row["key"], row["replica_id"]
        if key in holds:
            continue
        if replica_id is not None and is_named(replica_id, held):  # from a row: it can be any text
            reason = f"was made with replica {replica_id}, which is under legal hold"
            related[key] = Hold(replica_id, reason)
        elif row["kind"] == Kind.REPLICA and (item := made_with.get(fold(key))) is not None:
            reason = f"{item}, which was made with it, is under legal hold, and may be deleted with it"
            related[key] = Hold(item, reason)
        elif row["kind"] == Kind.REPLICA and unattributed is not None:
            reason = f"{unattributed}, which may have been made with it, is under legal hold"
            related[key] = Hold(unattributed, reason)
    return holds | related


def _is_unattributed(row: UndeterminedRow, held: frozenset[str]) -> bool:
    """Return whether a row is held, unless the author of the DAG decided that such rows are of others."""
    return not row["is_left"] and is_held(row["row"], held)


def is_held(row: str, held: frozenset[str]) -> bool:
    """
    Return whether an object itself is under legal hold, by its key or its bare id.

    :param row: a key, or the kind and the ids that an unreadable row shows: ``video v1 or v2``
    """
    return any(is_named(part, held) for part in [row, *re.split("[ /]", row)])
