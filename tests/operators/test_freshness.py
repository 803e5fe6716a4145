"""What is known of holds, use and the plan is at most 60 seconds old when a delete is sent (case E9)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from operators.tasks import Ti, apply_task, planned, requests, run

from tavus_provider.client import rate_limiter
from tavus_provider.exceptions import TavusRetryableError
from tavus_provider.hooks.tavus import TavusHook
from tavus_provider.operators import base

COUNT = 12
WORLD = {"replicas": [{"replica_id": f"r{n:02}", "replica_name": "x", "age": "200d"} for n in range(COUNT)]}
LIMITS = {"max_deletions": COUNT, "max_deletion_percent": 100}
POLICY = {"name": "all", "expire": [{"rule": "old", "older_than": "90d"}], "limits": LIMITS}


@pytest.fixture
def later(monkeypatch):
    """Let time pass, and something happen, before the third delete: ``later(seconds, change)``."""

    def arrange(seconds, change):
        passed, calls, real = [0.0], [], TavusHook.delete_replica
        monkeypatch.setattr(base, "monotonic", lambda: passed[0])
        monkeypatch.setattr(base, "now", lambda: datetime.now(UTC) + timedelta(seconds=passed[0]))

        def delete_replica(hook, replica_id, **arguments):
            calls.append(replica_id)
            if len(calls) == 3:
                passed[0] += seconds
                change()
            return real(hook, replica_id, **arguments)

        monkeypatch.setattr(TavusHook, "delete_replica", delete_replica)

    return arrange


def results(ti):
    return {
        item["replica_id"]: (item["outcome"], item["detail"]) for item in ti.pushed["return_value"]["items"]
    }


def apply(plan, error=None):
    ti = Ti()
    operator = apply_task(plan, concurrency=1)
    if error is None:
        run(operator, ti)
    else:
        with pytest.raises(error):
            run(operator, ti)
    return results(ti)


def last(plan):
    return plan["delete"][-1]["replica_id"]


def hold(tmp_path, *replica_ids):
    (tmp_path / "holds.json").write_text(str(list(replica_ids)).replace("'", '"'))


@pytest.mark.parametrize("which", ["third", "last"])
def test_hold_that_begins_during_the_deletes_counts(serve, tmp_path, later, which):
    """The third delete waits to be sent when the hold begins."""
    sandbox = serve(WORLD)
    hold(tmp_path)
    holds = {"legal_holds": {"file": str(tmp_path / "holds.json"), "max_age": "7d"}}
    plan = planned(policy=POLICY | holds)
    held = plan["delete"][2 if which == "third" else -1]["replica_id"]
    later(61, lambda: hold(tmp_path, held))
    found = apply(plan)
    assert found.pop(held) == ("skipped", "no longer expired: is under legal hold")
    assert {outcome for outcome, _ in found.values()} == {"deleted"}
    assert held not in {row["replica_id"] for row in sandbox.state()["deletes"]}


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        ("conversations", {"conversation_id": "c1", "status": "active", "age": "0s"}),
        ("personas", {"persona_id": "p1", "age": "0s"}),
        ("videos", {"video_id": "v1", "status": "queued", "age": "0s"}),
    ],
)
def test_use_that_begins_during_the_deletes_counts(serve, later, kind, row):
    sandbox = serve(WORLD)
    plan = planned(policy=POLICY)
    field = "default_replica_id" if kind == "personas" else "replica_id"
    later(61, lambda: sandbox.put(kind, row | {field: last(plan)}))
    found = apply(plan)
    outcome, detail = found.pop(last(plan))
    assert (outcome, detail.startswith("no longer expired: ")) == ("skipped", True)
    assert {outcome for outcome, _ in found.values()} == {"deleted"}
    assert last(plan) not in {row["replica_id"] for row in sandbox.state()["deletes"]}


def test_hold_that_begins_during_a_wait_for_the_rate_limit_counts(serve, tmp_path, clock, monkeypatch):
    """A delete that was rejected with 429 is sent again after 70 seconds, when the replica is held."""
    sandbox = serve(WORLD)
    hold(tmp_path)
    holds = {"legal_holds": {"file": str(tmp_path / "holds.json"), "max_age": "7d"}}
    plan = planned(policy=POLICY | holds)
    held = plan["delete"][2]["replica_id"]
    (limiter,) = rate_limiter._shared.values()

    def sleep(seconds, stop):
        if seconds > 60:
            hold(tmp_path, held)
        return clock.sleep(seconds, stop)

    monkeypatch.setattr(limiter, "sleep", sleep)
    monkeypatch.setattr(base, "monotonic", clock)
    path = f"/v2/replicas/{held}"
    sandbox.switch(faults=[{"method": "DELETE", "path": path, "status": 429, "retry_after": "70"}])
    found = apply(plan)
    assert found.pop(held) == ("skipped", "no longer expired: is under legal hold")
    assert {outcome for outcome, _ in found.values()} == {"deleted"}
    assert requests(sandbox, "DELETE").count(f"DELETE {path}") == 1


def test_recent_facts_are_not_read_again(serve, later):
    sandbox = serve(WORLD)
    plan, before = planned(policy=POLICY), []
    later(29, lambda: before.append(len(requests(sandbox, "GET"))))
    assert {outcome for outcome, _ in apply(plan).values()} == {"deleted"}
    assert requests(sandbox, "GET")[before[0] :] == ["GET /v2/replicas"]  # the list after the deletes


def test_only_what_the_policy_asks_for_is_read_again(serve, later):
    sandbox = serve(WORLD)
    plan, before = planned(policy=POLICY | {"keep": {"in_use": []}}), []
    later(61, lambda: before.append(len(requests(sandbox, "GET"))))
    assert {outcome for outcome, _ in apply(plan).values()} == {"deleted"}
    assert requests(sandbox, "GET")[before[0] :] == ["GET /v2/replicas"]


def test_plan_that_expires_during_the_deletes_is_not_carried_on(serve, later):
    sandbox = serve(WORLD)
    plan = planned(policy=POLICY)
    later(24 * 3600 + 1, lambda: None)
    found = apply(plan, TavusRetryableError)
    assert [outcome for outcome, _ in found.values()] == ["deleted"] * 2 + ["not_attempted"] * 10
    assert all("the plan expired at " in detail for outcome, detail in found.values() if outcome != "deleted")
    assert len(requests(sandbox, "DELETE")) == 2
    with pytest.raises(AirflowFailException, match="it expired at"):
        run(apply_task(plan), Ti(try_number=2))


def test_facts_that_cannot_be_read_again_stop_the_deletes(serve, later):
    sandbox = serve(WORLD)
    plan = planned(policy=POLICY)
    fault = {"method": "GET", "path": "/v2/conversations", "status": 403, "times": None}
    later(61, lambda: sandbox.switch(faults=[fault]))
    found = apply(plan, TavusRetryableError)
    assert [outcome for outcome, _ in found.values()] == ["deleted"] * 2 + ["not_attempted"] * 10
    assert all(
        "what is held and in use could not be read again" in detail
        for outcome, detail in found.values()
        if outcome != "deleted"
    )
    assert len(requests(sandbox, "DELETE")) == 2
    sandbox.switch(faults=[])


def test_holds_that_cannot_be_read_again_stop_the_deletes(serve, later, tmp_path):
    sandbox = serve(WORLD)
    hold(tmp_path)
    holds = {"legal_holds": {"file": str(tmp_path / "holds.json"), "max_age": "7d"}}
    plan = planned(policy=POLICY | holds)
    later(61, (tmp_path / "holds.json").unlink)
    apply(plan, TavusRetryableError)
    assert len(requests(sandbox, "DELETE")) == 2
