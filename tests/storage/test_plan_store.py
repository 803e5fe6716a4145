"""Plans are stored beside the ledger, and nothing else is read in their place."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from airflow.configuration import AIRFLOW_HOME
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem

from tavus_provider.digest import seal
from tavus_provider.exceptions import LedgerUnavailableError, PlanRejectedError
from tavus_provider.storage.ledger import Ledger, ledger_root
from tavus_provider.storage.ledger_verify import verify
from tavus_provider.storage.plan_store import from_xcom, store
from tavus_provider.storage.plan_store import to_xcom as make_xcom


@pytest.fixture(autouse=True)
def ledger(monkeypatch, tmp_path):
    monkeypatch.setenv("AIRFLOW__TAVUS__LEDGER", str(tmp_path / "ledger"))
    return tmp_path / "ledger"


def make_plan(count, name="anna"):
    row = {
        "replica_name": name,
        "created_at": "2026-01-01T00:00:00Z",
        "age_days": 200,
        "last_used_at": None,
        "rule": "stale",
        "source": "rule",
        "reason": "200 days old, limit is 90d",
    }
    return seal(
        {
            "version": 1,
            "policy": {"name": "stale"},
            "policy_digest": "0" * 64,
            "made_at": datetime(2026, 6, 1, tzinfo=UTC).isoformat(),
            "valid_until": datetime(2026, 6, 2, tzinfo=UTC).isoformat(),
            "hard": False,
            "tavus_conn_id": "tavus_default",
            "origin": "https://tavusapi.com",
            "listed": 4 * count,
            "limits": {"max_deletions": count},
            "delete": [{"replica_id": f"r{n:06}", **row} for n in range(count)],
            "scheduled": [],
            "keep": {"in_use": 3 * count},
            "undetermined": [],
        }
    )


def to_xcom(plan):
    return make_xcom(plan, plan_at=store(plan))


LARGE = make_plan(8_000)


def stored_file(ledger) -> Path:
    (file,) = (ledger / "_plans").iterdir()
    return file


def test_small_plan_is_its_own_xcom_and_is_stored(ledger):
    plan = make_plan(1_000)
    assert to_xcom(plan) is plan
    assert stored_file(ledger).name == f"{plan['digest']}.json"
    assert from_xcom(plan) == plan
    assert from_xcom(plan) is not plan


def test_xcom_of_a_large_plan_is_a_reference_with_digest_and_counts():
    plan = make_plan(100_000, name="zoë")
    reference = json.loads(json.dumps(to_xcom(plan)))
    assert len(json.dumps(reference)) < 2_000
    assert "delete" not in reference
    assert reference["counts"] == {"delete": 100_000, "scheduled": 0, "undetermined": 0, "overdue": 0}
    assert (reference["digest"], reference["hard"], reference["listed"]) == (plan["digest"], False, 400_000)
    assert from_xcom(reference) == plan


def test_stored_plan_is_in_the_ledger_under_its_digest(ledger):
    reference = to_xcom(LARGE)
    assert reference["plan_at"] == str(ledger_root() / "_plans" / f"{LARGE['digest']}.json")
    assert stored_file(ledger).name == f"{LARGE['digest']}.json"


def test_stored_plan_is_not_a_finding_in_the_ledger():
    to_xcom(LARGE)
    Ledger("https://tavusapi.com", "tavus_default").begin_attempt("plan-1").close()
    attempts, findings = verify(ledger_root())
    assert (len(attempts), findings) == (1, [])


def test_plan_that_is_stored_already_is_stored_again_without_error(ledger):
    assert to_xcom(LARGE) == to_xcom(LARGE)
    stored_file(ledger).write_bytes(b"other content")
    with pytest.raises(LedgerUnavailableError, match=r"cannot be stored at .* \(File exists\)"):
        to_xcom(LARGE)


def test_relative_ledger_holds_plans_that_every_folder_finds(monkeypatch, tmp_path):
    monkeypatch.setenv("AIRFLOW__TAVUS__LEDGER", f"relative-{tmp_path.name}")
    monkeypatch.chdir(tmp_path)
    reference = to_xcom(LARGE)
    monkeypatch.chdir("/")
    assert from_xcom(reference) == LARGE
    assert reference["plan_at"] == f"{AIRFLOW_HOME}/relative-{tmp_path.name}/_plans/{LARGE['digest']}.json"


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda blob: blob[:-1], id="cut"),
        pytest.param(lambda blob: b"", id="empty"),
        pytest.param(lambda blob: blob.replace(b"r000007", b"r999999"), id="another-id"),
        pytest.param(lambda blob: json.dumps(make_plan(8_001)).encode(), id="another-plan"),
        pytest.param(lambda blob: b"[]", id="not-a-plan"),
        pytest.param(lambda blob: b"\xff", id="not-text"),
    ],
)
def test_changed_stored_plan_is_rejected(ledger, damage):
    reference = to_xcom(LARGE)
    file = stored_file(ledger)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(
        PlanRejectedError, match=r"is not the plan that was stored there\. Nothing was deleted"
    ):
        from_xcom(reference)


def test_missing_stored_plan_may_be_found_by_a_retry(ledger):
    reference = to_xcom(LARGE)
    stored_file(ledger).unlink()
    with pytest.raises(
        LedgerUnavailableError, match=r"cannot be read at .*No such file or directory.* all workers share"
    ):
        from_xcom(reference)


def test_plan_that_cannot_be_stored_is_an_error(ledger):
    ledger.write_text("a file where a folder should be")
    with pytest.raises(LedgerUnavailableError, match="cannot be stored at"):
        to_xcom(LARGE)


def test_other_ledger_on_another_worker_is_named(monkeypatch, tmp_path):
    reference = to_xcom(LARGE)
    monkeypatch.setenv("AIRFLOW__TAVUS__LEDGER", str(tmp_path / "another"))
    with pytest.raises(
        PlanRejectedError, match=r"^the plan is stored at .*, but this task would read it from .* all workers"
    ):
        from_xcom(reference)


@pytest.mark.parametrize("location", ["/etc/passwd", "s3://other/plan.json", None, 7], ids=repr)
def test_reference_to_another_location_is_rejected(location):
    reference = to_xcom(LARGE) | {"plan_at": location}
    with pytest.raises(PlanRejectedError, match=r"^the plan is stored at"):
        from_xcom(reference)


@pytest.mark.parametrize("digest", ["../../x", "", None, "A" * 64, "0" * 63, 7], ids=repr)
def test_reference_without_a_valid_digest_is_rejected(digest):
    with pytest.raises(PlanRejectedError, match=r"^the reference to a stored plan has no valid digest"):
        from_xcom(to_xcom(LARGE) | {"digest": digest})


@pytest.mark.parametrize("value", [None, "x", [], {}, {"delete": []}], ids=repr)
def test_value_that_is_neither_a_plan_nor_a_reference_is_rejected(value):
    with pytest.raises(PlanRejectedError, match=r"^the plan is rejected"):
        from_xcom(value)


def test_changed_plan_in_an_xcom_is_rejected():
    plan = make_plan(3)
    to_xcom(plan)
    with pytest.raises(PlanRejectedError, match="was changed after it was made"):
        from_xcom(plan | {"delete": []})


def test_changed_reference_is_rejected():
    reference = to_xcom(LARGE)
    with pytest.raises(PlanRejectedError, match="the reference to the stored plan was changed"):
        from_xcom(reference | {"counts": {"delete": 1, "scheduled": 0, "undetermined": 0, "overdue": 0}})


def test_plan_that_was_never_stored_is_not_read_from_the_xcom(ledger):
    to_xcom(make_plan(1))
    with pytest.raises(LedgerUnavailableError, match="the XCom was changed"):
        from_xcom(make_plan(2))


def test_credentials_in_the_location_of_the_ledger_are_not_in_the_xcom(monkeypatch):
    attach("memory", conn_id="someone:hunter2-word", fs=MemoryFileSystem())
    monkeypatch.setenv("AIRFLOW__TAVUS__LEDGER", "memory://someone:hunter2-word@bucket/ledger")
    reference = to_xcom(LARGE)
    assert "hunter2-word" not in json.dumps(reference)
    assert from_xcom(reference)["digest"] == LARGE["digest"]
    with pytest.raises(PlanRejectedError, match="this task would read it from") as error:
        from_xcom({**reference, "plan_at": "elsewhere"})
    assert "hunter2-word" not in str(error.value)
