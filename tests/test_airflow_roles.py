"""
What users of each role can and cannot do to a run on a real Airflow: cases E1 to E5, C2, C14 and C16.

XComs and the states of tasks can be written by the role *user* and above; the ledger, which counts, cannot.
"""

from __future__ import annotations

import pytest
from airflow.sdk import ObjectStoragePath
from airflow_server import ROOT, USERS, Airflow

from tavus_provider.digest import seal
from tavus_provider.storage.ledger_verify import compare_report, verify

APPROVERS = {"alice": "op", "bob": "user"}
IN_USE = "r09d7f2c4b6a"
"""A replica of the sandbox that is in an active conversation."""

DAGS = """
from airflow.sdk import DAG, task_group

from tavus_provider.operators.tavus import (
    ApplyRetentionOperator,
    ApproveRetentionOperator,
    PlanRetentionOperator,
    SplitRetentionOperator,
    SummarizeRetentionOperator,
)


def policy(pattern):
    return {"name": pattern, "expire": [{"older_than": "90d"}], "scope": {"include": [pattern]}}


with DAG("unapproved", schedule=None, render_template_as_native_obj=True):
    plan = PlanRetentionOperator(task_id="plan", hard=True, policy=policy("unapproved-*"))
    ApplyRetentionOperator(task_id="apply", hard=True, plan=plan.output)

with DAG("by_policy", schedule=None, render_template_as_native_obj=True):
    plan = PlanRetentionOperator.partial(task_id="plan", hard=True).expand(
        policy=[policy("policy-a-*"), policy("policy-b-*")]
    )
    approve = ApproveRetentionOperator.partial(task_id="approve").expand(plan=plan.output)
    apply = ApplyRetentionOperator.partial(task_id="apply", hard=True).expand(plan=plan.output)
    approve >> apply

with DAG("by_connection", schedule=None, render_template_as_native_obj=True):

    @task_group
    def purge(tavus_conn_id):
        plan = PlanRetentionOperator(
            task_id="plan", hard=True, policy=policy("account-*"), tavus_conn_id=tavus_conn_id
        )
        approve = ApproveRetentionOperator(task_id="approve", plan=plan.output)
        apply = ApplyRetentionOperator(
            task_id="apply", hard=True, plan=plan.output, tavus_conn_id=tavus_conn_id
        )
        plan >> approve >> apply

    purge.expand(tavus_conn_id=["tavus_default", "tavus_second"])

with DAG("batched", schedule=None, render_template_as_native_obj=True):
    plan = PlanRetentionOperator(task_id="plan", hard=True, policy=policy("batched-*"))
    approve = ApproveRetentionOperator(task_id="approve", plan=plan.output)
    split = SplitRetentionOperator(task_id="split", plan=plan.output, batch_size=2)
    apply = ApplyRetentionOperator.partial(task_id="apply", hard=True, plan=plan.output).expand_kwargs(
        split.output
    )
    approve >> split
    SummarizeRetentionOperator(task_id="summary", plan=plan.output, reports=apply.output)
"""


@pytest.fixture(scope="module")
def airflow(start_airflow, tmp_path_factory):
    """Airflow with one user of each role, and two approvers. Who triggered a run may not approve it."""
    dags = tmp_path_factory.mktemp("dags")
    (dags / "shapes.py").write_text(DAGS)
    for name in ("prune", "purge"):
        shipped = (ROOT / "dags" / f"tavus_{name}_replicas.py").read_text()
        assert shipped.count("    max_active_runs=1,\n") == 1
        changed = shipped.replace("    max_active_runs=1,\n", "").replace(f"tavus_{name}_replicas", name)
        (dags / f"{name}.py").write_text(changed)
    settings = {
        "AIRFLOW__TAVUS__APPROVERS": ",".join(APPROVERS),
        "AIRFLOW__TAVUS__APPROVER_MUST_DIFFER": "True",
    }
    return start_airflow(dags, settings=settings, users=USERS | APPROVERS)


def add(airflow: Airflow, prefix: str, count: int = 2) -> set[str]:
    """Add expired replicas to the account, named ``prefix-0`` and so on, and return their ids."""
    ids = [f"r{prefix.replace('-', '')}{number}" for number in range(count)]
    rows = [
        {"replica_id": replica_id, "replica_name": f"{prefix}-{number}", "age": "300d"}
        for number, replica_id in enumerate(ids)
    ]
    airflow.control_sandbox("replicas", rows)
    return set(ids)


def replace_plan(airflow: Airflow, run: str, plan: dict, *, message: str) -> str:
    """
    Replace the XCom of the plan, as a user who is not an approver.

    Returns the message with which the plan is refused: Airflow 3.1 stores the text of what it receives.
    """
    path = f"{run}/taskInstances/plan/xcomEntries/return_value"
    airflow.api(path, "PATCH", user="user", json={"value": plan, "map_index": -1})
    is_text = isinstance(airflow.xcom(run, "plan"), str)
    return "set render_template_as_native_obj=True" if is_text else message


def assert_refused(airflow: Airflow, run: str, task: str, *messages: str, kept: set[str], attempt: int = 1):
    """Check that the run is red, that the log of a task says why, and that these replicas still exist."""
    state, tasks = airflow.finished(run)
    assert (state, tasks[task]) == ("failed", "failed")
    log = airflow.log(run, task, attempt=attempt)
    for message in (*messages, "othing was deleted"):
        assert message in log
    assert not kept & airflow.deleted()


def assert_approved_by(airflow: Airflow, report: dict, *people: str) -> None:
    """Check that a report agrees with the ledger, which names who approved its plan."""
    attempts, findings = verify(ObjectStoragePath(str(airflow.home / "tavus-ledger")))
    assert findings == []
    assert compare_report(attempts, report) == []
    answers = [
        (attempt.begin_record["answer"], attempt.begin_record["answered_by"])
        for attempt in attempts
        if attempt.begin_record["kind"] == "answered"
        and attempt.begin_record["plan_digest"] == report["plan_digest"]
    ]
    assert answers == [("approve", person) for person in people]


# -- what must not work


def test_only_the_configured_approvers_can_answer(airflow):
    """Case C14: with the SimpleAuthManager, the id of a user is the user name."""
    ids = add(airflow, "answer")
    run = airflow.trigger("purge", include=["answer-*"])
    page = airflow.page(run)
    assert [user["id"] for user in page["assigned_users"]] == list(APPROVERS)
    path = f"{run}/taskInstances/approve/-1/hitlDetails"
    for user in USERS:
        response = airflow.request(
            path, "PATCH", user=user, json={"chosen_options": ["Approve"], "params_input": {}}
        )
        assert response.status_code == 403
        assert response.json()["detail"] == (
            "Forbidden" if user == "viewer" else f"User={user} (id={user}) is not a respondent for the task."
        )
    airflow.answer(run, "Approve", user="bob")
    assert airflow.finished(run)[0] == "success"
    assert ids <= airflow.deleted()
    assert_approved_by(airflow, airflow.xcom(run, "apply"), "bob")


def test_marking_the_approval_as_success_approves_nothing(airflow):
    """Case E1."""
    ids = add(airflow, "marked")
    run = airflow.trigger("purge", include=["marked-*"])
    airflow.page(run)
    digest = airflow.xcom(run, "plan")["digest"]
    for user, status in (("viewer", 403), ("user", 201)):
        forged = {"key": "approved_digest", "value": digest, "map_index": -1}
        answer = {"key": "return_value", "value": {"chosen_options": ["Approve"]}, "map_index": -1}
        for entry in (forged, answer):
            path = f"{run}/taskInstances/approve/xcomEntries"
            assert airflow.request(path, "POST", user=user, json=entry).status_code == status
        marked = airflow.request(
            f"{run}/taskInstances/approve", "PATCH", user=user, json={"new_state": "success"}
        )
        assert marked.status_code == (403 if user == "viewer" else 200)
    assert_refused(airflow, run, "apply", "the ledger has no record of an approval of this plan", kept=ids)


def test_plan_replaced_while_the_approver_looks_is_not_carried_out(airflow):
    """Case E2."""
    shown, more = add(airflow, "shown", 1), add(airflow, "hidden", 3)
    run = airflow.trigger("purge", include=["shown-*"])
    assert "Delete 1 Tavus replica" in airflow.page(run)["subject"]
    plan = airflow.xcom(run, "plan")
    (row,) = plan["delete"]
    rows = [row, *(row | {"replica_id": replica_id, "replica_name": "x"} for replica_id in sorted(more))]
    assert (
        airflow.request(
            f"{run}/taskInstances/plan/xcomEntries/return_value", "PATCH", user="viewer", json={"value": 1}
        ).status_code
        == 403
    )
    message = replace_plan(airflow, run, seal(plan | {"delete": rows}), message="the XCom was changed")
    airflow.answer(run, "Approve", user="alice")
    assert_refused(airflow, run, "approve", message, kept=shown | more)


def test_plan_of_another_run_is_not_carried_out(airflow):
    """Case E2, with a plan that another run really made."""
    ids = add(airflow, "other", 3)
    planned = airflow.trigger("prune", include=["other-*"], dry_run=True)
    run = airflow.trigger("prune", include=["nothing-*"])
    assert airflow.finished(planned)[0] == "success"
    assert airflow.finished(run)[0] == "success"
    other = airflow.xcom(planned, "plan")
    message = replace_plan(airflow, run, other, message="the plan is from another run")
    airflow.clear(run, "apply", user="user")
    assert_refused(airflow, run, "apply", message, kept=ids, attempt=2)


def test_plan_with_another_policy_and_limits_is_not_carried_out(airflow):
    """Case E3: sealed again, above the limit, and with a replica in an active conversation."""
    ids = add(airflow, "limits", 12)
    run = airflow.trigger("prune", include=["limits-0"])
    assert airflow.finished(run)[0] == "success"
    plan = airflow.xcom(run, "plan")
    (row,) = plan["delete"]
    assert row["replica_id"] == "rlimits0"
    limits = {"max_deletions": 1_000, "max_deletion_percent": 100}
    left = ids - {"rlimits0"} | {IN_USE}
    forged = plan | {
        "policy": plan["policy"] | {"limits": limits, "keep": {}},
        "limits": limits,
        "delete": [row | {"replica_id": replica_id} for replica_id in sorted(left)],
    }
    message = replace_plan(airflow, run, seal(forged), message="the XCom was changed")
    airflow.clear(run, "apply", user="user")
    assert_refused(airflow, run, "apply", message, kept=left, attempt=2)


def test_dag_without_an_approval_deletes_nothing_permanently(airflow):
    """Case E4."""
    ids = add(airflow, "unapproved")
    run = airflow.trigger("unapproved", as_user="alice")
    assert_refused(airflow, run, "apply", "use a task with ApproveRetentionOperator upstream", kept=ids)


def test_limits_count_what_the_run_has_deleted_before_it_was_cleared(airflow):
    """Case E5: under a limit of 10, 8 expired replicas, and 8 more that appear before the run is cleared."""
    first = add(airflow, "cleared-a", 8)
    run = airflow.trigger("prune", include=["cleared-*"])
    assert airflow.finished(run)[0] == "success"
    assert first <= airflow.deleted()
    later = add(airflow, "cleared-b", 8)
    airflow.clear(run, "apply", user="user")
    assert airflow.finished(run)[0] == "success"
    for attempt in (2, 3):
        airflow.clear(run, "plan", "apply", user="user")
        message = "8 of them were deleted by this run before"
        assert_refused(airflow, run, "plan", message, kept=later, attempt=attempt)


def test_who_triggered_a_run_may_not_approve_it(airflow):
    ids = add(airflow, "own")
    run = airflow.trigger("purge", as_user="alice", include=["own-*"])
    airflow.page(run)
    airflow.answer(run, "Approve", user="alice")
    assert_refused(airflow, run, "approve", "'alice' answered, who triggered the run", kept=ids)


# -- what must work


def test_rejection_skips_the_delete_and_is_recorded(airflow):
    """Case C16."""
    ids = add(airflow, "rejected")
    run = airflow.trigger("purge", include=["rejected-*"])
    airflow.page(run)
    airflow.answer(run, "Reject", user="alice")
    assert airflow.finished(run)[1] == {"plan": "success", "approve": "success", "apply": "skipped"}
    digest = airflow.xcom(run, "plan")["digest"]
    attempts, _ = verify(ObjectStoragePath(str(airflow.home / "tavus-ledger")))
    (answer,) = (
        attempt.begin_record
        for attempt in attempts
        if attempt.begin_record["kind"] == "answered" and attempt.begin_record["plan_digest"] == digest
    )
    assert (answer["answer"], answer["answered_by"]) == ("reject", "alice")
    # neither can the rejected plan be carried out later
    airflow.clear(run, "apply", user="user")
    airflow.finished(run)
    assert not ids & airflow.deleted()


def test_mapped_plans_are_approved_one_by_one(airflow):
    """Case C2: one approval for each policy; a rejection concerns only its own plan."""
    approved, rejected = add(airflow, "policy-a"), add(airflow, "policy-b")
    run = airflow.trigger("by_policy")
    for map_index, answer in ((0, "Approve"), (1, "Reject")):
        page = airflow.page(run, map_index=map_index)
        assert ("rpolicya0" in page["body"], "rpolicyb0" in page["body"]) == (map_index == 0, map_index == 1)
        airflow.answer(run, answer, user="alice", map_index=map_index)
    state, tasks = airflow.finished(run)
    assert (state, tasks["approve[0]"], tasks["approve[1]"]) == ("success", "success", "success")
    assert not rejected & airflow.deleted()
    assert approved <= airflow.deleted()
    assert (tasks["apply[0]"], tasks["apply[1]"]) == ("success", "skipped")


def test_plans_of_mapped_connections_are_approved_one_by_one(airflow):
    """Case C2: a mapped task group, one instance for each connection."""
    airflow.api(
        "/connections",
        "POST",
        json={"connection_id": "tavus_second", "conn_type": "tavus", "host": airflow.sandbox}
        | {"password": "sandbox"},
    )
    ids = add(airflow, "account")
    run = airflow.trigger("by_connection")
    pages = [airflow.page(run, task="purge.approve", map_index=map_index) for map_index in (0, 1)]
    assert ["tavus&#95;second" in page["body"] for page in pages] == [False, True]
    airflow.answer(run, "Reject", user="alice", task="purge.approve", map_index=0)
    airflow.answer(run, "Approve", user="bob", task="purge.approve", map_index=1)
    state, tasks = airflow.finished(run)
    assert (state, tasks["purge.apply[0]"], tasks["purge.apply[1]"]) == ("success", "skipped", "success")
    assert ids <= airflow.deleted()
    assert_approved_by(airflow, airflow.xcom(run, "purge.apply", map_index=1), "bob")


def test_batches_of_an_approved_plan_are_carried_out(airflow):
    ids = add(airflow, "batched", 5)
    run = airflow.trigger("batched")
    assert "Delete 5 Tavus replicas" in airflow.page(run)["subject"]
    airflow.answer(run, "Approve", user="alice")
    state, tasks = airflow.finished(run)
    assert (state, [tasks[f"apply[{number}]"] for number in range(3)]) == ("success", ["success"] * 3)
    report = airflow.xcom(run, "summary")
    assert (report["hard"], report["counts"]["deleted"]) == (True, 5)
    assert ids <= airflow.deleted()
    assert_approved_by(airflow, report, "alice")
