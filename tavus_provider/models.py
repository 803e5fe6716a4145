"""
What is known of a replica and of its use, and the only reader of the JSON rows in which Tavus tells it.

Both of Tavus's vocabularies are read: ``replica``/``face`` and ``persona``/``PAL``. A row is reduced
to the fields named here; whatever else it holds (persona rows can hold keys of other vendors) goes
no further. Knows neither Airflow nor HTTP nor the clock.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from tavus_provider.exceptions import TavusInvalidResponseError, TavusValidationError
from tavus_provider.sanitize import escape_line

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{1,63}")
NO_ID = frozenset({"none", "null", "undefined", "nan", "true", "false"})
"""What a missing value looks like after rendering, in any case."""
_ISO = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T(?!24)[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-5][0-9])"
)
_RFC1123 = re.compile(r"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT")
_ZONELESS = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?)?")
_FIRST_PLAUSIBLE = datetime(2015, 1, 1, tzinfo=UTC)
# Nobody writes to it; a dict for each replica would take as much memory as the rest of it.
_NO_DOUBTS: Final[Mapping[str, str]] = {}


def check_replica_id(value: object) -> str:
    """
    Return ``value`` if it can be the id of one replica.

    An id becomes part of the path of an irrevocable request, so only an allow-list will do:
    quoting leaves ``..`` as it is.

    :raises TavusValidationError: if it is not a ``str``, does not match ``[A-Za-z0-9][A-Za-z0-9_-]{1,63}`` in
        full, or is what a missing value looks like after rendering (``None``, ``null``, ``nan`` ...)
    """
    if type(value) is str and _ID.fullmatch(value) and value.lower() not in NO_ID:
        return value
    try:
        shown = ascii(value)
    except Exception:  # noqa: BLE001  # not every object can be shown, nor an int of 5,000 digits
        shown = "..."
    shown = shown if len(shown) <= 40 else shown[:37] + "..."
    raise TavusValidationError(
        f"replica_id {shown} ({type(value).__name__}) is not a replica id: expected a string of 2 to 64 "
        "letters, digits, '_' or '-' such as 'rf4e9d9790f0'; nothing was sent"
    )


def check_bool(name: str, value: object) -> bool:
    """
    Return ``value`` if it is ``True`` or ``False`` itself.

    :raises TavusValidationError: for anything else; ``"false"`` and ``0`` are not answers to "delete for ever?"
    """
    if value is True or value is False:
        return bool(value)
    raise TavusValidationError(
        f"{name} is {ascii(value)[:40]}: expected True or False itself; nothing was sent"
    )


def read_time(value: object) -> datetime:
    """
    Read a date of Tavus: ISO 8601 with a zone, or RFC 1123 in GMT.

    :returns: an aware datetime in UTC, not before 2015
    :raises ValueError: with the sentence that says why the date counts as unknown
    """
    if value is None:
        raise ValueError("is not given")
    if not isinstance(value, str):
        raise ValueError(f"is not a date but of type {type(value).__name__}")
    try:
        if _ISO.fullmatch(value):
            moment = datetime.fromisoformat(value).astimezone(UTC)
        elif _RFC1123.fullmatch(value):
            moment = parsedate_to_datetime(value).astimezone(UTC)
        elif _ZONELESS.fullmatch(value):
            raise ValueError("has no time zone")
        else:
            raise ValueError
    except (ValueError, OverflowError) as error:
        reason = str(error) if str(error).endswith("time zone") else "is not a readable date"
    else:
        if moment >= _FIRST_PLAUSIBLE:
            return moment
        reason = "is before 2015, when there was no Tavus"
    raise ValueError(f"'{escape_line(value, 40)}' {reason}")


@dataclass(frozen=True, slots=True)
class Replica:
    """
    One replica as Tavus listed it.

    ``doubts`` maps each field whose value cannot be trusted to the sentence that says why; such a
    field is ``None``. Dates are aware and in UTC.
    """

    replica_id: str
    replica_name: str | None = None
    status: str | None = None
    replica_type: str | None = None
    model_name: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    doubts: Mapping[str, str] = field(default_factory=lambda: _NO_DOUBTS)

    @classmethod
    def from_api(cls, row: object) -> Replica:
        """
        Read one row of ``GET /v2/replicas`` or the object of ``GET /v2/replicas/{id}``.

        :raises TavusInvalidResponseError: if the row is not an object or does not hold exactly one acceptable id
        """
        row = _mapping(row, "replica")
        replica_id = _one(row, "replica_id", "face_id")
        try:
            replica_id = check_replica_id(replica_id)
        except TavusValidationError:
            shown = ascii(replica_id)[:40]
        else:
            doubts: dict[str, str] = {}
            return cls(
                replica_id=sys.intern(replica_id),
                replica_name=_text(row, doubts, "replica_name", "face_name"),
                status=_shared(_text(row, doubts, "status")),
                replica_type=_shared(_text(row, doubts, "replica_type", "face_type")),
                model_name=_shared(_text(row, doubts, "model_name")),
                created_at=_time(row, doubts, "created_at"),
                updated_at=_time(row, doubts, "updated_at"),
                doubts=doubts or _NO_DOUBTS,
            )
        raise TavusInvalidResponseError(
            f"Tavus listed a replica whose id cannot be one: {shown}; the whole listing is refused"
        )


@dataclass(frozen=True, slots=True)
class Persona:
    """The two fields needed of a persona (PAL): its id and its default replica, if it has one."""

    persona_id: str
    replica_id: str | None

    @classmethod
    def from_api(cls, row: object) -> Persona:
        """
        Read one row of ``GET /v2/personas``.

        :raises TavusInvalidResponseError: if it cannot be read
        """
        row = _mapping(row, "persona")
        return cls(
            persona_id=_row_id(row, "persona_id", "pal_id"),
            replica_id=_reference(row, "default_replica_id", "default_face_id"),
        )


@dataclass(frozen=True, slots=True)
class Activity:
    """
    One conversation or video.

    ``at`` is when it was last touched, aware and in UTC; ``None`` if Tavus gave no readable date.
    """

    activity_id: str
    replica_id: str | None
    persona_id: str | None
    status: str | None
    at: datetime | None

    @property
    def use(self) -> tuple[object, ...]:
        """All that this says of use but for the time: of those that say the same the newest says all."""
        return self.replica_id, self.persona_id, self.status, self.at is None

    @property
    def age_order(self) -> tuple[datetime, str]:
        """The newer, the larger; never equal for two of them."""
        return self.at or _FIRST_PLAUSIBLE, self.activity_id

    @classmethod
    def from_api(cls, row: object, *, kind: str) -> Activity:
        """
        Read one row of ``GET /v2/conversations`` or ``GET /v2/videos``.

        :param kind: ``conversation`` or ``video``
        :raises TavusInvalidResponseError: if it cannot be read
        """
        row = _mapping(row, kind)
        try:
            at = read_time(row.get("updated_at") or row.get("created_at"))
        except ValueError:
            at = None
        status = row.get("status")
        return cls(
            activity_id=_row_id(row, f"{kind}_id"),
            replica_id=_reference(row, "replica_id", "face_id"),
            persona_id=_reference(row, "persona_id", "pal_id"),
            status=_shared(status) if isinstance(status, str) else None,
            at=at,
        )


def _mapping(row: object, kind: str) -> Mapping[str, Any]:
    if isinstance(row, dict):
        return row
    raise TavusInvalidResponseError(
        f"Tavus listed a {kind} that is not an object but of type {type(row).__name__}"
    )


def _one(row: Mapping[str, Any], *keys: str) -> Any:
    """The value under whichever of the keys is there; two that differ are no answer at all."""
    values = [row[key] for key in keys if row.get(key) is not None]
    if any(value != values[0] for value in values[1:]):
        raise TavusInvalidResponseError(f"Tavus gave one row two different values for {' and '.join(keys)}")
    return values[0] if values else None


def _row_id(row: Mapping[str, Any], *keys: str) -> str:
    value = _one(row, *keys)
    if isinstance(value, str) and value:
        return value
    raise TavusInvalidResponseError(f"Tavus gave a row without a readable {keys[0]}")


def _reference(row: Mapping[str, Any], *keys: str) -> str | None:
    value = _one(row, *keys)
    if value is None or (isinstance(value, str) and value):
        return _shared(value)
    raise TavusInvalidResponseError(
        f"Tavus gave a row whose {keys[0]} is not an id but of type {type(value).__name__}"
    )


def _shared(text: str | None) -> str | None:
    """One object for all rows that say the same: many rows name few replicas, statuses and models."""
    return None if text is None else sys.intern(text)


def _text(row: Mapping[str, Any], doubts: dict[str, str], *keys: str) -> str | None:
    value = _one(row, *keys)
    if value is None or isinstance(value, str):
        return value
    doubts[keys[0]] = f"{keys[0]} is not text but of type {type(value).__name__}"
    return None


def _time(row: Mapping[str, Any], doubts: dict[str, str], key: str) -> datetime | None:
    try:
        return read_time(row.get(key))
    except ValueError as error:
        doubts[key] = f"{key} {error}"
        return None
