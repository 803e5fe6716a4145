"""Ledgers for the tests: in a local folder, and in a memory file system that behaves like a bucket."""

from __future__ import annotations

import pytest
from airflow.sdk import ObjectStoragePath
from storage.attempts import ORIGIN

from tavus_provider.storage.ledger import Ledger


@pytest.fixture
def bucket(tmp_path):
    """An empty folder in a storage that is not local."""
    import fsspec
    from airflow.sdk.io import attach

    attach("memory", fs=fsspec.filesystem("memory"))
    return ObjectStoragePath(f"memory://bucket{tmp_path}")


@pytest.fixture(params=["local", "bucket"])
def root(request, tmp_path):
    """The root of a ledger, in each kind of storage."""
    if request.param == "local":
        return ObjectStoragePath(str(tmp_path / "ledger"))
    return request.getfixturevalue("bucket")


@pytest.fixture
def ledger(root):
    return Ledger(ORIGIN, "tavus_default", root)


@pytest.fixture
def local_ledger(tmp_path):
    return Ledger(ORIGIN, "tavus_default", ObjectStoragePath(str(tmp_path / "ledger")))
