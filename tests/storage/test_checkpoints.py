"""Reading the ledger costs the same whatever its age, and shows the same as reading all of it."""

from __future__ import annotations

import random
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from airflow.sdk import ObjectStoragePath
from storage.attempts import ORIGIN

from tavus_provider.digest import canonical_json, seal
from tavus_provider.exceptions import LedgerUnavailableError
from tavus_provider.retention.policy import Policy
from tavus_provider.storage import attempts as attempts_module
from tavus_provider.storage import checkpoints, object_storage
from tavus_provider.storage.attempts import format_start, parse_start, read_named_attempts
from tavus_provider.storage.checkpoints import CHECKPOINT_AFTER, MAX_SINCE_BASE, list_account
from tavus_provider.storage.deletions import Deletions
from tavus_provider.storage.history import deleted_ids, read_history, soft_deleted
from tavus_provider.storage.ledger import Ledger, job_name
from tavus_provider.storage.ledger_verify import verify
from tavus_provider.storage.records import parse_record

START = datetime(2026, 9, 1, 12, tzinfo=UTC)


class Clock:
    """A clock that goes on by one second each time it is read."""

    def __init__(self) -> None:
        self.time = START

    def __call__(self) -> datetime:
        self.time += timedelta(seconds=1)
        return self.time

    def pass_time(self, **delta) -> None:
        self.time += timedelta(**delta)


@pytest.fixture(autouse=True)
def _without_fsync(monkeypatch):
    """Many files are written, and no test here loses power."""
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def ledger(root, clock):
    return Ledger(ORIGIN, "tavus_default", root, now=clock)


def reopen(ledger):
    """The same ledger as another process reads it."""
    return Ledger(ledger.origin, ledger.tavus_conn_id, ledger.root, now=ledger.now)


def run(ledger, *ids, hard=False, outcome="deleted", job=None):
    writer = ledger.begin_attempt(job or job_name("plan", f"{random.random()}"), hard=hard, intent=list(ids))
    writer.close(outcomes=dict.fromkeys(ids, outcome))
    return writer


def runs(ledger, count, *, hours=24):
    for number in range(count):
        run(ledger, f"r{number}x")
        ledger.now.pass_time(hours=hours)


def index_files(ledger):
    folder = ledger.root / ledger.account_folder / "_index"
    return [file for month in sorted(folder.iterdir()) for file in sorted(month.iterdir())]


def checkpoint_files(ledger):
    return [file for file in index_files(ledger) if file.name.startswith("checkpoint-")]


def read_everything(ledger):
    """What the attempts show without index and checkpoints."""
    names = list_account(ledger.root, ledger.account_folder)
    return Deletions().followed_by(read_named_attempts(ledger.root, names))


def shown(ledger):
    return reopen(ledger).recent().deletions


@pytest.fixture
def count_calls(monkeypatch):
    """A function that returns how often the storage is called by another one."""

    def count(function):
        calls = []
        with monkeypatch.context() as patch:
            for module, name in (
                (attempts_module, "list_names"),
                (attempts_module, "read_bytes"),
                (attempts_module, "write_once"),
                (checkpoints, "read_bytes"),
                (checkpoints, "write_once"),
            ):
                real = getattr(object_storage, name)

                def called(*arguments, _real=real, **options):
                    calls.append(arguments)
                    return _real(*arguments, **options)

                patch.setattr(module, name, called)
            function()
        return len(calls)

    return count


# -- cost


def test_reading_costs_the_same_after_ten_times_as_many_runs(local_ledger, clock, count_calls):
    ledger = Ledger(ORIGIN, "tavus_default", local_ledger.root, now=clock)
    costs = []
    for count in (CHECKPOINT_AFTER * 2, CHECKPOINT_AFTER * 18):  # each time as many since the checkpoint
        runs(ledger, count)
        costs.append(count_calls(lambda: soft_deleted(reopen(ledger))))
        assert shown(ledger) == read_everything(ledger)
    young, old = costs
    assert old <= young + 2  # the base of the checkpoint, and one more month


def test_checkpoint_holds_only_what_came_after_its_base(local_ledger, clock):
    ledger = Ledger(ORIGIN, "tavus_default", local_ledger.root, now=clock)
    runs(ledger, MAX_SINCE_BASE + 4 * CHECKPOINT_AFTER)
    records = [parse_record(file.read_bytes()) for file in checkpoint_files(ledger)]
    full = [record for record in records if "base" not in record]
    assert [record["since_base"] for record in full] == [0, 0]
    later = records[records.index(full[1]) + 1]
    assert later["base"] == {full[1]["attempt"]: full[1]["digest"]}
    assert sum(map(len, later["deletions"]["soft"].values())) == len(later["heads"])
    assert shown(ledger) == read_everything(ledger)
    assert len(deleted_ids(reopen(ledger))) == MAX_SINCE_BASE + 4 * CHECKPOINT_AFTER


# -- the same as reading everything


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_random_history_is_read_as_if_there_were_no_checkpoints(local_ledger, clock, seed):
    """Parallel attempts, retries, kills at every place, late pointers, permanent deletes."""
    rng = random.Random(seed)
    ledger = Ledger(ORIGIN, "tavus_default", local_ledger.root, now=clock)
    running = []
    jobs = [job_name("plan", str(n)) for n in range(3)]
    for step in range(120):
        clock.pass_time(hours=rng.choice([0, 0, 1, 30]))
        if rng.random() < 0.1:
            jobs[rng.randrange(3)] = job_name("plan", f"{step}")
        if rng.random() < 0.1:  # killed between pointer and record
            stem = f"{clock():%Y%m%dT%H%M%S.%fZ}-{rng.getrandbits(32):08x}"
            ledger._write_pointer(f"{ledger.account_folder}/{jobs[0]}/{stem}", stem=stem, job=jobs[0])
        running = [
            one for one in running if clock.time - one[2] < timedelta(days=2)
        ]  # the others were killed
        if running and rng.random() < 0.6:
            writer, ids, _ = running.pop(rng.randrange(len(running)))
            outcomes = {i: rng.choice(["deleted", "unknown", "already_gone", "failed"]) for i in ids}
            if rng.random() < 0.8:  # else it was killed
                writer.close(outcomes=outcomes)
            else:
                writer.write("outcome", outcomes=outcomes)
        ids = rng.sample([f"r{n}x" for n in range(20)], 2)
        process = ledger if rng.random() < 0.3 else reopen(ledger)
        writer = process.begin_attempt(rng.choice(jobs), hard=rng.random() < 0.2, intent=ids)
        running.append((writer, ids, clock.time))
        if step % 10 == 0:
            assert shown(ledger) == read_everything(ledger)
    assert checkpoint_files(ledger)
    assert shown(ledger) == read_everything(ledger)
    stopped = ("is not closed", "has no record: it was stopped")
    assert [text for text in verify(ledger.root)[1] if not any(map(text.count, stopped))] == []


def test_attempt_that_was_open_is_read_again(ledger):
    writer = ledger.begin_attempt(job_name("plan", "a"), hard=False, intent=["open1"])
    retry = run(ledger, "other1", job=job_name("plan", "a"))  # what it shows depends on the open one
    runs(ledger, CHECKPOINT_AFTER + 1, hours=2)
    checkpoint = reopen(ledger).recent().checkpoint
    assert checkpoint.open == [writer.name, retry.name]
    assert not any(map(checkpoint.covers, checkpoint.open))
    writer.close(outcomes={"open1": "deleted"})
    assert "open1" in soft_deleted(reopen(ledger))
    assert shown(ledger) == read_everything(ledger)


def test_attempt_without_an_end_is_settled_after_some_days(ledger):
    killed = ledger.begin_attempt(job_name("plan", "a"), hard=False, intent=["killed1"])
    runs(ledger, CHECKPOINT_AFTER + 1)
    assert reopen(ledger).recent().checkpoint.covers(killed.name)
    assert shown(ledger) == read_everything(ledger)


def test_pointer_that_is_written_late_is_read(ledger, clock):
    """Its time is before the checkpoint, but the checkpoint was made before it could be listed."""
    for number in range(CHECKPOINT_AFTER + 1):
        run(ledger, f"r{number}x")
    recent = reopen(ledger).recent()
    moment = parse_start(recent.checkpoint.until) - timedelta(minutes=1)
    stem = f"{format_start(moment)}-00000000"
    job = job_name("plan", "late")
    name = f"{ledger.account_folder}/{job}/{stem}"
    ledger._write_pointer(name, stem=stem, job=job)
    assert name in [attempt.name for attempt in reopen(ledger).recent().attempts]


def test_killed_between_pointer_and_record_loses_nothing(ledger, monkeypatch):
    run(ledger, "before1")
    with monkeypatch.context() as patch:
        patch.setattr(attempts_module.AttemptWriter, "write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(ledger, "killed1")
    run(ledger, "after1")
    recent = reopen(ledger).recent()
    assert [len(attempt.records) for attempt in recent.attempts] == [2, 0, 2]
    assert soft_deleted(reopen(ledger)).keys() == {"before1", "after1"}


def interrupt(*_, **__):
    raise KeyboardInterrupt


def test_pointer_is_written_before_the_first_record(ledger, monkeypatch):
    monkeypatch.setattr(checkpoints, "pointer_path", interrupt)
    monkeypatch.setattr("tavus_provider.storage.ledger.pointer_path", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(ledger, "r1")
    assert ledger.attempts_of_kind("plan") == []


def test_ledger_of_an_earlier_release_has_no_index(ledger):
    runs(ledger, CHECKPOINT_AFTER + 2)
    ledger.root.fs.rm((ledger.root / ledger.account_folder / "_index").path, recursive=True)
    assert len(soft_deleted(reopen(ledger))) == CHECKPOINT_AFTER + 2
    run(reopen(ledger), "new1")
    assert len(checkpoint_files(ledger)) == 1
    assert len(reopen(ledger).recent().attempts) == 1
    assert shown(ledger) == read_everything(ledger)


def remove_pointer(ledger, writer):
    """Make an attempt look as if a release without an index had written it."""
    for file in index_files(ledger):
        if writer.name.rpartition("/")[2] in file.name:
            ledger.root.fs.rm(file.path)


STALE = Policy.parse({"name": "stale", "expire": [{"older_than": "90d", "grace": "14d"}]})


@pytest.fixture
def overlooked(ledger):
    """A ledger with checkpoints, and then two attempts of an earlier release that cancelled a schedule."""
    job = job_name("schedule", "stale")
    ledger.begin_attempt(job, scheduled={"r1x": ledger.now().isoformat()}, due={}, cancelled=[]).close()
    runs(ledger, CHECKPOINT_AFTER + 2)
    remove_pointer(ledger, run(ledger, "late1"))
    cancelling = ledger.begin_attempt(job, scheduled={}, due={}, cancelled=["r1x"])
    cancelling.close()
    remove_pointer(ledger, cancelling)
    return reopen(ledger)


def test_schedule_of_an_earlier_release_beside_checkpoints_is_read(overlooked, caplog):
    history = read_history(overlooked, STALE)
    assert history.scheduled == {}
    assert "late1" in history.soft_deleted
    (warning,) = [record.message for record in caplog.records]
    assert warning.startswith("1 attempts of the ledger, such as ")


def test_ledger_is_repaired_by_the_next_checkpoint(overlooked, caplog):
    read_history(overlooked, STALE)
    run(overlooked, "next1")
    assert verify(overlooked.root)[1] != []  # the pointers are still missing
    assert not any("is overlooked by runs" in finding for finding in verify(overlooked.root)[1])
    caplog.clear()
    assert "late1" in read_history(reopen(overlooked), STALE).soft_deleted
    assert read_history(reopen(overlooked), STALE).scheduled == {}
    assert shown(overlooked) == read_everything(overlooked)
    assert not caplog.records


def test_attempt_that_starts_while_the_ledger_is_read_is_not_overlooked(ledger, monkeypatch, caplog):
    runs(ledger, CHECKPOINT_AFTER + 2)
    job, real = job_name("schedule", "stale"), checkpoints.RecentReader.read

    def read(reader):
        recent = real(reader)
        monkeypatch.setattr(checkpoints.RecentReader, "read", real)
        ledger.begin_attempt(job, scheduled={}, due={}, cancelled=[]).close()
        return recent

    reader = reopen(ledger)
    monkeypatch.setattr(checkpoints.RecentReader, "read", read)
    assert reader.recent_with(job).checkpoint is not None
    assert not caplog.records


def test_looking_for_an_overlooked_schedule_takes_one_listing(ledger, count_calls):
    ledger.begin_attempt(job_name("schedule", "stale"), scheduled={}, due={}, cancelled=[]).close()
    runs(ledger, CHECKPOINT_AFTER + 2)
    job = job_name("schedule", "stale")
    without, with_it = (
        count_calls(read) for read in (reopen(ledger).recent, lambda: reopen(ledger).recent_with(job))
    )
    assert with_it == without + 1


def test_attempt_of_an_earlier_release_beside_checkpoints_is_found(ledger):
    runs(ledger, CHECKPOINT_AFTER + 2)
    late = run(ledger, "late1")
    assert verify(ledger.root)[1] == []
    remove_pointer(ledger, late)
    assert "late1" not in soft_deleted(reopen(ledger))
    assert any(f"{late.name} is overlooked by runs: " in finding for finding in verify(ledger.root)[1])


def test_record_of_a_later_release_stops_deletes(ledger):
    writer = run(ledger, "r1")
    (first,) = (path for path in writer.folder.iterdir() if path.name == "000001.json")
    change(first, new_field=1)
    with pytest.raises(LedgerUnavailableError, match=r"cannot read the record .*written by a later release"):
        soft_deleted(reopen(ledger))
    with pytest.raises(
        LedgerUnavailableError, match=r"Nothing is deleted: install the release that wrote it"
    ):
        run(reopen(ledger), "r2")


def test_damaged_attempt_is_a_warning(ledger, caplog):
    writer = run(ledger, "r1")
    (last,) = (path for path in writer.folder.iterdir() if path.name == "000002.json")
    last.write_bytes(last.read_bytes()[:-1])
    other = reopen(ledger)
    assert (soft_deleted(other), soft_deleted(other)) == ({}, {})
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.startswith(f"The record {writer.name} of the ledger is damaged, and what it did is not")


PARALLEL = """
import sys
from airflow.sdk import ObjectStoragePath
from tavus_provider.storage.ledger import Ledger, job_name
ledger = Ledger("https://tavusapi.com", "tavus_default", ObjectStoragePath(sys.argv[1]))
for number in range(30):
    ids = [f"r{sys.argv[2]}x{number}"]
    writer = ledger.begin_attempt(job_name("plan", *ids), hard=False, intent=ids)
    if number % 7:
        writer.close(outcomes=dict.fromkeys(ids, "deleted"))
"""


def test_parallel_processes_lose_nothing(local_ledger):
    """They write checkpoints at the same time, of which each is right."""
    command = [sys.executable, "-c", PARALLEL, str(local_ledger.root)]
    processes = [subprocess.Popen([*command, str(number)]) for number in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    names = list_account(local_ledger.root, local_ledger.account_folder)
    assert len(names) == 4 * 30
    assert len(checkpoint_files(local_ledger)) > 1
    assert reopen(local_ledger).recent().deletions == read_everything(local_ledger)
    assert len(soft_deleted(reopen(local_ledger))) == 4 * 25
    findings = verify(local_ledger.root)[1]
    assert all("is not closed" in finding for finding in findings)
    assert len(findings) == 4 * 5


# -- checkpoints that are not used


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        pytest.param(lambda file: file.unlink(), None, id="missing"),
        pytest.param(lambda file: file.write_bytes(b""), "was changed", id="empty"),
        pytest.param(lambda file: file.write_bytes(file.read_bytes()[:-1]), "was changed", id="cut"),
        pytest.param(lambda file: file.write_bytes(b"{}"), "was changed", id="no-record"),
        pytest.param(lambda file: change(file, kind="begin"), "was changed", id="other-kind"),
        pytest.param(lambda file: change(file, attempt="x"), "was changed", id="other-name"),
        pytest.param(lambda file: change(file, base={"x": "0"}), "continues x, which", id="no-base"),
        pytest.param(lambda file: change(file, until="soon"), "was changed", id="no-time"),
        pytest.param(
            lambda file: change(file, until="20260231T000000.000000Z"), "was changed", id="no-such-day"
        ),
        pytest.param(lambda file: change(file, deletions={"soft": {}}), "was changed", id="no-deletions"),
        pytest.param(lambda file: change(file, window=None), "was changed", id="no-window"),
    ],
)
def test_damaged_checkpoint_is_ignored_with_a_warning(ledger, caplog, damage, reason):
    runs(ledger, CHECKPOINT_AFTER + 2)
    expected = shown(ledger)
    damage(checkpoint_files(ledger)[-1])
    caplog.clear()
    recent = reopen(ledger).recent()
    assert recent.checkpoint is None
    assert len(recent.attempts) == CHECKPOINT_AFTER + 2
    assert recent.deletions == expected
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == (0 if reason is None else 1)
    assert reason is None or (reason in messages[0] and "is ignored" in messages[0])
    run(reopen(ledger), "next1")  # writes a new one
    assert reopen(ledger).recent().checkpoint is not None
    assert shown(ledger) == read_everything(ledger)


def test_checkpoint_in_the_future_is_ignored_and_nothing_is_deleted(ledger, caplog):
    """The clock of this worker may be wrong, or that of the other: its attempts could be overlooked."""
    runs(ledger, CHECKPOINT_AFTER + 2)
    expected = shown(ledger)
    (file,) = checkpoint_files(ledger)
    change(file, until="20990101T000000.000000Z")
    caplog.clear()
    assert reopen(ledger).recent().checkpoint is None
    assert shown(ledger) == expected
    assert "is in the future" in caplog.text
    assert any("is in the future" in finding for finding in verify(ledger.root, now=START)[1])
    with pytest.raises(LedgerUnavailableError, match="if that checkpoint is wrong, remove it"):
        run(reopen(ledger), "next1")
    file.unlink()
    run(reopen(ledger), "next1")
    assert shown(ledger) == read_everything(ledger)


def test_worker_whose_clock_is_unchecked_writes_no_checkpoint(ledger):
    """A checkpoint of a clock that is years ahead would cover what others do until then."""
    runs(ledger, CHECKPOINT_AFTER)
    ledger.begin_attempt(job_name("run", "d", "r"), kind="shown", plan_digest="0").close()
    run(ledger, "r1x", job=job_name("delete", "d", "r"))
    assert checkpoint_files(ledger) == []
    ledger.begin_attempt(job_name("run", "d", "r"), kind="planned", plan_digest="0").close()
    assert len(checkpoint_files(ledger)) == 1


def change(file, **fields):
    """Write a checkpoint with other fields and a right digest."""
    record = parse_record(file.read_bytes())
    file.write_bytes(canonical_json(seal({**record, **fields})))


@pytest.mark.parametrize(
    ("fields", "finding"),
    [
        pytest.param(
            {"deletions": {"soft": {}, "permanent": ["r1x"], "unresolved": {}}},
            "does not agree with the records of the attempts that it covers",
            id="deletions",
        ),
        pytest.param(
            {"heads": {}},
            "does not name the attempts that it covers: it was changed, or one was added or removed",
            id="heads",
        ),
        pytest.param(
            {"schedules": {"schedule-0": "x"}},
            "names other attempts than the last ones of the schedules",
            id="schedules",
        ),
        pytest.param(
            {"until": "20260901T120001.000000Z"},
            "does not name the attempts that it covers: it was changed, or one was added or removed",
            id="until",
        ),
    ],
)
def test_checkpoint_is_compared_with_all_records(ledger, fields, finding):
    """With its digest made anew, too: nothing that a checkpoint says is believed."""
    runs(ledger, CHECKPOINT_AFTER + 2)
    (file,) = checkpoint_files(ledger)
    change(file, **fields)
    assert any(text.endswith(f"{file.name} {finding}") for text in verify(ledger.root)[1])


def test_checkpoint_whose_base_was_made_anew_is_ignored(ledger, caplog):
    runs(ledger, 2 * CHECKPOINT_AFTER + 2)
    base, newest = checkpoint_files(ledger)
    change(base, deletions={"soft": {}, "permanent": ["r1x"], "unresolved": {}})
    caplog.clear()
    assert reopen(ledger).recent().checkpoint.name.endswith(base.name)
    assert f"{newest.name} of the ledger is ignored" in caplog.text
    assert "which is missing or was changed" in caplog.text
    assert any("ends differently" in finding for finding in verify(ledger.root)[1])


def test_earlier_checkpoint_is_used_instead_of_a_damaged_one(ledger):
    runs(ledger, 3 * CHECKPOINT_AFTER)
    older, newest = checkpoint_files(ledger)[-2:]
    newest.write_bytes(b"")
    assert reopen(ledger).recent().checkpoint.name.endswith(older.name)
    assert shown(ledger) == read_everything(ledger)


def test_checkpoint_that_cannot_be_written_is_only_a_warning(ledger, caplog, monkeypatch):
    runs(ledger, CHECKPOINT_AFTER)

    def fail(path, data):
        raise object_storage.StorageError(str(path), "No space left on device")

    monkeypatch.setattr(checkpoints, "write_once", fail)
    run(ledger, "next1")
    assert checkpoint_files(ledger) == []
    assert "cannot be written" in caplog.text
    assert "next1" in soft_deleted(reopen(ledger))


# -- clocks


def test_attempt_that_readers_would_overlook_is_refused(ledger, clock):
    runs(ledger, CHECKPOINT_AFTER + 2)
    clock.pass_time(days=-10)
    with pytest.raises(LedgerUnavailableError, match="set the clocks of all workers"):
        run(ledger, "r1")


def test_attempt_whose_record_came_too_late_is_refused(ledger, clock, monkeypatch):
    write = attempts_module.AttemptWriter.write

    def slowly(*arguments, **fields):
        clock.pass_time(minutes=11)
        write(*arguments, **fields)

    monkeypatch.setattr(attempts_module.AttemptWriter, "write", slowly)
    with pytest.raises(LedgerUnavailableError, match="more than 10 minutes"):
        run(ledger, "r1")


# -- files


def test_index_is_as_private_as_the_records(local_ledger):
    for number in range(CHECKPOINT_AFTER + 1):
        run(local_ledger, f"r{number}x")
    root = ObjectStoragePath(str(local_ledger.root))
    modes = {path.stat().st_mode & 0o777 for path in index_files(local_ledger)}
    assert modes == {0o600}
    assert (root / local_ledger.account_folder / "_index").stat().st_mode & 0o777 == 0o700
    assert len(checkpoint_files(local_ledger)) == 1
