"""
The judge: what a client says came of it, against what the server knows it did.

It knows no client, so that every client is judged by the same words.
"""

from __future__ import annotations

from collections.abc import Iterable

from faults.server import Tavus

IDS = [f"r{number}0" for number in range(1, 8)]
"""The replicas of a cell: four pages."""
VICTIM = "r30"
"""The one that is to be looked up or deleted."""

GONE = ("deleted", "confirmed", "already_gone")


def lies_about_a_delete(tavus: Tavus, outcome: str, replica_id: str = VICTIM) -> list[str]:
    """What is false in the outcome of one delete; ``unknown`` and ``not_attempted`` claim nothing."""
    lives, ours = replica_id in tavus.living, tavus.applied(replica_id)
    return [
        f"told {outcome}, {fact}"
        for false, fact in [
            (outcome in GONE and lives, "and it lives"),
            (outcome in ("failed", "not_attempted") and ours, "and this client has deleted it"),
            (outcome == "already_gone" and ours, "and it was this client that deleted it"),
        ]
        if false
    ]


def harm_done(tavus: Tavus, planned: Iterable[str] = (VICTIM,), *, most: int = 3) -> list[str]:
    """What a client did that it was not asked to do: other deletes, or too many of one."""
    planned = set(planned)
    stray = {seen.replica_id for seen in tavus.seen if seen.to == "DELETE"} - planned
    often = [one for one in planned if tavus.count("DELETE", one) > most]
    return [f"sent DELETE for {one!r}" for one in sorted(stray)] + [
        f"sent {tavus.count('DELETE', one)} deletes for {one}" for one in sorted(often)
    ]


def lies_about_a_list(tavus: Tavus, ids: list[str]) -> list[str]:
    """What is false in a listing that a client calls complete."""
    return [] if ids == tavus.living else [f"told {len(ids)} of {len(tavus.living)} replicas for all"]
