"""The past use that a plan read, for the tasks that carry it out. Pure data: ids and times, no names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tavus_provider.models import Conversation


@dataclass(frozen=True, slots=True)
class KnownUse:
    """
    The conversations that existed when a plan was made.

    :param since: when the newest conversation was created that existed before the first page was read. All
        others that are at most as new were read.
    :param ended: of the ended conversations with the same use of a replica, the latest
    :param active: all active conversations
    """

    since: datetime
    ended: tuple[Conversation, ...]
    active: tuple[Conversation, ...]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON document of which :meth:`from_json` makes an equal value."""
        return {
            "version": 1,
            "since": self.since.isoformat(),
            "ended": [_to_json(row) for row in self.ended],
            "active": [_to_json(row) for row in self.active],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> KnownUse:
        """
        Return the value of a document.

        :raises ValueError, TypeError, KeyError: if it is not such a document
        """
        since = _parse_time(value["since"])
        if value["version"] != 1 or since is None:
            raise ValueError("not a version 1 document")
        ended, active = (tuple(map(_from_json, value[key])) for key in ("ended", "active"))
        return cls(since, ended, active)


def _to_json(row: Conversation) -> list[str | None]:
    used_at = None if row.used_at is None else row.used_at.isoformat()
    return [row.activity_id, row.replica_id, row.persona_id, row.status, used_at]


def _from_json(value: Any) -> Conversation:
    activity_id, replica_id, persona_id, status, used_at = value
    if not isinstance(activity_id, str):
        raise TypeError("an id is not a string")
    for text in (replica_id, persona_id, status):
        if not isinstance(text, str | None):
            raise TypeError("an id or a status is neither a string nor null")
    return Conversation(activity_id, replica_id, persona_id, status, _parse_time(used_at))


def _parse_time(value: Any) -> datetime | None:
    if value is None:
        return None
    moment = datetime.fromisoformat(value)
    if moment.utcoffset() is None:
        raise ValueError("a time has no time zone")
    return moment
