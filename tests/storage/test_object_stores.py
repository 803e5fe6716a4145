"""
The ledger in S3 (moto) and in Azure Blob Storage (azurite). ``make test-storage`` installs both.

Without them these tests are skipped.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from airflow.sdk import ObjectStoragePath
from storage.attempts import ORIGIN

from tavus_provider.digest import seal
from tavus_provider.exceptions import LedgerUnavailableError
from tavus_provider.storage import plan_store
from tavus_provider.storage.checkpoints import CHECKPOINT_AFTER
from tavus_provider.storage.history import soft_deleted
from tavus_provider.storage.ledger import Ledger, job_name
from tavus_provider.storage.ledger_verify import verify
from tavus_provider.storage.object_storage import StorageError, modified_at, read_bytes, resolve, write_once
from tavus_provider.storage.policy_files import read_policy

SECRET = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The key of every azurite; also used for moto, which accepts all."""


@pytest.fixture(scope="module")
def s3():
    """A client of an S3 server with the bucket ``plain`` and the bucket ``locked``, which has object lock."""
    pytest.importorskip("s3fs")
    pytest.importorskip("airflow.providers.amazon")
    server_module = pytest.importorskip("moto.server")
    boto3 = pytest.importorskip("boto3")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    client = boto3.client(
        "s3", endpoint_url=url, aws_access_key_id="key", aws_secret_access_key=SECRET, region_name="us-east-1"
    )
    client.create_bucket(Bucket="plain")
    client.create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
    rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
    client.put_object_lock_configuration(
        Bucket="locked", ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
    )
    extra = {"endpoint_url": url, "region_name": "us-east-1"}
    connection = {"conn_type": "aws", "login": "key", "password": SECRET, "extra": extra}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_STORE_S3", json.dumps(connection))
        yield client
    server.stop()


@pytest.fixture(scope="module")
def azure(tmp_path_factory):
    """An Azure Blob Storage server with the container ``plain``."""
    pytest.importorskip("adlfs")
    pytest.importorskip("airflow.providers.microsoft.azure")
    blob = pytest.importorskip("azure.storage.blob")
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("azurite-blob is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = str(tmp_path_factory.mktemp("azurite"))
    options = ["--silent", "--skipApiVersionCheck", "--disableTelemetry", "--blobPort", str(port)]
    with subprocess.Popen([program, "--location", folder, *options], stdout=subprocess.DEVNULL) as process:
        try:
            wait_for_port(port)
            account = f"AccountName=devstoreaccount1;AccountKey={SECRET}"
            endpoint = f"BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1"
            text = f"DefaultEndpointsProtocol=http;{account};{endpoint};"
            blob.BlobServiceClient.from_connection_string(text).create_container("plain")
            connection = {"conn_type": "wasb", "extra": {"connection_string": text}}
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("AIRFLOW_CONN_STORE_AZURE", json.dumps(connection))
                yield
        finally:
            process.kill()


def wait_for_port(port):
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            assert time.monotonic() < deadline, "azurite does not start"
            time.sleep(0.1)
        else:
            return


@pytest.fixture(params=["s3", "s3-locked", "azure"])
def url(request, tmp_path):
    """An empty folder in each storage."""
    if request.param == "azure":
        request.getfixturevalue("azure")
        return f"abfs://store_azure@plain{tmp_path}"
    request.getfixturevalue("s3")
    bucket = "locked" if request.param == "s3-locked" else "plain"
    return f"s3://store_s3@{bucket}{tmp_path}"


@pytest.fixture
def ledger(url):
    return Ledger(ORIGIN, "tavus_default", ObjectStoragePath(url))


def run(ledger, replica_id, **fields):
    writer = ledger.begin_attempt(job_name("plan", replica_id), hard=False, intent=[replica_id], **fields)
    writer.close(outcomes={replica_id: "deleted"})
    return writer


def test_history_is_read_from_a_checkpoint_and_verified(ledger, url):
    for number in range(CHECKPOINT_AFTER + 2):
        run(ledger, f"r{number}x")
    other_process = Ledger(ORIGIN, "tavus_default", ObjectStoragePath(url))
    assert len(soft_deleted(other_process)) == CHECKPOINT_AFTER + 2
    assert other_process.recent().checkpoint is not None
    assert len(other_process.recent().attempts) == 2
    attempts, findings = verify(ledger.root)
    assert (len(attempts), findings) == (CHECKPOINT_AFTER + 2, [])


def test_new_attempt_is_seen_at_once(ledger, url):
    """No listing comes from a cache."""
    other = Ledger(ORIGIN, "tavus_default", ObjectStoragePath(url))
    for number in range(3):
        assert len(other.recent().attempts) == number
        run(ledger, f"r{number}x")


def test_existing_file_is_not_overwritten(url):
    path = resolve(url) / "file.json"
    write_once(path, b"first")
    with pytest.raises(StorageError) as caught:
        write_once(path, b"second")
    assert caught.value.exists
    assert read_bytes(path) == b"first"
    assert modified_at(path) is not None


def test_one_of_several_writers_creates_a_file(url):
    path = resolve(url) / "file.json"

    def write(number):
        try:
            write_once(path, b"%d" % number)
        except StorageError as error:
            return None if error.exists else error
        return b"%d" % number

    with ThreadPoolExecutor(8) as pool:
        written = [data for data in pool.map(write, range(8)) if data is not None]
    assert written == [read_bytes(path)]


def test_changed_record_is_found(ledger):
    writer = run(ledger, "r1x")
    run(ledger, "r2x")
    path = writer.folder / "000002.json"
    path.fs.pipe_file(path.path, b"{}")
    findings = verify(ledger.root)[1]
    assert f"{writer.name} record 2 was changed, or was not written completely" in findings


def test_plan_is_stored_once_and_found(url, monkeypatch):
    monkeypatch.setenv("AIRFLOW__TAVUS__LEDGER", url)
    plan = seal({"version": 1})
    assert plan_store.store(plan) == plan_store.store(plan)
    assert plan_store.load(plan["digest"]) == plan


def test_policy_is_read(url):
    write_once(resolve(url) / "policy.yaml", b"{name: stale, expire: [{older_than: 90d}]}")
    assert read_policy(f"{url}/policy.yaml").name == "stale"


def test_missing_bucket_is_an_error_without_the_key(url):
    missing = url.replace("@plain", "@missing").replace("@locked", "@missing")
    with pytest.raises(LedgerUnavailableError) as caught:
        run(Ledger(ORIGIN, "tavus_default", ObjectStoragePath(missing)), "r1x")
    assert SECRET not in str(caught.value)
    with pytest.raises(StorageError):  # and nothing has created it
        write_once(resolve(missing) / "file.json", b"x")


def test_object_lock_keeps_what_is_removed(s3, tmp_path):
    """What a removal leaves in a bucket with object lock is a marker; the record stays as a version."""
    ledger = Ledger(ORIGIN, "tavus_default", ObjectStoragePath(f"s3://store_s3@locked{tmp_path}"))
    writer = run(ledger, "r1x")
    key = f"{str(tmp_path)[1:]}/{writer.name}/000002.json"
    (version,) = s3.list_object_versions(Bucket="locked", Prefix=key)["Versions"]
    with pytest.raises(Exception, match="AccessDenied"):
        s3.delete_object(Bucket="locked", Key=key, VersionId=version["VersionId"])
    s3.delete_object(Bucket="locked", Key=key)
    assert any("is not closed" in finding for finding in verify(ledger.root)[1])
    assert len(s3.list_object_versions(Bucket="locked", Prefix=key)["Versions"]) == 1


def test_stores_are_tested_where_they_are_installed():
    """``make test-storage`` sets this, so that a missing package is a failure and not a skip."""
    if os.environ.get("TAVUS_TEST_STORES"):
        for name in ("moto.server", "s3fs", "adlfs"):
            __import__(name)
        assert shutil.which("azurite-blob"), "npm could not install azurite"
