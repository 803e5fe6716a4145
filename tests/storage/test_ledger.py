"""Attempts are read as they were written, also after a crash, and from a storage that fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from airflow.configuration import AIRFLOW_HOME
from airflow.sdk import ObjectStoragePath
from storage.attempts import JOB, ORIGIN, record_attempt, record_files

from tavus_provider.exceptions import LedgerUnavailableError, TavusValidationError
from tavus_provider.planning.attempts import last_outcomes
from tavus_provider.storage.attempts import read_attempts
from tavus_provider.storage.ledger import Ledger, job_name, ledger_root
from tavus_provider.storage.ledger_verify import compare_report, verify

SECRET = "AKIA-and-what-follows"


def findings(ledger):
    return verify(ledger.root)[1]


# -- writing and reading


def test_attempt_is_read_as_it_was_written(ledger):
    writer = record_attempt(ledger)
    (attempt,) = ledger.attempts(JOB)
    assert [r["kind"] for r in attempt.records] == ["begin", "outcome", "outcome", "verification", "end"]
    assert {r["version"] for r in attempt.records} == {1}
    assert (attempt.name, attempt.job) == (writer.name, f"{ledger.account_folder}/{JOB}")
    assert (attempt.is_closed, attempt.flaws, attempt.intended) == (True, (), {"r1", "r2"})
    assert attempt.outcomes == {"r1": "deleted", "r2": "deleted"}
    assert attempt.records[-1]["records"] == 5
    assert ledger.attempts_of_kind("plan") == [attempt] == verify(ledger.root)[0]
    assert ledger.attempts_of_kind("delete") == ledger.attempts("plan-other") == findings(ledger) == []


def test_each_record_has_its_digest_and_that_of_the_record_before_it(ledger):
    record_attempt(ledger)
    (attempt,) = ledger.attempts(JOB)
    digests = [r["digest"] for r in attempt.records]
    assert [r["previous"] for r in attempt.records] == [None, *digests[:-1]]
    assert len(set(digests)) == 5
    assert attempt.last_digest == digests[-1]


def test_attempts_are_in_the_order_in_which_they_started(ledger):
    names = [
        record_attempt(ledger, job=job_name("plan", digest)).name for digest in ("b" * 64, "a" * 64, "c" * 64)
    ]
    assert [attempt.name for attempt in ledger.attempts_of_kind("plan")] == names


def test_accounts_are_separate(root):
    record_attempt(Ledger(ORIGIN, "tavus_default", root))
    for other in (Ledger(ORIGIN, "eu", root), Ledger("http://127.0.0.1:8600", "tavus_default", root)):
        assert other.attempts_of_kind("plan") == []
    assert len(verify(root)[0]) == 1


@pytest.mark.parametrize("conn_id", ["../../etc", "..", ".", "a/b", "a b", "ü", "x" * 300, "", "a\nb"])
def test_every_connection_id_has_its_own_folder_in_the_ledger(local_ledger, conn_id):
    root = local_ledger.root
    ledger, similar = Ledger(ORIGIN, conn_id, root), Ledger(ORIGIN, conn_id.replace("/", "_"), root)
    writer = record_attempt(ledger)
    assert len(writer.name.split("/")) == 4
    assert root.fs.exists(writer.folder.path)
    assert ledger == similar or similar.attempts_of_kind("plan") == []
    assert findings(local_ledger) == []


def test_ledger_is_the_configured_location_or_a_folder_in_airflow_home(monkeypatch, tmp_path):
    assert str(ledger_root()) == f"{AIRFLOW_HOME}/tavus-ledger"
    monkeypatch.setenv("AIRFLOW__TAVUS__LEDGER", str(tmp_path))
    assert str(ledger_root()) == str(tmp_path)
    assert read_attempts(ledger_root(), []) == []


@pytest.mark.parametrize("location", ["relative-ledger", "./relative-ledger", "file://relative-ledger"])
def test_relative_ledger_is_written_and_read_in_airflow_home(monkeypatch, tmp_path, location):
    """Case A8: a relative ledger was written in one folder and read in another."""
    monkeypatch.setenv("AIRFLOW__TAVUS__LEDGER", location)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    conn_id = f"conn-{tmp_path.name}"  # AIRFLOW_HOME is that of all tests
    monkeypatch.chdir(tmp_path / "a")
    writer = record_attempt(Ledger(ORIGIN, conn_id))
    monkeypatch.chdir(tmp_path / "b")
    assert os.path.isdir(f"{AIRFLOW_HOME}/relative-ledger/{writer.name}")
    assert list(tmp_path.glob("*/*")) == []
    reader = Ledger(ORIGIN, conn_id)
    (attempt,) = reader.attempts(JOB)
    assert (attempt.name, attempt.outcomes) == (writer.name, {"r1": "deleted", "r2": "deleted"})
    assert reader.attempts_of_kind("plan") == [attempt]
    attempts, found = verify(ledger_root())
    assert [one for one in attempts if one.name == writer.name] == [attempt]
    assert found == []
    report = {"ledger": writer.name, "items": [{"replica_id": "r1", "outcome": "deleted"}]}
    assert compare_report(attempts, report) == ["r2: missing in the report, deleted in the ledger"]


# -- crashes and simultaneous writers


WRITER = """
import os, sys
from airflow.sdk import ObjectStoragePath
from tavus_provider.storage.ledger import Ledger
root, job, count, stop_at = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
writer = Ledger("https://tavusapi.com", "tavus_default", ObjectStoragePath(root)).begin_attempt(
    job, hard=False, intent=["r1"])
print("ready", flush=True)
sys.stdin.readline()
fdopen = os.fdopen
class Half:
    def __init__(self, file):
        self.file = file
    def __enter__(self):
        return self
    def __exit__(self, *_):
        pass
    def write(self, data):
        self.file.write(data[:100])
        self.file.flush()
        print("half", flush=True)
        sys.stdin.readline()
for n in range(count):
    if n == stop_at:
        os.fdopen = lambda *arguments: Half(fdopen(*arguments))
    writer.write("outcome", outcomes={f"r{n}": "deleted"})
print("written", flush=True)
"""


@contextmanager
def writer_process(ledger, count, stop_at=-1):
    """A process that has started an attempt. After :func:`go` it writes, and may stop inside a record."""
    arguments = [sys.executable, "-c", WRITER, str(ledger.root), JOB, str(count), str(stop_at)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            wait_for(process, "ready")
            yield process
        finally:
            process.kill()


def wait_for(process, word):
    assert f"{word}\n" in iter(process.stdout.readline, "")  # Airflow prints lines of its own first


def go(process):
    process.stdin.write("\n")
    process.stdin.flush()


def test_writer_killed_inside_a_record_is_found_and_the_next_attempt_continues(local_ledger):
    with writer_process(local_ledger, 3, stop_at=1) as process:
        go(process)
        wait_for(process, "half")
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    (killed,) = local_ledger.attempts(JOB)
    assert killed.flaws == ("record 3 was changed, or was not written completely",)
    assert (killed.intended, killed.outcomes, killed.is_closed) == ({"r1"}, {"r0": "deleted"}, False)
    record_attempt(local_ledger)
    assert [attempt.is_closed for attempt in local_ledger.attempts(JOB)] == [False, True]
    assert findings(local_ledger) == [f"{killed.name} record 3 was changed, or was not written completely"]


@pytest.mark.parametrize("size", [0, 1, 10, -1])
def test_attempt_with_an_incomplete_first_record_has_no_intent(local_ledger, size):
    writer = record_attempt(local_ledger)
    first, *others = record_files(writer)
    for path in others:
        path.unlink()
    first.write_bytes(first.read_bytes()[:size])
    (attempt,) = local_ledger.attempts(JOB)
    assert (attempt.records, attempt.begin_record, attempt.intended) == ((), {}, frozenset())
    assert findings(local_ledger)[0] == f"{writer.name} record 1 was changed, or was not written completely"
    record_attempt(local_ledger)
    assert [attempt.is_closed for attempt in local_ledger.attempts(JOB)] == [False, True]


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"{}", b"\xff\xfe", b"{", b"[" * 100_000])
def test_attempt_whose_first_file_is_not_a_record_is_empty(local_ledger, data):
    writer = record_attempt(local_ledger)
    record_files(writer)[0].write_bytes(data)
    (attempt,) = local_ledger.attempts(JOB)
    assert (attempt.records, attempt.outcomes, attempt.is_closed) == ((), {}, False)
    assert attempt.flaws == ("record 1 was changed",)


def test_two_processes_do_not_touch_the_records_of_each_other(local_ledger):
    with writer_process(local_ledger, 60) as one, writer_process(local_ledger, 60) as other:
        go(one)
        go(other)
        wait_for(one, "written")
        wait_for(other, "written")
    attempts = local_ledger.attempts(JOB)
    assert [len(attempt.records) for attempt in attempts] == [61, 61]
    assert [attempt.flaws for attempt in attempts] == [(), ()]
    assert len({attempt.name for attempt in attempts}) == 2


def test_record_never_overwrites_a_file(local_ledger):
    writer = local_ledger.begin_attempt(JOB, hard=False)
    (writer.folder / "000002.json").write_bytes(b"of another process")
    with pytest.raises(
        LedgerUnavailableError, match=r"^the ledger cannot be written at .* \(File exists\), and nothing is"
    ):
        writer.write("outcome", outcomes={})
    assert (writer.folder / "000002.json").read_bytes() == b"of another process"


# -- a storage that fails


def message_of(caught):
    message = str(caught.value)
    assert "\n" not in message
    assert "[" not in message  # rich would read it as markup
    assert caught.value.__context__ is None
    return message


def test_unavailable_ledger_is_named_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    ledger = Ledger(ORIGIN, "tavus_default", ObjectStoragePath(str(tmp_path / "file" / "ledger")))
    for action, call in (
        ("read", lambda: ledger.begin_attempt(JOB, hard=False)),
        ("read", lambda: ledger.attempts(JOB)),
        ("read", lambda: ledger.attempts_of_kind("plan")),
        ("read", lambda: verify(ledger.root)),
    ):
        with pytest.raises(LedgerUnavailableError) as caught:
            call()
        message = message_of(caught)
        assert message.startswith(f"the ledger cannot be {action} at '{tmp_path}/file/ledger")
        assert message.endswith(
            "(Not a directory), and nothing is deleted without a record: set ledger in section tavus of the "
            "configuration to a location that works"
        )


def test_record_that_cannot_be_read_is_not_treated_as_missing(local_ledger):
    writer = record_attempt(local_ledger)
    path = record_files(writer)[1]
    path.unlink()
    path.mkdir()
    with pytest.raises(LedgerUnavailableError, match=r"cannot be read at .*000002.json' \(Is a directory\)"):
        local_ledger.attempts(JOB)


def test_credentials_in_the_location_of_the_ledger_are_not_repeated():
    ledger = Ledger(ORIGIN, "c", ObjectStoragePath(f"s3://key:{SECRET}@bucket/ledger"))
    for call in (lambda: ledger.begin_attempt(JOB), lambda: ledger.attempts(JOB)):
        with pytest.raises(LedgerUnavailableError) as caught:
            call()
        assert SECRET not in message_of(caught)


def test_full_disk_is_noticed_when_the_record_is_written(local_ledger, monkeypatch):
    writer = local_ledger.begin_attempt(JOB, hard=False)

    def fsync(_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(LedgerUnavailableError, match="No space left on device"):
        writer.write("outcome", outcomes={})


# -- a ledger that all workers share


@pytest.mark.parametrize(
    ("executor", "named"),
    [
        ("CeleryExecutor", "CeleryExecutor"),
        ("KubernetesExecutor", "KubernetesExecutor"),
        ("LocalExecutor,CeleryExecutor", "CeleryExecutor, LocalExecutor"),
        (" LocalExecutor , CeleryExecutor ", "CeleryExecutor, LocalExecutor"),
        ("LocalExecutor,far:KubernetesExecutor", "KubernetesExecutor, LocalExecutor"),
        ("far:airflow.providers.cncf.kubernetes.executors.kubernetes_executor.KubernetesExecutor", "Kube"),
        ("airflow.providers.amazon.aws.executors.ecs.AwsEcsExecutor", "AwsEcsExecutor"),
        ("LocalExecutor;team1=CeleryExecutor", "CeleryExecutor"),
        ("my.own.Executor", "Executor"),
    ],
)
def test_local_ledger_is_refused_with_a_remote_executor(local_ledger, monkeypatch, executor, named):
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executor)
    with pytest.raises(TavusValidationError) as caught:
        local_ledger.require_shared("grace")
    message = message_of(caught)
    assert message.startswith(
        f"grace needs a ledger that all workers share, but '{local_ledger.root}' is a local path and the "
        f"executor is {named}"
    )
    assert message.endswith(
        ": set ledger in section tavus of the configuration to a bucket; or, if this path is on a file "
        "system "
        "that all workers share, set ledger_is_shared there to True. Nothing was deleted"
    )


def test_local_ledger_that_is_declared_shared_is_accepted(local_ledger, monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    monkeypatch.setenv("AIRFLOW__TAVUS__LEDGER_IS_SHARED", "True")
    local_ledger.require_shared("grace")
    assert local_ledger.find_unshared("grace") is None


@pytest.mark.parametrize("value", ["False", "0"])
def test_local_ledger_that_is_declared_not_shared_is_refused(local_ledger, monkeypatch, value):
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    monkeypatch.setenv("AIRFLOW__TAVUS__LEDGER_IS_SHARED", value)
    with pytest.raises(TavusValidationError, match="needs a ledger that all workers share"):
        local_ledger.require_shared("grace")


def test_value_of_ledger_is_shared_that_is_no_boolean_is_refused(local_ledger, monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    monkeypatch.setenv("AIRFLOW__TAVUS__LEDGER_IS_SHARED", "nfs")
    with pytest.raises(TavusValidationError, match=r"ledger_is_shared .* is 'nfs'; expected True or False"):
        local_ledger.require_shared("grace")


@pytest.mark.parametrize(
    "executor", ["LocalExecutor", "near:LocalExecutor", "airflow.executors.local_executor.LocalExecutor"]
)
def test_local_ledger_is_accepted_with_a_local_executor(local_ledger, monkeypatch, executor):
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executor)
    local_ledger.require_shared("grace")


def test_bucket_is_accepted_with_every_executor(monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    for root in ("memory://bucket/ledger", "s3://aws_default@bucket/ledger", "gs://bucket"):
        Ledger(ORIGIN, "tavus_default", ObjectStoragePath(root)).require_shared("grace")


@pytest.mark.parametrize("prefix", ["", "file://", "local://"])
def test_local_ledger_is_recognized_in_every_notation(monkeypatch, tmp_path, prefix):
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    monkeypatch.setenv("AIRFLOW__TAVUS__LEDGER", f"{prefix}{tmp_path}")
    with pytest.raises(TavusValidationError):
        Ledger(ORIGIN, "tavus_default").require_shared("grace")


def test_later_attempt_comes_last_although_the_clock_of_its_worker_is_behind(root):
    time = [datetime(2026, 11, 1, 12, tzinfo=UTC)]
    ledger = Ledger(ORIGIN, "tavus_default", root, now=lambda: time[0])
    names = []
    for minutes, outcome in ((4, "failed"), (-1, "deleted"), (-2, "unknown"), (9, "deleted"), (1, "unknown")):
        time[0] = datetime(2026, 11, 1, 12, tzinfo=UTC) + timedelta(minutes=minutes)
        prior = {attempt.name: attempt.last_digest for attempt in ledger.attempts(JOB)}
        writer = ledger.begin_attempt(JOB, hard=False, intent=["r1"], prior_attempts=prior)
        writer.close(outcomes={"r1": outcome})
        names.append(writer.name)
        assert [attempt.name for attempt in ledger.attempts(JOB)] == names
        assert last_outcomes(ledger.attempts(JOB)) == {"r1": outcome}


def test_mistyped_url_of_the_ledger_is_no_folder_in_airflow_home(monkeypatch):
    monkeypatch.setenv("AIRFLOW__TAVUS__LEDGER", "s3:/bucket/ledger")
    with pytest.raises(LedgerUnavailableError) as caught:
        ledger_root()
    assert str(caught.value).startswith(
        "the ledger cannot be read at 's3:/bucket/ledger' (not a URL: expected s3:// and "
    )
