"""The commands for the ledger: verify."""

from __future__ import annotations

import json

import pytest
from cli.commands import one_error


@pytest.fixture
def recorded(connect, tmp_path):
    """A closed attempt in the ledger, and its report in ``report.json``. Returns its folder."""
    connect("http://127.0.0.1:9")
    from tavus_provider.digest import canonical_digest
    from tavus_provider.storage.ledger import Ledger, job_name

    writer = Ledger("http://127.0.0.1:9", "tavus_default").begin_attempt(
        job_name("plan", "0" * 64), intent=["r12"], hard=False
    )
    report = {"ledger": writer.name, "items": [{"replica_id": "r12", "outcome": "deleted"}]}
    writer.close(outcomes={"r12": "deleted"}, report_digest=canonical_digest(report))
    (tmp_path / "report.json").write_text(json.dumps(report))
    return tmp_path / "ledger" / writer.name


def test_intact_ledger_has_no_findings(run, recorded, tmp_path):
    code, out, err = run("ledger", "verify", "--report", str(tmp_path / "report.json"))
    assert (code, out) == (0, "")
    assert err == f"0 findings in 1 attempt at {tmp_path / 'ledger'}\n"


def test_changed_record_is_a_finding(run, recorded):
    record = recorded / "000002.json"
    record.write_bytes(record.read_bytes().replace(b"deleted", b"failed"))
    code, out, _ = run("ledger", "verify")
    assert code == 1
    assert "record 2 was changed, or was not written completely" in out.splitlines()[0]
    assert json.loads(run("ledger", "verify", "-o", "json")[1]) == out.splitlines()


def test_report_that_differs_is_a_finding(run, recorded, tmp_path):
    report = {"ledger": json.loads((tmp_path / "report.json").read_text())["ledger"]}
    report["items"] = [{"replica_id": "r12", "outcome": "failed"}]
    (tmp_path / "report.json").write_text(json.dumps(report))
    code, out, _ = run("ledger", "verify", "--report", str(tmp_path / "report.json"))
    assert (code, out) == (1, "r12: failed in the report, deleted in the ledger\n")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"items": [{}]}', '{"items": [1]}'])
def test_invalid_report_fails(run, connect, tmp_path, text):
    connect("http://127.0.0.1:9")
    (tmp_path / "report.json").write_text(text)
    code, out, err = run("ledger", "verify", "--report", str(tmp_path / "report.json"))
    assert (code, out) == (2, "")
    assert "is not the report of an apply task" in one_error(err)


def test_credentials_in_the_location_are_not_printed(run, monkeypatch):
    from airflow.sdk.io import attach
    from fsspec.implementations.memory import MemoryFileSystem

    attach("memory", conn_id="someone:hunter2-word", fs=MemoryFileSystem())
    monkeypatch.setenv("AIRFLOW__TAVUS__LEDGER", "memory://someone:hunter2-word@empty-bucket/ledger")
    code, out, err = run("ledger", "verify")
    assert (code, out) == (2, "")
    assert "memory://***@" in err
    assert "hunter2-word" not in err


def test_ledger_that_does_not_exist_fails(run, connect, monkeypatch, tmp_path):
    connect("http://127.0.0.1:9")
    monkeypatch.setenv("AIRFLOW__TAVUS__LEDGER", str(tmp_path / "mistyped"))
    code, out, err = run("ledger", "verify")
    assert (code, out) == (2, "")
    assert f"no ledger at {tmp_path / 'mistyped'}: no attempt is recorded there" in one_error(err)
