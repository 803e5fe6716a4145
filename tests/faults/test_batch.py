"""Faults while an operator applies a plan, with 1 and with 16 deletes at the same time."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from faults.harness import ALWAYS, each_applied
from faults.judge import REPORTED_GONE, false_delete_claims, unwanted_deletes
from faults.kinds import BY_NAME, KINDS, FaultKind, samples
from faults.server import Fault
from plans import approve_plan

from tavus_provider.exceptions import TavusRetryableError
from tavus_provider.operators.tavus import ApplyRetentionOperator, PlanRetentionOperator
from tavus_provider.outcomes import UNFINISHED

pytestmark = pytest.mark.cell

KEY_REJECTED = ("F20 401", "F20 403")
BATCH = [f"b{number:02}" for number in range(8)]
each_concurrency = pytest.mark.parametrize("concurrency", [1, 16])
POLICY = {
    "name": "old",
    "expire": [{"rule": "old", "older_than": "90d"}],
    "limits": {"max_deletions": 99, "max_deletion_percent": 100},
}


def each_kind_and_concurrency(kinds):
    """Parametrize a test by kinds of fault and concurrency. Timed faults allow one request at a time."""
    cells = [(kind, number) for kind in samples(kinds) for number in ([1] if kind.timed else [1, 16])]
    ids = [f"{number}-{kind.name}" for kind, number in cells]
    return pytest.mark.parametrize(("kind", "concurrency"), cells, ids=ids)


class Ti:
    """A task instance that records the XComs pushed."""

    dag_id, run_id, task_id, map_index = "dag", "manual__1", "task", -1

    def __init__(self) -> None:
        self.try_number = 1
        self.pushed: dict[str, object] = {}

    def xcom_push(self, key, value):
        self.pushed[key] = json.loads(json.dumps(value))


def run(operator):
    """Execute an operator. Return its XCom, and its error message or ``None``."""
    ti = Ti()
    try:
        ti.xcom_push("return_value", operator.execute({"ti": ti, "task_instance": ti, "task": operator}))
    except (AirflowFailException, TavusRetryableError) as error:
        return ti.pushed.get("return_value"), str(error)
    return ti.pushed["return_value"], None


@pytest.fixture
def apply(start):
    """Make a plan and apply it with faults: ``apply(ids, *faults)`` returns the harness and the outcomes."""

    def make_and_apply(ids, *faults, concurrency=1, hard=False, timed=False):
        harness = start(ids, timed=timed, extra={"concurrency": 16})
        harness.tavus.page_size = 100
        plan, _ = run(PlanRetentionOperator(task_id="plan", policy=POLICY, hard=hard))
        assert [row["replica_id"] for row in plan["delete"]] == ids
        harness.tavus.set_faults(*faults)
        if hard:
            approve_plan(plan)
        report, error = run(
            ApplyRetentionOperator(task_id="apply", plan=plan, concurrency=concurrency, hard=hard)
        )
        harness.record([report, error])
        outcomes = {item["replica_id"]: item["outcome"] for item in report["items"]}
        check_report(harness.tavus, ids, report, error)
        return harness, outcomes

    return make_and_apply


def check_report(tavus, ids, report, error) -> None:
    """Check that the report covers the plan, that it is true, and that success means that all is deleted."""
    outcomes = {item["replica_id"]: item["outcome"] for item in report["items"]}
    assert list(outcomes) == ids
    counts = {outcome: count for outcome, count in report["counts"].items() if count}
    assert counts == Counter(outcomes.values())
    assert [claim for one in ids for claim in false_delete_claims(tavus, outcomes[one], one)] == []
    assert unwanted_deletes(tavus, ids) == []
    assert bool(error) == any(outcome in UNFINISHED for outcome in outcomes.values())
    if not error:
        assert tavus.existing == []


@each_kind_and_concurrency([kind for kind in KINDS if kind.not_applied])
def test_fault_of_one_replica_does_not_affect_others(apply, kind: FaultKind, concurrency):
    fault = Fault(kind.respond, "DELETE", replica_id="b03", times=ALWAYS)
    _, outcomes = apply(BATCH, fault, concurrency=concurrency, hard=True, timed=kind.timed)
    outcome = kind.not_applied.split()[1]
    assert outcomes["b03"] == outcome
    others = {outcomes[other] for other in BATCH if other != "b03"}
    assert others <= ({"deleted", "not_attempted"} if kind.name in KEY_REJECTED else {"deleted"})


@each_kind_and_concurrency([kind for kind in KINDS if kind.applied])
def test_faults_of_applied_deletes_hide_no_delete(apply, kind: FaultKind, concurrency):
    fault = Fault(kind.respond, "DELETE", applied=True, times=ALWAYS)
    harness, outcomes = apply(BATCH, fault, concurrency=concurrency, timed=kind.timed)
    assert set(outcomes.values()) == {kind.applied.split()[1]}
    assert harness.tavus.count("DELETE") == len(BATCH)


@each_kind_and_concurrency([kind for kind in KINDS if kind.not_applied])
def test_faults_of_deletes_that_were_not_applied_claim_no_delete(apply, kind: FaultKind, concurrency):
    fault = Fault(kind.respond, "DELETE", times=ALWAYS)
    harness, outcomes = apply(BATCH, fault, concurrency=concurrency, timed=kind.timed)
    assert set(outcomes.values()) <= {kind.not_applied.split()[1], "not_attempted"}
    assert harness.tavus.existing == BATCH


@each_kind_and_concurrency([kind for kind in KINDS if kind.not_applied])
def test_temporary_fault_leaves_no_replica(apply, kind: FaultKind, concurrency):
    fault = Fault(kind.respond, "DELETE", times=2)
    _, outcomes = apply(BATCH, fault, concurrency=concurrency, timed=kind.timed)
    left = [replica_id for replica_id in BATCH if outcomes[replica_id] not in REPORTED_GONE]
    if not kind.no_retry and kind.name not in KEY_REJECTED:
        assert left == []
    elif kind.name not in KEY_REJECTED:
        assert len(left) == 2


# What stops the deletes

MANY = [f"m{number:02}" for number in range(40)]


@pytest.mark.parametrize(("name", "attempts"), [("F20 401", 2), ("F20 403", 1)])
@each_concurrency
@pytest.mark.parametrize("method", ["DELETE", "GET"])
def test_rejected_key_stops_the_deletes(apply, name, attempts, concurrency, method):
    fault = Fault(BY_NAME[name].respond, method, times=ALWAYS)
    harness, outcomes = apply(MANY, fault, concurrency=concurrency, hard=True)
    assert harness.tavus.count(method) <= concurrency * attempts
    assert harness.tavus.count("DELETE") <= (concurrency * attempts if method == "DELETE" else 0)
    counts = Counter(outcomes.values())
    assert counts["failed"] * attempts == harness.tavus.count("DELETE")
    assert counts["failed"] + counts["not_attempted"] == len(MANY)


@each_kind_and_concurrency([kind for kind in KINDS if kind.ambiguous and not kind.timed])
def test_five_unknown_outcomes_in_a_row_stop_the_deletes(apply, kind: FaultKind, concurrency):
    harness, outcomes = apply(MANY, Fault(kind.respond, "DELETE", times=ALWAYS), concurrency=concurrency)
    counts = Counter(outcomes.values())
    assert set(counts) == {"unknown", "not_attempted"}
    assert 5 <= counts["unknown"] < 5 + concurrency
    # All deletes share ten retries, so that a server that is down does not get three requests per replica.
    assert harness.tavus.count("DELETE") <= counts["unknown"] + 10


@each_applied
@each_concurrency
def test_server_that_confirms_deletes_without_applying_them_is_detected(apply, concurrency, applied):
    respond = BY_NAME["F41 204"].respond
    _, outcomes = apply(
        MANY, Fault(respond, "DELETE", times=ALWAYS, applied=applied), concurrency=concurrency, hard=True
    )
    assert set(outcomes.values()) == {"deleted" if applied else "unknown"}
