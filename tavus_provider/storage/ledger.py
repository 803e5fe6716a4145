"""
The ledger: a record of each intended delete and of its outcome, kept outside Airflow's database.

Each attempt of a task writes its records, numbered JSON files, into a folder of its own, so that two runs
never write to the same file. Each record holds the digest of the record before it, and the last one
closes the attempt. A job is what attempts have in common: a plan, a replica deleted without a plan, the
schedule of a policy, or a DAG run (:mod:`tavus_provider.storage.authority`)::

    <root>/<host>/<tavus_conn_id>/<job>/<start of the attempt>-<random>/000001.json

The folder ``_plans`` beside the hosts holds stored plans, see :mod:`tavus_provider.storage.plan_store`, and
``_certificates`` those of erasures, see :mod:`tavus_provider.storage.certificates`.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final, Literal

from airflow.configuration import conf
from airflow.exceptions import AirflowConfigException
from airflow.sdk import ObjectStoragePath

from tavus_provider.digest import canonical_json
from tavus_provider.exceptions import LedgerUnavailableError, TavusValidationError
from tavus_provider.sanitize import quote
from tavus_provider.storage.object_storage import (
    StorageError,
    is_local,
    list_names,
    read_bytes,
    redact,
    resolve,
    write_once,
)
from tavus_provider.storage.records import Record, make_record, parse_record

JobKind = Literal["plan", "delete", "schedule", "run", "erasure"]

PLANS_FOLDER: Final = "_plans"
CERTIFICATES_FOLDER: Final = "_certificates"
_FOREIGN_FOLDERS: Final = frozenset({PLANS_FOLDER, CERTIFICATES_FOLDER})
"""Folders in the root that are not those of hosts."""

_DEFAULT_ROOT: Final = "tavus-ledger"
_LOCAL_EXECUTORS: Final = frozenset({"LocalExecutor", "SequentialExecutor"})
_READERS: Final = 16
"""Threads that read attempts: in an object storage, the time is spent waiting for responses."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """
    The records of one attempt of one task.

    :param name: its folder, relative to the root of the ledger
    :param records: in the order in which they were written, up to the first flaw
    :param flaws: what shows that records were changed, removed, reordered or not written completely
    """

    name: str
    records: tuple[Record, ...]
    flaws: tuple[str, ...] = ()

    @property
    def job(self) -> str:
        """The folder of its job, relative to the root of the ledger."""
        return self.name.rpartition("/")[0]

    @property
    def begin_record(self) -> Mapping[str, Any]:
        """The first record, which says who did what and what was intended; empty if it is not readable."""
        return self.records[0] if self.records else {}

    @property
    def is_closed(self) -> bool:
        """Whether the record that closes an attempt was written."""
        return bool(self.records) and self.records[-1]["kind"] == "end"

    @property
    def last_digest(self) -> str | None:
        """The digest of the last record, which depends on all records before it."""
        return self.records[-1]["digest"] if self.records else None

    @property
    def intended(self) -> frozenset[str]:
        """The ids whose deletes were about to be sent."""
        return frozenset(self.begin_record.get("intent", ()))

    @property
    def outcomes(self) -> dict[str, str]:
        """The last recorded outcome of each id."""
        outcomes: dict[str, str] = {}
        for record in self.records:
            outcomes |= record.get("outcomes", {})
        return outcomes


@dataclass
class AttemptWriter:
    """
    Writes the records of one attempt. When a method returns, its record is stored.

    :param folder: the folder of the attempt
    :param name: the same folder, relative to the root of the ledger; reports refer to it
    :param now: the clock for the time of each record
    """

    folder: ObjectStoragePath
    name: str
    now: Callable[[], datetime]
    _count: int = 0
    _previous: str | None = None

    def write(self, kind: str, **fields: Any) -> None:
        """
        Append one record.

        :param kind: ``outcome`` or ``verification``
        :param fields: fields of :class:`~tavus_provider.storage.records.Record`
        :raises LedgerUnavailableError: if it cannot be written
        """
        record = make_record(kind, number=self._count + 1, previous=self._previous, at=self.now(), **fields)
        try:
            write_once(self.folder / _record_name(record["number"]), canonical_json(record))
        except StorageError as error:
            fault = _unavailable("written", error)
        else:
            self._count, self._previous = record["number"], record["digest"]
            return
        raise fault

    def close(self, **fields: Any) -> None:
        """
        Append the record that closes the attempt.

        :raises LedgerUnavailableError: if it cannot be written
        """
        self.write("end", records=self._count + 1, **fields)


def ledger_root() -> ObjectStoragePath:
    """Return the root of the ledger: ``[tavus] ledger``, by default ``tavus-ledger`` in ``AIRFLOW_HOME``."""
    return resolve(conf.get("tavus", "ledger", fallback="") or _DEFAULT_ROOT)


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Ledger:
    """
    The ledger of one Tavus account.

    :param origin: scheme and host of the API, such as ``https://tavusapi.com``
    :param tavus_conn_id: id of the Airflow connection, which identifies the account
    :param root: the root of the ledger; default: as configured in ``[tavus] ledger``
    :param now: the clock for the time of each record
    """

    origin: str
    tavus_conn_id: str
    root: ObjectStoragePath = field(default_factory=ledger_root)
    now: Callable[[], datetime] = _utc_now

    @property
    def account_folder(self) -> str:
        """The folder of this account, relative to the root."""
        return f"{_folder_name(self.origin.split('://', 1)[-1])}/{_folder_name(self.tavus_conn_id)}"

    def begin_attempt(self, job: str, *, kind: str = "begin", **fields: Any) -> AttemptWriter:
        """
        Start a new attempt and write its first record.

        :param job: see :func:`job_name`
        :param kind: the kind of the record
        :param fields: fields of :class:`~tavus_provider.storage.records.Record`
        :raises LedgerUnavailableError: if it cannot be written
        """
        name = f"{self.account_folder}/{job}/{self.now():%Y%m%dT%H%M%S.%fZ}-{secrets.token_hex(4)}"
        writer = AttemptWriter(self.root / name, name, self.now)
        writer.write(kind, origin=self.origin, tavus_conn_id=self.tavus_conn_id, **fields)
        return writer

    def attempts(self, job: str) -> list[Attempt]:
        """
        Return the attempts of one job, in the order in which they started.

        :raises LedgerUnavailableError: if they cannot be read
        """
        return read_attempts(self.root, [f"{self.account_folder}/{job}"])

    def attempts_of_kind(self, kind: JobKind) -> list[Attempt]:
        """
        Return the attempts of all jobs of one kind, in the order in which they started.

        :raises LedgerUnavailableError: if they cannot be read
        """
        jobs = [job for job in _list_names(self.root, self.account_folder) if job.startswith(f"{kind}-")]
        return read_attempts(self.root, [f"{self.account_folder}/{job}" for job in jobs])

    def require_shared(self, purpose: str) -> None:
        """
        Refuse a ledger that the workers do not share: a task on one would not find the records of another.

        ``[tavus] ledger_is_shared`` accepts a local path, which may be a shared file system.

        :param purpose: what needs the records, for the message
        :raises TavusValidationError: if the ledger is a local path and the executor is not local
        """
        if (reason := self.find_unshared(purpose)) is not None:
            raise TavusValidationError(f"{reason}. Nothing was deleted")

    def find_unshared(self, purpose: str) -> str | None:
        """Return why the workers may not share this ledger, and what would be right; ``None`` if they do."""
        executors = {
            # [core] executor can be LocalExecutor, alias:module.Class, team=CeleryExecutor, or a list.
            re.split("[:=.]", part)[-1].strip()
            for part in re.split("[,;]", conf.get("core", "executor", fallback="LocalExecutor"))
        }
        if not is_local(self.root) or executors <= _LOCAL_EXECUTORS or _is_declared_shared():
            return None
        return (
            f"{purpose} needs a ledger that all workers share, but {redact(self.root)!a} is a local path and "
            f"the executor is {', '.join(sorted(executors))}: set ledger in section tavus of the "
            "configuration to a bucket; or, if this path is on a file system that all workers share, "
            "set ledger_is_shared "
            "there to True"
        )


def _is_declared_shared() -> bool:
    try:
        return conf.getboolean("tavus", "ledger_is_shared", fallback=False)
    except AirflowConfigException:
        value = quote(conf.get("tavus", "ledger_is_shared", fallback=""))
    raise TavusValidationError(
        f"ledger_is_shared in section tavus of the configuration is {value}; expected True or False. Nothing "
        "was deleted"
    )


def job_name(kind: JobKind, *parts: object) -> str:
    """
    Return the name of a job.

    :param parts: what identifies the job: for ``plan`` its digest; for ``delete`` the dag_id, run_id,
        task_id and map_index; for ``schedule`` the name of the policy; for ``run`` the dag_id and run_id; for
        ``erasure`` the reference of the request
    """
    text = "\x1f".join(map(str, parts))
    return f"{kind}-{text[:32] if kind == 'plan' else sha256(text.encode()).hexdigest()[:32]}"


def list_jobs(root: ObjectStoragePath) -> list[str]:
    """
    Return the folders of all jobs of all accounts, relative to the root of a ledger.

    :raises LedgerUnavailableError: if they cannot be listed
    """
    hosts = [host for host in _list_names(root) if host not in _FOREIGN_FOLDERS]
    accounts = [f"{host}/{account}" for host in hosts for account in _list_names(root, host)]
    return [f"{account}/{job}" for account in accounts for job in _list_names(root, account)]


def read_attempts(root: ObjectStoragePath, jobs: Iterable[str]) -> list[Attempt]:
    """
    Return the attempts of several jobs, in the order in which they started.

    :param jobs: folders of jobs, relative to the root
    :raises LedgerUnavailableError: if they cannot be read
    """
    names = [f"{job}/{name}" for job in jobs for name in _list_names(root, job)]
    with ThreadPoolExecutor(_READERS) as pool:
        attempts = list(pool.map(lambda name: _read_attempt(root, name), names))
    return sorted(attempts, key=lambda attempt: attempt.name.rpartition("/")[2])


def _read_attempt(root: ObjectStoragePath, name: str) -> Attempt:
    names = _list_names(root, name)
    files = [file for file in names if re.fullmatch(r"[0-9]{6,}\.json", file)]
    strays = [f"contains {ascii(file)[:40]}, which is not a record" for file in names if file not in files]
    records: list[Record] = []
    flaw = None
    for number, file in enumerate(files, start=1):
        if file != _record_name(number):
            flaw = f"record {number} is missing: it was removed or renamed"
            break
        record = parse_record(_read(root / name / file))
        if record is None:
            incomplete = ", or was not written completely" if number == len(files) else ""
            flaw = f"record {number} was changed{incomplete}"
        elif (record["number"], record["previous"]) != (number, records[-1]["digest"] if records else None):
            flaw = f"record {number} does not continue the record before it"
        elif records and records[-1]["kind"] == "end":
            flaw = f"record {number} was added after the attempt was closed"
        if record is None or flaw:
            break
        records.append(record)
    return Attempt(name, tuple(records), (*([flaw] if flaw else []), *strays))


def _record_name(number: int) -> str:
    return f"{number:06}.json"


def _list_names(root: ObjectStoragePath, folder: str = "") -> list[str]:
    try:
        return list_names(root / folder if folder else root)
    except StorageError as error:
        fault = _unavailable("read", error)
    raise fault


def _read(path: ObjectStoragePath) -> bytes:
    try:
        return read_bytes(path)
    except StorageError as error:
        fault = _unavailable("read", error)
    raise fault


def _folder_name(text: str) -> str:
    """Return a name that is valid and distinct in every storage, and never leaves its folder."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", text)[:100]
    return name if name == text and text.strip(".") else f"{name}-{sha256(text.encode()).hexdigest()[:8]}"


def _unavailable(action: str, error: StorageError) -> LedgerUnavailableError:
    return LedgerUnavailableError(
        f"the ledger cannot be {action} at {error.location!a} ({error.reason}), and nothing is deleted "
        "without a record: set ledger in section tavus of the configuration to a location that works"
    )
