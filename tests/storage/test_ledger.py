"""The ledger in its storage: what a hand or a crash does to it is found, and the next try goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
from airflow.sdk import ObjectStoragePath

from tavus_provider.digest import canonical_digest, canonical_json, seal
from tavus_provider.exceptions import LedgerUnavailableError, TavusValidationError
from tavus_provider.storage.ledger import Ledger, job_name, read_attempts
from tavus_provider.storage.ledger_verify import compare_report, verify

ORIGIN = "https://tavusapi.com"
WORK = job_name("plan", "d" * 64)
LOCAL = "LocalExecutor"


@pytest.fixture(params=["file", "memory"])
def root(request, tmp_path):
    """A place for a ledger: a folder, and something that is none, as a bucket is."""
    if request.param == "file":
        return ObjectStoragePath(str(tmp_path / "ledger"))
    import fsspec
    from airflow.sdk.io import attach

    attach("memory", fs=fsspec.filesystem("memory"))
    return ObjectStoragePath(f"memory://bucket{tmp_path}")


@pytest.fixture
def ledger(root):
    return Ledger(ORIGIN, "tavus_default", root)


@pytest.fixture
def local(tmp_path):
    return Ledger(ORIGIN, "tavus_default", ObjectStoragePath(str(tmp_path / "ledger")))


def record(ledger, *, work=WORK, ids=("r1", "r2"), **fields):
    """A whole try: begin, two outcomes, a verification, the end."""
    earlier = {one.name: one.last_digest for one in ledger.attempts(work)}
    entry = ledger.begin_attempt(work, hard=False, intent=list(ids), prior_attempts=earlier, **fields)
    for replica_id in ids:
        entry.write("outcome", outcomes={replica_id: "deleted"})
    entry.write("verification", listed=7)
    entry.close(outcomes=dict.fromkeys(ids, "deleted"))
    return entry


def files(entry):
    return sorted(entry.folder.iterdir(), key=lambda path: path.name)


def findings(ledger):
    return verify(ledger.root)[1]


# -- what is written


def test_a_try_reads_as_it_was_recorded(ledger):
    entry = record(ledger)
    (one,) = ledger.attempts(WORK)
    assert [r["kind"] for r in one.records] == ["begin", "outcome", "outcome", "verification", "end"]
    assert (one.name, one.closed, one.flaws, one.intended) == (entry.name, True, (), {"r1", "r2"})
    assert one.outcomes == {"r1": "deleted", "r2": "deleted"}
    assert one.records[-1]["records"] == 5
    assert ledger.attempts_of_kind("plan") == [one] == verify(ledger.root)[0]
    assert ledger.attempts_of_kind("delete") == ledger.attempts("plan-other") == findings(ledger) == []


def test_each_record_names_the_digest_of_the_one_before_it_and_has_its_own(ledger):
    record(ledger)
    (one,) = ledger.attempts(WORK)
    digests = [r["digest"] for r in one.records]
    assert [r["previous"] for r in one.records] == [None, *digests[:-1]]
    assert len(set(digests)) == 5
    assert one.last_digest == digests[-1]


def test_tries_come_in_the_order_in_which_they_began(ledger):
    names = [record(ledger, work=job_name("plan", digest)).name for digest in ("b" * 64, "a" * 64, "c" * 64)]
    assert [one.name for one in ledger.attempts_of_kind("plan")] == names


def test_accounts_do_not_see_each_other(root):
    record(Ledger(ORIGIN, "tavus_default", root))
    for other in (Ledger(ORIGIN, "eu", root), Ledger("http://127.0.0.1:8600", "tavus_default", root)):
        assert other.attempts_of_kind("plan") == []
    assert len(verify(root)[0]) == 1


@pytest.mark.parametrize("conn_id", ["../../etc", "..", ".", "a/b", "a b", "ü", "x" * 300, "", "a\nb"])
def test_no_connection_id_leads_out_of_the_ledger_nor_to_another_account(local, conn_id):
    odd, plain = Ledger(ORIGIN, conn_id, local.root), Ledger(ORIGIN, conn_id.replace("/", "_"), local.root)
    entry = record(odd)
    assert len(entry.name.split("/")) == 4
    assert local.root.fs.exists(entry.folder.path)
    assert odd == plain or plain.attempts_of_kind("plan") == []
    assert findings(local) == []


# -- what is found


def flipped(blob, at):
    return blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :]


@pytest.mark.parametrize("number", range(5))
def test_a_flipped_byte_is_found_wherever_it_is(local, number):
    entry = record(local)
    path = files(entry)[number]
    blob = path.read_bytes()
    # every brace, quote, colon and comma, and a byte of each key, value, digest and number between them
    for at in range(0, len(blob), 1 if number in (0, 4) else 7):
        path.write_bytes(flipped(blob, at))
        (found,) = findings(local)[:1]
        assert found.startswith(f"{entry.name} record {number + 1} was changed")
        assert len(local.attempts(WORK)[0].records) == number
    path.write_bytes(blob)
    assert findings(local) == []


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda r: r | {"hard": True}, id="a-field-of-a-record-sealed-anew"),
        pytest.param(lambda r: r | {"previous": "0" * 64}, id="another-past"),
        pytest.param(lambda r: r | {"number": 9}, id="another-number"),
    ],
)
def test_a_record_that_was_written_anew_is_found_by_the_one_after_it_or_by_a_later_try(
    ledger, number, change
):
    entry = record(ledger)
    record(ledger)
    path = files(entry)[number]
    path.write_bytes(canonical_json(seal(change(json.loads(path.read_bytes())))))
    assert [one for one in findings(ledger) if one.startswith(entry.name)]


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"null", b"[]", b"0", b'"x"', b"{}", b'{"digest":1}', b"\xff\xfe", b"{", b"[" * 100_000),
        canonical_json(seal({"number": 1, "previous": None})),
        canonical_json(seal({"number": 1, "previous": None, "kind": ["begin"]})),
    ],
    ids=lambda content: repr(content[:30]),
)
def test_what_is_no_record_is_found_and_read_as_none(local, content):
    entry = record(local)
    files(entry)[0].write_bytes(content)
    (one,) = local.attempts(WORK)
    assert (one.records, one.intended, one.outcomes, one.closed) == ((), frozenset(), {}, False)
    assert f"{entry.name} record 1 was changed" in findings(local)


@pytest.mark.parametrize(
    ("number", "found"),
    [
        pytest.param(0, "has no record 1: it was removed or renamed", id="first"),
        pytest.param(2, "has no record 3: it was removed or renamed", id="middle"),
        pytest.param(3, "has no record 4: it was removed or renamed", id="the-one-before-the-last"),
        pytest.param(4, "is not closed: it is still running, was stopped, or its last", id="end"),
    ],
)
def test_a_removed_record_is_found(ledger, number, found):
    entry = record(ledger)
    files(entry)[number].unlink()
    assert [one for one in findings(ledger) if one.startswith(f"{entry.name} {found}")]


def test_records_that_were_exchanged_are_found(ledger):
    entry = record(ledger)
    second, third = files(entry)[1:3]
    blob = second.read_bytes()
    second.write_bytes(third.read_bytes())
    third.write_bytes(blob)
    assert f"{entry.name} record 2 does not follow the one before it" in findings(ledger)


def test_a_record_put_there_twice_is_found(ledger):
    entry = record(ledger)
    blob = files(entry)[1].read_bytes()
    for path in files(entry)[2:]:
        path.write_bytes(blob)
    assert f"{entry.name} record 3 does not follow the one before it" in findings(ledger)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("000004.json", "has no record 3"),
        ("3.json", "has no record 3"),
        ("000003.json.old", "has no record 3"),
    ],
)
def test_a_renamed_record_is_found(ledger, name, found):
    entry = record(ledger)
    third, blob = files(entry)[2], files(entry)[2].read_bytes()
    third.unlink()
    (entry.folder / name).write_bytes(blob)
    assert [one for one in findings(ledger) if one.startswith(f"{entry.name} {found}")]


def test_a_record_of_another_try_in_its_place_is_found(ledger):
    one, other = record(ledger), record(ledger)
    files(one)[2].write_bytes(files(other)[2].read_bytes())
    assert f"{one.name} record 3 does not follow the one before it" in findings(ledger)


def test_a_record_added_after_the_end_is_found(ledger):
    entry = record(ledger)
    entry.write("outcome", outcomes={"r1": "unknown"})
    assert f"{entry.name} record 6 was added after the end" in findings(ledger)
    assert ledger.attempts(WORK)[0].outcomes["r1"] == "deleted"


@pytest.mark.parametrize("what", ["whole", "all-records"])
def test_a_removed_try_that_a_later_one_names_is_found(local, what):
    entry = record(local)
    record(local)
    local.root.fs.rm(entry.folder.path, recursive=True)
    if what == "all-records":
        entry.folder.mkdir()
    said = "is missing, a later try names it" if what == "whole" else "does not end as it did when a later"
    assert [one for one in findings(local) if one.startswith(f"{entry.name} {said}")]


@pytest.mark.parametrize("removed", [1, 2, 4])
def test_a_try_cut_short_after_a_later_one_has_read_it_is_found(ledger, removed):
    entry = record(ledger)
    record(ledger)
    for path in files(entry)[-removed:]:
        path.unlink()
    assert [one for one in findings(ledger) if one.startswith(f"{entry.name} does not end as it did")]


def test_a_try_that_was_stopped_is_found_until_a_later_one_has_taken_note_of_it(ledger):
    entry = ledger.begin_attempt(WORK, hard=False, intent=["r1"])
    assert [one for one in findings(ledger) if one.startswith(f"{entry.name} is not closed")]
    record(ledger)
    assert findings(ledger) == []


def test_two_tries_at_once_of_which_the_later_names_the_one_under_way_are_no_finding(ledger):
    first = ledger.begin_attempt(WORK, hard=False, intent=["r1"])
    record(ledger)  # a second run of the same plan reads the first one while it is under way
    first.write("outcome", outcomes={"r1": "deleted"})
    first.close(outcomes={"r1": "deleted"})
    assert findings(ledger) == []


def test_a_try_under_way_that_was_named_and_lost_its_end_is_found_all_the_same(ledger):
    first = ledger.begin_attempt(WORK, hard=False, intent=["r1"])
    record(ledger)
    first.write("outcome", outcomes={"r1": "deleted"})
    first.close(outcomes={"r1": "deleted"})
    files(first)[-1].unlink()
    assert [one for one in findings(ledger) if one.startswith(f"{first.name} is not closed")]


def test_a_stray_file_is_found_and_stops_no_verification(ledger):
    entry = record(ledger)
    (entry.folder / "notes.txt").write_bytes(b"x")
    assert findings(ledger) == [f"{entry.name} holds 'notes.txt', which is no record"]


# -- held against a report


def report_of(ledger, /, **changes):
    report = {
        "plan_digest": "d" * 64,
        "counts": {"deleted": 2},
        "items": [{"replica_id": i, "outcome": "deleted", "detail": "said so"} for i in ("r1", "r2")],
    }
    entry = ledger.begin_attempt(WORK, hard=False, intent=["r1", "r2"])
    report["ledger"] = entry.name
    entry.close(outcomes={"r1": "deleted", "r2": "deleted"}, report_digest=canonical_digest(report))
    return json.loads(json.dumps(report)) | changes


def test_a_report_and_its_try_agree(ledger):
    report = report_of(ledger)
    assert compare_report(verify(ledger.root)[0], report) == []


@pytest.mark.parametrize(
    ("items", "found"),
    [
        (["deleted", "failed"], "r2: the report says failed, the ledger deleted"),
        (["deleted"], "r2: the report says nothing, the ledger deleted"),
        (["deleted", "deleted", "deleted"], "r3: the report says deleted, the ledger nothing"),
    ],
)
def test_each_id_of_which_report_and_ledger_say_different_things_is_named(ledger, items, found):
    rows = [{"replica_id": f"r{n}", "outcome": o, "detail": "said so"} for n, o in enumerate(items, start=1)]
    assert compare_report(verify(ledger.root)[0], report := report_of(ledger, items=rows)) != []
    assert compare_report(verify(ledger.root)[0], report) == [found]


@pytest.mark.parametrize("change", [{"plan_digest": "e" * 64}, {"counts": {"deleted": 3}}, {"hard": True}])
def test_a_report_whose_other_words_were_changed_is_found_too(ledger, change):
    report = report_of(ledger, **change)
    (found,) = compare_report(verify(ledger.root)[0], report)
    assert found == "the report is not the one that was recorded when its try ended"


@pytest.mark.parametrize("name", [None, "somewhere/else", 7])
def test_a_report_whose_try_is_not_there_is_found(ledger, name):
    report = report_of(ledger, ledger=name)
    assert compare_report(verify(ledger.root)[0], report) == [
        f"the try {name!r} which the report names is not in the ledger"
    ]


# -- crashes and writers


WRITER = """
import sys
from airflow.sdk import ObjectStoragePath
from tavus_provider.storage import ledger
place, work, count, stop_at = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
entry = ledger.Ledger("https://tavusapi.com", "tavus_default", ObjectStoragePath(place)).begin_attempt(
    work, hard=False, intent=["r1"])
print("ready", flush=True)
sys.stdin.readline()
for n in range(count):
    if n == stop_at:
        from fsspec.implementations.local import LocalFileOpener
        def write(file, blob):
            file.f.write(blob[:100])
            file.f.flush()
            print("half", flush=True)
            sys.stdin.readline()
        LocalFileOpener.write = write
    entry.write("outcome", outcomes={f"r{n}": "deleted"})
print("written", flush=True)
"""


@contextmanager
def writer(ledger, count, stop_at=-1):
    """A process that has begun a try and waits for a line; then it writes, and may stop inside a record."""
    arguments = [sys.executable, "-c", WRITER, str(ledger.root), WORK, str(count), str(stop_at)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            wait_for(process, "ready")
            yield process
        finally:
            process.kill()


def wait_for(process, word):
    assert f"{word}\n" in iter(process.stdout.readline, "")  # Airflow says something of its own before


def go(process):
    process.stdin.write("\n")
    process.stdin.flush()


def test_a_writer_killed_in_the_middle_of_a_record_is_found_and_the_next_try_goes_on(local):
    with writer(local, 3, stop_at=1) as process:
        go(process)
        wait_for(process, "half")
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    (torn,) = local.attempts(WORK)
    assert torn.flaws == ("record 3 was changed, or not written whole",)
    assert (torn.intended, torn.outcomes, torn.closed) == ({"r1"}, {"r0": "deleted"}, False)
    record(local)
    assert [one.closed for one in local.attempts(WORK)] == [False, True]
    assert findings(local) == [f"{torn.name} record 3 was changed, or not written whole"]


@pytest.mark.parametrize("left", [0, 1, 10, -1])
def test_a_try_whose_first_record_is_torn_has_intended_nothing(local, left):
    entry = record(local)
    first, *rest = files(entry)
    for path in rest:
        path.unlink()
    first.write_bytes(first.read_bytes()[:left])
    (one,) = local.attempts(WORK)
    assert (one.records, one.begin_record, one.intended) == ((), {}, frozenset())
    assert findings(local)[0] == f"{entry.name} record 1 was changed, or not written whole"
    record(local)
    assert [one.closed for one in local.attempts(WORK)] == [False, True]


def test_two_processes_that_write_at_once_do_not_touch_each_others_records(local):
    with writer(local, 60) as one, writer(local, 60) as other:
        go(one)
        go(other)
        wait_for(one, "written")
        wait_for(other, "written")
    tries = local.attempts(WORK)
    assert [len(one.records) for one in tries] == [61, 61]
    assert [one.flaws for one in tries] == [(), ()]
    assert len({one.name for one in tries}) == 2


def test_no_record_is_written_over_another(local):
    entry = local.begin_attempt(WORK, hard=False)
    (entry.folder / "000002.json").write_bytes(b"somebody else's")
    with pytest.raises(
        LedgerUnavailableError, match=r"^the ledger cannot be written at .* \(FileExistsError"
    ):
        entry.write("outcome", outcomes={})
    assert (entry.folder / "000002.json").read_bytes() == b"somebody else's"


# -- storage that does not work


def one_line_of(caught):
    said = str(caught.value)
    assert "\n" not in said
    assert caught.value.__context__ is None
    return said


def test_a_ledger_that_cannot_be_written_or_read_is_said_to_be_so_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    broken = Ledger(ORIGIN, "tavus_default", ObjectStoragePath(str(tmp_path / "file" / "ledger")))
    for how, act in (
        ("written", lambda: broken.begin_attempt(WORK, hard=False)),
        ("read", lambda: broken.attempts(WORK)),
        ("read", lambda: broken.attempts_of_kind("plan")),
        ("read", lambda: verify(broken.root)),
    ):
        with pytest.raises(LedgerUnavailableError) as caught:
            act()
        said = one_line_of(caught)
        assert said.startswith(f"the ledger cannot be {how} at '{tmp_path}/file/ledger")
        assert "(NotADirectoryError: Not a directory), and nothing is deleted without a record" in said


def test_a_record_that_cannot_be_read_is_not_taken_for_none(local):
    entry = record(local)
    path = files(entry)[1]
    path.unlink()
    path.mkdir()
    with pytest.raises(LedgerUnavailableError, match=r"cannot be read at .*000002.json' \(IsADirectoryError"):
        local.attempts(WORK)


SECRET = "AKIA-and-what-follows"  # is looked for


@pytest.mark.parametrize(
    "fault",
    [RuntimeError(SECRET), OSError(5, f"line one\nline two {SECRET}"), ValueError(f"https://{SECRET}@host/")],
    ids=repr,
)
def test_what_a_storage_says_is_repeated_only_where_it_is_one_of_the_systems_own_sentences(
    local, monkeypatch, fault
):
    def open_(*_, **__):
        raise fault

    entry = local.begin_attempt(WORK, hard=False)
    monkeypatch.setattr(type(local.root), "open", open_)
    with pytest.raises(LedgerUnavailableError) as caught:
        entry.write("outcome", outcomes={})
    assert SECRET not in one_line_of(caught)


def test_a_password_in_the_place_of_the_ledger_is_not_repeated(monkeypatch):
    broken = Ledger(ORIGIN, "c", ObjectStoragePath(f"s3://key:{SECRET}@bucket/ledger"))
    for act in (lambda: broken.begin_attempt(WORK), lambda: broken.attempts(WORK)):
        with pytest.raises(LedgerUnavailableError) as caught:
            act()
        assert SECRET not in one_line_of(caught)


def test_a_full_disk_is_found_when_the_record_is_synced_and_not_later(local, monkeypatch):
    entry = local.begin_attempt(WORK, hard=False)

    def fsync(_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(LedgerUnavailableError, match="No space left on device"):
        entry.write("outcome", outcomes={})


# -- which ledger will do


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
def test_a_local_ledger_is_refused_where_an_executor_is_not_local(local, monkeypatch, executor, named):
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executor)
    with pytest.raises(TavusValidationError) as caught:
        local.require_shared("grace")
    said = str(caught.value)
    assert said.startswith(f"grace needs a ledger that all workers share, but '{local.root}' is local to one")
    assert f"the executor is {named}" in said
    assert "set ledger in section [tavus] of the configuration to a bucket" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    "executor", [LOCAL, "near:LocalExecutor", "airflow.executors.local_executor.LocalExecutor"]
)
def test_a_local_ledger_will_do_for_an_executor_that_is_local(local, monkeypatch, executor):
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executor)
    local.require_shared("grace")


def test_a_bucket_will_do_for_every_executor(monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    for place in ("memory://bucket/ledger", "s3://aws_default@bucket/ledger", "gs://bucket"):
        Ledger(ORIGIN, "tavus_default", ObjectStoragePath(place)).require_shared("grace")


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_folder_is_local_however_it_is_written(monkeypatch, tmp_path, prefix):
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    with pytest.raises(TavusValidationError):
        Ledger(ORIGIN, "tavus_default", ObjectStoragePath(f"{prefix}{tmp_path}")).require_shared("grace")


def test_the_place_is_the_one_of_the_configuration_or_a_folder_under_airflow_home(monkeypatch, tmp_path):
    from airflow.configuration import AIRFLOW_HOME

    from tavus_provider.storage.ledger import ledger_root

    assert str(ledger_root()) == f"{AIRFLOW_HOME}/tavus-ledger"
    monkeypatch.setenv("AIRFLOW__TAVUS__LEDGER", str(tmp_path))
    assert str(ledger_root()) == str(tmp_path)
    assert read_attempts(ledger_root(), []) == []
