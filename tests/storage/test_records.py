"""Which records are accepted when they are written and when they are read."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from tavus_provider.digest import canonical_json, seal
from tavus_provider.exceptions import TavusValidationError
from tavus_provider.outcomes import Outcome
from tavus_provider.storage import records
from tavus_provider.storage.records import Record, make_record, parse_record

NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)
RECORD = make_record("begin", number=1, previous=None, at=NOW, intent=["r1"], hard=False)


def changed(**fields):
    """The record with other fields and the digest that fits them; ``...`` removes a field."""
    record = {name: value for name, value in ({**RECORD, **fields}).items() if value is not ...}
    return canonical_json(seal({name: value for name, value in record.items() if name != "digest"}))


def test_record_that_was_made_is_read_back():
    outcomes = {f"r{n}": outcome for n, outcome in enumerate(Outcome, start=1)}
    record = make_record("outcome", number=2, previous=RECORD["digest"], at=NOW, outcomes=outcomes)
    assert parse_record(canonical_json(record)) == record
    assert (record["version"], record["at"]) == (1, "2026-09-01T12:00:00+00:00")


def test_every_field_has_a_check():
    assert records._CHECKS.keys() == Record.__annotations__.keys()


INVALID = [
    pytest.param({"version": 2}, id="other-version"),
    pytest.param({"version": True}, id="version-true"),
    pytest.param({"version": ...}, id="no-version"),
    pytest.param({"kind": "start"}, id="unknown-kind"),
    pytest.param({"kind": ["begin"]}, id="kind-is-a-list"),
    pytest.param({"kind": ...}, id="no-kind"),
    pytest.param({"number": 0}, id="number-0"),
    pytest.param({"number": "1"}, id="number-is-text"),
    pytest.param({"previous": 7}, id="previous-is-a-number"),
    pytest.param({"at": "2026-09-01T12:00:00"}, id="time-without-zone"),
    pytest.param({"at": "yesterday"}, id="time-is-a-word"),
    pytest.param({"replica_name": "Ada"}, id="unknown-field"),
    pytest.param({"hard": "false"}, id="hard-is-text"),
    pytest.param({"intent": "r1"}, id="intent-is-text"),
    pytest.param({"intent": ["../r1"]}, id="intent-with-an-invalid-id"),
    pytest.param({"intent": ["none"]}, id="intent-with-a-reserved-id"),
    pytest.param({"outcomes": {"r1": "gone"}}, id="unknown-outcome"),
    pytest.param({"outcomes": {"r1": None}}, id="outcome-null"),
    pytest.param({"outcomes": {"r 1": "deleted"}}, id="outcome-of-an-invalid-id"),
    pytest.param({"outcomes": ["r1"]}, id="outcomes-is-a-list"),
    pytest.param({"scheduled": {"r1": "2026-09-01"}}, id="scheduled-without-zone"),
    pytest.param({"cancelled": [1]}, id="cancelled-with-a-number"),
    pytest.param({"prior_attempts": {"a": 1}}, id="prior-attempt-with-a-number"),
    pytest.param({"map_index": True}, id="map-index-true"),
]


@pytest.mark.parametrize("fields", INVALID)
def test_invalid_record_is_not_read(fields):
    assert parse_record(changed(hard=True)) is not None
    assert parse_record(changed(**fields)) is None


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"replica_name": "Ada"}, "replica_name"),
        ({"outcomes": {"r1": "gone"}, "hard": "false"}, "hard, outcomes"),
    ],
)
def test_invalid_record_is_not_made(fields, named):
    with pytest.raises(TavusValidationError, match=f"^ledger record: invalid {named}; nothing was recorded"):
        make_record("begin", number=1, previous=None, at=NOW, **fields)


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"null", b"[]", b"0", b'"x"', b"{}", b'{"digest":1}', b"\xff\xfe", b"{", b"[" * 100_000),
        canonical_json(seal({"number": 1, "previous": None})),
        pytest.param(canonical_json({**RECORD, "hard": True}), id="other-content"),
        pytest.param(json.dumps(RECORD).encode(), id="not-canonical"),
        pytest.param(canonical_json(RECORD)[:-1] + b',"hard":false}', id="duplicate-key"),
        pytest.param(canonical_json(RECORD) + b"\n", id="added-line"),
    ],
    ids=lambda data: repr(data[:30]),
)
def test_other_data_is_not_a_record(data):
    assert parse_record(data) is None
