"""
Replicas, personas, conversations and videos as Tavus returns them, and the only parser of these objects.

Since 2026 the documentation of Tavus calls a replica a *face* and a persona a *PAL*, and its API
returns either vocabulary. Both are read here; if a row holds both and they differ, it is rejected.

Only the fields named here are kept. The rest of a row is dropped at once: rows of personas can hold
API keys of other vendors (``layers.llm.api_key``).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar, Final, Self

from tavus_provider.exceptions import TavusInvalidResponseError, TavusValidationError
from tavus_provider.sanitize import quote

NON_IDS: Final = frozenset({"none", "null", "undefined", "nan", "true", "false"})
"""What a template or a script writes for a missing value, in lower case. Never accepted as an id."""

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{1,63}")
_ISO_8601: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T(?!24)[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-5][0-9])"
)
_RFC_1123: Final = re.compile(
    r"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT"
)
_WITHOUT_ZONE: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?)?"
)
# No replica can be older: Tavus did not exist. Rejects 1970-01-01, which stands for a missing date.
_EARLIEST: Final = datetime(2015, 1, 1, tzinfo=UTC)
# Shared by all replicas without unreadable fields: a dict for each would double their memory.
_NOTHING_UNREADABLE: Final[Mapping[str, str]] = {}


def check_replica_id(value: object) -> str:
    """
    Return ``value`` if it can be the id of a replica.

    The id becomes a part of the path of a request that cannot be undone. Only an allow-list of
    characters is safe there: URL quoting would leave ``..`` as it is.

    The ids that Tavus assigns are ``r`` and 10 to 12 hexadecimal digits, such as ``rf4e9d9790f0`` (seen
    in its documentation and in responses). Their format is not documented, so it is not required.

    :raises TavusValidationError: if ``value`` is not a ``str``, does not match
        ``[A-Za-z0-9][A-Za-z0-9_-]{1,63}`` in full, or is one of :data:`NON_IDS` in any case
    """
    if type(value) is str and _ID.fullmatch(value) and value.lower() not in NON_IDS:
        return value
    raise TavusValidationError(
        f"replica_id: {quote(value)} is not a replica id; expected a string of 2 to 64 letters, digits, "
        "'_' or '-', such as 'rf4e9d9790f0'; nothing was sent"
    )


def check_bool(name: str, value: object) -> bool:
    """
    Return ``value`` if it is ``True`` or ``False``.

    :param name: the argument to name in the error message
    :raises TavusValidationError: for any other value. The string ``"false"`` is true in Python, and an
        argument such as ``hard`` must not depend on that.
    """
    if value is True or value is False:
        return bool(value)
    raise TavusValidationError(f"{name}: expected True or False, got {quote(value)}; nothing was sent")


def parse_time(value: object) -> datetime:
    """
    Parse a date of Tavus: ISO 8601 with a time zone, or RFC 1123 in GMT.

    The API returns both: ``2026-01-05T09:30:12.345678Z`` for replicas, personas and conversations,
    ``Mon, 14 Jul 2025 09:14:24 GMT`` for videos (Tavus OpenAPI document, and responses seen). It also
    uses dates without a time zone in callbacks; these are rejected, because they are ambiguous.

    :returns: an aware datetime in UTC, 2015 or later, possibly in the future
    :raises ValueError: if the date counts as unknown. The message continues a sentence that begins
        with the name of the field: ``is missing``, ``'2024-01-24' has no time zone``
    """
    if value is None:
        raise ValueError("is missing")
    if not isinstance(value, str):
        raise ValueError(f"is {quote(value)}, not a date")
    if _WITHOUT_ZONE.fullmatch(value):
        raise ValueError(f"{quote(value)} has no time zone")
    moment: datetime | None = None
    try:
        if _ISO_8601.fullmatch(value):
            moment = datetime.fromisoformat(value).astimezone(UTC)
        elif _RFC_1123.fullmatch(value):
            moment = parsedate_to_datetime(value).astimezone(UTC)
    except (ValueError, OverflowError):
        pass  # such as 30 February
    if moment is None:
        raise ValueError(f"{quote(value)} is not an ISO 8601 or RFC 1123 date")
    if moment < _EARLIEST:
        raise ValueError(f"{quote(value)} is before 2015, earlier than Tavus existed")
    return moment


@dataclass(frozen=True, slots=True)
class Replica:
    """
    A replica as Tavus listed it.

    A field is ``None`` if the row does not hold it, or if its value cannot be used. In the second case
    ``unreadable`` holds, under the name of the field, a sentence that says why. Dates are aware and in
    UTC. The fields are those of Tavus; ``replica_type`` is returned only for ``verbose=true`` (Tavus
    API reference, "List Replicas").
    """

    replica_id: str
    replica_name: str | None = None
    status: str | None = None
    """``started``, ``completed`` or ``error`` according to the API reference; other values are kept."""
    replica_type: str | None = None
    """``user``, or ``system`` for the stock replicas of Tavus."""
    model_name: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    unreadable: Mapping[str, str] = field(default_factory=lambda: _NOTHING_UNREADABLE)

    @classmethod
    def from_api(cls, row: object) -> Self:
        """
        Parse a row of ``GET /v2/replicas`` or the object of ``GET /v2/replicas/{id}``.

        :param row: the decoded JSON value, of any type
        :raises TavusInvalidResponseError: if the row is not an object, or has no valid id, or its two
            vocabularies differ. Other fields never raise; see ``unreadable``.
        """
        row = _json_object(row, "replica")
        unreadable: dict[str, str] = {}
        return cls(
            replica_id=_replica_id(row),
            replica_name=_text(row, unreadable, "replica_name", "face_name"),
            status=_intern(_text(row, unreadable, "status")),
            replica_type=_intern(_text(row, unreadable, "replica_type", "face_type")),
            model_name=_intern(_text(row, unreadable, "model_name")),
            created_at=_time(row, unreadable, "created_at"),
            updated_at=_time(row, unreadable, "updated_at"),
            unreadable=unreadable or _NOTHING_UNREADABLE,
        )


@dataclass(frozen=True, slots=True)
class Persona:
    """
    The id of a persona (PAL) and of its default replica.

    Tavus does not document that deleting a replica clears the reference, so ``replica_id`` may be the
    id of a replica that no longer exists.
    """

    persona_id: str
    replica_id: str | None

    @classmethod
    def from_api(cls, row: object) -> Self:
        """
        Parse a row of ``GET /v2/personas``.

        :param row: the decoded JSON value, of any type
        :raises TavusInvalidResponseError: if it has no id, or its reference to a replica is unreadable
        """
        row = _json_object(row, "persona")
        return cls(
            persona_id=_own_id(row, "persona_id", "pal_id"),
            replica_id=_reference(row, "default_replica_id", "default_face_id"),
        )


@dataclass(frozen=True, slots=True)
class Activity:
    """
    What :class:`Conversation` and :class:`Video` have in common: the use of one replica at one time.

    The row names the replica, or the persona whose default replica is used, or neither. ``status`` is
    ``None`` if it is missing or not a string; ``used_at`` is ``None`` if the row has no readable date.
    """

    kind: ClassVar[str]
    """``conversation`` or ``video``: the word in paths, in names of fields and in messages."""
    finished_statuses: ClassVar[frozenset[str]]

    activity_id: str
    replica_id: str | None
    persona_id: str | None
    status: str | None
    used_at: datetime | None
    """The last change of the row (``updated_at``, else ``created_at``), aware and in UTC."""

    @property
    def is_finished(self) -> bool:
        """Whether the status says that the replica is no longer needed; false for unknown statuses."""
        return self.status in self.finished_statuses

    @property
    def usage_key(self) -> tuple[object, ...]:
        """Equal for activities that differ in their id and date only. The latest of these says it all."""
        return self.replica_id, self.persona_id, self.status, self.used_at is None

    @property
    def sort_key(self) -> tuple[datetime, str]:
        """Order from oldest to newest; distinct for distinct ids."""
        return self.used_at or _EARLIEST, self.activity_id

    @classmethod
    def from_api(cls, row: object) -> Self:
        """
        Parse a row of ``GET /v2/conversations`` or ``GET /v2/videos``, depending on the class.

        :param row: the decoded JSON value, of any type
        :raises TavusInvalidResponseError: if it has no id, or its reference to a replica or persona
            is unreadable
        """
        row = _json_object(row, cls.kind)
        try:
            used_at = parse_time(row.get("updated_at") or row.get("created_at"))
        except ValueError:
            used_at = None
        status = row.get("status")
        return cls(
            activity_id=_own_id(row, f"{cls.kind}_id"),
            replica_id=_reference(row, "replica_id", "face_id"),
            persona_id=_reference(row, "persona_id", "pal_id"),
            status=_intern(status) if isinstance(status, str) else None,
            used_at=used_at,
        )


@dataclass(frozen=True, slots=True)
class Conversation(Activity):
    """A conversation. Its status is ``active`` or ``ended`` (Tavus API reference)."""

    kind = "conversation"
    finished_statuses = frozenset({"ended"})


@dataclass(frozen=True, slots=True)
class Video(Activity):
    """
    A generated video. Its status is ``queued``, ``generating``, ``ready``, ``deleted`` or ``error``.

    The API reference omits ``replica_id`` from rows of videos; responses hold it.
    """

    kind = "video"
    finished_statuses = frozenset({"ready", "deleted", "error"})


def _json_object(row: object, kind: str) -> Mapping[str, Any]:
    if isinstance(row, dict):
        return row
    raise TavusInvalidResponseError(f"Tavus returned {quote(row)} for a {kind}; expected a JSON object")


def _replica_id(row: Mapping[str, Any]) -> str:
    value = _one_of(row, "replica_id", "face_id")
    try:
        return sys.intern(check_replica_id(value))
    except TavusValidationError:
        pass
    raise TavusInvalidResponseError(
        f"Tavus returned a replica with the invalid id {quote(value)}; the whole listing is rejected"
    )


def _one_of(row: Mapping[str, Any], *keys: str) -> Any:
    """Return the value of whichever key the row has, or ``None``."""
    values = [row[key] for key in keys if row.get(key) is not None]
    if any(value != values[0] for value in values[1:]):
        raise TavusInvalidResponseError(
            f"Tavus returned a row with different values for {' and '.join(keys)}; expected equal values"
        )
    return values[0] if values else None


def _own_id(row: Mapping[str, Any], *keys: str) -> str:
    value = _one_of(row, *keys)
    if isinstance(value, str) and value:
        return value
    raise TavusInvalidResponseError(
        f"Tavus returned a row whose {keys[0]} is {quote(value, none='missing')}; expected a non-empty string"
    )


def _reference(row: Mapping[str, Any], *keys: str) -> str | None:
    value = _one_of(row, *keys)
    if value is None or (isinstance(value, str) and value):
        return _intern(value)
    raise TavusInvalidResponseError(
        f"Tavus returned a row whose {keys[0]} is {quote(value)}; expected an id or null"
    )


def _intern(text: str | None) -> str | None:
    """Return one shared object for equal strings: many rows name few replicas, statuses and models."""
    return None if text is None else sys.intern(text)


def _text(row: Mapping[str, Any], unreadable: dict[str, str], *keys: str) -> str | None:
    value = _one_of(row, *keys)
    if value is None or isinstance(value, str):
        return value
    unreadable[keys[0]] = f"{keys[0]} is {quote(value)}, not a string"
    return None


def _time(row: Mapping[str, Any], unreadable: dict[str, str], key: str) -> datetime | None:
    value = row.get(key)
    if value is None:
        return None
    try:
        return parse_time(value)
    except ValueError as error:
        unreadable[key] = f"{key} {error}"
        return None
