"""The use that a plan read, stored for the tasks that carry it out."""

from __future__ import annotations

import json
from datetime import UTC, datetime

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


def test_stored_use_is_read_as_it_was():
    store_known_use(KNOWN, plan_digest=DIGEST)
    assert read_known_use(DIGEST) == KNOWN


def test_use_of_a_retried_plan_is_stored_once(ledger, caplog):
    store_known_use(KNOWN, plan_digest=DIGEST)
    store_known_use(KNOWN, plan_digest=DIGEST)
    assert [file.name for file in ledger.parent.iterdir()] == [ledger.name]
    assert not caplog.records


def test_missing_use_is_none_and_logged(caplog):
    caplog.set_level("INFO")
    assert read_known_use(DIGEST) is None
    assert "All conversations are read again, because what the plan read is not available" in caplog.text


def _without_zone(document):
    return document | {"since": "2026-06-01T00:00:00"}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda document: document | {"ended": []}, id="changed"),
        pytest.param(lambda document: seal(document | {"plan_digest": "b" * 64}), id="another plan"),
        pytest.param(lambda document: seal(document | {"version": 2}), id="version"),
        pytest.param(lambda document: seal(document | {"since": None}), id="no time"),
        pytest.param(lambda document: seal(_without_zone(document)), id="no zone"),
        pytest.param(
            lambda document: seal(document | {"active": [["c", 7, None, "ended", None]]}), id="type"
        ),
        pytest.param(lambda document: seal(document | {"active": [["c"]]}), id="short"),
        pytest.param(lambda document: seal({k: v for k, v in document.items() if k != "ended"}), id="key"),
        pytest.param(lambda document: [], id="list"),
    ],
)
def test_damaged_use_is_none(ledger, change):
    store_known_use(KNOWN, plan_digest=DIGEST)
    document = json.loads(ledger.read_bytes())
    ledger.write_text(json.dumps(change(document)))
    assert read_known_use(DIGEST) is None


def test_truncated_use_is_none(ledger):
    store_known_use(KNOWN, plan_digest=DIGEST)
    ledger.write_bytes(ledger.read_bytes()[:-9])
    assert read_known_use(DIGEST) is None


def test_storage_failure_is_only_logged(monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AIRFLOW__TAVUS__LEDGER", str(tmp_path / "file"))
    store_known_use(KNOWN, plan_digest=DIGEST)
    assert "it will be read again" in caplog.text


def test_stored_use_has_no_names():
    document = json.dumps(KNOWN.to_json())
    assert "name" not in document
    assert str(ledger_root()) not in document
