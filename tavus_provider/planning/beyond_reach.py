"""What else may exist of a person, out of reach of this package."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypedDict

from tavus_provider.keys import Kind


class BeyondReach(TypedDict):
    """Data of the person that this package cannot see or delete, and whom to ask."""

    what: str
    ask: str


_OF_KIND: Final[Mapping[Kind, Sequence[BeyondReach]]] = {
    Kind.REPLICA: [
        {
            "what": "training footage at the URL that was given to Tavus when the replica was created",
            "ask": "the owner of that storage",
        },
        {"what": "a voice clone at another vendor, if one was used", "ask": "that vendor"},
    ],
    Kind.VIDEO: [
        {
            "what": "copies of videos that were downloaded, embedded or published",
            "ask": "the team that published them",
        }
    ],
    Kind.CONVERSATION: [
        {
            "what": "recordings in a bucket of your own, if recording was set up; with versioning, a "
            "plain delete leaves old versions",
            "ask": "the owner of the bucket",
        },
        {
            "what": "transcripts and events that webhooks have delivered, if a callback URL was set",
            "ask": "the owner of the receiving system",
        },
        {
            "what": "memory stores and legacy memory tags, if memories were used",
            "ask": "Tavus, or a person who deletes them in the portal",
        },
    ],
}

_OF_ALL: Final[Sequence[BeyondReach]] = [
    {"what": "backups and CDN copies of Tavus", "ask": "Tavus, under the data processing agreement"},
    {
        "what": "XComs, approval pages, logs and stored plans of retention runs in Airflow, which can "
        "have names of replicas",
        "ask": "the administrator of Airflow",
    },
]


def find_beyond_reach(kinds: Iterable[Kind]) -> list[BeyondReach]:
    """
    Return what else may exist of a person and is out of reach, for the kinds of a request.

    Whether it exists cannot be seen through the API, so each entry says when it applies.
    """
    chosen = set(kinds)
    of_kinds = [entry for kind in Kind if kind in chosen for entry in _OF_KIND[kind]]
    return [entry.copy() for entry in (*of_kinds, *_OF_ALL)]
