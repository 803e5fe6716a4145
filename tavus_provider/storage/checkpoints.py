"""
Read what happened in an account since the newest checkpoint, so that the cost does not grow with the ledger.

Before an attempt writes its first record, it leaves a pointer: a file whose name holds the start and the job
of the attempt. The pointers of one month are in one folder, so that one listing shows them all::

    <account>/_index/2026-11/20261128T052016.123456Z-0a1b2c3d.plan-4e5f...
    <account>/_index/2026-11/checkpoint-20261128T052016.123456Z-0a1b2c3d.json

A checkpoint is a record of what the attempts before it did. It covers every attempt that started before
``until`` and is not named in ``open``. Attempts of the hour before ``until`` are covered only if ``window``
names them, because a pointer can be written a little later than the time in its name. A checkpoint that is
missing or damaged costs time only: an earlier one is used, or everything is read.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from airflow.sdk import ObjectStoragePath

from tavus_provider.digest import canonical_json
from tavus_provider.exceptions import LedgerUnavailableError
from tavus_provider.storage.attempts import (
    Attempt,
    format_start,
    list_folder,
    list_folders,
    parse_start,
    read_named_attempts,
    unavailable,
)
from tavus_provider.storage.deletions import Deletions
from tavus_provider.storage.object_storage import StorageError, read_bytes, write_once
from tavus_provider.storage.records import Record, make_record, parse_record

INDEX_FOLDER: Final = "_index"
WINDOW: Final = timedelta(hours=1)
"""How much later than its start the pointer of an attempt may appear, the difference of clocks included."""
SETTLED_AFTER: Final = timedelta(days=3)
"""Age at which an attempt that was not closed is taken as stopped. A plan is valid for one day."""
CHECKPOINT_AFTER: Final = 16
"""Number of attempts after which a checkpoint is written."""
MAX_SINCE_BASE: Final = 256
"""Number of attempts after which a checkpoint holds everything again, not only the changes since its base."""

_POINTER: Final = re.compile(r"(?P<stem>[0-9]{8}T[0-9]{6}\.[0-9]{6}Z-[0-9a-f]+)\.(?P<job>.+)")
_STEM: Final = re.compile(r"[0-9]{8}T[0-9]{6}\.[0-9]{6}Z-[0-9a-f]+")
_CHECKPOINT: Final = re.compile(r"checkpoint-.*\.json")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """
    What the attempts before some moment did.

    :param name: its file, relative to the root of the ledger
    :param record: the record as it was read
    :param deletions: what the covered attempts deleted, those before its base included
    :param base: what its base holds of that
    """

    name: str
    record: Record
    deletions: Deletions
    base: Deletions
    _window: frozenset[str]
    _open: frozenset[str]

    @property
    def digest(self) -> str:
        """The digest of its record."""
        return self.record["digest"]

    @property
    def until(self) -> str:
        """The moment, as it begins the names of attempts."""
        return self.record["until"]

    @property
    def open(self) -> list[str]:
        """Names of attempts before the moment that were not closed, or started after such an attempt."""
        return self.record["open"]

    @property
    def schedules(self) -> Mapping[str, str]:
        """The name of the last covered attempt of each job of the kind ``schedule``."""
        return self.record["schedules"]

    def covers(self, name: str) -> bool:
        """Return whether it covers an attempt."""
        stem = name.rpartition("/")[2]
        if stem >= self.until or name in self._open:
            return False
        return stem < window_start(self.until) or stem in self._window


@dataclass(frozen=True, slots=True, kw_only=True)
class Recent:
    """
    What happened in an account.

    :param checkpoint: the newest valid checkpoint
    :param attempts: the attempts that it does not cover, in the order in which they started
    :param until: the time before they were listed, as it begins the names of attempts
    :param future: the name of a checkpoint that is in the future by this clock, and was ignored
    """

    checkpoint: Checkpoint | None
    attempts: tuple[Attempt, ...]
    until: str
    future: str | None = None

    @property
    def deletions(self) -> Deletions:
        """What all attempts deleted."""
        before = Deletions() if self.checkpoint is None else self.checkpoint.deletions
        return before.followed_by(self.attempts)

    @property
    def heads(self) -> dict[str, str | None]:
        """The last digest of each attempt and checkpoint that no other attempt here has named with it."""
        named = {
            reference
            for attempt in self.attempts
            for key in ("seen", "prior_attempts")
            for reference in attempt.begin_record.get(key, {}).items()
        }
        heads = {attempt.name: attempt.last_digest for attempt in self.attempts}
        if self.checkpoint is not None:
            heads[self.checkpoint.name] = self.checkpoint.digest
        return {name: digest for name, digest in heads.items() if (name, digest) not in named}

    def schedules(self, job: str) -> set[str]:
        """Return the names of the last attempts of a job of the kind ``schedule``."""
        names = {attempt.name for attempt in self.attempts if attempt.job.endswith(f"/{job}")}
        if self.checkpoint is not None and job in self.checkpoint.schedules:
            names.add(self.checkpoint.schedules[job])
        return names


@dataclass
class RecentReader:
    """
    Reads what happened in one account. Attempts that cannot change any more are read once.

    :param root: the root of the ledger
    :param folder: the folder of the account, relative to the root
    :param now: the clock
    """

    root: ObjectStoragePath
    folder: str
    now: Callable[[], datetime]
    _final: dict[str, Attempt] = field(default_factory=dict)
    _checkpoints: dict[str, Checkpoint] = field(default_factory=dict)
    _warned: set[str] = field(default_factory=set)
    _future: str | None = None
    _trusted: set[str] | None = None
    """The checkpoints that may be used; ``None`` for all."""

    def read(self) -> Recent:
        """
        Return the newest valid checkpoint, and every attempt after it.

        :raises LedgerUnavailableError: if the ledger cannot be read, or only by a later release
        """
        now = self.now()
        self._future = None
        checkpoint: Checkpoint | None = None
        pointed: list[str] = []
        for month in sorted(list_folder(self.root, f"{self.folder}/{INDEX_FOLDER}"), reverse=True):
            if checkpoint is not None and month < _month(window_start(checkpoint.until)):
                break
            files = list_folder(self.root, f"{self.folder}/{INDEX_FOLDER}/{month}")
            pointed += [name for file in files if (name := pointed_attempt(self.folder, file)) is not None]
            if checkpoint is None:
                checkpoint = self._newest(month, files, now)
        if checkpoint is None:
            names = {*pointed, *list_account(self.root, self.folder)}
        else:
            names = {name for name in pointed if not checkpoint.covers(name)}
            names |= set(checkpoint.open)
        attempts = tuple(self.read_attempts(names))
        for attempt in attempts:
            self._check(attempt)
        return Recent(checkpoint=checkpoint, attempts=attempts, until=format_start(now), future=self._future)

    def read_with(self, job: str) -> Recent:
        """
        Return what happened, and read everything if the index does not know the last attempts of a job.

        A release without an index wrote these. Checkpoints that are there already are not used any more.

        :param job: a job that every such release would have written to
        :raises LedgerUnavailableError: as :meth:`read`
        """
        recent = self.read()
        unknown = self._find_unknown(job, recent)
        if not unknown:
            return recent
        log.warning(
            "%d attempts of the ledger, such as %s, are not in its index: an earlier release wrote them, or "
            "their pointers were removed. Everything is read",
            len(unknown),
            unknown[0],
        )
        self._trusted = set()
        return self.read()

    def _find_unknown(self, job: str, recent: Recent) -> list[str]:
        """Return the attempts of a job without a pointer that are newer than all known ones. One listing."""
        if recent.checkpoint is None:
            return []  # all attempts were listed
        newest = max((name.rpartition("/")[2] for name in recent.schedules(job)), default="")
        stems = list_folder(self.root, f"{self.folder}/{job}")
        newer = [stem for stem in stems if _STEM.fullmatch(stem) and stem > newest]
        if not newer:
            return []
        # One that started meanwhile has a pointer by now: it is written first.
        months = [
            f"{self.folder}/{INDEX_FOLDER}/{month}" for month in sorted({_month(stem) for stem in newer})
        ]
        pointers = {file for files in list_folders(self.root, months) for file in files}
        return [f"{self.folder}/{job}/{stem}" for stem in newer if f"{stem}.{job}" not in pointers]

    def read_newest(self, *, most: int) -> Recent:
        """
        Return what the index shows without reading more than a few records: not all that happened.

        :param most: maximum number of attempts
        :raises LedgerUnavailableError: if the ledger cannot be read
        """
        now = self.now()
        checkpoint: Checkpoint | None = None
        pointed: list[str] = []
        months = sorted(list_folder(self.root, f"{self.folder}/{INDEX_FOLDER}"), reverse=True)
        for month in months[:2]:
            files = list_folder(self.root, f"{self.folder}/{INDEX_FOLDER}/{month}")
            pointed += [name for file in files if (name := pointed_attempt(self.folder, file)) is not None]
            checkpoint = checkpoint or self._newest(month, files, now)
        names = set(sorted(pointed, key=lambda name: name.rpartition("/")[2])[-most:])
        if checkpoint is not None:
            names |= set(sorted(checkpoint.schedules.values())[:most])
        attempts = tuple(self.read_attempts(names))
        return Recent(checkpoint=checkpoint, attempts=attempts, until=format_start(now))

    def read_attempts(self, names: set[str]) -> list[Attempt]:
        """
        Return attempts, in the order in which they started.

        :raises LedgerUnavailableError: if the ledger cannot be read
        """
        new = read_named_attempts(self.root, sorted(names - self._final.keys()))
        self._final |= {attempt.name: attempt for attempt in new if attempt.is_final}
        known = [self._final[name] for name in names if name in self._final]
        return sorted([*known, *(one for one in new if not one.is_final)], key=lambda attempt: attempt.stem)

    def add_checkpoint(self, recent: Recent, *, origin: str, tavus_conn_id: str) -> Recent:
        """
        Write a checkpoint if there is enough to cover. A failure is only logged.

        :returns: what happened, as it is to be read from the new checkpoint
        """
        settled, still_open = split_settled(recent, now=self.now())
        before = "" if recent.checkpoint is None else recent.checkpoint.until
        if len(settled) < CHECKPOINT_AFTER or recent.until <= before or recent.future is not None:
            return recent
        name, record = _make_checkpoint(
            self.folder, recent, settled, still_open, origin=origin, tavus_conn_id=tavus_conn_id
        )
        try:
            write_once(self.root / name, canonical_json(record))
        except StorageError as error:
            log.warning("The checkpoint of the ledger cannot be written: %s", unavailable("written", error))
            return recent
        checkpoint, fault = load_checkpoint(self.root, name)
        if checkpoint is None:
            log.warning("The checkpoint %s of the ledger is not used: it %s", name, fault)
            return recent
        self._checkpoints[name] = checkpoint
        if self._trusted is not None:
            self._trusted.add(name)
        left = tuple(attempt for attempt in recent.attempts if not checkpoint.covers(attempt.name))
        return Recent(checkpoint=checkpoint, attempts=left, until=recent.until)

    def _check(self, attempt: Attempt) -> None:
        """
        Warn once about a damaged attempt, because what it did is unknown.

        :raises LedgerUnavailableError: if only a later release can read it
        """
        if attempt.is_of_later_release:
            raise LedgerUnavailableError(
                f"this release cannot read the record {attempt.name} of the ledger ({attempt.flaws[0]}), so "
                "it is unknown what was deleted and announced. Nothing is deleted: install the release that "
                "wrote it on all workers; if it was changed, restore the file"
            )
        if attempt.flaws and attempt.name not in self._warned:
            self._warned.add(attempt.name)
            log.warning(
                "The record %s of the ledger is damaged, and what it did is not known completely: %s",
                attempt.name,
                attempt.flaws[0],
            )

    def _newest(self, month: str, files: list[str], now: datetime) -> Checkpoint | None:
        for file in sorted(filter(is_checkpoint, files), reverse=True):
            name = f"{self.folder}/{INDEX_FOLDER}/{month}/{file}"
            if self._trusted is not None and name not in self._trusted:
                continue
            if name in self._checkpoints:
                return self._checkpoints[name]
            checkpoint, fault = load_checkpoint(self.root, name)
            if checkpoint is not None and checkpoint.until > format_start(now + WINDOW):
                fault = "is in the future, so the clock of a worker is wrong"
                self._future = name
            elif checkpoint is not None:
                self._checkpoints[name] = checkpoint
                return checkpoint
            log.warning(
                "The checkpoint %s of the ledger is ignored, and more records are read: it %s", name, fault
            )
        return None


def load_checkpoint(root: ObjectStoragePath, name: str) -> tuple[Checkpoint | None, str]:
    """
    Return a checkpoint, or ``None`` and what is wrong with it, as the end of a sentence.

    :param name: its file, relative to the root
    :raises LedgerUnavailableError: if it cannot be read
    """
    record = _load_record(root, name)
    if record is None:
        return None, "was changed, or was not written completely"
    deletions = Deletions.from_json(record["deletions"])
    base_deletions = deletions
    for base_name, digest in record.get("base", {}).items():
        base = _load_record(root, base_name)
        if base is None or base["digest"] != digest:
            return None, f"continues {base_name}, which is missing or was changed"
        base_deletions = Deletions.from_json(base["deletions"])
        deletions = base_deletions.with_added(deletions)
    checkpoint = Checkpoint(
        name=name,
        record=record,
        deletions=deletions,
        base=base_deletions,
        _window=frozenset(record["window"]),
        _open=frozenset(record["open"]),
    )
    return checkpoint, ""


def split_settled(recent: Recent, *, now: datetime) -> tuple[list[Attempt], list[Attempt]]:
    """
    Return the attempts that a checkpoint can cover, and those that it has to name as open.

    An attempt that started after an open one of the same job is open too, because what it shows can depend
    on how that one ends.
    """
    settled: list[Attempt] = []
    still_open: list[Attempt] = []
    open_jobs = set()
    for attempt in recent.attempts:
        if attempt.stem >= recent.until:
            continue  # started meanwhile
        done = attempt.is_final or attempt.stem < format_start(now - SETTLED_AFTER)
        if done and attempt.job not in open_jobs:
            settled.append(attempt)
        else:
            still_open.append(attempt)
            open_jobs.add(attempt.job)
    return settled, still_open


def list_account(root: ObjectStoragePath, folder: str) -> list[str]:
    """
    Return the names of all attempts of an account, without its index. It takes a listing for each job.

    :raises LedgerUnavailableError: if they cannot be listed
    """
    jobs = [f"{folder}/{job}" for job in list_folder(root, folder) if job != INDEX_FOLDER]
    listed = zip(jobs, list_folders(root, jobs), strict=True)
    return [f"{job}/{stem}" for job, stems in listed for stem in stems if _STEM.fullmatch(stem)]


def pointer_path(folder: str, *, stem: str, job: str) -> str:
    """Return the file of the pointer to an attempt, relative to the root."""
    return f"{folder}/{INDEX_FOLDER}/{_month(stem)}/{stem}.{job}"


def pointed_attempt(folder: str, file: str) -> str | None:
    """Return the name of the attempt that a file of the index points to; ``None`` if it is no pointer."""
    match = _POINTER.fullmatch(file)
    return f"{folder}/{match['job']}/{match['stem']}" if match else None


def is_checkpoint(file: str) -> bool:
    """Return whether a file of the index is a checkpoint."""
    return _CHECKPOINT.fullmatch(file) is not None


def window_start(until: str) -> str:
    """Return the start of the window of a checkpoint, as it begins the names of attempts."""
    return format_start(parse_start(until) - WINDOW)


def _month(stem: str) -> str:
    return f"{stem[:4]}-{stem[4:6]}"


def _load_record(root: ObjectStoragePath, name: str) -> Record | None:
    try:
        record = parse_record(read_bytes(root / name))
    except StorageError as error:
        if error.is_missing:
            return None
        fault = unavailable("read", error)
    else:
        return record if record is not None and _is_complete(record, name) else None
    raise fault


def _is_complete(record: Record, name: str) -> bool:
    """Return whether a record is the checkpoint with this name."""
    fields = {"until", "window", "open", "heads", "schedules", "deletions", "since_base", "seen"}
    return record["kind"] == "checkpoint" and record.get("attempt") == name and fields <= record.keys()


def _make_checkpoint(
    folder: str,
    recent: Recent,
    settled: list[Attempt],
    still_open: list[Attempt],
    *,
    origin: str,
    tavus_conn_id: str,
) -> tuple[str, Record]:
    before = recent.checkpoint
    deletions = (Deletions() if before is None else before.deletions).followed_by(settled)
    since_base = len(settled) + (0 if before is None else before.record["since_base"])
    base: dict[str, str | None] = {}
    if before is not None and since_base <= MAX_SINCE_BASE:
        base = before.record.get("base") or {before.name: before.digest}
        deletions = deletions.since(before.base)
    start = window_start(recent.until)
    covered = [attempt.stem for attempt in settled if attempt.stem >= start]
    if before is not None:
        covered += [stem for stem in before.record["window"] if stem >= start]
    schedules = {} if before is None else dict(before.schedules)
    for attempt in settled:
        job = attempt.job.rpartition("/")[2]
        if job.startswith("schedule-") and (attempt.records or attempt.flaws):
            schedules[job] = attempt.name
    file = f"checkpoint-{recent.until}-{secrets.token_hex(4)}.json"
    name = f"{folder}/{INDEX_FOLDER}/{_month(recent.until)}/{file}"
    record = make_record(
        "checkpoint",
        number=1,
        previous=None,
        at=parse_start(recent.until),
        attempt=name,
        origin=origin,
        tavus_conn_id=tavus_conn_id,
        seen={} if before is None else {before.name: before.digest},
        until=recent.until,
        window=sorted(covered),
        open=[attempt.name for attempt in still_open],
        heads={attempt.name: attempt.last_digest for attempt in settled},
        schedules=schedules,
        deletions=deletions.to_json(),
        since_base=since_base if base else 0,
        **({"base": base} if base else {}),
    )
    return name, record
