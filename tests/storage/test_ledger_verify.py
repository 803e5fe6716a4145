"""Tampering and crashes leave findings; a report is compared with what was recorded."""

from __future__ import annotations

import json
from hashlib import sha256

import pytest
from storage.attempts import JOB, record_attempt, record_files

from tavus_provider.digest import canonical_digest, canonical_json, seal
from tavus_provider.storage.attempts import head_of
from tavus_provider.storage.checkpoints import pointer_path
from tavus_provider.storage.ledger import job_name
from tavus_provider.storage.ledger_verify import compare_report, verify
from tavus_provider.storage.object_storage import write_once


def findings(ledger):
    return verify(ledger.root)[1]


def findings_about(writer, ledger):
    """The findings about one attempt, without its name."""
    start = f"{writer.name} "
    return [text.removeprefix(start) for text in findings(ledger) if text.startswith(start)]


# -- changed records


def flip(data, at):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("number", range(5))
def test_flipped_byte_is_found_in_every_position(local_ledger, number):
    writer = record_attempt(local_ledger)
    path = record_files(writer)[number]
    data = path.read_bytes()
    # In the first and last record every byte, in the others a sample of each key, value and digest.
    for at in range(0, len(data), 1 if number in (0, 4) else 7):
        path.write_bytes(flip(data, at))
        (finding,) = findings(local_ledger)[:1]
        assert finding.startswith(f"{writer.name} record {number + 1} was changed")
        assert len(local_ledger.attempts(JOB)[0].records) == number
    path.write_bytes(data)
    assert findings(local_ledger) == []


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"hard": True}, id="other-field"),
        pytest.param({"previous": "0" * 64}, id="other-previous-digest"),
        pytest.param({"number": 9}, id="other-number"),
    ],
)
def test_changed_record_with_a_new_digest_is_found_by_its_successor_or_a_later_attempt(
    ledger, number, change
):
    writer = record_attempt(ledger)
    record_attempt(ledger)
    path = record_files(writer)[number]
    path.write_bytes(canonical_json(seal(json.loads(path.read_bytes()) | change)))
    assert findings_about(writer, ledger)


def test_data_that_is_not_a_record_is_found(local_ledger):
    writer = record_attempt(local_ledger)
    record_files(writer)[0].write_bytes(b"{}")
    assert "record 1 was changed" in findings_about(writer, local_ledger)


# -- removed, moved and added records


@pytest.mark.parametrize(
    ("number", "finding"),
    [
        pytest.param(0, "record 1 is missing: it was removed or renamed", id="first"),
        pytest.param(2, "record 3 is missing: it was removed or renamed", id="middle"),
        pytest.param(3, "record 4 is missing: it was removed or renamed", id="second-to-last"),
        pytest.param(
            4,
            "is not closed: it is still running, was stopped, or its last records were removed",
            id="last",
        ),
    ],
)
def test_removed_record_is_found(ledger, number, finding):
    writer = record_attempt(ledger)
    record_files(writer)[number].unlink()
    assert finding in findings_about(writer, ledger)


def test_exchanged_records_are_found(ledger):
    writer = record_attempt(ledger)
    second, third = record_files(writer)[1:3]
    data = second.read_bytes()
    second.write_bytes(third.read_bytes())
    third.write_bytes(data)
    assert "record 2 does not continue the record before it" in findings_about(writer, ledger)


def test_repeated_record_is_found(ledger):
    writer = record_attempt(ledger)
    data = record_files(writer)[1].read_bytes()
    for path in record_files(writer)[2:]:
        path.write_bytes(data)
    assert "record 3 does not continue the record before it" in findings_about(writer, ledger)


@pytest.mark.parametrize("name", ["000004.json", "3.json", "000003.json.old"])
def test_renamed_record_is_found(ledger, name):
    writer = record_attempt(ledger)
    third = record_files(writer)[2]
    data = third.read_bytes()
    third.unlink()
    (writer.folder / name).write_bytes(data)
    assert "record 3 is missing: it was removed or renamed" in findings_about(writer, ledger)


def test_record_of_another_attempt_is_found(ledger):
    writer, other = record_attempt(ledger), record_attempt(ledger)
    record_files(writer)[2].write_bytes(record_files(other)[2].read_bytes())
    assert "record 3 does not continue the record before it" in findings_about(writer, ledger)


def test_record_added_after_the_end_is_found_and_not_believed(ledger):
    writer = record_attempt(ledger)
    writer.write("outcome", outcomes={"r1": "unknown"})
    assert findings_about(writer, ledger) == ["record 6 was added after the attempt was closed"]
    assert ledger.attempts(JOB)[0].outcomes["r1"] == "deleted"


def test_unknown_file_is_found_and_does_not_stop_the_verification(ledger):
    writer = record_attempt(ledger)
    (writer.folder / "notes.txt").write_bytes(b"x")
    assert findings_about(writer, ledger) == ["contains 'notes.txt', which is not a record"]


# -- removed attempts, and attempts that were stopped


@pytest.mark.parametrize(
    ("keep_folder", "finding"),
    [
        pytest.param(False, "is missing, but a later attempt refers to it", id="folder"),
        pytest.param(True, "ends differently than when a later attempt read it", id="all-records"),
    ],
)
def test_removed_attempt_is_found_if_a_later_one_refers_to_it(local_ledger, keep_folder, finding):
    writer = record_attempt(local_ledger)
    record_attempt(local_ledger)
    local_ledger.root.fs.rm(writer.folder.path, recursive=True)
    if keep_folder:
        writer.folder.mkdir()
    assert finding in findings_about(writer, local_ledger)


@pytest.mark.parametrize("removed", [1, 2, 4])
def test_records_removed_after_a_later_attempt_read_them_are_found(ledger, removed):
    writer = record_attempt(ledger)
    record_attempt(ledger)
    for path in record_files(writer)[-removed:]:
        path.unlink()
    assert "ends differently than when a later attempt read it" in findings_about(writer, ledger)


def test_stopped_attempt_is_a_finding_until_a_later_one_refers_to_it(ledger):
    writer = ledger.begin_attempt(JOB, hard=False, intent=["r1"])
    (finding,) = findings_about(writer, ledger)
    assert finding.startswith("is not closed")
    record_attempt(ledger)
    assert findings(ledger) == []


def test_attempts_at_the_same_time_are_no_finding(ledger):
    first = ledger.begin_attempt(JOB, hard=False, intent=["r1"])
    record_attempt(ledger)  # reads the first attempt while it is running
    first.write("outcome", outcomes={"r1": "deleted"})
    first.close(outcomes={"r1": "deleted"})
    assert findings(ledger) == []


def test_end_removed_from_an_attempt_that_was_read_while_running_is_found(ledger):
    first = ledger.begin_attempt(JOB, hard=False, intent=["r1"])
    record_attempt(ledger)
    first.write("outcome", outcomes={"r1": "deleted"})
    first.close(outcomes={"r1": "deleted"})
    record_files(first)[-1].unlink()
    (finding,) = findings_about(first, ledger)
    assert finding.startswith("is not closed")


# -- reports


def record_report(ledger, /, **changes):
    """Record an attempt with its report, and return the report with ``changes``."""
    report = {
        "plan_digest": "d" * 64,
        "counts": {"deleted": 2},
        "items": [{"replica_id": i, "outcome": "deleted", "detail": "200"} for i in ("r1", "r2")],
    }
    writer = ledger.begin_attempt(JOB, hard=False, intent=["r1", "r2"])
    report["ledger"] = writer.name
    writer.close(outcomes={"r1": "deleted", "r2": "deleted"}, report_digest=canonical_digest(report))
    return json.loads(json.dumps(report)) | changes


def test_report_shows_that_its_attempt_was_made_anew(local_ledger):
    """Also if every digest is right: nothing but the report shows that the newest attempt is another one."""
    writer = local_ledger.begin_attempt(JOB, hard=False, intent=["r1"])
    report = {"ledger": writer.name, "ledger_head": writer.last_digest}
    report |= {"items": [{"replica_id": "r1", "outcome": "deleted"}]}
    writer.close(outcomes={"r1": "deleted"}, report_digest=canonical_digest(report))
    assert compare_report(verify(local_ledger.root)[0], report) == []
    first, last = record_files(writer)
    begin = seal(json.loads(first.read_bytes()) | {"hard": True})
    first.write_bytes(canonical_json(begin))
    last.write_bytes(canonical_json(seal(json.loads(last.read_bytes()) | {"previous": begin["digest"]})))
    attempts, found = verify(local_ledger.root)
    assert found == []
    assert compare_report(attempts, report) == [
        f"the records of {writer.name} are not those that the report was made from"
    ]


def test_report_of_a_plan_shows_all_attempts_at_it(ledger):
    writers = [record_attempt(ledger, ids=(i,)) for i in ("r1", "r2")]
    attempts = ledger.attempts(JOB)
    report = {"ledger": attempts[0].job, "ledger_head": head_of(attempts)}
    report["items"] = [{"replica_id": i, "outcome": "deleted"} for i in ("r1", "r2")]
    record_attempt(ledger, ids=("r1",))  # a cleared task, later
    assert compare_report(verify(ledger.root)[0], report) == []
    record_files(writers[1])[-1].unlink()
    assert compare_report(verify(ledger.root)[0], report) == [
        f"the records of {attempts[0].job} are not those that the report was made from"
    ]


# -- the chain of the attempts of an account


@pytest.mark.parametrize("removed", range(3))
def test_attempt_of_another_job_is_named_by_a_later_one(ledger, removed):
    writers = [record_attempt(ledger, job=job_name("plan", letter)) for letter in "abcd"]
    assert findings(ledger) == []
    path = record_files(writers[removed])[-1]
    path.write_bytes(canonical_json(seal(json.loads(path.read_bytes()) | {"outcomes": {}})))
    (finding,) = findings_about(writers[removed], ledger)
    assert finding == "ends differently than when a later attempt read it"


def test_removed_attempt_and_its_pointer_are_found(ledger):
    removed, _ = [record_attempt(ledger, job=job_name("plan", letter)) for letter in "ab"]
    ledger.root.fs.rm(removed.folder.path, recursive=True)
    assert "is missing, but a later attempt refers to it" in findings_about(removed, ledger)
    pointer_of(ledger, removed).unlink()
    assert "is missing, but a later attempt refers to it" in findings_about(removed, ledger)


def pointer_of(ledger, writer):
    job, stem = writer.name.rsplit("/", 2)[1:]
    return ledger.root / pointer_path(ledger.account_folder, stem=stem, job=job)


def test_removed_pointer_is_found(ledger):
    writer = record_attempt(ledger)
    pointer_of(ledger, writer).unlink()
    assert findings_about(writer, ledger) == [
        "has no pointer in the index: it was removed, or the attempt was added"
    ]


@pytest.mark.parametrize(
    ("file", "finding"),
    [
        ("20260101T000000.000000Z-00000000.plan-x", "was changed or moved, or was not written completely"),
        ("notes.txt", "is neither a pointer nor a checkpoint"),
        ("checkpoint-1.json", "was changed, or was not written completely"),
    ],
)
def test_file_added_to_the_index_is_found(ledger, file, finding):
    writer = record_attempt(ledger)
    path = pointer_of(ledger, writer).parent / file
    path.write_bytes(b"x")
    assert any(text.endswith(f"{file} {finding}") for text in findings(ledger))


def test_copied_attempt_is_found(ledger):
    """As if an approval of another run were one of this run."""
    writer = record_attempt(ledger)
    copy = writer.folder.parent / f"{writer.folder.name[:-8]}00000000"
    copy.mkdir(parents=True, exist_ok=True)
    for path in record_files(writer):
        (copy / path.name).write_bytes(path.read_bytes())
    (finding, _) = [text for text in findings(ledger) if copy.name in text]
    assert finding.endswith(f"has the records of {writer.name}: it was copied or moved")


def test_attempt_killed_before_its_first_record_is_a_finding_until_a_later_one_saw_it(ledger):
    killed = record_attempt(ledger)
    for path in record_files(killed):
        path.unlink()
    (finding, *_) = findings_about(killed, ledger)
    assert finding.startswith(("has no record", "is not closed"))


# -- stored plans and texts


@pytest.mark.parametrize("name", ["{plan}.json", "{plan}.{text}.md", "{plan}.use.json"])
def test_stored_file_that_is_not_what_its_name_says_is_found(ledger, name):
    record_attempt(ledger)
    plan, text = seal({"plan": 1}), b"shown"
    use = seal({"plan_digest": plan["digest"]})
    contents = {".json": canonical_json(plan), ".md": text, ".use.json": canonical_json(use)}
    suffix = name.removeprefix("{plan}").removeprefix(".{text}")
    path = ledger.root / "_plans" / name.format(plan=plan["digest"], text=sha256(text).hexdigest())
    write_once(path, contents[suffix])
    assert findings(ledger) == []
    path.write_bytes(contents[suffix] + b" ")
    (finding,) = findings(ledger)
    assert finding == f"_plans/{path.name} was changed, or was not written completely"


def test_unchanged_report_has_no_differences(ledger):
    report = record_report(ledger)
    assert compare_report(verify(ledger.root)[0], report) == []


@pytest.mark.parametrize(
    ("outcomes", "difference"),
    [
        (["deleted", "failed"], "r2: failed in the report, deleted in the ledger"),
        (["deleted"], "r2: missing in the report, deleted in the ledger"),
        (["deleted", "deleted", "deleted"], "r3: deleted in the report, missing in the ledger"),
    ],
)
def test_each_id_with_different_outcomes_is_named(ledger, outcomes, difference):
    items = [{"replica_id": f"r{n}", "outcome": o, "detail": "200"} for n, o in enumerate(outcomes, start=1)]
    report = record_report(ledger, items=items)
    assert compare_report(verify(ledger.root)[0], report) == [difference]


def test_items_left_out_of_a_report_are_no_difference(ledger):
    items = [{"replica_id": "r1", "outcome": "failed", "detail": "409"}]
    report = record_report(ledger, items=items, items_left_out=1)
    assert compare_report(verify(ledger.root)[0], report) == [
        "r1: failed in the report, deleted in the ledger"
    ]


@pytest.mark.parametrize("change", [{"plan_digest": "e" * 64}, {"counts": {"deleted": 3}}, {"hard": True}])
def test_report_with_another_changed_field_is_found(ledger, change):
    report = record_report(ledger, **change)
    assert compare_report(verify(ledger.root)[0], report) == [
        "the report is not the one that was recorded when its attempt ended"
    ]


@pytest.mark.parametrize("name", [None, "somewhere/else", 7])
def test_report_whose_attempt_is_missing_is_found(ledger, name):
    report = record_report(ledger, ledger=name)
    assert compare_report(verify(ledger.root)[0], report) == [
        f"the ledger has no attempt {name!r}, which the report refers to"
    ]
