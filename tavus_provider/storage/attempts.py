"""
The attempts of a ledger: how one is written, and how many are read at the same time.

An attempt is a folder with numbered records, see :mod:`tavus_provider.storage.ledger`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from airflow.sdk import ObjectStoragePath

from tavus_provider.digest import canonical_digest, canonical_json
from tavus_provider.exceptions import LedgerUnavailableError
from tavus_provider.storage.object_storage import StorageError, list_names, read_bytes, write_once
from tavus_provider.storage.records import Record, is_of_later_release, make_record, parse_record

_READERS: Final = 32
"""Threads that read: in an object storage, the time is spent waiting for responses."""
_CHUNK: Final = 512
"""Attempts that are read at the same time, which bounds the memory for files that are not parsed yet."""
_START_FORMAT: Final = "%Y%m%dT%H%M%S.%fZ"

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Attempt:
    """
    The records of one attempt of one task.

    :param name: its folder, relative to the root of the ledger
    :param records: in the order in which they were written, up to the first flaw
    :param flaws: what shows that records were changed, removed, reordered or not written completely
    :param is_of_later_release: whether the first flaw is a record that only a later release can read
    """

    name: str
    records: tuple[Record, ...]
    flaws: tuple[str, ...] = ()
    is_of_later_release: bool = False

    @property
    def job(self) -> str:
        """The folder of its job, relative to the root of the ledger."""
        return self.name.rpartition("/")[0]

    @property
    def stem(self) -> str:
        """Its start and a random token: the last part of its name. Stems sort by start."""
        return self.name.rpartition("/")[2]

    @property
    def begin_record(self) -> Mapping[str, Any]:
        """The first record, which says who did what and what was intended; empty if it is not readable."""
        return self.records[0] if self.records else {}

    @property
    def is_closed(self) -> bool:
        """Whether the record that closes an attempt was written."""
        return bool(self.records) and self.records[-1]["kind"] == "end"

    @property
    def is_final(self) -> bool:
        """Whether it is closed and undamaged, so that it will always be read as it was."""
        return self.is_closed and not self.flaws

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
            fault = unavailable("written", error)
        else:
            self._count, self._previous = record["number"], record["digest"]
            return
        raise fault

    @property
    def last_digest(self) -> str | None:
        """The digest of the last record, which depends on all records before it."""
        return self._previous

    def close(self, **fields: Any) -> None:
        """
        Append the record that closes the attempt.

        :raises LedgerUnavailableError: if it cannot be written
        """
        self.write("end", records=self._count + 1, **fields)


def head_of(attempts: Iterable[Attempt]) -> str | None:
    """Return one digest for the last digests of several attempts; ``None`` if there are no attempts."""
    heads = {attempt.name: attempt.last_digest for attempt in attempts}
    return canonical_digest(heads) if heads else None


def format_start(moment: datetime) -> str:
    """Return a time as it begins the names of attempts."""
    return f"{moment.astimezone(UTC):{_START_FORMAT}}"


def parse_start(stem: str) -> datetime:
    """
    Return when an attempt started.

    :param stem: the last part of its name
    :raises ValueError: if it does not begin with a time
    """
    return datetime.strptime(stem.partition("-")[0], _START_FORMAT).replace(tzinfo=UTC)


def list_folders(root: ObjectStoragePath, folders: Iterable[str]) -> list[list[str]]:
    """
    Return the names in each of several folders of a ledger.

    :raises LedgerUnavailableError: if they cannot be listed
    """
    return _in_parallel(lambda folder: list_folder(root, folder), list(folders))


def list_folder(root: ObjectStoragePath, folder: str = "") -> list[str]:
    """
    Return the names in a folder of a ledger; none if it is missing.

    :param folder: relative to the root
    :raises LedgerUnavailableError: if it cannot be listed
    """
    try:
        return list_names(root / folder if folder else root)
    except StorageError as error:
        fault = unavailable("read", error)
    raise fault


def read_attempts(root: ObjectStoragePath, jobs: Iterable[str]) -> list[Attempt]:
    """
    Return the attempts of several jobs, in the order in which they started.

    One that names another as earlier comes after it, also if the clock of its worker was behind.

    :param jobs: folders of jobs, relative to the root
    :raises LedgerUnavailableError: if they cannot be read
    """
    jobs = list(jobs)
    listed = zip(jobs, list_folders(root, jobs), strict=True)
    attempts = read_named_attempts(root, [f"{job}/{stem}" for job, stems in listed for stem in stems])
    starts = {attempt.name: (attempt.stem, 0) for attempt in attempts}
    for attempt in sorted(attempts, key=lambda one: len(one.begin_record.get("prior_attempts", {}))):
        earlier = [starts[name] for name in attempt.begin_record.get("prior_attempts", {}) if name in starts]
        stem, place = max(earlier, default=("", 0))
        starts[attempt.name] = max(starts[attempt.name], (stem, place + 1))
    return sorted(attempts, key=lambda attempt: starts[attempt.name])


def read_named_attempts(root: ObjectStoragePath, names: Sequence[str]) -> list[Attempt]:
    """
    Return attempts, in the order in which they started. One whose folder is missing has no records.

    :param names: their folders, relative to the root
    :raises LedgerUnavailableError: if they cannot be read
    """
    attempts = []
    for start in range(0, len(names), _CHUNK):
        some = names[start : start + _CHUNK]
        listed = dict(zip(some, list_folders(root, some), strict=True))
        paths = [
            f"{name}/{file}" for name, files in listed.items() for file in files if _is_record_name(file)
        ]
        contents = read_files(root, paths)
        attempts += [_parse_attempt(name, files, contents) for name, files in listed.items()]
    return sorted(attempts, key=lambda attempt: attempt.stem)


def read_files(root: ObjectStoragePath, paths: Sequence[str]) -> dict[str, bytes]:
    """
    Return the contents of several files of a ledger.

    :param paths: relative to the root
    :raises LedgerUnavailableError: if one cannot be read
    """
    return dict(zip(paths, _in_parallel(lambda path: _read_file(root / path), paths), strict=True))


def _read_file(path: ObjectStoragePath) -> bytes:
    try:
        return read_bytes(path)
    except StorageError as error:
        fault = unavailable("read", error)
    raise fault


def unavailable(action: str, error: StorageError) -> LedgerUnavailableError:
    """Return the error for a ledger that cannot be ``read`` or ``written``."""
    return LedgerUnavailableError(
        f"the ledger cannot be {action} at {error.location!a} ({error.reason}), and nothing is deleted "
        "without a record: set ledger in section tavus of the configuration to a location that works"
    )


def _parse_attempt(name: str, names: Sequence[str], contents: Mapping[str, bytes]) -> Attempt:
    files = [file for file in names if _is_record_name(file)]
    strays = [f"contains {ascii(file)[:40]}, which is not a record" for file in names if file not in files]
    records: list[Record] = []
    flaw, is_later = None, False
    for number, file in enumerate(files, start=1):
        if file != _record_name(number):
            flaw = f"record {number} is missing: it was removed or renamed"
            break
        record = parse_record(contents[f"{name}/{file}"])
        if record is None and (is_later := is_of_later_release(contents[f"{name}/{file}"])):
            flaw = f"record {number} was written by a later release, or was changed"
        elif record is None:
            incomplete = ", or was not written completely" if number == len(files) else ""
            flaw = f"record {number} was changed{incomplete}"
        elif (record["number"], record["previous"]) != (number, records[-1]["digest"] if records else None):
            flaw = f"record {number} does not continue the record before it"
        elif records and records[-1]["kind"] == "end":
            flaw = f"record {number} was added after the attempt was closed"
        if record is None or flaw:
            break
        records.append(record)
    return Attempt(name, tuple(records), (*([flaw] if flaw else []), *strays), is_later)


def _record_name(number: int) -> str:
    return f"{number:06}.json"


def _is_record_name(file: str) -> bool:
    return re.fullmatch(r"[0-9]{6,}\.json", file) is not None


def _in_parallel(function: Callable[[str], Result], items: Sequence[str]) -> list[Result]:
    if len(items) < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(function, items))
