"""
Replicas, personas, conversations and videos as Tavus returns them, and the only parser of these objects.

Since 2026 the documentation of Tavus calls a replica a *face* and a persona a *PAL*, and its API
returns either vocabulary. Both are read here; a row that holds both and where they differ cannot be read.

A row that cannot be read does not make the others unusable. :func:`parse_row` returns an
:class:`UnreadableRow` for it, which has every id that the row shows: these are to be kept.

Only the fields named here are kept. The rest of a row is dropped at once: rows of personas can hold
API keys of other vendors (``layers.llm.api_key``). All text is made safe here, once; see
:func:`.make_safe`. An empty string counts as null.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar, Final, Self, TypeVar

from tavus_provider.exceptions import TavusInvalidResponseError, TavusValidationError
from tavus_provider.json_parser import ConflictingValues, UnusableNumber
from tavus_provider.sanitize import make_safe, quote

NON_IDS: Final = frozenset({"none", "null", "undefined", "nan", "true", "false"})
"""What a template or a script writes for a missing value, in lower case. Never accepted as an id."""

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{1,63}")
_ISO_8601: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[T ](?!24)([0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?)"
    r"(?:Z| ?UTC| ?GMT|( ?[+-][0-9]{2}(?::?[0-5][0-9])?))"
)
_RFC_1123: Final = re.compile(
    r"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} "
    r"(GMT|UTC|(?!-0000)[+-][0-9]{2}[0-5][0-9])"
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
    Parse a date of Tavus: ISO 8601 or RFC 1123, with a time zone.

    The API returns both: ``2026-01-05T09:30:12.345678Z`` for replicas, personas and conversations,
    ``Mon, 14 Jul 2025 09:14:24 GMT`` for videos (Tavus OpenAPI document, and responses seen). It also
    uses dates without a time zone in callbacks; these are rejected, because they are ambiguous, and so are
    numbers. Accepted as well are a blank for the ``T``, and the zones ``+00``, ``+0000`` and `` UTC``.

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
        if iso := _ISO_8601.fullmatch(value):
            day, time, offset = iso.groups("Z")
            moment = datetime.fromisoformat(f"{day}T{time}{offset.strip()}").astimezone(UTC)
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
class UnreadableRow:
    """
    A row of a listing that cannot be read. The row itself is not kept.

    It exists all the same: the replica that it may be must be kept, and so must those that it may use.

    :param kind: ``replica``, ``persona``, ``conversation`` or ``video``
    :param reason: what is wrong with it
    :param fingerprint: SHA-256 of the whole row, which tells it apart from other rows without an id
    :param own_ids: every id that it shows for itself, safe to print; not all of them are valid
    :param replica_ids: every id of a replica that it shows. For a replica these are its own.
    :param persona_ids: every id of a persona that a conversation or video shows; empty if it has a replica
        that cannot be read
    :param status: its status, if that can be read
    :param used_at: when it last changed, if that can be read
    """

    kind: str
    reason: str
    fingerprint: str
    own_ids: tuple[str, ...] = ()
    replica_ids: tuple[str, ...] = ()
    persona_ids: tuple[str, ...] = ()
    status: str | None = None
    used_at: datetime | None = None

    @property
    def shown_id(self) -> str:
        """The id of the row for people. If it has several or none, this is not a valid id."""
        return " or ".join(self.own_ids) or f"(row {self.fingerprint[:12]})"

    @property
    def hides_its_id(self) -> bool:
        """Whether it shows no id at all. It may then be any replica that seems to be missing from the list."""
        return not self.own_ids


@dataclass(frozen=True, slots=True)
class Replica:
    """
    A replica as Tavus listed it.

    A field is ``None`` if the row does not hold it, or if its value cannot be used. In the second case
    ``unreadable`` holds, under the name of the field, a sentence that says why. Dates are aware and in
    UTC. The fields are those of Tavus; ``replica_type`` is returned only for ``verbose=true`` (Tavus
    API reference, "List Replicas").
    """

    kind: ClassVar[str] = "replica"

    replica_id: str
    replica_name: str | None = None
    """The name, made safe by :func:`.make_safe`."""
    status: str | None = None
    """``started``, ``completed`` or ``error`` according to the API reference; other values are kept."""
    replica_type: str | None = None
    """``user``, or ``system`` for the stock replicas of Tavus."""
    model_name: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    unreadable: Mapping[str, str] = field(default_factory=lambda: _NOTHING_UNREADABLE)
    altered_name: str | None = None
    """What patterns match instead of ``replica_name``, if that was not safe as it was."""
    is_name_cut: bool = False
    """Whether the name is so long that it was cut, so that patterns cannot be decided."""

    @property
    def name_for_patterns(self) -> str:
        """The name as globs and regular expressions match it; at most 256 characters."""
        return (self.replica_name if self.altered_name is None else self.altered_name) or ""

    @classmethod
    def from_api(cls, row: object) -> Self:
        """
        Parse a row of ``GET /v2/replicas`` or the object of ``GET /v2/replicas/{id}``.

        :param row: the decoded JSON value, of any type
        :raises TavusInvalidResponseError: if the row is not an object, or has no valid id, or its two
            vocabularies differ. Other fields never raise; see ``unreadable``.
        """
        row = _json_object(row, cls.kind)
        unreadable: dict[str, str] = {}
        name = _raw_text(row, unreadable, "replica_name", "face_name")
        safe = None if name is None else make_safe(name)
        return cls(
            replica_id=_replica_id(row),
            replica_name=None if safe is None else safe.text,
            status=_text(row, unreadable, "status"),
            replica_type=_text(row, unreadable, "replica_type", "face_type"),
            model_name=_text(row, unreadable, "model_name"),
            created_at=_time(row, unreadable, "created_at"),
            updated_at=_time(row, unreadable, "updated_at"),
            unreadable=unreadable or _NOTHING_UNREADABLE,
            altered_name=None if safe is None or safe.text == safe.pattern_text else safe.pattern_text,
            is_name_cut=safe is not None and safe.is_cut,
        )


@dataclass(frozen=True, slots=True)
class Persona:
    """
    The id of a persona (PAL) and of its default replica.

    Tavus does not document that deleting a replica clears the reference, so ``replica_id`` may be the
    id of a replica that no longer exists.
    """

    kind: ClassVar[str] = "persona"

    persona_id: str
    replica_id: str | None

    @classmethod
    def from_api(cls, row: object) -> Self:
        """
        Parse a row of ``GET /v2/personas``.

        :param row: the decoded JSON value, of any type
        :raises TavusInvalidResponseError: if it has no id, or its reference to a replica is unreadable
        """
        row = _json_object(row, cls.kind)
        return cls(
            persona_id=_own_id(row, *_PERSONA_KEYS),
            replica_id=_reference(row, *_DEFAULT_REPLICA_KEYS),
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
    """The later of ``created_at`` and ``updated_at``, aware and in UTC."""

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
        return cls(
            activity_id=_own_id(row, f"{cls.kind}_id"),
            replica_id=_reference(row, *_REPLICA_KEYS),
            persona_id=_reference(row, *_PERSONA_KEYS),
            status=_text(row, {}, "status"),
            used_at=_used_at(row),
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


T = TypeVar("T", Replica, Persona, Conversation, Video)


def parse_row(model: type[T], row: object) -> T | UnreadableRow:
    """
    Parse a row of a listing. Never raises.

    :param model: what the row is expected to be
    :param row: the decoded JSON value, of any type
    """
    try:
        return model.from_api(row)
    except _RowError as error:
        reason = error.problem
    fields = row if isinstance(row, dict) else {}
    own_keys = _OWN_KEYS.get(model.kind, (f"{model.kind}_id",))
    replica_keys = _DEFAULT_REPLICA_KEYS if model is Persona else _REPLICA_KEYS
    is_activity = issubclass(model, Activity)
    replica_ids = _shown_texts(fields, replica_keys)
    # A persona tells which replica is used only where the row does not name another one.
    by_persona = is_activity and (replica_ids or all(fields.get(key) in (None, "") for key in replica_keys))
    return UnreadableRow(
        kind=model.kind,
        reason=reason,
        fingerprint=_fingerprint(row),
        own_ids=_shown_texts(fields, own_keys),
        replica_ids=replica_ids,
        persona_ids=_shown_texts(fields, _PERSONA_KEYS) if by_persona else (),
        status=_text(fields, {}, "status") if is_activity else None,
        used_at=_used_at(fields) if is_activity else None,
    )


_REPLICA_KEYS: Final = ("replica_id", "face_id")
_PERSONA_KEYS: Final = ("persona_id", "pal_id")
_DEFAULT_REPLICA_KEYS: Final = ("default_replica_id", "default_face_id")
_OWN_KEYS: Final[Mapping[str, tuple[str, ...]]] = {"replica": _REPLICA_KEYS, "persona": _PERSONA_KEYS}


class _RowError(TavusInvalidResponseError):
    """
    A row that cannot be read.

    :param problem: what is wrong, beginning with the name of the field
    """

    def __init__(self, problem: str) -> None:
        super().__init__(f"Tavus returned a row that cannot be read: {problem}")
        self.problem = problem


def _json_object(row: object, kind: str) -> Mapping[str, Any]:
    if isinstance(row, dict):
        return row
    raise _RowError(f"the {kind} is {quote(row, none='null')}; expected a JSON object")


def _replica_id(row: Mapping[str, Any]) -> str:
    value = _one_of(row, *_REPLICA_KEYS)
    try:
        return sys.intern(check_replica_id(value))
    except TavusValidationError:
        pass
    raise _RowError(f"replica_id is {_describe(value)}; expected 2 to 64 letters, digits, '_' or '-'")


def _one_of(row: Mapping[str, Any], *keys: str) -> Any:
    """Return the value of whichever key the row has, or ``None``. An empty string counts as null."""
    values = [value for key in keys if (value := row.get(key)) is not None and value != ""]
    if any(value != values[0] for value in values[1:]):
        raise _RowError(f"{' and '.join(keys)} have different values; expected equal values")
    return values[0] if values else None


def _own_id(row: Mapping[str, Any], *keys: str) -> str:
    value = _one_of(row, *keys)
    if isinstance(value, str):
        return make_safe(value).text
    raise _RowError(f"{keys[0]} is {_describe(value)}; expected a non-empty string")


def _reference(row: Mapping[str, Any], *keys: str) -> str | None:
    value = _one_of(row, *keys)
    if value is None:
        return None
    if isinstance(value, str) and (found := value.strip()):
        return sys.intern(make_safe(found).text)
    raise _RowError(f"{keys[0]} is {_describe(value)}; expected an id or null")


def _raw_text(row: Mapping[str, Any], unreadable: dict[str, str], *keys: str) -> str | None:
    value = _one_of(row, *keys)
    if value is None or isinstance(value, str):
        return value
    unreadable[keys[0]] = f"{keys[0]} is {_describe(value)}, not a string"
    return None


def _text(row: Mapping[str, Any], unreadable: dict[str, str], *keys: str) -> str | None:
    """Return a text of which there are few different ones: a status, a type, a model."""
    value = _raw_text(row, unreadable, *keys)
    return None if value is None else sys.intern(make_safe(value).text)


def _time(row: Mapping[str, Any], unreadable: dict[str, str], key: str) -> datetime | None:
    value = _one_of(row, key)
    if value is None:
        return None
    try:
        return parse_time(value)
    except ValueError as error:
        unreadable[key] = f"{key} {error}"
        return None


def _used_at(row: Mapping[str, Any]) -> datetime | None:
    """Return the later of the two dates; ``None`` if none is readable, or if the last change is not."""
    unreadable: dict[str, str] = {}
    dates = [_time(row, unreadable, key) for key in ("created_at", "updated_at")]
    return None if "updated_at" in unreadable else max(filter(None, dates), default=None)


def _describe(value: object) -> str:
    if isinstance(value, ConflictingValues | UnusableNumber):
        return str(value)
    return quote(value, none="missing")


def _shown_texts(row: Mapping[str, Any], keys: Iterable[str]) -> tuple[str, ...]:
    """Return every text that the row has under these keys, also in lists and objects."""
    found = (make_safe(text.strip()).text for key in keys for text in _texts_in(row.get(key)))
    return tuple(dict.fromkeys(text for text in found if text))


def _texts_in(value: object, depth: int = 3) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif depth:
        values = value.values if isinstance(value, ConflictingValues) else value
        values = values.values() if isinstance(values, dict) else values
        for inner in values if isinstance(values, Iterable) else ():
            yield from _texts_in(inner, depth - 1)


def _fingerprint(row: object) -> str:
    try:
        text = json.dumps(row, sort_keys=True, separators=(",", ":"), default=repr)
    except RecursionError:  # a row that could just be parsed
        text = "nested too deeply"
    return hashlib.sha256(text.encode()).hexdigest()
