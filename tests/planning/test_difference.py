"""What changed since the plan before."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from retention.samples import NOW, UNUSED, decide, policy, replica

from tavus_provider.models import Persona
from tavus_provider.planning.difference import MAX_ROWS, make_difference
from tavus_provider.planning.plan import make_plan, plan_reference
from tavus_provider.planning.verdicts import make_verdicts
from tavus_provider.retention.context import Inventory

STALE_ONLY = policy()
IN_USE = Inventory((), [Persona("p1", "r_used")], [], [])


def plan_of(decision, by=STALE_ONLY, **changes):
    made = make_plan(
        decision, by, now=NOW, hard=False, tavus_conn_id="tavus_default", origin="https://t.test"
    )
    return {**json.loads(json.dumps(made)), **changes}


def difference(after, before, by=STALE_ONLY):
    verdicts = json.loads(json.dumps(make_verdicts(before)))
    return make_difference(after, plan_of(after, by), plan_before=plan_of(before), verdicts_before=verdicts)


def test_new_saved_and_gone_replicas_are_named():
    young = timedelta(days=3)
    before = decide(replica("r_same"), replica("r_used"), replica("r_gone"), replica("r_grown", age=young))
    after = decide(replica("r_same"), replica("r_used"), replica("r_grown"), use=IN_USE)
    found = difference(after, before)
    assert found["counts"] == {"new": 1, "saved": 1, "saved_by_use": 1, "gone": 1, "unchanged": 1}
    assert [row["replica_id"] for row in found["new"]] == ["r_grown"]
    assert found["gone"][0]["replica_id"] == "r_gone"
    (saved,) = found["saved"]
    assert (saved["replica_id"], saved["by_use"]) == ("r_used", True)
    assert "persona" in saved["reason"]
    assert (found["same_policy"], found["made_at"]) == (True, "2026-09-01T12:00:00Z")


def test_replica_saved_by_another_policy_is_not_saved_by_use():
    before = decide(replica("r1"))
    protected = policy(keep={"protected_ids": ["r1"]})
    found = difference(decide(replica("r1"), by=protected), before, protected)
    assert (found["counts"]["saved"], found["counts"]["saved_by_use"], found["same_policy"]) == (1, 0, False)


def test_scheduled_replica_that_expires_is_new():
    grace = policy({"rule": "stale", "older_than": "90d", "grace": "7d"}, name="p")
    before, after = decide(replica("r1"), by=grace), decide(replica("r1"))
    assert before.scheduled
    assert difference(after, before)["counts"]["new"] == 1


def test_rows_are_cut_and_counts_are_not():
    after = decide(*(replica(f"r{number}") for number in range(MAX_ROWS + 7)))
    found = difference(after, decide(use=UNUSED))
    assert (len(found["new"]), found["counts"]["new"]) == (MAX_ROWS, MAX_ROWS + 7)


@pytest.mark.parametrize(
    ("plan", "verdicts", "notice"),
    [
        pytest.param(None, None, "There is no plan before this one", id="first"),
        pytest.param({"made_at": 3}, {}, "The plan before this one cannot be read", id="unreadable"),
        pytest.param(..., None, "The plan before this one cannot be read", id="no verdicts"),
        pytest.param(
            {"tavus_conn_id": "other"}, ..., "The plan before this one is of another account", id="account"
        ),
        pytest.param(
            ...,
            {"version": 1, "rows": [], "counts": {}, "notice": "too many"},
            "The plan before this one has too many verdicts to compare with",
            id="too many",
        ),
    ],
)
def test_without_a_plan_to_compare_with_the_reason_is_said(plan, verdicts, notice):
    decision = decide(replica("r1"))
    known = plan_of(decision)
    if plan is ...:
        plan = known
    elif plan is not None and "made_at" not in plan:
        plan = known | plan
    if verdicts is ...:
        verdicts = json.loads(json.dumps(make_verdicts(decision)))
    assert make_difference(decision, known, plan_before=plan, verdicts_before=verdicts) == {
        "version": 1,
        "notice": notice,
    }


def test_reference_to_a_stored_plan_is_compared_with():
    decision = decide(replica("r1"))
    reference = plan_reference(plan_of(decision), plan_at="/ledger/_plans/x.json")
    verdicts = json.loads(json.dumps(make_verdicts(decision)))
    found = make_difference(decision, plan_of(decision), plan_before=reference, verdicts_before=verdicts)
    assert found["counts"]["unchanged"] == 1
