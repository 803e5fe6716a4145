"""Plan: XComs, log, limits and invalid policies."""

from __future__ import annotations

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from operators.tasks import EXPIRED, KEY, OLD, POLICY, Ti, plan_task, planned, requests, run

from tavus_provider.exceptions import TavusError, TavusValidationError
from tavus_provider.retention.policy import Policy

GRACE = POLICY | {"name": "announced", "expire": [{"rule": "old", "older_than": "90d", "grace": "7d"}]}


def test_plan_and_verdicts_are_pushed(sandbox):
    ti = Ti()
    plan = run(plan_task(), ti)
    assert {row["replica_id"] for row in plan["delete"]} == EXPIRED
    assert (plan["hard"], plan["tavus_conn_id"], plan["origin"]) == (False, "tavus_default", sandbox.url)
    assert plan["listed"] == 26 == len(ti.pushed["verdicts"]["rows"])
    assert {row["status"] for row in ti.pushed["verdicts"]["rows"][:6]} == {"expired"}
    assert requests(sandbox, "DELETE") == []


def test_every_verdict_and_its_reason_is_logged(sandbox, log):
    ti = Ti()
    run(plan_task(), ti)
    lines = log()
    for row in ti.pushed["verdicts"]["rows"]:
        assert len([line for line in lines if row["replica_id"] in line and row["reason"] in line]) == 1
    assert [line for line in lines if "6 of 26 replicas to delete, 4 undetermined and kept" in line]
    assert not [line for line in lines if KEY in line]


def test_policy_object_gives_the_same_plan_as_its_mapping(sandbox):
    assert planned(policy=Policy.parse(POLICY))["policy"] == planned(policy=POLICY)["policy"]


def test_plan_beyond_a_limit_is_pushed_before_the_task_fails(sandbox):
    ti = Ti()
    with pytest.raises(AirflowFailException) as caught:
        run(plan_task(POLICY | {"limits": {"max_deletions": 5}}), ti)
    assert str(caught.value) == (
        "6 of 26 replicas would be deleted, max_deletions is 5: narrow the policy or raise its limit; "
        "nothing was deleted. The policy is in the DAG file"
    )
    assert len(ti.pushed["return_value"]["delete"]) == 6
    assert len(ti.pushed["verdicts"]["rows"]) == 26


def test_dry_run_beyond_a_limit_succeeds_with_a_warning(sandbox, log):
    policy = POLICY | {"limits": {"max_deletion_percent": 23}}
    plan = run(plan_task(policy, dry_run=True))
    assert len(plan["delete"]) == 6
    message = "A real run would stop here: 6 of 26 replicas would be deleted, max_deletion_percent is 23"
    assert [line for line in log() if message in line and "warning" in line]


@pytest.mark.parametrize("parts", [{"hard": True}, {"policy": GRACE}], ids=["hard", "grace"])
def test_local_ledger_with_a_remote_executor_stops_a_plan_but_not_a_dry_run(sandbox, log, monkeypatch, parts):
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    with pytest.raises(AirflowFailException, match="set ledger_is_shared there to True"):
        run(plan_task(**parts))
    assert not requests(sandbox, "GET")
    assert run(plan_task(**parts, dry_run=True))["origin"] == sandbox.url
    message = "A real run would stop here: "
    assert [line for line in log() if message in line and "ledger_is_shared" in line and "warning" in line]
    monkeypatch.setenv("AIRFLOW__TAVUS__LEDGER_IS_SHARED", "True")
    assert run(plan_task(**parts))["origin"] == sandbox.url


@pytest.mark.parametrize("kind", ["replicas", "personas", "conversations", "videos"])
def test_unreadable_list_fails_the_plan(sandbox, kind):
    sandbox.switch(faults=[{"method": "GET", "path": f"/v2/{kind}", "status": 500, "times": None}])
    ti = Ti()
    with pytest.raises(TavusError, match=f"GET /v2/{kind}"):
        run(plan_task(), ti)
    assert ti.pushed.keys() == {"error"}


# -- invalid policies


DURATION = "must be one number and one unit such as 90d (units: y, w, d, h, min)"
MAPPING = (
    "must be a mapping with keys of name, expire, scope, narrow, keep, legal_holds, account, "
    "hard_delete_after, limits"
)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        pytest.param({}, "policy: expire: is missing", id="no-rule"),
        pytest.param({"expire": []}, "policy: expire: must not be empty; name at least one", id="empty"),
        pytest.param(
            {"expire": [{"older_than": "90"}]},
            "policy: expire.0.older_than: '90' has no unit; write 90d",
            id="no-unit",
        ),
        pytest.param(
            {"expire": [{"older_than": "soon"}]},
            f"policy: expire.0.older_than: {DURATION}, not 'soon'",
            id="no-duration",
        ),
        pytest.param(
            {"expire": [{"older_than": ""}]},
            f"older_than: {DURATION}, not ''",
            id="blank",
        ),
        pytest.param(
            {"expire": [{"older_than": "None"}]},
            f"{DURATION}, not 'None'",
            id="rendered-none",
        ),
        pytest.param(
            POLICY | {"limit": {}}, "policy: unknown key 'limit'; known: name, expire", id="unknown-key"
        ),
        pytest.param(
            POLICY | {"limits": {"max_deletions": -1}}, "limits.max_deletions: must be >= 0, not -1", id="-1"
        ),
        pytest.param(
            POLICY | {"limits": {"max_deletions": True}}, "must be a whole number, not True", id="bool"
        ),
        pytest.param(
            POLICY | {"limits": {"max_deletions": "10"}}, "must be a whole number, not '10'", id="text"
        ),
        pytest.param(
            None,
            f"policy: {MAPPING}, not None",
            id="none",
        ),
        pytest.param(
            "{{ params.policy }}",
            "policy: the location: must not be a template",
            id="template-for-all",
        ),
        pytest.param(
            [],
            f"policy: {MAPPING}, not a list",
            id="list",
        ),
        # the rest is validated even if there are templates
        pytest.param(
            {"expire": [{"older_than": "{{ params.older_than }}"}], "limits": {"max_deletions": -1}},
            "limits.max_deletions: must be >= 0, not -1",
            id="beside-a-template",
        ),
        pytest.param(
            POLICY | {"scope": {"include": "{{ params.include }}"}, "kepe": {}},
            "unknown key 'kepe'",
            id="unknown-beside-a-template",
        ),
    ],
)
def test_invalid_policy_fails_when_the_dag_is_parsed(policy, message):
    with pytest.raises(TavusValidationError) as caught:
        plan_task(policy)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["", "None", None, "90", "soon", "0d", 90, [], "-1d"], ids=repr)
def test_rendered_duration_that_is_invalid_fails_before_anything_is_sent(sandbox, value):
    operator = plan_task({"expire": [{"older_than": "{{ params.older_than }}"}]})
    operator.policy = {"expire": [{"older_than": value}]}
    with pytest.raises(AirflowFailException, match=r"^policy: expire\.0"):
        run(operator)
    assert requests(sandbox) == []


def test_log_warns_about_ids_and_patterns_that_match_no_replica(sandbox, log):
    run(plan_task(POLICY | {"keep": {"protected_ids": ["r1a0c5e8f3b3"]}, "scope": {"exclude": ["VIP_*"]}}))
    text = "\n".join(log())
    assert "keep.protected_ids: id 'r1a0c5e8f3b3' is not listed; check the spelling" in text
    assert "scope.exclude: pattern 'VIP_*' matches no name; check the spelling" in text


def test_holds_of_the_deployment_bind_a_policy_of_the_dag_file(sandbox, held):
    assert OLD in EXPIRED
    assert {row["replica_id"] for row in planned()["delete"]} == EXPIRED - {OLD}


def test_exceeded_limit_names_the_policy_file(sandbox, tmp_path):
    file = tmp_path / "policy.yaml"
    file.write_text("{expire: [{older_than: 90d}], limits: {max_deletions: 5}}")
    with pytest.raises(AirflowFailException, match=rf"nothing was deleted\. The policy is {file}$"):
        run(plan_task(str(file)))
    with pytest.raises(AirflowFailException, match=r"nothing was deleted\. The policy is in the DAG file$"):
        run(plan_task(POLICY | {"limits": {"max_deletions": 5}}))


@pytest.mark.parametrize(
    ("narrow", "rendered", "where"),
    [
        ({"include": "{{ params.x }}"}, {"include": "[]"}, "narrow.include"),
        ({"older_than": "{{ params.x }}"}, {"older_than": "None"}, "narrow.older_than"),
    ],
)
def test_template_that_was_rendered_to_text_names_the_argument_of_the_dag(sandbox, narrow, rendered, where):
    task = plan_task(narrow=narrow)
    task.narrow = rendered
    with pytest.raises(
        AirflowFailException, match=f"^policy: {where}: .* set render_template_as_native_obj=True"
    ):
        run(task)
    assert requests(sandbox) == []


def test_age_that_was_rendered_to_text_is_accepted(sandbox):
    task = plan_task(narrow={"older_than": "{{ params.x }}"})
    task.narrow = {"older_than": "5000d"}
    assert run(task)["delete"] == []
