"""
Policy files and files of legal holds: YAML or JSON, at every location that Airflow can read.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Hashable
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

import yaml
from airflow.sdk import ObjectStoragePath

from tavus_provider.exceptions import TavusValidationError
from tavus_provider.keys import parse_key
from tavus_provider.retention.policy import LegalHolds, Policy
from tavus_provider.row_fields import parse_time
from tavus_provider.sanitize import escape_line, quote
from tavus_provider.storage.object_storage import StorageError, modified_at, read_bytes, redact, resolve

_MAX_BYTES: Final = 2**20
_KEYS: Final = ("replica_ids", "as_of", "count")
_MAX_CLOCK_SKEW: Final = timedelta(minutes=5)
"""How far ``as_of`` may be in the future before a file of legal holds is rejected."""


def read_policy(location: str, *, base: str | None = None) -> Policy:
    """
    Return the policy in a file.

    :param location: such as ``/etc/airflow/retention.yaml`` or ``s3://aws_default@bucket/retention.yaml``
    :param base: the folder that a relative path is relative to; default: ``AIRFLOW_HOME``
    :raises TavusValidationError: in one line: the location, the path inside the file, what would be right
    """
    try:
        path = _resolve(location, base=base)
        location = str(path)
        policy = _with_holds_beside(path, Policy.parse(_parse(_read_text(path))))
        problems = policy.problems()
    except TavusValidationError as error:
        problems = [str(error).removeprefix("policy: ")]
    if problems:
        raise _invalid_policy(location, "; ".join(problems))
    return policy


def _with_holds_beside(path: ObjectStoragePath, policy: Policy) -> Policy:
    """Return a policy whose file of legal holds, if it is relative, is relative to the policy file."""
    if policy.legal_holds is None:
        return policy
    try:
        location = str(resolve(policy.legal_holds.file, base=path.parent))
    except StorageError as error:
        fault = error.reason
    else:
        holds = policy.legal_holds.model_copy(update={"file": location})
        return policy.model_copy(update={"legal_holds": holds})
    raise TavusValidationError(f"legal_holds.file: cannot be read ({fault})")


def find_policy_problems(location: str, *, base: str | None = None) -> list[str]:
    """
    Return what is invalid or without effect in a policy file, one sentence for each problem.

    :param location: as for :func:`read_policy`
    :param base: the folder that a relative path is relative to; default: ``AIRFLOW_HOME``
    :raises TavusValidationError: if the file cannot be read, or is not text
    """
    try:
        path = _resolve(location, base=base)
        location = str(path)
        text = _read_text(path)
    except TavusValidationError as error:
        fault = _invalid_policy(location, str(error))
    else:
        try:
            return Policy.find_problems(_parse(text))
        except TavusValidationError as error:
            return [str(error)]
    raise fault


def read_legal_holds(holds: LegalHolds | None, *, now: datetime) -> frozenset[str]:
    """
    Return the ids under legal hold. Without ``holds``, no id is held.

    The file is a list of ids, or a mapping with ``replica_ids``, ``count``, the number of ids, and ``as_of``,
    the time at which the list was correct. Without ``as_of``, the time at which the file was written is used.
    A list that may have been cut is rejected: it must be in brackets, or have its count or an end marker.

    :param now: the current time, aware
    :raises TavusValidationError: if the file cannot be read, is invalid, or is older than ``max_age``
    """
    if holds is None:
        return frozenset()
    location = holds.file
    try:
        path = _resolve(location)
        location = str(path)
        return _read_holds(path, holds, now)
    except TavusValidationError as error:
        fault = str(error)
    raise TavusValidationError(
        f"legal_holds {escape_line(redact(location), 200)}: {fault}; it is not known which replicas are "
        "held, so nothing may be deleted"
    )


def _read_holds(path: ObjectStoragePath, holds: LegalHolds, now: datetime) -> frozenset[str]:
    text = _read_text(path)
    document = _parse(text)
    if isinstance(document, list):
        document = {"replica_ids": document}
    if not isinstance(document, dict) or not isinstance(document.get("replica_ids"), list):
        raise TavusValidationError("must be a list of ids, or a mapping with replica_ids")
    if unknown := [str(key) for key in document if key not in _KEYS]:
        raise TavusValidationError(f"unknown key {escape_line(unknown[0], 40)!r}; known: {', '.join(_KEYS)}")
    _check_complete(text, document)
    as_of = _parse_as_of(document["as_of"]) if "as_of" in document else modified_at(path)
    if as_of is None:
        raise TavusValidationError("its storage does not record when it was written: add as_of to it")
    if as_of > now + _MAX_CLOCK_SKEW:
        raise TavusValidationError(f"as of {as_of:%Y-%m-%d %H:%M} UTC, which is in the future")
    if now - as_of > holds.max_age.delta:
        age = holds.max_age.format(now - as_of)
        raise TavusValidationError(f"as of {as_of:%Y-%m-%d %H:%M} UTC, {age} ago, max_age is {holds.max_age}")
    return frozenset(_check_key(key) for key in document["replica_ids"])


def _check_key(value: object) -> str:
    """Return the id of a replica, or the key of a video or conversation: ``video/<id>``."""
    parse_key(value)
    return str(value)


def _check_complete(text: str, document: dict[str, Any]) -> None:
    """
    Check that a list of ids was not cut when it was written or copied: a cut list holds fewer replicas.

    A list in brackets that was cut cannot be parsed. A list with one id a line can, so it needs a mark.

    :raises TavusValidationError: saying how the list can show that it is complete
    """
    ids, count = document["replica_ids"], document.get("count")
    if "count" in document and (type(count) is not int or count != len(ids)):
        raise TavusValidationError(
            f"count is {quote(count)}, but the list has {len(ids)} ids: it is not complete"
        )
    if _ends_list_with_bracket(text):
        return
    if text.rstrip().endswith("\n...") or ("count" in document and text.endswith("\n")):
        return
    raise TavusValidationError(
        "the list has one id a line and nothing shows that it is complete: write it as [r1, r2], or as a "
        "mapping with count, the number of ids, or end the file with a line of three dots"
    )


def _ends_list_with_bracket(text: str) -> bool:
    if text.lstrip().startswith(("[", "{")):  # JSON, which YAML does not read if it has tabs
        return True
    root = yaml.compose(text, Loader=_Loader)
    if isinstance(root, yaml.MappingNode):
        root = next((node for key, node in root.value if key.value == "replica_ids"), None)
    return isinstance(root, yaml.SequenceNode) and bool(root.flow_style)


def _parse_as_of(value: object) -> datetime:
    if isinstance(value, date) and not (isinstance(value, datetime) and value.tzinfo is not None):
        # YAML reads 2026-11-01 as a date.
        moment = value if isinstance(value, datetime) else datetime.combine(value, time())
        raise TavusValidationError(
            f"as_of {value} has no time zone: write {moment.isoformat(timespec='seconds')}Z if it is UTC"
        )
    try:
        if isinstance(value, datetime) and value.tzinfo is not None:  # YAML parses dates itself
            return value.astimezone(UTC)
        return parse_time(value)
    except OverflowError:
        fault = "is not an ISO 8601 or RFC 1123 date"
    except ValueError as error:
        fault = str(error)
    raise TavusValidationError(f"as_of {fault}: write a date with a time zone such as 2026-11-25T08:00:00Z")


def _resolve(location: str, *, base: str | None = None) -> ObjectStoragePath:
    try:
        return resolve(location, base=base)
    except StorageError as error:
        fault = error.reason
    raise TavusValidationError(f"cannot be read ({fault})")


def _read_text(path: ObjectStoragePath) -> str:
    try:
        return read_bytes(path, limit=_MAX_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError:
        fault = "is not text in UTF-8"
    except StorageError as error:
        fault = f"cannot be read ({error.reason})"
    raise TavusValidationError(fault)


def _parse(text: str) -> Any:
    # JSON first: YAML rejects tabs, and reads what JSON writes as "\ud83d\ude00" as two characters.
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(text, object_pairs_hook=_unique_keys)
    try:
        return yaml.load(text, _Loader)  # noqa: S506  # a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        fault = f"{where}{escape_line(str(getattr(error, 'problem', None) or 'is not YAML'), 120)}"
    except Exception:  # noqa: BLE001  # an invalid value behind a tag (!!int '') can raise any error
        fault = "is not YAML or JSON"
    raise TavusValidationError(fault)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise ValueError("duplicate key")  # The YAML loader, which is tried next, says where.
    return mapping


class _Loader(yaml.SafeLoader):
    """A YAML loader that rejects duplicate keys, where the first value would be lost silently."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"duplicate key {escape_line(key.value, 40)!r}", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def _invalid_policy(location: str, problem: str) -> TavusValidationError:
    return TavusValidationError(f"policy {escape_line(redact(location), 200)}: {problem}")
