"""
Compare what a client reports with what the server did.

The judge knows no client and no part of the package, so that every client is judged by the same rules.
"""

from __future__ import annotations

from collections.abc import Iterable

from faults.server import FakeTavus

IDS = [f"r{number}0" for number in range(1, 17)]
"""The replicas of a cell: four pages at least."""
TARGET = "r30"
"""The replica to look up or to delete."""

REPORTED_GONE = ("deleted", "confirmed", "already_gone")


def false_delete_claims(tavus: FakeTavus, outcome: str, replica_id: str = TARGET) -> list[str]:
    """
    Return what is false about the reported outcome of a delete.

    ``unknown`` claims nothing, so it is never false.
    """
    exists, deleted = replica_id in tavus.existing, tavus.was_deleted(replica_id)
    return [
        f"reported {outcome}, {fact}"
        for is_false, fact in [
            (outcome in REPORTED_GONE and exists, "but the replica exists"),
            (outcome in ("failed", "not_attempted") and deleted, "but this client deleted it"),
            (outcome == "already_gone" and deleted, "but it was this client that deleted it"),
        ]
        if is_false
    ]


def false_end_claims(tavus: FakeTavus, outcome: str, conversation_id: str = TARGET) -> list[str]:
    """
    Return what is false about the reported outcome of the end of a conversation.

    :param outcome: ``ended``, or the outcome of an error
    """
    ended = conversation_id in tavus.ended
    return [
        f"reported {outcome}, {fact}"
        for is_false, fact in [
            (outcome == "ended" and not ended, "but the conversation is active"),
            (outcome in ("failed", "not_attempted") and ended, "but this client ended it"),
            (outcome == "already_gone", "but the conversation exists"),
        ]
        if is_false
    ]


def unwanted_deletes(tavus: FakeTavus, planned: Iterable[str] = (TARGET,), *, most: int = 3) -> list[str]:
    """Return the deletes that the client was not asked to send: of other replicas, or more than ``most``."""
    planned = set(planned)
    others = {entry.replica_id for entry in tavus.log if entry.request == "DELETE"} - planned
    repeated = [one for one in planned if tavus.count("DELETE", one) > most]
    return [f"sent DELETE for {one!r}" for one in sorted(others)] + [
        f"sent {tavus.count('DELETE', one)} deletes for {one}" for one in sorted(repeated)
    ]


def false_list_claims(tavus: FakeTavus, ids: list[str]) -> list[str]:
    """Return what is false about a listing that a client reports as complete."""
    return [] if ids == tavus.existing else [f"listed {len(ids)} of {len(tavus.existing)} replicas as all"]
