"""The example DAGs for several accounts: real runs of them against two sandboxes."""

from __future__ import annotations

import json

import pytest
from pages import ROOT

from tavus_provider.sandbox import Sandbox

OTHER_KEY = "other-account-key-51d2e7f0"
OTHER = [
    {"replica_id": "rother000001", "replica_name": "old", "age": "200d"},
    {"replica_id": "rother000002", "replica_name": "new", "age": "3d"},
]
ORDER = ["tavus_default", "tavus_other"]


@pytest.fixture
def other(sandbox, monkeypatch):
    """A second account: another sandbox with its own key, and the connection ``tavus_other`` to it."""
    with Sandbox({"replicas": OTHER}, key=OTHER_KEY) as running:
        connection = {"conn_type": "tavus", "host": running.url, "password": OTHER_KEY}
        monkeypatch.setenv("AIRFLOW_CONN_TAVUS_OTHER", json.dumps(connection))
        monkeypatch.setenv("AIRFLOW__TAVUS__ALLOWED_ORIGINS", f"{sandbox.url},{running.url}")
        yield running


@pytest.fixture
def run_accounts(run_dag, tmp_path, other):
    """Run a DAG for both accounts: ``run_accounts(dag_id, conf, older_than="90d")``."""

    def run(dag_id, conf, *, older_than="90d", **kwargs):
        text = (ROOT / "dags" / f"{dag_id}.py").read_text()
        for old, new in (
            ('CONNECTIONS = ["tavus_default"]', f"CONNECTIONS = {ORDER}"),
            ('OLDER_THAN = "90d"', f'OLDER_THAN = "{older_than}"'),
            (f'"{dag_id}"', f'"two_{dag_id}_{older_than}"'),
        ):
            assert old in text
            text = text.replace(old, new)
        folder = tmp_path / "accounts"
        folder.mkdir(exist_ok=True)
        (folder / "accounts.py").write_text(text)
        return run_dag(f"two_{dag_id}_{older_than}", conf, folder=folder, **kwargs)

    return run


def deleted(sandbox):
    return {row["replica_id"] for row in sandbox.state()["deletes"]}


def test_each_account_has_its_plan_and_its_report(sandbox, other, run_accounts):
    ran = run_accounts("tavus_prune_accounts", {})
    assert ran.states == {
        "accounts": "success",
        **{(task, at): "success" for task in ("plan", "apply") for at in (0, 1)},
    }
    assert len(deleted(sandbox)) == 6
    assert deleted(other) == {"rother000001"}
    for at, conn_id, url in ((0, "tavus_default", sandbox.url), (1, "tavus_other", other.url)):
        for task in ("plan", "apply"):
            xcom = ran.pull(task, at=at)
            assert (xcom["tavus_conn_id"], xcom["origin"]) == (conn_id, url)
            assert ran.instances[task, at].rendered_map_index == conn_id
    assert ran.pull("apply", at=1)["counts"]["deleted"] == 1


def test_asset_events_name_their_account(sandbox, other, run_accounts):
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session

    run = run_accounts("tavus_prune_accounts", {})
    with create_session() as session:
        events = session.query(AssetEvent).filter(AssetEvent.source_run_id == run.run_id).all()
        extras = {event.extra["tavus_conn_id"]: event.extra for event in events}
    assert {name: (extra["origin"], extra["counts"]["deleted"]) for name, extra in extras.items()} == {
        "tavus_default": (sandbox.url, 6),
        "tavus_other": (other.url, 1),
    }


def test_limit_of_one_account_does_not_stop_the_other(sandbox, other, run_accounts):
    ran = run_accounts("tavus_prune_accounts", {}, older_than="60d")
    assert ran.state == "failed"
    assert (ran.states["plan", 0], ran.states["apply", 0]) == ("failed", "upstream_failed")
    assert (ran.states["plan", 1], ran.states["apply", 1]) == ("success", "success")
    assert (deleted(sandbox), deleted(other)) == (set(), {"rother000001"})


def test_form_can_leave_an_account_out_and_add_none(sandbox, other, run_accounts):
    ran = run_accounts("tavus_prune_accounts", {"accounts": ["tavus_other"]})
    assert ran.state == "success"
    assert (deleted(sandbox), deleted(other)) == (set(), {"rother000001"})
    for accounts in (["tavus_third"], [], ["tavus_other", "tavus_other"], "tavus_other"):
        with pytest.raises(Exception, match="accounts"):
            run_accounts("tavus_prune_accounts", {"accounts": accounts})


def test_dry_run_deletes_nothing_in_any_account(sandbox, other, run_accounts):
    ran = run_accounts("tavus_prune_accounts", {"dry_run": True})
    assert ran.state == "success"
    assert [ran.pull("apply", at=at)["counts"]["skipped"] for at in (0, 1)] == [6, 1]
    assert deleted(sandbox) | deleted(other) == set()


def test_unknown_conf_key_is_refused_before_anything_is_read(sandbox, other, run_accounts):
    assert run_accounts("tavus_prune_accounts", {"dryrun": True}).state == "failed"
    assert sandbox.state()["requests"] == other.state()["requests"] == []


def test_purge_without_the_approval_of_an_account_deletes_nothing_there(sandbox, other, run_accounts):
    ran = run_accounts("tavus_purge_accounts", {}, mark_success_pattern="approve")
    assert ran.states == {
        "accounts": "success",
        **{("plan", at): "success" for at in (0, 1)},
        **{("approve", at): "success" for at in (0, 1)},
        **{("apply", at): "failed" for at in (0, 1)},
    }
    assert deleted(sandbox) | deleted(other) == set()


def test_purge_asks_for_no_approval_where_nothing_is_to_be_deleted(sandbox, other, run_accounts):
    ran = run_accounts("tavus_purge_accounts", {"older_than": "5000d"})
    assert ran.state == "success"
    assert {state for (task, _), state in list(ran.states.items())[1:] if task != "plan"} == {"skipped"}
    assert {ran.instances["approve", at].rendered_map_index for at in (0, 1)} == set(ORDER)
