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

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, ClassVar, Final, Self, TypeVar, cast

from tavus_provider.exceptions import TavusValidationError
from tavus_provider.json_parser import merge_objects
from tavus_provider.keys import Kind, check_id
from tavus_provider.row_fields import (
    EARLIEST,
    RowError,
    describe,
    fingerprint_of,
    json_object,
    last_change,
    one_of,
    own_id,
    raw_text,
    reference,
    shown_texts,
    text_field,
    time_field,
)
from tavus_provider.sanitize import make_safe, quote

NO_ID: Final = "\0"
"""Begins the :attr:`~UnreadableRow.key` of a row that shows no id. Two such rows may be different ones."""

# Shared by all replicas without unreadable fields: a dict for each would double their memory.
_NOTHING_UNREADABLE: Final[Mapping[str, str]] = {}


def check_replica_id(value: object) -> str:
    """
    Return ``value`` if it can be the id of a replica.

    :raises TavusValidationError: if :func:`.check_id` rejects it
    """
    return check_id(Kind.REPLICA, value)


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
    :param position: its place in the listing, if it has no content that tells it apart from other rows
    """

    kind: str
    reason: str
    fingerprint: str
    own_ids: tuple[str, ...] = ()
    replica_ids: tuple[str, ...] = ()
    persona_ids: tuple[str, ...] = ()
    status: str | None = None
    used_at: datetime | None = None
    position: int | None = None

    @property
    def key(self) -> str:
        """What tells the row apart from all others of its listing; no id is equal to it."""
        mark = NO_ID if self.hides_its_id else "\x01"
        return mark + self.fingerprint + ("" if self.position is None else f" {self.position}")

    @property
    def shown_id(self) -> str:
        """The id of the row for people. If it has several or none, this is not a valid id."""
        return " or ".join(self.own_ids) or f"(row {self.fingerprint[:12]})"

    @property
    def hides_its_id(self) -> bool:
        """Whether it shows no id at all. It may then be any replica that is missing from the list."""
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
    id_fields: ClassVar[tuple[str, ...]] = ("replica_id", "face_id")
    """Every name of its id in responses; the first one is documented."""

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
    def key(self) -> str:
        """What tells the row apart from all others of its listing."""
        return self.replica_id

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
        row = json_object(row, cls.kind)
        unreadable: dict[str, str] = {}
        name = raw_text(row, unreadable, "replica_name", "face_name")
        safe = None if name is None else make_safe(name)
        return cls(
            replica_id=_replica_id(row),
            replica_name=None if safe is None else safe.text,
            status=text_field(row, unreadable, "status"),
            replica_type=text_field(row, unreadable, "replica_type", "face_type"),
            model_name=text_field(row, unreadable, "model_name"),
            created_at=time_field(row, unreadable, "created_at"),
            updated_at=time_field(row, unreadable, "updated_at"),
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
    id_fields: ClassVar[tuple[str, ...]] = ("persona_id", "pal_id")
    """As for :class:`Replica`."""

    persona_id: str
    replica_id: str | None

    @property
    def key(self) -> str:
        """What tells the row apart from all others of its listing."""
        return self.persona_id

    @classmethod
    def from_api(cls, row: object) -> Self:
        """
        Parse a row of ``GET /v2/personas``.

        :param row: the decoded JSON value, of any type
        :raises TavusInvalidResponseError: if it has no id, or its reference to a replica is unreadable
        """
        row = json_object(row, cls.kind)
        return cls(
            persona_id=own_id(row, *_PERSONA_KEYS),
            replica_id=reference(row, *_DEFAULT_REPLICA_KEYS),
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
    id_fields: ClassVar[tuple[str, ...]]
    """As for :class:`Replica`."""
    finished_statuses: ClassVar[frozenset[str]]

    activity_id: str
    replica_id: str | None
    persona_id: str | None
    status: str | None
    used_at: datetime | None
    """The later of ``created_at`` and ``updated_at``, aware and in UTC."""
    created_at: datetime | None = None

    @property
    def key(self) -> str:
        """What tells the row apart from all others of its listing."""
        return self.activity_id

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
        return self.used_at or EARLIEST, self.activity_id

    @classmethod
    def from_api(cls, row: object) -> Self:
        """
        Parse a row of ``GET /v2/conversations`` or ``GET /v2/videos``, depending on the class.

        :param row: the decoded JSON value, of any type
        :raises TavusInvalidResponseError: if it has no id, or its reference to a replica or persona
            is unreadable
        """
        row = json_object(row, cls.kind)
        return cls(
            activity_id=own_id(row, *cls.id_fields),
            replica_id=reference(row, *_REPLICA_KEYS),
            persona_id=reference(row, *_PERSONA_KEYS),
            status=text_field(row, {}, "status"),
            used_at=last_change(row),
            created_at=time_field(row, {}, "created_at"),
        )


@dataclass(frozen=True, slots=True)
class Conversation(Activity):
    """A conversation. Its status is ``active`` or ``ended`` (Tavus API reference)."""

    kind = "conversation"
    id_fields = ("conversation_id",)
    finished_statuses = frozenset({"ended"})


@dataclass(frozen=True, slots=True)
class Video(Activity):
    """
    A generated video. Its status is ``queued``, ``generating``, ``ready``, ``deleted`` or ``error``.

    The API reference omits ``replica_id`` from rows of videos; responses hold it.
    """

    kind = "video"
    id_fields = ("video_id",)
    finished_statuses = frozenset({"ready", "deleted", "error"})


Item = Replica | Video | Conversation
"""An object that can be deleted: one of each member of :class:`.Kind`."""

RowT = TypeVar("RowT", Replica, Persona, Conversation, Video)
"""An object that a listing of Tavus has."""


def parse_rows(model: type[RowT], rows: Iterable[object], *, start: int) -> list[RowT | UnreadableRow]:
    """
    Parse the rows of a page. Never raises.

    Rows of one id that differ are read as one row that has both values where they differ: which one is true
    is not known.

    :param start: position of the first row in the whole listing
    """
    rows = list(rows)
    parsed: list[RowT | UnreadableRow] = []
    places: dict[str, list[int]] = {}
    for position, row in enumerate(rows, start):
        one = parse_row(model, row)
        if isinstance(one, UnreadableRow) and (not row or not isinstance(row, dict)):
            one = replace(one, position=position)
        if not isinstance(one, UnreadableRow):
            places.setdefault(one.key, []).append(len(parsed))
        parsed.append(one)
    for same in places.values():
        if any(parsed[index] != parsed[same[0]] for index in same):
            # Rows that can be read are objects.
            objects = [cast("Mapping[str, Any]", rows[index]) for index in same]
            merged = parse_row(model, merge_objects(objects))
            for index in same:
                parsed[index] = merged
    return parsed


def parse_row(model: type[RowT], row: object) -> RowT | UnreadableRow:
    """
    Parse a row of a listing. Never raises.

    :param model: what the row is expected to be
    :param row: the decoded JSON value, of any type
    """
    try:
        return model.from_api(row)
    except RowError as error:
        reason = error.problem
    fields = row if isinstance(row, dict) else {}
    replica_keys = _DEFAULT_REPLICA_KEYS if model is Persona else _REPLICA_KEYS
    is_activity = issubclass(model, Activity)
    replica_ids = shown_texts(fields, replica_keys)
    # A persona tells which replica is used only where the row does not name another one.
    by_persona = is_activity and (replica_ids or all(fields.get(key) in (None, "") for key in replica_keys))
    return UnreadableRow(
        kind=model.kind,
        reason=reason,
        fingerprint=fingerprint_of(row),
        own_ids=shown_texts(fields, model.id_fields),
        replica_ids=replica_ids,
        persona_ids=shown_texts(fields, _PERSONA_KEYS) if by_persona else (),
        status=text_field(fields, {}, "status") if is_activity else None,
        used_at=last_change(fields) if is_activity else None,
    )


_REPLICA_KEYS: Final = Replica.id_fields
_PERSONA_KEYS: Final = Persona.id_fields
_DEFAULT_REPLICA_KEYS: Final = ("default_replica_id", "default_face_id")


def _replica_id(row: Mapping[str, Any]) -> str:
    value = one_of(row, *_REPLICA_KEYS)
    try:
        return sys.intern(check_replica_id(value))
    except TavusValidationError:
        pass
    raise RowError(f"replica_id is {describe(value)}; expected 2 to 64 letters, digits, '_' or '-'")
