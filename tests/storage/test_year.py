"""A simulated year with quota, names and overdue replicas is what a year of runs on a sandbox does."""

from __future__ import annotations

from datetime import timedelta

import pytest
from storage.test_grace import World

from tavus_provider.execution.inventory import read_inventory
from tavus_provider.hooks.tavus import TavusHook
from tavus_provider.operators import base
from tavus_provider.retention.context import History
from tavus_provider.retention.policy import Policy
from tavus_provider.retention.simulation import simulate

DAYS = 365
ACCOUNT = {
    "replicas": [
        *(
            {"replica_id": f"demo{n}", "replica_name": f"demo_{n}", "age": f"{n * 9 + 1}d"}
            for n in range(1, 5)
        ),
        *({"replica_id": f"acme{n}", "replica_name": f"acme_{n}", "age": f"{n * 40}d"} for n in range(1, 8)),
        {"replica_id": "failed1", "replica_name": "acme_x", "age": "9d", "updated": "8d", "status": "error"},
        {"replica_id": "vip1", "replica_name": "vip_1", "age": "250d"},
        {"replica_id": "keep1", "replica_name": "acme_k", "age": "333d"},
    ],
    "conversations": [
        {"conversation_id": "c1", "replica_id": "acme7", "status": "ended", "age": "3d"},
        {"conversation_id": "c2", "replica_id": "acme6", "status": "ended", "age": "30d"},
    ],
}
POLICY = {
    "name": "year",
    "expire": [
        {"rule": "failed", "status": ["error"], "older_than": "14d"},
        {"rule": "demo", "names": {"include": ["demo_*"]}, "older_than": "30d", "grace": "7d"},
        {"rule": "rest", "unused_for": "300d"},
    ],
    "quota": {"above": 9, "down_to": 7, "older_than": "30d"},
    "scope": {"exclude": ["vip_*"]},
    "keep": {"protected_ids": ["keep1"], "in_use": ["conversation"]},
    "limits": {"max_deletions": 20, "max_deletion_percent": 100},
    "overdue_after": "1y",
}


@pytest.fixture
def world(serve, clock, run_task, monkeypatch):
    return World(serve(ACCOUNT), run_task, monkeypatch)


def test_year_of_runs_is_as_simulated(world, monkeypatch):
    policy = Policy.parse(POLICY)
    with TavusHook() as hook:
        inventory = read_inventory(hook, policy, now=base.now, history=lambda now: History())
    simulated = simulate(policy, inventory, now=inventory.read_at, days=DAYS)
    expected_deletes = {(one.day, one.verdict.replica.replica_id) for one in simulated.deletes}
    expected_overdue = {
        (day, one.verdict.replica.replica_id)
        for one in simulated.overdue
        for day in range(one.first, one.last + 1)
    }
    assert {"quota", "demo", "rest", "failed"} <= {d.verdict.rule or "quota" for d in simulated.deletes}
    assert expected_overdue

    started = inventory.read_at
    deletes, overdue = set(), set()
    for day in range(DAYS + 1):
        moment = started + timedelta(days=day)
        monkeypatch.setattr(base, "now", lambda moment=moment: moment)
        run_id = f"day {day}"
        plan = world.plan(POLICY, run_id=run_id).pushed["return_value"]
        overdue |= {(day, row["replica_id"]) for row in plan["overdue"]}
        if plan["delete"]:
            items, error = world.apply(plan, run_id=run_id)
            assert (error is not None) == bool(plan["overdue"])
            deletes |= {(day, one) for one, (outcome, _) in items.items() if outcome == "deleted"}
    assert deletes == expected_deletes
    assert overdue == expected_overdue
