"""Listings with odd rows and odd JSON: the client against the sandbox."""

from __future__ import annotations

import pytest

from tavus_provider.exceptions import TavusInvalidResponseError
from tavus_provider.models import NO_ID, Replica, UnreadableRow
from tavus_provider.sandbox import Sandbox

KINDS = ("replicas", "personas", "conversations", "videos")


@pytest.fixture
def listed(sandbox, make_client):
    """Return a function that lists one kind of rows."""
    client = make_client(sandbox.url, key=sandbox.key)
    return lambda kind, **options: getattr(client, f"list_{kind}")(**options)


@pytest.mark.parametrize("kind", KINDS)
def test_unreadable_rows_are_listed_beside_the_others(sandbox, listed, kind):
    readable = listed(kind)
    odd = [None, {}, "x", {f"{kind[:-1]}_id": 7}, {f"{kind[:-1]}_id": ["a"]}]
    sandbox.switch(odd_rows={kind: odd})
    rows = listed(kind)
    assert rows[: len(readable)] == readable
    unreadable = rows[len(readable) :]
    assert len(unreadable) == len(odd)
    assert all(isinstance(row, UnreadableRow) and row.kind == kind[:-1] for row in unreadable)
    assert len({row.key for row in rows}) == len(rows)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("odd", "clamp"), [([None, {"status": "x"}, None, {}], None), ([None, None], 12)])
def test_rows_without_content_are_told_apart_by_their_position(sandbox, listed, kind, odd, clamp):
    count = len(listed(kind))
    sandbox.switch(odd_rows={kind: odd}, clamp_limit=clamp)
    assert len(listed(kind)) == count + len(odd)


def test_equal_rows_on_several_pages_are_all_counted(make_client):
    rows = {"replicas": [{"replica_id": f"r{n:03}", "age": "1d"} for n in range(150)]}
    with Sandbox(rows) as sandbox:
        sandbox.switch(odd_rows={"replicas": [None, *({"replica_id": f"x.{n}"} for n in range(100)), None]})
        listing = make_client(sandbox.url, key=sandbox.key).list_replicas()
    assert len(listing) == 252
    assert sum(row.key.startswith(NO_ID) for row in listing) == 2


def test_pages_are_not_linked_by_rows_without_id(make_client):
    """Two pages that share nothing but equal rows without an id can have a gap between them."""
    rows = {"replicas": [{"replica_id": "r1", "age": "1d"}]}
    with Sandbox(rows) as sandbox:
        sandbox.switch(odd_rows={"replicas": [None] * 250})
        with pytest.raises(TavusInvalidResponseError, match="cannot be shown to be complete"):
            make_client(sandbox.url, key=sandbox.key).list_replicas()


@pytest.mark.parametrize("latest_only", [False, True])
def test_unreadable_activities_are_all_kept(sandbox, listed, latest_only):
    sandbox.switch(
        odd_rows={"conversations": [{"replica_id": "r1"}, {"replica_id": "r1", "status": "ended"}]}
    )
    rows = listed("conversations", latest_only=latest_only)
    assert sum(isinstance(row, UnreadableRow) for row in rows) == 2


def test_truncated_listing_with_unreadable_rows_is_still_rejected(sandbox, listed):
    sandbox.switch(odd_rows={"replicas": [None, {"replica_id": 7}]}, total_count="high")
    with pytest.raises(TavusInvalidResponseError, match="total_count"):
        listed("replicas")


@pytest.mark.parametrize("oddity", ["bom", "nan", "huge", "duplicate"])
def test_odd_json_in_fields_that_nobody_reads_does_not_matter(sandbox, listed, oddity):
    before = {kind: listed(kind) for kind in KINDS}
    sandbox.switch(json=oddity)
    assert {kind: listed(kind) for kind in KINDS} == before


@pytest.mark.parametrize("dialect", ["blank", "utc", "offset", "iso-seconds", "rfc1123"])
def test_every_format_of_a_date_with_a_zone_is_read(sandbox, listed, dialect):
    before = {row.replica_id: row.created_at for row in listed("replicas")}
    sandbox.switch(dates=dialect)
    for row in listed("replicas"):
        expected = before[row.replica_id]
        assert row.created_at == (expected and expected.replace(microsecond=row.created_at.microsecond))


@pytest.mark.parametrize("dialect", ["naive", "epoch"])
def test_dates_without_a_zone_and_numbers_are_unreadable(sandbox, listed, dialect):
    sandbox.switch(dates=dialect)
    row = next(row for row in listed("replicas") if row.replica_id == "r1a0c5e8f3b2")
    assert row.created_at is None
    assert "created_at" in row.unreadable


def test_empty_strings_are_nulls(sandbox, listed):
    sandbox.put("personas", {"persona_id": "p1", "default_replica_id": None})
    sandbox.put("conversations", {"conversation_id": "c1", "replica_id": None, "persona_id": None})
    before = {kind: listed(kind) for kind in KINDS}
    sandbox.switch(nulls="empty")
    assert {kind: listed(kind) for kind in KINDS} == before


@pytest.mark.parametrize(
    "name", ["a\ud83d", "a\0", "\u0301" * 200_000], ids=["half an emoji", "NUL", "marks"]
)
def test_any_name_is_listed_safe(sandbox, listed, name):
    sandbox.put("replicas", {"replica_id": "r1a0c5e8f3b2", "replica_name": name})
    row = next(row for row in listed("replicas") if row.replica_id == "r1a0c5e8f3b2")
    assert isinstance(row, Replica)
    assert len(row.replica_name.encode()) <= 1024
    assert "\0" not in row.replica_name
    assert "[sha256:" in row.replica_name
