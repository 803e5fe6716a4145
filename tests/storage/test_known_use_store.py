"""The use that a plan read, stored for the tasks that carry it out."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from hashlib import sha256

import pytest

from tavus_provider.digest import seal
from tavus_provider.models import Conversation
from tavus_provider.retention.known_use import KnownUse
from tavus_provider.storage.known_use_store import read_known_use, store_known_use
from tavus_provider.storage.ledger import ledger_root

AT = datetime(2026, 6, 1, tzinfo=UTC)
DIGEST = "a" * 64
KNOWN = KnownUse(
    since=AT,
    ended=(Conversation("c1", "r1", None, "ended", AT), Conversation("c2", None, "p1", "ended", None)),
    active=(Conversation("c3", None, None, "active", AT),),
)


@pytest.fixture(autouse=True)
def ledger(monkeypatch, tmp_path):
    monkeypatch.setenv("AIRFLOW__TAVUS__LEDGER", str(tmp_path / "ledger"))
    return tmp_path / "ledger" / "_plans" / f"{DIGEST}.use.json"


def digest_of_file(file):
    return sha256(file.read_bytes()).hexdigest()


def test_stored_use_is_read_as_it_was(ledger):
    recorded = store_known_use(KNOWN, plan_digest=DIGEST)
    assert recorded == {"use.json": digest_of_file(ledger)}
    assert read_known_use(DIGEST, recorded=recorded["use.json"]) == KNOWN


def test_use_of_a_retried_plan_is_stored_once(ledger, caplog):
    store_known_use(KNOWN, plan_digest=DIGEST)
    assert store_known_use(KNOWN, plan_digest=DIGEST) == {"use.json": digest_of_file(ledger)}
    assert [file.name for file in ledger.parent.iterdir()] == [ledger.name]
    assert not caplog.records


def test_missing_use_is_none_and_logged(caplog):
    caplog.set_level("INFO")
    assert read_known_use(DIGEST, recorded="f" * 64) is None
    assert "All conversations are read again, because what the plan read is not available" in caplog.text


def test_use_without_a_recorded_digest_is_not_used(caplog):
    caplog.set_level("INFO")
    store_known_use(KNOWN, plan_digest=DIGEST)
    assert read_known_use(DIGEST, recorded=None) is None
    assert "(the ledger has no digest of it)" in caplog.text


def _without_zone(document):
    return document | {"since": "2026-06-01T00:00:00"}


CHANGES = [
    pytest.param(lambda document: document | {"ended": []}, id="changed"),
    pytest.param(lambda document: seal(document | {"ended": []}), id="changed with its digest"),
    pytest.param(lambda document: seal(document | {"version": 2}), id="version"),
    pytest.param(lambda document: seal(document | {"since": None}), id="no time"),
    pytest.param(lambda document: seal(_without_zone(document)), id="no zone"),
    pytest.param(lambda document: seal(document | {"active": [["c", 7, None, "ended", None]]}), id="type"),
    pytest.param(lambda document: seal(document | {"active": [["c"]]}), id="short"),
    pytest.param(lambda document: seal({k: v for k, v in document.items() if k != "ended"}), id="key"),
    pytest.param(lambda document: [], id="list"),
]


@pytest.mark.parametrize("change", CHANGES)
def test_changed_use_is_none_and_a_warning(ledger, caplog, change):
    recorded = store_known_use(KNOWN, plan_digest=DIGEST)["use.json"]
    ledger.write_text(json.dumps(change(json.loads(ledger.read_bytes()))))
    assert read_known_use(DIGEST, recorded=recorded) is None
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warning == f"{ledger} is not the file that the plan task stored: run ledger verify"


@pytest.mark.parametrize("change", CHANGES[2:])
def test_recorded_use_that_cannot_be_read_is_none(ledger, change):
    store_known_use(KNOWN, plan_digest=DIGEST)
    ledger.write_text(json.dumps(change(json.loads(ledger.read_bytes()))))
    assert read_known_use(DIGEST, recorded=digest_of_file(ledger)) is None


def test_truncated_use_is_none(ledger):
    recorded = store_known_use(KNOWN, plan_digest=DIGEST)["use.json"]
    ledger.write_bytes(ledger.read_bytes()[:-9])
    assert read_known_use(DIGEST, recorded=recorded) is None


def test_storage_failure_is_only_logged(monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AIRFLOW__TAVUS__LEDGER", str(tmp_path / "file"))
    assert store_known_use(KNOWN, plan_digest=DIGEST) == {}
    assert "it will be read again" in caplog.text


def test_stored_use_has_no_names():
    document = json.dumps(KNOWN.to_json())
    assert "name" not in document
    assert str(ledger_root()) not in document
