from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem

from tavus_provider.digest import seal
from tavus_provider.exceptions import LedgerUnavailableError, PlanRejectedError
from tavus_provider.storage.ledger import Ledger, ledger_root
from tavus_provider.storage.ledger_verify import verify
from tavus_provider.storage.plan_store import from_xcom, to_xcom


@pytest.fixture(autouse=True)
def ledger(monkeypatch, tmp_path):
    monkeypatch.setenv("AIRFLOW__TAVUS__LEDGER", str(tmp_path / "ledger"))
    return tmp_path / "ledger"


def plan_of(many, name="anna"):
    row = {
        "replica_name": name,
        "created_at": "2026-01-01T00:00:00Z",
        "age_days": 200,
        "last_used_at": None,
        "rule": "stale",
        "reason": "200 days old, limit is 90d",
    }
    return seal(
        {
            "policy": {"name": "stale"},
            "policy_digest": "0" * 64,
            "made_at": datetime(2026, 6, 1, tzinfo=UTC).isoformat(),
            "valid_until": datetime(2026, 6, 2, tzinfo=UTC).isoformat(),
            "hard": False,
            "tavus_conn_id": "tavus_default",
            "origin": "https://tavusapi.com",
            "listed": 4 * many,
            "limits": {"max_deletions": many},
            "delete": [{"replica_id": f"r{n:06}", **row} for n in range(many)],
            "scheduled": [],
            "keep": {"in_use": 3 * many},
            "undetermined": [],
        }
    )


LARGE = plan_of(8_000)


def stored(ledger) -> Path:
    (file,) = (ledger / "_plans").iterdir()
    return file


def test_a_plan_that_fits_travels_as_itself_and_nothing_is_stored(ledger):
    plan = plan_of(1_000)
    assert to_xcom(plan) is plan
    assert from_xcom(plan) is plan
    assert not ledger.exists()


def test_a_plan_of_100000_travels_as_its_place_its_digest_and_its_counts():
    plan = plan_of(100_000, name="zoë")
    reference = json.loads(json.dumps(to_xcom(plan)))
    assert len(json.dumps(reference)) < 2_000
    assert "delete" not in reference
    assert reference["counts"] == {"delete": 100_000, "scheduled": 0, "undetermined": 0}
    assert (reference["digest"], reference["hard"], reference["listed"]) == (plan["digest"], False, 400_000)
    assert from_xcom(reference) == plan


def test_the_place_is_below_the_ledger_and_named_by_the_digest(ledger):
    reference = to_xcom(LARGE)
    assert reference["plan_at"] == str(ledger_root() / "_plans" / f"{LARGE['digest']}.json")
    assert stored(ledger).name == f"{LARGE['digest']}.json"


def test_a_stored_plan_is_no_flaw_of_the_ledger():
    to_xcom(LARGE)
    Ledger("https://tavusapi.com", "tavus_default").begin_attempt("plan-1").close()
    tries, findings = verify(ledger_root())
    assert (len(tries), findings) == (1, [])


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda blob: blob[:-1], id="cut"),
        pytest.param(lambda blob: b"", id="empty"),
        pytest.param(lambda blob: blob.replace(b"r000007", b"r999999"), id="another-id"),
        pytest.param(lambda blob: json.dumps(plan_of(8_001)).encode(), id="another-plan"),
        pytest.param(lambda blob: b"[]", id="no-plan"),
        pytest.param(lambda blob: b"\xff", id="no-text"),
    ],
)
def test_what_is_not_the_plan_that_was_stored_is_refused(ledger, damage):
    reference = to_xcom(LARGE)
    file = stored(ledger)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(
        PlanRejectedError, match=r"is not the plan that was stored there\. Nothing was deleted"
    ):
        from_xcom(reference)


def test_a_plan_that_is_not_there_may_be_there_at_another_try(ledger):
    reference = to_xcom(LARGE)
    stored(ledger).unlink()
    with pytest.raises(
        LedgerUnavailableError, match=r"cannot be read at .*FileNotFoundError.* all workers share"
    ):
        from_xcom(reference)


def test_a_plan_that_cannot_be_stored_is_no_plan(ledger):
    ledger.write_text("a file where a folder should be")
    with pytest.raises(LedgerUnavailableError, match="cannot be stored at"):
        to_xcom(LARGE)


def test_a_worker_with_another_ledger_says_so(monkeypatch, tmp_path):
    reference = to_xcom(LARGE)
    monkeypatch.setenv("AIRFLOW__TAVUS__LEDGER", str(tmp_path / "another"))
    with pytest.raises(
        PlanRejectedError, match=r"^the plan lies at .*, and this task would look at .* all workers"
    ):
        from_xcom(reference)


@pytest.mark.parametrize("place", ["/etc/passwd", "s3://other/plan.json", None, 7], ids=repr)
def test_a_reference_cannot_point_anywhere_else(place):
    reference = to_xcom(LARGE) | {"plan_at": place}
    with pytest.raises(PlanRejectedError, match=r"^the plan lies at"):
        from_xcom(reference)


@pytest.mark.parametrize("digest", ["../../x", "", None, "A" * 64, "0" * 63, 7], ids=repr)
def test_a_reference_without_a_digest_refers_to_nothing(digest):
    with pytest.raises(PlanRejectedError, match=r"^plan refers to a stored plan without its digest"):
        from_xcom(to_xcom(LARGE) | {"digest": digest})


@pytest.mark.parametrize("value", [None, "x", [], {}, {"delete": []}], ids=repr)
def test_what_is_no_reference_is_left_to_whoever_checks_plans(value):
    assert from_xcom(value) is value


def test_a_password_in_the_address_of_the_ledger_does_not_travel_with_the_plan(monkeypatch):
    attach("memory", conn_id="someone:hunter2-word", fs=MemoryFileSystem())
    monkeypatch.setenv("AIRFLOW__TAVUS__LEDGER", "memory://someone:hunter2-word@bucket/ledger")
    reference = to_xcom(LARGE)
    assert "hunter2-word" not in json.dumps(reference)
    assert from_xcom(reference)["digest"] == LARGE["digest"]
    with pytest.raises(PlanRejectedError, match="this task would look at") as error:
        from_xcom({**reference, "plan_at": "elsewhere"})
    assert "hunter2-word" not in str(error.value)
