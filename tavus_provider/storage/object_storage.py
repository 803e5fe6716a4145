"""
Read and write files at every location that Airflow's ``ObjectStoragePath`` supports.

This is the only module of the package that opens a path. Every location (policy files, legal holds, the
ledger, stored plans) goes through :func:`resolve`, so that what is written is also found again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Final

from airflow.configuration import AIRFLOW_HOME
from airflow.sdk import ObjectStoragePath

from tavus_provider.exceptions import TavusError
from tavus_provider.sanitize import escape_line, redact_url

_FILE_MODE: Final = 0o600
_FOLDER_MODE: Final = 0o700
_LOCAL_PROTOCOLS: Final = frozenset({"", "file", "local"})
_BUCKET_PROTOCOLS: Final = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "adl", "az", "oss", "oci"})
_BROKEN_URL: Final = re.compile(
    "([a-z][a-z0-9+.-]+):/(?!/)|(s3a?|gs|gcs|abfss?|adl|az|oss|oci):(?!/)", re.IGNORECASE
)
"""A URL without both slashes. As a path it would be a folder that nobody looks into."""
_NOT_INSTALLED: Final = (
    "No filesystem registered for scheme",
    "Unsupported filesystem",
    "Protocol not known",
)
"""How the messages of Airflow, universal_pathlib and fsspec begin if there is no storage for a URL."""
_LOCAL_URL: Final = re.compile("(?:file|local):(?://(?:[^/@]*@)?)?")


class _LocationError(ValueError):
    """A location is neither a path nor a URL. The message says what would be right."""


class StorageError(TavusError):
    """
    A location could not be read or written.

    The storage modules translate this error into one that says what the location is for.

    :param location: the path, without credentials
    :param reason: the error of the operating system, else the name of the error's class. The text of a
        storage library is left out, because it can hold keys.
    :param is_missing: whether there is nothing at the location
    :param exists: whether the file was to be created and exists already
    """

    def __init__(
        self, location: str = "", reason: str = "", *, is_missing: bool = False, exists: bool = False
    ) -> None:
        super().__init__(f"{location!a}: {reason}")
        self.location = location
        self.reason = reason
        self.is_missing = is_missing
        self.exists = exists


def resolve(location: str, *, base: ObjectStoragePath | str | None = None) -> ObjectStoragePath:
    """
    Return the absolute path of a location.

    :param location: a URL such as ``s3://aws_default@bucket/policy.yaml``, or a local path; ``~`` is the
        home directory
    :param base: the folder that a relative path is relative to; default: ``AIRFLOW_HOME``, which is the
        same for all tasks, whereas a worker's current directory is not
    :raises StorageError: if no storage is installed for the URL
    """
    try:
        prefix = _LOCAL_URL.match(location)
        if "://" in location and prefix is None:
            return ObjectStoragePath(location)
        if prefix is None and (broken := _BROKEN_URL.match(location)):
            scheme = broken[1] or broken[2]
            raise _LocationError(f"not a URL: expected {scheme}:// and the name of the bucket")
        local = os.path.expanduser(location[prefix.end() :] if prefix else location)
        if os.path.isabs(local):
            return ObjectStoragePath(os.path.normpath(local))
        folder = base if isinstance(base, ObjectStoragePath) else resolve(base or AIRFLOW_HOME)
        if is_local(folder):
            return ObjectStoragePath(os.path.normpath(os.path.join(folder.path, local)))
        return folder / PurePosixPath(local).as_posix()
    except Exception as error:  # noqa: BLE001  # each storage has its own errors
        fault = _storage_error(location, error)
    raise fault


def read_bytes(path: ObjectStoragePath, *, limit: int | None = None) -> bytes:
    """
    Return the content of a file.

    :param limit: maximum size in bytes; default: no limit
    :raises StorageError: if it cannot be read or is larger than ``limit``
    """
    try:
        if limit is None:
            return bytes(path.read_bytes())
        with path.open("rb") as file:  # type: ignore[no-untyped-call]  # Airflow's method has no types
            data = bytes(file.read(limit + 1))
        if len(data) <= limit:
            return data
        fault = StorageError(redact(path), f"larger than {limit:,} bytes")
    except Exception as error:  # noqa: BLE001  # each storage has its own errors
        fault = _storage_error(path, error)
    raise fault


def write_once(path: ObjectStoragePath, data: bytes) -> None:
    """
    Create a file, and the folders above it. An existing file is never overwritten.

    When this function returns, a local file has reached the disk, and so has its name in its folder. Local
    files are created with mode 0600 and folders with mode 0700.

    :raises StorageError: if the file exists or cannot be written
    """
    try:
        if is_local(path):
            _create_local_file(path.path, data)
        else:
            _create_object(path, data)
    except Exception as error:  # noqa: BLE001  # each storage has its own errors
        fault = _storage_error(path, error)
    else:
        return
    raise fault


def list_names(folder: ObjectStoragePath) -> list[str]:
    """
    Return the sorted names of the files and folders in a folder. A missing folder is empty.

    :raises StorageError: if it cannot be listed
    """
    try:
        # Not iterdir(): a bucket has no folders of its own, so it raises NotADirectoryError.
        fs, prefix = folder.fs, folder.path.rstrip("/") + "/"
        fs.invalidate_cache(folder.path)
        paths = [path.rstrip("/") for path in fs.ls(folder.path, detail=False)]
        return sorted({path.removeprefix(prefix) for path in paths if path.startswith(prefix)})
    except FileNotFoundError:
        return []
    except Exception as error:  # noqa: BLE001  # each storage has its own errors
        fault = _storage_error(folder, error)
    raise fault


def modified_at(path: ObjectStoragePath) -> datetime | None:
    """Return when a file was last written, in UTC, or ``None`` if its storage does not say."""
    with contextlib.suppress(Exception):  # each storage has its own errors and fields
        seconds = float(path.stat().st_mtime)
        if seconds > 0:
            return datetime.fromtimestamp(seconds, UTC)
    with contextlib.suppress(Exception):  # Azure
        moment: datetime = path.fs.modified(path.path)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return None


def redact(location: ObjectStoragePath | str) -> str:
    """Return a location as it may be logged: without the user name and password that a URL can contain."""
    return redact_url(str(location))


def is_local(path: ObjectStoragePath) -> bool:
    """Return whether a path is in the file system of this machine; it may be a network file system."""
    return path.protocol in _LOCAL_PROTOCOLS


def _create_local_file(path: str, data: bytes) -> None:
    folder = os.path.dirname(path)
    _create_local_folders(folder)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
    except (
        OSError
    ):  # such as a full disk: a part of a record would look damaged, and hide the cause next time
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise
    _sync_folder(folder)


def _create_local_folders(folder: str) -> None:
    if os.path.isdir(folder):
        return
    parent = os.path.dirname(folder)
    if parent != folder:
        _create_local_folders(parent)
    try:
        os.mkdir(folder, _FOLDER_MODE)
    except FileExistsError:
        if not os.path.isdir(folder):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None
    _sync_folder(parent)


def _sync_folder(folder: str) -> None:
    """Make the names in a folder durable: without this, a new file can be lost in a power failure."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems cannot synchronize a folder. PostgreSQL ignores the same two errors.
        if error.errno not in (errno.EBADF, errno.EINVAL):
            raise
    finally:
        os.close(descriptor)


def _create_object(path: ObjectStoragePath, data: bytes) -> None:
    try:
        _put(path, data)
    except FileNotFoundError:
        if path.protocol in _BUCKET_PROTOCOLS:
            raise  # The bucket is missing. Making its folder would create it, with a mistyped name.
        # A storage with folders, such as SFTP.
        path.parent.mkdir(parents=True, exist_ok=True)
        _put(path, data)


def _put(path: ObjectStoragePath, data: bytes) -> None:
    with path.open("xb") as file:  # type: ignore[no-untyped-call]  # Airflow's method has no types
        file.write(data)


def _storage_error(location: ObjectStoragePath | str, error: Exception) -> StorageError:
    number = error.errno if isinstance(error, OSError) else None
    reason = os.strerror(number) if isinstance(number, int) else type(error).__name__
    if isinstance(error, _LocationError):
        reason = str(error)
    elif isinstance(error, ValueError) and str(error).startswith(_NOT_INSTALLED):
        scheme = escape_line(str(location).partition(":")[0], 20)
        reason = (
            f"no storage is installed for {scheme}://; install its Airflow provider, or check the spelling"
        )
    return StorageError(
        redact(location),
        reason,
        is_missing=isinstance(error, FileNotFoundError),
        exists=isinstance(error, FileExistsError),
    )
