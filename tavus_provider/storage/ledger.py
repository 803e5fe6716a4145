"""
The ledger: a record of each intended delete and of its outcome, kept outside Airflow's database.

Each attempt of a task writes its records, numbered JSON files, into a folder of its own, so that two runs
never write to the same file. Each record holds the digest of the record before it, and the last one
closes the attempt. A job is what attempts have in common: a plan, a replica deleted without a plan, the
schedule of a policy, or a DAG run (:mod:`tavus_provider.storage.authority`)::

    <root>/<host>/<tavus_conn_id>/<job>/<start of the attempt>-<random>/000001.json

The folder ``_index`` of an account has pointers to attempts, and checkpoints, so that not all attempts have
to be read (:mod:`tavus_provider.storage.checkpoints`). The folder ``_plans`` beside the hosts holds stored
plans, see :mod:`tavus_provider.storage.plan_store`, and ``_certificates`` those of erasures, see
:mod:`tavus_provider.storage.certificates`.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from hashlib import sha256
from typing import Any, Final, Literal

from airflow.configuration import conf
from airflow.exceptions import AirflowConfigException
from airflow.sdk import ObjectStoragePath

from tavus_provider.exceptions import LedgerUnavailableError, TavusValidationError
from tavus_provider.sanitize import quote
from tavus_provider.storage.attempts import (
    Attempt,
    AttemptWriter,
    format_start,
    list_folder,
    list_folders,
    read_attempts,
    unavailable,
)
from tavus_provider.storage.checkpoints import INDEX_FOLDER, Recent, RecentReader, pointer_path
from tavus_provider.storage.object_storage import StorageError, is_local, redact, resolve, write_once

JobKind = Literal["plan", "delete", "schedule", "run", "erasure"]

PLANS_FOLDER: Final = "_plans"
CERTIFICATES_FOLDER: Final = "_certificates"
ERASURES_FOLDER: Final = "_erasures"
_FOREIGN_FOLDERS: Final = frozenset({PLANS_FOLDER, CERTIFICATES_FOLDER, ERASURES_FOLDER})
"""Folders in the root that are not those of hosts."""

_DEFAULT_ROOT: Final = "tavus-ledger"
_LOCAL_EXECUTORS: Final = frozenset({"LocalExecutor", "SequentialExecutor"})
_CLOCK_CHECKED_KINDS: Final = frozenset({"begin", "planned"})
_CLOCK_CHECKED_JOBS: Final = ("plan-", "schedule-", "run-")
"""Attempts of tasks that have compared their clock with that of Tavus. Only they write checkpoints."""
MAX_DELAY: Final = timedelta(minutes=10)
"""Time within which the first record of an attempt has to be written."""


def ledger_root() -> ObjectStoragePath:
    """
    Return the root of the ledger: ``[tavus] ledger``, by default ``tavus-ledger`` in ``AIRFLOW_HOME``.

    :raises LedgerUnavailableError: if the location is no path and no URL of a storage
    """
    try:
        return resolve(conf.get("tavus", "ledger", fallback="") or _DEFAULT_ROOT)
    except StorageError as error:
        fault = unavailable("read", error)
    raise fault


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

    @cached_property
    def _reader(self) -> RecentReader:
        return RecentReader(self.root, self.account_folder, self.now)

    def begin_attempt(self, job: str, *, kind: str = "begin", **fields: Any) -> AttemptWriter:
        """
        Start a new attempt and write its first record.

        The record names the last digests of what it sees in the account, so that a later change of that is
        found. A checkpoint is written first, if there is enough to cover.

        :param job: see :func:`job_name`
        :param kind: the kind of the record
        :param fields: fields of :class:`~tavus_provider.storage.records.Record`
        :raises LedgerUnavailableError: if it cannot be written, or if readers could overlook it
        """
        recent = self.recent()
        if kind in _CLOCK_CHECKED_KINDS and job.startswith(_CLOCK_CHECKED_JOBS):
            recent = self._reader.add_checkpoint(recent, origin=self.origin, tavus_conn_id=self.tavus_conn_id)
        started = self.now()
        stem = f"{format_start(started)}-{secrets.token_hex(4)}"
        newer = recent.future
        if recent.checkpoint is not None and recent.checkpoint.covers(stem):
            newer = recent.checkpoint.name
        if newer is not None:
            raise LedgerUnavailableError(
                f"the clock of this worker says {stem[:15]}Z, but the ledger has the newer checkpoint "
                f"{newer}, so that a record would be overlooked. Nothing is deleted without a record: set "
                "the clocks of all workers; if that checkpoint is wrong, remove it"
            )
        name = f"{self.account_folder}/{job}/{stem}"
        self._write_pointer(name, stem=stem, job=job)
        writer = AttemptWriter(self.root / name, name, self.now)
        account = {"origin": self.origin, "tavus_conn_id": self.tavus_conn_id}
        writer.write(kind, attempt=name, seen=recent.heads, **account, **fields)
        if self.now() - started > MAX_DELAY:
            raise LedgerUnavailableError(
                f"the ledger took more than {MAX_DELAY.seconds // 60} minutes to write the record {name}, so "
                "that it could be overlooked, and nothing is deleted without a record: try again"
            )
        return writer

    def recent(self) -> Recent:
        """
        Return what happened in this account, at a cost that does not grow with the age of the ledger.

        :raises LedgerUnavailableError: if it cannot be read
        """
        return self._reader.read()

    def recent_with(self, job: str) -> Recent:
        """
        Return what happened in this account; everything, if a release without an index wrote to a job.

        It takes one listing more than :meth:`recent`.

        :param job: a job of the kind ``schedule``
        :raises LedgerUnavailableError: if it cannot be read
        """
        return self._reader.read_with(job)

    def last_schedules(self, job: str, *, recent: Recent | None = None) -> list[Attempt]:
        """
        Return the last attempts of a job of the kind ``schedule``, at least one that can be read if any can.

        :param recent: what :meth:`recent` returned; default: read it
        :raises LedgerUnavailableError: if they cannot be read
        """
        names = (recent or self.recent()).schedules(job)
        attempts = self._reader.read_attempts(names)
        if names and not any(attempt.records for attempt in attempts):
            return self.attempts(job)
        return attempts

    def _write_pointer(self, name: str, *, stem: str, job: str) -> None:
        try:
            write_once(self.root / pointer_path(self.account_folder, stem=stem, job=job), name.encode())
        except StorageError as error:
            fault = unavailable("written", error)
        else:
            return
        raise fault

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
        jobs = [job for job in list_folder(self.root, self.account_folder) if job.startswith(f"{kind}-")]
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
    accounts = list_accounts(root)
    listed = zip(accounts, list_folders(root, accounts), strict=True)
    return [f"{account}/{job}" for account, jobs in listed for job in jobs if job != INDEX_FOLDER]


def list_accounts(root: ObjectStoragePath) -> list[str]:
    """
    Return the folders of all accounts, relative to the root of a ledger.

    :raises LedgerUnavailableError: if they cannot be listed
    """
    hosts = [host for host in list_folder(root) if host not in _FOREIGN_FOLDERS]
    listed = zip(hosts, list_folders(root, hosts), strict=True)
    return [f"{host}/{account}" for host, accounts in listed for account in accounts]


def _folder_name(text: str) -> str:
    """Return a name that is valid and distinct in every storage, and never leaves its folder."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", text)[:100]
    return name if name == text and text.strip(".") else f"{name}-{sha256(text.encode()).hexdigest()[:8]}"
