"""The DAGs for erasures: real runs of them against a sandbox."""

from __future__ import annotations

from pathlib import Path

import pytest
from erasures import ACTIVE, FACE, REQUEST, apply_erasure, certify, erase, plan_erasure

DAGS = Path(__file__).parents[1] / "dags"
CONF = {"request": REQUEST["request"], "received_on": REQUEST["received_on"], "replica_ids": [FACE]}


def events_of(run):
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session

    with create_session() as session:
        found = session.query(AssetEvent).filter(AssetEvent.source_run_id == run.run_id).all()
        return {event.asset.name: event.extra for event in found}


def test_approve_marked_as_success_erases_nothing(sandbox, run_dag):
    ran = run_dag("tavus_erase_person", CONF, mark_success_pattern="approve")
    assert ran.states == {"plan": "success", "approve": "success", "apply": "failed", "certify": "failed"}
    assert [row["key"] for row in ran.pull("plan")["delete"]] == [FACE, ACTIVE]
    assert not [one for one in sandbox.state()["requests"] if one["method"] != "GET"]


def test_second_run_completes_what_a_first_one_left(sandbox, run_dag):
    """Nothing is left to delete, so nobody is asked, and the certificate is about the first run too."""
    apply_erasure(plan_erasure())
    ran = run_dag("tavus_erase_person", CONF)
    assert ran.states == {"plan": "success", "approve": "skipped", "apply": "success", "certify": "success"}
    certificate = ran.pull("certify")
    assert certificate["state"] == "complete"
    assert [item["key"] for item in certificate["items"]] == [FACE, ACTIVE]
    assert all(item["is_accepted"] for item in certificate["items"])
    assert events_of(ran)["tavus_person_erased"] == {
        "request": REQUEST["request"],
        "state": "complete",
        "keys": [FACE, ACTIVE],
        "count": 2,
        "certificate": 1,
        "digest": certificate["digest"],
    }


def test_reference_stops_the_plan(sandbox, run_dag):
    sandbox.put("personas", {"persona_id": "p7a8b9c0d1e2", "default_replica_id": FACE})
    ran = run_dag("tavus_erase_person", CONF)
    assert ran.states == {
        "plan": "failed",
        **dict.fromkeys(("approve", "apply", "certify"), "upstream_failed"),
    }
    assert ran.pull("plan")["references"] == [{"persona_id": "p7a8b9c0d1e2", "replica_id": FACE}]


@pytest.mark.parametrize(
    "bad",
    [
        {"request": "Jane Doe"},
        {"request": "JaneDoe"},
        {"request": "jane@example.com"},
        {"received_on": "yesterday"},
        {"replica_ids": "r1"},
        {"replica_ids": ["../r1"]},
        {"kinds": []},
        {"ground": "because"},
    ],
)
def test_form_rejects(sandbox, run_dag, bad):
    with pytest.raises(Exception, match=next(iter(bad))):
        run_dag("tavus_erase_person", CONF | bad)
    assert sandbox.state()["requests"] == []


def test_check_is_green_without_requests(sandbox, run_dag):
    ran = run_dag("tavus_erasures")
    assert ran.state == "success"
    assert ran.pull("check", at=0) == []


def test_check_is_red_if_an_erased_object_is_listed_again(sandbox, run_dag):
    erase()
    assert run_dag("tavus_erasures").state == "success"
    sandbox.put("replicas", {"replica_id": FACE, "deleted": None})
    ran = run_dag("tavus_erasures")
    assert ran.state == "failed"
    assert ran.pull("check", at=0)[0]["problems"] == [f"erased, and listed again: {FACE}"]


def test_each_account_has_its_own_request_and_its_own_check(sandbox, run_dag, tmp_path, monkeypatch):
    """The same reference in two accounts: one is erased, the other is open and overdue."""
    import os

    monkeypatch.setenv("AIRFLOW_CONN_TAVUS_EU", os.environ["AIRFLOW_CONN_TAVUS_DEFAULT"])
    for name in ("tavus_erase_person", "tavus_erasures"):
        text = (DAGS / f"{name}.py").read_text()
        assert text.count('CONNECTIONS = ["tavus_default"]') == 1
        text = text.replace('["tavus_default"]', '["tavus_default", "tavus_eu"]')
        (tmp_path / f"{name}.py").write_text(text.replace(f'"{name}"', f'"two_{name}"'))
    with pytest.raises(Exception, match="account"):
        run_dag("two_tavus_erase_person", CONF | {"account": "another"}, folder=tmp_path)
    ran = run_dag(
        "two_tavus_erase_person",
        CONF | {"account": "tavus_eu", "received_on": "2026-09-01"},
        folder=tmp_path,
        mark_success_pattern="approve",
    )
    assert ran.pull("plan")["tavus_conn_id"] == "tavus_eu"
    ran = run_dag("two_tavus_erasures", folder=tmp_path)
    assert ran.state == "failed"
    assert ran.pull("check", at=0) == []
    (row,) = ran.pull("check", at=1)
    assert "overdue (due on 2026-10-01)" in row["problems"][0]


def test_certificate_of_a_run_without_a_scheduler(sandbox):
    plan = plan_erasure()
    apply_erasure(plan)
    assert certify(plan)["counts"]["replica"]["accepted"] == 1
