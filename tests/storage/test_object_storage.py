"""Locations, files and faults: what all storage modules have in common."""

from __future__ import annotations

import ast
import errno
import os
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from airflow.configuration import AIRFLOW_HOME
from airflow.sdk import ObjectStoragePath

import tavus_provider
from tavus_provider.exceptions import TavusError
from tavus_provider.storage.object_storage import (
    StorageError,
    is_local,
    list_names,
    modified_at,
    read_bytes,
    redact,
    resolve,
    write_once,
)

SECRET = "AKIA-and-what-follows"


# -- locations


@pytest.mark.parametrize(
    ("location", "path"),
    [
        pytest.param("policy.yaml", f"{AIRFLOW_HOME}/policy.yaml", id="relative"),
        pytest.param("./a/../policy.yaml", f"{AIRFLOW_HOME}/policy.yaml", id="relative-with-dots"),
        pytest.param("file://tavus-ledger", f"{AIRFLOW_HOME}/tavus-ledger", id="relative-url"),
        pytest.param("", AIRFLOW_HOME, id="empty"),
        pytest.param("/etc/policy.yaml", "/etc/policy.yaml", id="absolute"),
        pytest.param("file:///etc/policy.yaml", "/etc/policy.yaml", id="url"),
        pytest.param("file:/etc/policy.yaml", "/etc/policy.yaml", id="url-with-one-slash"),
        pytest.param("local:///etc/policy.yaml", "/etc/policy.yaml", id="local-url"),
        pytest.param("file://conn@/etc/policy.yaml", "/etc/policy.yaml", id="url-with-connection"),
        pytest.param("~/policy.yaml", f"{os.path.expanduser('~')}/policy.yaml", id="home"),
    ],
)
def test_local_location_is_absolute_and_relative_to_airflow_home(location, path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    resolved = resolve(location)
    assert (str(resolved), is_local(resolved)) == (path, True)


def test_location_is_relative_to_base_if_given(tmp_path, bucket):
    for base in (str(tmp_path), ObjectStoragePath(str(tmp_path))):
        assert str(resolve("holds.yaml", base=base)) == f"{tmp_path}/holds.yaml"
        assert str(resolve("../holds.yaml", base=base)) == f"{tmp_path.parent}/holds.yaml"
        assert str(resolve("/etc/holds.yaml", base=base)) == "/etc/holds.yaml"
    assert resolve("holds.yaml", base=bucket) == bucket / "holds.yaml"
    assert resolve(str(bucket), base=str(tmp_path)) == bucket


def test_url_of_other_storage_is_used_as_it_is(bucket):
    assert resolve(str(bucket)) == bucket
    assert not is_local(resolve(str(bucket)))


def test_location_without_storage_is_an_error():
    with pytest.raises(StorageError) as caught:
        read_bytes(resolve(f"odd://user:{SECRET}@bucket/policy.yaml"))
    # Airflow 3.1 adds a slash in front of the bucket.
    assert caught.value.location.replace("@/", "@") == "odd://***@bucket/policy.yaml"
    assert caught.value.reason == (
        "no storage is installed for odd://; install its Airflow provider, or check the spelling"
    )
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "location", ["s3:/bucket/x", "S3:/bucket/x", "gs:bucket/x", "http:/host/x", "abfss:/x"]
)
def test_url_without_both_slashes_is_no_path(location):
    """It would be a folder in AIRFLOW_HOME, and the ledger of each worker its own."""
    with pytest.raises(StorageError) as caught:
        resolve(location)
    scheme = location.partition(":")[0]
    assert caught.value.reason == f"not a URL: expected {scheme}:// and the name of the bucket"


# -- files


def test_file_is_written_once_and_read_back(root):
    write_once(root / "a" / "b" / "file.json", b"data")
    assert read_bytes(root / "a" / "b" / "file.json") == b"data"
    with pytest.raises(StorageError) as caught:
        write_once(root / "a" / "b" / "file.json", b"other")
    assert (caught.value.exists, caught.value.is_missing) == (True, False)
    assert read_bytes(root / "a" / "b" / "file.json") == b"data"


def test_names_of_files_and_folders_are_listed_in_order(root):
    for name in ("b", "a/c", "a/d"):
        write_once(root / "folder" / name, b"")
    assert list_names(root / "folder") == ["a", "b"]
    assert list_names(root / "folder" / "a") == ["c", "d"]
    assert list_names(root / "missing") == []


def test_missing_file_is_an_error(root):
    with pytest.raises(StorageError) as caught:
        read_bytes(root / "missing")
    assert caught.value.is_missing


@pytest.mark.parametrize(("size", "fits"), [(0, True), (10, True), (11, False), (1_000_000, False)])
def test_file_larger_than_the_limit_is_an_error(root, size, fits):
    write_once(root / "file", b"x" * size)
    if fits:
        assert len(read_bytes(root / "file", limit=10)) == size
        return
    with pytest.raises(StorageError, match="larger than 10 bytes"):
        read_bytes(root / "file", limit=10)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_local_files_and_folders_are_private_to_the_user(tmp_path, umask):
    old = os.umask(umask)
    try:
        write_once(ObjectStoragePath(f"{tmp_path}/a/b/file"), b"data")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a" / "b" / "file").stat().st_mode) == 0o600
    for folder in (tmp_path / "a", tmp_path / "a" / "b"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_permissions_of_existing_folders_are_not_changed(tmp_path):
    (tmp_path / "a").mkdir(mode=0o755)
    write_once(ObjectStoragePath(f"{tmp_path}/a/file"), b"data")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o755


def test_nothing_is_left_of_a_file_that_does_not_fit(tmp_path):
    """Otherwise the next attempt says that the file exists, and not that the disk is full."""
    code = """
import resource, signal, sys
from airflow.sdk import ObjectStoragePath
from tavus_provider.storage.object_storage import StorageError, write_once
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for attempt in range(2):
    try:
        write_once(ObjectStoragePath(sys.argv[1]), b"x" * 2000)
    except StorageError as error:
        print("reason:", error.reason)
"""
    run = subprocess.run(
        [sys.executable, "-c", code, f"{tmp_path}/1"], capture_output=True, text=True, check=True
    )
    assert run.stdout.count(f"reason: {os.strerror(errno.EFBIG)}") == 2
    assert list(tmp_path.iterdir()) == []


def test_file_and_every_new_folder_are_synchronized(tmp_path, monkeypatch):
    synchronized = []
    fsync = os.fsync

    def note(descriptor):
        synchronized.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    write_once(ObjectStoragePath(f"{tmp_path}/a/b/1"), b"data")
    assert synchronized == [str(tmp_path), f"{tmp_path}/a", f"{tmp_path}/a/b/1", f"{tmp_path}/a/b"]
    synchronized.clear()
    write_once(ObjectStoragePath(f"{tmp_path}/a/b/2"), b"data")
    assert synchronized == [f"{tmp_path}/a/b/2", f"{tmp_path}/a/b"]


@pytest.mark.parametrize(
    ("number", "is_fault"),
    [
        pytest.param(errno.EINVAL, False, id="folders-cannot-be-synchronized"),
        pytest.param(errno.EIO, True, id="disk-fails"),
    ],
)
def test_only_a_file_system_without_folder_sync_is_tolerated(tmp_path, monkeypatch, number, is_fault):
    fsync = os.fsync

    def fail_for_folders(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail_for_folders)
    if not is_fault:
        write_once(ObjectStoragePath(f"{tmp_path}/file"), b"data")
        return
    with pytest.raises(StorageError) as caught:
        write_once(ObjectStoragePath(f"{tmp_path}/file"), b"data")
    assert caught.value.reason == os.strerror(number)


def test_folder_that_is_a_file_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError) as caught:
        write_once(ObjectStoragePath(f"{tmp_path}/file/a/b"), b"data")
    assert caught.value.reason == "Not a directory"


def test_folder_created_by_another_process_meanwhile_is_used(tmp_path, monkeypatch):
    mkdir = os.mkdir

    def create_first(path, mode):
        mkdir(path)
        mkdir(path, mode)

    monkeypatch.setattr(os, "mkdir", create_first)
    write_once(ObjectStoragePath(f"{tmp_path}/a/file"), b"data")
    assert (tmp_path / "a" / "file").read_bytes() == b"data"


def test_folders_are_created_where_a_storage_needs_them(bucket, monkeypatch):
    """As over SFTP: a file cannot be created in a folder that does not exist."""
    fs = bucket.fs
    open_ = type(fs)._open

    def open_in_folder(self, path, mode="rb", **options):
        if "x" in mode and not self.isdir(self._parent(path)):
            raise FileNotFoundError(path)
        return open_(self, path, mode=mode, **options)

    monkeypatch.setattr(type(fs), "_open", open_in_folder)
    write_once(bucket / "a" / "file", b"data")
    assert read_bytes(bucket / "a" / "file") == b"data"


def test_modification_time_is_known_or_none(tmp_path, bucket, monkeypatch):
    moment = datetime(2026, 9, 1, tzinfo=UTC) + timedelta(seconds=0.5)
    (tmp_path / "file").touch()
    os.utime(tmp_path / "file", (moment.timestamp(), moment.timestamp()))
    assert modified_at(ObjectStoragePath(f"{tmp_path}/file")) == moment
    assert modified_at(ObjectStoragePath(f"{tmp_path}/missing")) is None
    write_once(bucket / "file", b"")
    written = bucket.fs.modified((bucket / "file").path)
    assert modified_at(bucket / "file") == written
    monkeypatch.delattr(type(bucket.fs), "modified")
    assert modified_at(bucket / "file") is None


@pytest.mark.parametrize("protocol", ["s3", "gs", "abfs"])
def test_missing_bucket_is_not_created(bucket, monkeypatch, protocol):
    """With a mistyped name, records would go to a bucket without object lock and without a lifecycle."""
    made = []
    missing = bucket / "folder" / "file"
    monkeypatch.setattr(type(missing), "protocol", protocol)
    monkeypatch.setattr(type(missing), "mkdir", lambda *_, **__: made.append(1))

    def fail(path, data):
        raise FileNotFoundError(path)

    monkeypatch.setattr("tavus_provider.storage.object_storage._put", fail)
    with pytest.raises(StorageError) as caught:
        write_once(missing, b"x")
    assert caught.value.is_missing
    assert made == []


# -- one place for all paths


def test_no_other_module_opens_a_path():
    """The sandbox uses nothing of the package, and the CLI reads and writes the files named by its user."""
    package = Path(tavus_provider.__file__).parent
    methods = {"open", "read_bytes", "read_text", "write_bytes", "write_text", "mkdir", "iterdir", "stat"}
    found = []
    for file in sorted(package.rglob("*.py")):
        name = file.relative_to(package).as_posix()
        if name == "storage/object_storage.py" or name.startswith(("sandbox/", "cli/")):
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Call(func=ast.Attribute(attr=called)) if called in methods:
                    found.append((name, called))
                case ast.Call(func=ast.Name(id="open" | "ObjectStoragePath" as called)):
                    found.append((name, called))
    assert found == []


# -- faults


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        pytest.param(RuntimeError(SECRET), "RuntimeError", id="library"),
        pytest.param(ValueError(f"https://{SECRET}@host/"), "ValueError", id="url"),
        pytest.param(
            OSError(errno.EIO, f"line one\nline two {SECRET}"), os.strerror(errno.EIO), id="operating-system"
        ),
        pytest.param(PermissionError(SECRET), "PermissionError", id="no-errno"),
    ],
)
@pytest.mark.parametrize("action", ["read", "read with a limit", "write", "list"])
def test_text_of_a_storage_library_is_never_repeated(bucket, monkeypatch, error, reason, action):
    def fail(*_, **__):
        raise error

    for method in ("_open", "cat_file", "ls"):
        monkeypatch.setattr(type(bucket.fs), method, fail)
    act = {
        "read": lambda: read_bytes(bucket / "file"),
        "read with a limit": lambda: read_bytes(bucket / "file", limit=1),
        "write": lambda: write_once(bucket / "file", b""),
        "list": lambda: list_names(bucket),
    }[action]
    with pytest.raises(StorageError) as caught:
        act()
    assert SECRET not in str(caught.value)
    assert caught.value.reason == reason
    assert caught.value.__context__ is None
    assert isinstance(caught.value, TavusError)


def test_credentials_in_a_location_are_not_shown():
    assert redact(f"s3://key:{SECRET}@bucket/x") == "s3://***@bucket/x"
    assert redact("s3://aws_default@bucket/x") == "s3://aws_default@bucket/x"
    assert redact("/etc/policy.yaml") == "/etc/policy.yaml"
