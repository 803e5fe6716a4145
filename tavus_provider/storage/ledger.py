"""
The ledger: what was intended and what came of it, kept outside Airflow's database.

Append-only JSON, one object per record, in any storage that Airflow's ``ObjectStoragePath`` knows. The
records of one try of one task lie in a folder of their own, so that two runs never touch each other's;
each names the digest of the one before it, and the last one closes the try::

    <root>/<host>/<tavus_conn_id>/<work>/<start of the try>-<token>/000001.json

Beside the hosts lies ``_plans``: plans that are too large for XCom, good for a day; they do hold names.
``work`` is what tries have in common: one plan, one replica deleted by hand, one policy that schedules.
Records hold ids, never names.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from airflow.configuration import AIRFLOW_HOME, conf
from airflow.sdk import ObjectStoragePath

from tavus_provider.digest import canonical_json, digest_of, seal
from tavus_provider.exceptions import LedgerUnavailableError, TavusValidationError

_LOCAL = {"", "file", "local"}
PLANS = "_plans"
"""Folder below the root that is no host's."""

_LOCAL_EXECUTORS = {"LocalExecutor", "SequentialExecutor"}


@dataclass(frozen=True, slots=True)
class Attempt:
    """
    One try of one task as its records tell it.

    :param name: its folder, below the root of the ledger
    :param records: in their order; those behind a flaw are left out
    :param flaws: what shows that a record was changed, removed, reordered or not written whole
    """

    name: str
    records: tuple[Mapping[str, Any], ...]
    flaws: tuple[str, ...] = ()

    @property
    def begin_record(self) -> Mapping[str, Any]:
        """The first record: who did what, and what was intended; empty if there is none."""
        return self.records[0] if self.records else {}

    @property
    def closed(self) -> bool:
        """Whether the last record is the one that closes a try."""
        return bool(self.records) and self.records[-1]["kind"] == "end"

    @property
    def last_digest(self) -> str | None:
        """The digest of the last record, which stands for all before it."""
        return self.records[-1]["digest"] if self.records else None

    @property
    def intended(self) -> frozenset[str]:
        """The ids whose delete was about to be sent."""
        return frozenset(self.begin_record.get("intent", ()))

    @property
    def outcomes(self) -> dict[str, str]:
        """The last outcome that was recorded of each id."""
        found: dict[str, str] = {}
        for record in self.records:
            found |= record.get("outcomes", {})
        return found


@dataclass
class AttemptWriter:
    """A try being recorded: each ``write`` is one object, and has reached the storage when it returns."""

    folder: ObjectStoragePath
    name: str
    _count: int = 0
    _previous: str | None = None

    def write(self, kind: str, **fields: Any) -> None:
        """
        Append one record.

        :raises LedgerUnavailableError: if it could not be written
        """
        record = seal(
            {
                "kind": kind,
                "number": self._count + 1,
                "previous": self._previous,
                "at": datetime.now(UTC).isoformat(),
                **fields,
            }
        )
        path = self.folder / f"{record['number']:06}.json"
        try:
            if self._count == 0:
                self.folder.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:  # type: ignore[no-untyped-call]  # Airflow's has no types
                file.write(canonical_json(record))
                if path.protocol in _LOCAL:  # a bucket keeps what it has taken
                    file.flush()
                    os.fsync(file.fileno())
        except Exception as error:  # noqa: BLE001  # each storage has errors of its own
            fault = error
        else:
            self._count, self._previous = record["number"], record["digest"]
            return
        raise _unavailable("written", path, fault)

    def close(self, **fields: Any) -> None:
        """Append the record that closes the try."""
        self.write("end", records=self._count + 1, **fields)


def ledger_root() -> ObjectStoragePath:
    """Return the root of the ledger: ``[tavus] ledger``, or a folder under ``AIRFLOW_HOME``."""
    return ObjectStoragePath(conf.get("tavus", "ledger", fallback="") or f"{AIRFLOW_HOME}/tavus-ledger")


@dataclass(frozen=True)
class Ledger:
    """
    The ledger of one account, as the deployment has set it (``[tavus] ledger``).

    :param origin: such as ``https://tavusapi.com``
    :param tavus_conn_id: id of the Airflow connection, which stands for the account
    """

    origin: str
    tavus_conn_id: str
    root: ObjectStoragePath = field(default_factory=ledger_root)

    def begin_attempt(self, work: str, **fields: Any) -> AttemptWriter:
        """
        Open a try of its own and write its first record.

        :param work: see :func:`job_name`
        :raises LedgerUnavailableError: if it could not be written
        """
        name = f"{self.account_folder}/{work}/{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{secrets.token_hex(4)}"
        entry = AttemptWriter(self.root / name, name)
        entry.write("begin", origin=self.origin, tavus_conn_id=self.tavus_conn_id, **fields)
        return entry

    def attempts(self, work: str) -> list[Attempt]:
        """
        Return the tries of one work, in the order in which they began.

        :raises LedgerUnavailableError: if they could not be read
        """
        return read_attempts(self.root, [f"{self.account_folder}/{work}"])

    def attempts_of_kind(self, kind: str) -> list[Attempt]:
        """Return the tries of all works of one kind (``plan``, ``delete``), in the order they began."""
        works = [name for name in list_names(self.root / self.account_folder) if name.startswith(f"{kind}-")]
        return read_attempts(self.root, [f"{self.account_folder}/{work}" for work in works])

    def require_shared(self, what: str) -> None:
        """
        Refuse what would be forgotten: a task on another machine would not find a local record.

        :raises TavusValidationError: if the ledger is a local path and the executor is not local
        """
        executors = {
            re.split("[:=.]", part)[-1].strip()  # LocalExecutor, alias:its.class, team=CeleryExecutor
            for part in re.split("[,;]", conf.get("core", "executor", fallback="LocalExecutor"))
        }
        if self.root.protocol in _LOCAL and not executors <= _LOCAL_EXECUTORS:
            raise TavusValidationError(
                f"{what} needs a ledger that all workers share, but {str(self.root)!r} is local to one and "
                f"the executor is {', '.join(sorted(executors))}: set ledger in section [tavus] of the "
                "configuration to a bucket"
            )

    @property
    def account_folder(self) -> str:
        """The folder of this account, below the root."""
        return f"{_safe(self.origin.split('://', 1)[-1])}/{_safe(self.tavus_conn_id)}"


def job_name(kind: str, *parts: object) -> str:
    """
    Return the name under which tries of one work are kept.

    :param kind: ``plan`` (its digest), ``delete`` (dag, run, task, map index) or ``schedule`` (policy)
    """
    text = "\x1f".join(map(str, parts))
    return f"{kind}-{text[:32] if kind == 'plan' else sha256(text.encode()).hexdigest()[:32]}"


def read_attempts(root: ObjectStoragePath, works: Iterable[str]) -> list[Attempt]:
    """
    Read the tries of some works, in the order in which they began.

    :param works: folders below the root
    :raises LedgerUnavailableError: if they could not be read
    """
    names = [f"{work}/{name}" for work in works for name in list_names(root / work)]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda name: _read_try(root, name), names))
    return sorted(found, key=lambda one: one.name.rsplit("/", 1)[-1])


def _read_try(root: ObjectStoragePath, name: str) -> Attempt:
    names = list_names(root / name)
    files = [file for file in names if re.fullmatch(r"[0-9]{6,}\.json", file)]
    flaws = [f"holds {ascii(file)[:40]}, which is no record" for file in names if file not in files]
    records: list[Mapping[str, Any]] = []
    previous = None
    flaw = None
    for number, file in enumerate(files, start=1):
        if file != f"{number:06}.json":
            flaw = f"has no record {number}: it was removed or renamed"
            break
        blob = _read(root / name / file)
        try:
            record = json.loads(blob)
            whole = canonical_json(record) == blob and record["digest"] == digest_of(record)
            whole = whole and isinstance(record["kind"], str)
            follows = record["number"] == number and record["previous"] == previous
        except (ValueError, KeyError, TypeError, RecursionError):
            whole = follows = False
        if not whole:
            torn = "was changed, or not written whole" if number == len(files) else "was changed"
            flaw = f"record {number} {torn}"
        elif not follows:
            flaw = f"record {number} does not follow the one before it"
        elif records and records[-1]["kind"] == "end":
            flaw = f"record {number} was added after the end"
        if flaw:
            break
        records.append(record)
        previous = record["digest"]
    return Attempt(name, tuple(records), (*([flaw] if flaw else []), *flaws))


def list_names(folder: ObjectStoragePath) -> list[str]:
    try:
        # Not iterdir: in a bucket, where folders come with their first object, it says "not a directory".
        fs, inside = folder.fs, folder.path.rstrip("/") + "/"
        fs.invalidate_cache(folder.path)
        paths = [path.rstrip("/") for path in fs.ls(folder.path, detail=False)]
        return sorted({path.removeprefix(inside) for path in paths if path.startswith(inside)})
    except FileNotFoundError:
        return []
    except Exception as error:  # noqa: BLE001  # each storage has errors of its own
        fault = error
    raise _unavailable("read", folder, fault)


def _read(path: ObjectStoragePath) -> bytes:
    try:
        return bytes(path.read_bytes())
    except Exception as error:  # noqa: BLE001  # each storage has errors of its own
        fault = error
    raise _unavailable("read", path, fault)


def _safe(text: str) -> str:
    """Text as the name of a folder, in every storage."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", text)[:100]
    return safe if safe == text and text.strip(".") else f"{safe}-{sha256(text.encode()).hexdigest()[:8]}"


def shown(path: ObjectStoragePath | str) -> str:
    """Return a place as it may be shown, without a key that was written into its URL."""
    return re.sub("//[^/@]*:[^/@]*@", "//***@", str(path))


def kind_of(fault: Exception) -> str:
    """Return what went wrong with a storage; its own text is left out, for it may hold anything."""
    number = fault.errno if isinstance(fault, OSError) else None
    return type(fault).__name__ + (f": {os.strerror(number)}" if isinstance(number, int) else "")


def _unavailable(how: str, path: ObjectStoragePath, fault: Exception) -> LedgerUnavailableError:
    return LedgerUnavailableError(
        f"the ledger cannot be {how} at {shown(path)!a} ({kind_of(fault)}), and nothing is deleted "
        "without a record: set ledger in section [tavus] of the configuration to a place that works"
    )
