"""
What people keep in files: a policy, and the list of those under legal hold.

A file is YAML or JSON, at any location that Airflow's ``ObjectStoragePath`` can read.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Hashable
from datetime import UTC, datetime, timedelta
from typing import Any

import yaml
from airflow.sdk import ObjectStoragePath

from tavus_provider.exceptions import TavusValidationError
from tavus_provider.models import check_replica_id, parse_time
from tavus_provider.retention.policy import LegalHolds, Policy
from tavus_provider.sanitize import escape_line
from tavus_provider.storage.ledger import shown

_MAX_BYTES = 2**20
_CLOCKS_DIFFER = timedelta(minutes=5)


def read_policy(location: str) -> Policy:
    """
    Return the policy in a file.

    :param location: such as ``/etc/airflow/retention.yaml`` or ``s3://aws_default@bucket/retention.yaml``
    :raises TavusValidationError: on one line with the location, the path inside the file and what would be right
    """
    try:
        policy = Policy.parse(_read(location))
        contradictions = policy.problems()
    except TavusValidationError as error:
        contradictions = [str(error).removeprefix("policy: ")]
    if contradictions:
        raise TavusValidationError(f"policy {escape_line(shown(location), 200)}: {'; '.join(contradictions)}")
    return policy


def find_policy_problems(location: str) -> list[str]:
    """
    Return all that is wrong with the policy in a file, or without effect in it, one sentence each.

    :raises TavusValidationError: if there is no such file, or it is not text
    """
    try:
        text = _text(location)
    except TavusValidationError as error:
        fault = str(error)
    else:
        try:
            return Policy.find_problems(_parse(text))
        except TavusValidationError as error:
            return [str(error)]
    raise TavusValidationError(f"policy {escape_line(shown(location), 200)}: {fault}")


def read_legal_holds(holds: LegalHolds | None, *, now: datetime) -> frozenset[str]:
    """
    Return the ids under legal hold; none if no file is named.

    The file is a list of ids, or a mapping with ``replica_ids`` and ``as_of``, the time at which the list
    was true; without ``as_of`` the file's own time counts.

    :param now: the time by the wall clock, aware
    :raises TavusValidationError: if it cannot be read or is older than ``max_age``: it is not known who is held
    """
    if holds is None:
        return frozenset()
    try:
        return _held(holds, now)
    except TavusValidationError as error:
        fault = str(error)
    raise TavusValidationError(
        f"legal_holds {escape_line(shown(holds.file), 200)}: {fault}; it is not known who is held, nothing "
        "may be deleted"
    )


def _held(holds: LegalHolds, now: datetime) -> frozenset[str]:
    document = _read(holds.file)
    if isinstance(document, list):
        document = {"replica_ids": document}
    if not isinstance(document, dict) or not isinstance(document.get("replica_ids"), list):
        raise TavusValidationError("is neither a list of ids nor a mapping with replica_ids")
    if unknown := [str(key) for key in document if key not in ("replica_ids", "as_of")]:
        raise TavusValidationError(f"unknown key {escape_line(unknown[0], 40)!r}; known: replica_ids, as_of")
    as_of = _as_of(document["as_of"]) if "as_of" in document else _modified(holds.file)
    if as_of > now + _CLOCKS_DIFFER:
        raise TavusValidationError(f"as of {as_of:%Y-%m-%d %H:%M} UTC, which lies ahead")
    if now - as_of > holds.max_age.delta:
        age = holds.max_age.of(now - as_of)
        raise TavusValidationError(f"as of {as_of:%Y-%m-%d %H:%M} UTC, {age} ago, max_age is {holds.max_age}")
    return frozenset(check_replica_id(replica_id) for replica_id in document["replica_ids"])


def _as_of(value: object) -> datetime:
    try:
        if isinstance(value, datetime) and value.tzinfo is not None:  # YAML reads dates by itself
            return value.astimezone(UTC)
        return parse_time(value)
    except OverflowError:
        fault = "is not an ISO 8601 or RFC 1123 date"
    except ValueError as error:
        fault = str(error)
    raise TavusValidationError(f"as_of {fault}: write a date with a time zone such as 2026-11-25T08:00:00Z")


def _modified(location: str) -> datetime:
    try:
        seconds = float(_at(location).stat().st_mtime)
    except Exception:  # noqa: BLE001  # each storage has errors and fields of its own
        seconds = 0.0
    if seconds <= 0:
        raise TavusValidationError("its storage does not say when it was written: add as_of to it")
    return datetime.fromtimestamp(seconds, UTC)


def _at(location: str) -> ObjectStoragePath:
    """The place of a file; before Airflow 3.2 a relative one would be looked for at the root."""
    return ObjectStoragePath(location if "://" in location else os.path.abspath(location))


def _read(location: str) -> Any:
    return _parse(_text(location))


def _text(location: str) -> str:
    try:
        with _at(location).open("rb") as file:  # type: ignore[no-untyped-call]  # has no types
            blob = file.read(_MAX_BYTES + 1)
        text = bytes(blob).decode("utf-8-sig")
    except UnicodeDecodeError:
        fault = "is not text in UTF-8"
    except Exception as error:  # noqa: BLE001  # each storage has errors of its own
        said = error.strerror if isinstance(error, OSError) else None
        fault = f"cannot be read ({said or type(error).__name__})"
    else:
        if len(blob) > _MAX_BYTES:
            raise TavusValidationError("is larger than 1 MiB")
        return text
    raise TavusValidationError(fault)


def _parse(text: str) -> Any:
    # JSON first: YAML knows no tabs, and makes two characters of what JSON writes as \ud83d\ude00.
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(text, object_pairs_hook=_once)
    try:
        return yaml.load(text, _Loader)  # noqa: S506  # a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        fault = f"{where}{escape_line(str(getattr(error, 'problem', None) or 'is not YAML'), 120)}"
    except Exception:  # noqa: BLE001  # what a tag says of a value that is none (!!int '') ends in any error
        fault = "is not YAML or JSON"
    raise TavusValidationError(fault)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError  # the reader of YAML, who is asked next, says where
    return found


class _Loader(yaml.SafeLoader):
    """YAML in which a key stands once: of two guards of one name the reader would lose one."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {escape_line(key.value, 40)!r} stands twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)
