"""
The records of the ledger: their fields, and the check of a record that is read.

A record holds ids, never names of replicas. ``_CHECKS`` lists every field that a record may have.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, Literal, TypedDict, TypeGuard, cast, get_args

from tavus_provider.digest import canonical_json, digest_of, seal
from tavus_provider.exceptions import TavusValidationError
from tavus_provider.keys import parse_key
from tavus_provider.outcomes import Outcome

RecordKind = Literal[
    "begin",
    "planned",
    "shown",
    "answered",
    "deleting",
    "outcome",
    "verification",
    "end",
    "requested",
    "certified",
    "checkpoint",
]
VERSION: Final = 1


class DeletionsJson(TypedDict):
    """The JSON of :class:`tavus_provider.storage.deletions.Deletions`."""

    soft: dict[str, list[str]]
    """The ids by the time of their delete."""
    permanent: list[str]
    unresolved: dict[str, list[str]]
    """Ids by job."""


class RecordHead(TypedDict):
    """The fields that every record has."""

    version: Literal[1]
    kind: RecordKind
    number: int
    """Position in the attempt, from 1."""
    previous: str | None
    """Digest of the record before this one."""
    at: str
    """When it was written."""
    digest: str
    """SHA-256 of the record without this field, as canonical JSON."""


class Record(RecordHead, total=False):
    """
    One record of an attempt. A record has the fields that apply to its kind and job.

    A ``begin`` record says who does what; in the job of a DAG run, ``planned``, ``shown`` or ``answered`` is
    in its place. An ``outcome`` record has ``outcomes``, a ``verification`` record
    has ``listed`` and ``still_listed``, an ``end`` record has ``records``, ``outcomes`` and
    ``report_digest``. A ``checkpoint`` is a file of its own, see :mod:`tavus_provider.storage.checkpoints`.
    """

    attempt: str
    """In the first record: the name of the attempt. In a checkpoint: its file."""
    seen: dict[str, str | None]
    """Name of attempts and checkpoints of the account that no earlier record names, and their last digest."""

    origin: str
    tavus_conn_id: str
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    hard: bool
    plan_digest: str
    triggered_by: str | None
    """Id of the Airflow user who triggered the run; ``None`` if Airflow does not know it."""
    policy: str
    """Name of the policy."""
    policy_digest: str
    rules: dict[str, list[str]]
    """The ids that each rule of the policy expired."""
    dry_run: bool
    """Whether a plan was made for a dry run."""
    limits: dict[str, Any]
    """Limits of the plan that was made."""
    beside: dict[str, str]
    """SHA-256 of each file that is stored beside the plan, by the end of its name, such as ``use.json``."""
    holds: list[str]
    """Ids under legal hold when a plan was made."""
    shown_digest: str
    """SHA-256 of the text that was shown to the approver, which is stored beside the plan."""
    answer: str
    """``approve`` or ``reject``."""
    answered_by: str
    """Id of the Airflow user who answered."""
    answered_at: str
    triggered_by_other: bool
    """Whether it is known that the user who answered did not trigger the run."""
    batch: dict[str, Any]
    prior_attempts: dict[str, str | None]
    """Name of each attempt that this one has read, and the digest of its last record then."""
    intent: list[str]
    """Ids whose deletes are about to be sent."""
    scheduled: dict[str, str]
    """Id and start of its grace period, for each scheduled replica."""
    due: dict[str, str]
    """Id and announced day, for each replica that is scheduled, or was and whose day has not come."""
    cancelled: list[str]
    """Ids that were scheduled before and are not any more."""

    outcomes: dict[str, str]

    listed: int | None
    """Replicas listed after the deletes; ``None`` if the list could not be read."""
    still_listed: list[str]
    """Ids that should be gone and are still listed."""

    records: int
    """Number of records in the attempt, this one included."""
    report_digest: str
    """SHA-256 of the report as it was pushed, as canonical JSON."""

    request: str
    """The reference of a request for an erasure. This field and the following ones are those of erasures."""
    received_on: str
    due_on: str
    keys: list[str]
    """Keys of all objects of the request, as far as they were known."""
    held: dict[str, str]
    """Key of each object that is not deleted because of a legal hold, and what the hold names."""
    ended: dict[str, str]
    """Key of each conversation that was to be ended, and the outcome."""
    asked: dict[str, str]
    """What Tavus answered about each object after the deletes."""
    lists: dict[str, bool]
    """Which lists were read after the deletes, and whether they were complete."""
    found: list[str]
    """Keys of objects of the request that appeared after the plan."""
    undetermined: list[str]
    """Rows that may be of the person: keys, or what a row without a valid id shows."""
    references: list[dict[str, str]]
    """Personas that name a replica of the request: ``persona_id`` and ``replica_id``."""
    state: str
    """How far the request is, as its certificate says."""
    certificate: int
    """Number of the certificate."""
    certificate_digest: str
    page_digest: str
    """SHA-256 of the HTML page of the certificate."""
    erased: list[str]
    """Keys of the objects that no read found after the deletes."""

    until: str
    """The moment that a checkpoint was made for, as it begins the names of attempts."""
    window: list[str]
    """Last part of the names of the covered attempts that started less than an hour before ``until``."""
    open: list[str]
    """Names of attempts that started before ``until`` and are not covered."""
    heads: dict[str, str | None]
    """The last digest of each attempt that this checkpoint covers and the one before it does not."""
    schedules: dict[str, str]
    """For each job of the kind ``schedule``, the name of its last covered attempt."""
    deletions: DeletionsJson
    """What the covered attempts deleted; with ``base``, only what the base does not hold."""
    base: dict[str, str | None]
    """Name and digest of the checkpoint that holds everything before."""
    since_base: int
    """Number of attempts that were covered since the base."""


def make_record(kind: str, *, number: int, previous: str | None, at: datetime, **fields: Any) -> Record:
    """
    Return a record with its digest.

    :raises TavusValidationError: if a field is unknown or its value could not be read back
    """
    record = seal(
        {
            "version": VERSION,
            "kind": kind,
            "number": number,
            "previous": previous,
            "at": at.isoformat(),
            **fields,
        }
    )
    if is_record(record):
        return record
    invalid = ", ".join(sorted(name for name, value in record.items() if not _is_valid(name, value)))
    raise TavusValidationError(f"ledger record: invalid {invalid}; nothing was recorded")


def parse_record(data: bytes) -> Record | None:
    """Return the record in a file, or ``None`` if it was changed, is incomplete or is not a record."""
    try:
        value = json.loads(data)
        if is_record(value) and canonical_json(value) == data and value["digest"] == digest_of(value):
            return value
    except (ValueError, RecursionError):
        pass
    return None


def is_of_later_release(data: bytes) -> bool:
    """Return whether a file that is no record here is complete and unchanged, as its digest shows."""
    try:
        value = json.loads(data)
        return (
            isinstance(value, dict)
            and not is_record(value)
            and {"version", "kind", "number"} <= value.keys()
            and canonical_json(value) == data
            and value.get("digest") == digest_of(value)
        )
    except (ValueError, RecursionError):
        return False


def is_record(value: object) -> TypeGuard[Record]:
    """Return whether a JSON value has the fields of a record, each with a valid value."""
    return (
        isinstance(value, dict)
        and RecordHead.__required_keys__ <= value.keys()
        and all(_is_valid(name, field) for name, field in value.items())
    )


def _is_valid(name: str, value: object) -> bool:
    check = _CHECKS.get(name)
    return check is not None and check(value)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_str(value: object) -> bool:
    return isinstance(value, str)


def _is_str_or_none(value: object) -> bool:
    return value is None or isinstance(value, str)


def _is_time(value: object) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


def _is_id(value: object) -> bool:
    """Whether a value is the key of an object. The key of a replica is its id."""
    try:
        parse_key(value)
    except TavusValidationError:
        return False
    return True


def _is_list_of_ids(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_id, value))


def _is_mapping(key: Callable[[object], bool], item: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: (
        isinstance(value, Mapping) and all(map(key, value)) and all(map(item, value.values()))
    )


def _is_list_of(item: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and all(map(item, value))


def _is_deletions(value: object) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"soft", "permanent", "unresolved"}
        and _is_mapping(_is_time, _is_list_of_ids)(value["soft"])
        and _is_list_of_ids(value["permanent"])
        and _is_mapping(_is_str, _is_list_of_ids)(value["unresolved"])
    )


def _is_start(value: object) -> bool:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{8}T[0-9]{6}\.[0-9]{6}Z", value):
        return False
    return _is_time(value)


_REFERENCES: Final = _is_mapping(_is_str, _is_str_or_none)
_OUTCOMES: Final = frozenset(Outcome)

_CHECKS: Final[Mapping[str, Callable[[object], bool]]] = {
    "version": lambda value: _is_int(value) and value == VERSION,
    "kind": lambda value: value in get_args(RecordKind),
    "number": lambda value: _is_int(value) and cast("int", value) > 0,
    "previous": _is_str_or_none,
    "at": _is_time,
    "digest": _is_str,
    "origin": _is_str,
    "tavus_conn_id": _is_str,
    "dag_id": _is_str,
    "run_id": _is_str,
    "task_id": _is_str,
    "map_index": _is_int,
    "try_number": _is_int,
    "hard": lambda value: isinstance(value, bool),
    "dry_run": lambda value: isinstance(value, bool),
    "plan_digest": _is_str,
    "policy_digest": _is_str,
    "policy": _is_str,
    "rules": _is_mapping(_is_str, _is_list_of_ids),
    "triggered_by": _is_str_or_none,
    "limits": lambda value: isinstance(value, dict),
    "beside": _is_mapping(_is_str, _is_str),
    "shown_digest": _is_str,
    "answer": lambda value: value in ("approve", "reject"),
    "answered_by": _is_str,
    "answered_at": _is_time,
    "triggered_by_other": lambda value: isinstance(value, bool),
    "batch": lambda value: isinstance(value, dict),
    "prior_attempts": _REFERENCES,
    "attempt": _is_str,
    "seen": _REFERENCES,
    "intent": _is_list_of_ids,
    "scheduled": _is_mapping(_is_id, _is_time),
    "due": _is_mapping(_is_id, _is_time),
    "cancelled": _is_list_of_ids,
    "outcomes": _is_mapping(_is_id, lambda value: isinstance(value, str) and value in _OUTCOMES),
    "listed": lambda value: value is None or _is_int(value),
    "still_listed": _is_list_of_ids,
    "records": _is_int,
    "report_digest": _is_str,
    "request": _is_str,
    "received_on": _is_str,
    "due_on": _is_str,
    "keys": _is_list_of_ids,
    "holds": _is_list_of_ids,
    "held": _is_mapping(_is_id, _is_str),
    "ended": _is_mapping(_is_id, _is_str),
    "asked": _is_mapping(_is_id, _is_str),
    "lists": _is_mapping(_is_str, lambda value: isinstance(value, bool)),
    "found": _is_list_of_ids,
    "undetermined": _is_list_of(_is_str),
    "references": _is_list_of(_is_mapping(_is_str, _is_str)),
    "state": _is_str,
    "certificate": _is_int,
    "certificate_digest": _is_str,
    "page_digest": _is_str,
    "erased": _is_list_of_ids,
    "until": _is_start,
    "window": _is_list_of(_is_str),
    "open": _is_list_of(_is_str),
    "heads": _REFERENCES,
    "schedules": _is_mapping(_is_str, _is_str),
    "deletions": _is_deletions,
    "base": _REFERENCES,
    "since_base": _is_int,
}
"""The fields of a record and the values that they may have."""
