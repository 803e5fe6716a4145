"""The commands for erasures: verify."""

from __future__ import annotations

import json
import os
import random
from unittest.mock import Mock

import pytest
from cli.commands import one_error
from erasures import FACE, REQUEST, apply_erasure, certify, erase, plan_erasure

from tavus_provider.storage import certificates, erasures, ledger

CHANGES = int(os.environ.get("ERASURE_CHANGES", "40"))


@pytest.fixture
def certificate(sandbox, tmp_path, capsys):
    """The file of a complete certificate."""
    erase()
    capsys.readouterr()  # the log of the tasks
    return tmp_path / "ledger" / "_certificates" / REQUEST["request"] / "1.json"


@pytest.mark.parametrize("options", [(), ("--account",)])
def test_intact_certificate_has_no_findings(run, certificate, options):
    assert run("erasure", "verify", *options, str(certificate)) == (0, "", f"0 findings in {certificate}\n")


def test_intact_page_has_no_findings(run, certificate):
    page = certificate.with_suffix(".html")
    assert run("erasure", "verify", str(page)) == (0, "", f"0 findings in {page}\n")


def test_object_that_came_back_is_a_finding(run, certificate, sandbox):
    sandbox.put("replicas", {"replica_id": FACE, "deleted": None})
    sandbox.put("videos", {"video_id": "v1", "replica_id": FACE})
    code, out, _ = run("erasure", "verify", "--account", str(certificate))
    assert code == 1
    assert out.splitlines() == [
        f"{FACE}: Tavus returns it",
        f"{FACE}: is listed",
        "video/v1: was made with an erased replica",
    ]


def test_account_needs_the_json(run, certificate):
    code, _, err = run("erasure", "verify", "--account", str(certificate.with_suffix(".html")))
    assert code == 2
    assert "--account needs the JSON" in one_error(err)


def test_missing_file_is_an_error(run, connect):
    connect("http://127.0.0.1:9")
    code, _, err = run("erasure", "verify", "missing.json")
    assert code == 2
    assert "missing.json: cannot be read" in one_error(err)


def test_other_file_is_a_finding(run, connect, tmp_path):
    connect("http://127.0.0.1:9")
    (tmp_path / "x.json").write_text("{}")
    code, out, _ = run("erasure", "verify", str(tmp_path / "x.json"))
    assert code == 1
    assert "certificate.version is missing" in out


def changes(files):
    """Yield single changes: one byte of one file, or one file removed."""
    rng = random.Random("changes")
    for number in range(CHANGES):
        file = rng.choice(files)
        data = file.read_bytes()
        at = rng.randrange(len(data))
        byte = rng.choice([b for b in b'0a"x 1' if b != data[at]])
        yield file, data, None if number % 8 == 7 else data[:at] + bytes([byte]) + data[at + 1 :]


def test_every_single_change_is_found(run, certificate):
    """A change of the certificate, or of one of the records that it names."""
    root = certificate.parents[2]
    named = [root / name for name in json.loads(certificate.read_text())["ledger"]]
    records = [file for folder in named for file in sorted(folder.iterdir())]
    certified = [
        file for file in root.rglob("erasure-*/*/000001.json") if b'"kind":"certified"' in file.read_bytes()
    ]
    assert certified
    for file, data, changed in changes([certificate, *records, *certified]):
        file.unlink()
        if changed is not None:
            file.write_bytes(changed)
        code, out, _ = run("erasure", "verify", str(certificate))
        assert code == (2 if changed is None and file == certificate else 1), (file, changed, out)
        file.unlink(missing_ok=True)
        file.write_bytes(data)
    assert run("erasure", "verify", str(certificate))[0] == 0


@pytest.mark.parametrize("suffix", [".json", ".html"])
def test_ledger_verify_finds_changed_moved_and_missing_certificates(run, certificate, suffix):
    assert run("ledger", "verify")[0] == 0
    file = certificate.with_suffix(suffix)
    name = f"_certificates/{REQUEST['request']}/{file.name}"
    copy = file.with_stem("7")
    copy.write_bytes(file.read_bytes())
    code, out, _ = run("ledger", "verify")
    assert (code, out) == (1, f"{name.replace('1.', '7.')}: was stored as {name}: it was copied or moved\n")
    copy.unlink()
    data = file.read_bytes()
    file.chmod(0o600)
    file.write_bytes(data.replace(b"complete", b"Complete", 1))
    code, out, _ = run("ledger", "verify")
    assert (code, out.startswith(f"{name}: ")) == (1, True)
    file.unlink()
    assert run("ledger", "verify")[:2] == (1, f"{name} is missing, but the ledger has its record\n")


def test_certificate_of_a_task_that_ended_before_its_record_is_named(run, sandbox, tmp_path, monkeypatch):
    plan = plan_erasure()
    apply_erasure(plan)
    with monkeypatch.context() as stopped:
        stopped.setattr(erasures, "record_certificate", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            certify(plan)
    certify(plan)
    code, out, _ = run("ledger", "verify")
    findings = [line for line in out.splitlines() if line.startswith("_certificates/")]
    assert code == 1
    assert len(findings) == 2
    for finding, what, suffix in zip(findings, ("page", "certificate"), ("html", "json"), strict=True):
        name = f"{REQUEST['request']}/1.{suffix}"
        assert finding.startswith(f"_certificates/{name}: the ledger has no record of this {what}: ")
        assert "or the certify task has not recorded it. See the log of that task" in finding
        (tmp_path / "ledger" / "_certificates" / name).unlink()
    assert run("ledger", "verify")[0] == 0


def test_certificate_that_is_stored_while_the_ledger_is_read_is_not_missing(run, certificate, monkeypatch):
    folder, elsewhere = certificate.parent, certificate.parents[2].with_name("elsewhere")
    folder.rename(elsewhere)

    def list_jobs(root):
        elsewhere.rename(folder)
        return ledger.list_jobs(root)

    monkeypatch.setattr(certificates, "list_jobs", list_jobs)
    assert run("ledger", "verify")[0] == 0


def test_certificate_that_another_program_has_written_is_found(run, certificate):
    """The content is the same, but the file is not the one that was stored."""
    certificate.chmod(0o600)
    certificate.write_text(json.dumps(json.loads(certificate.read_text()), indent=2))
    code, out, _ = run("erasure", "verify", str(certificate))
    assert (code, "is not the file that was stored" in out) == (1, True)


def test_changed_page_is_found(run, certificate):
    page = certificate.with_suffix(".html")
    page.write_bytes(page.read_bytes().replace(b"complete", b"Complete", 1))
    assert run("erasure", "verify", str(page))[0] == 1


def test_removed_last_record_of_a_certificate_is_found(run, certificate):
    digest = json.loads(certificate.read_text())["digest"]
    begin = [
        path for path in certificate.parents[2].rglob("000001.json") if f'"{digest}"' in path.read_text()
    ]
    (last,) = begin[0].parent.glob("000002.json")
    last.unlink()
    code, out, _ = run("erasure", "verify", str(certificate))
    assert code == 1
    assert "was not closed: its last record was removed, or the task was stopped" in out
    assert run("erasure", "verify", str(certificate.with_suffix(".html")))[0] == 1
