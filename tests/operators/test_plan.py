"""Plan: XComs, log, limits and invalid policies."""

from __future__ import annotations

import errno
import json
import traceback
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from operators.tasks import EXPIRED, KEY, OLD, POLICY, Ti, plan_task, planned, requests, run

from tavus_provider.exceptions import TavusError, TavusValidationError
from tavus_provider.hooks.tavus import TavusHook
from tavus_provider.retention.policy import Policy
from tavus_provider.storage.ledger import Ledger, job_name

GRACE = POLICY | {"name": "announced", "expire": [{"rule": "old", "older_than": "90d", "grace": "7d"}]}


def test_plan_and_verdicts_are_pushed(sandbox):
    ti = Ti()
    plan = run(plan_task(), ti)
    assert {row["replica_id"] for row in plan["delete"]} == EXPIRED
    assert (plan["hard"], plan["tavus_conn_id"], plan["origin"]) == (False, "tavus_default", sandbox.url)
    assert plan["listed"] == 26 == len(ti.pushed["verdicts"]["rows"])
    assert {row["status"] for row in ti.pushed["verdicts"]["rows"][:6]} == {"expired"}
    assert requests(sandbox, "DELETE") == []


def lines_of(row, lines):
    """Return the lines of the log that have a verdict and its reason."""
    return [line for line in lines if row["replica_id"] in line and row["reason"] in line]


def test_log_has_what_goes_or_is_undetermined_and_counts_what_is_kept(sandbox, log):
    ti = Ti()
    run(plan_task(), ti)
    lines = log()
    for row in ti.pushed["verdicts"]["rows"]:
        shown = row["status"] in ("expired", "undetermined")
        assert len(lines_of(row, lines)) == shown, row
    assert len(lines) < 30
    message = "6 of 26 replicas to delete, 4 undetermined and kept, others kept: "
    assert [line for line in lines if message in line]
    assert not [line for line in lines if KEY in line]


def test_debug_log_has_every_verdict(sandbox, log, monkeypatch):
    task, ti = plan_task(), Ti()
    debug = []
    monkeypatch.setattr(task.log, "isEnabledFor", lambda level: True)
    monkeypatch.setattr(task.log, "debug", lambda message, *values: debug.append(message % values))
    run(task, ti)
    for row in ti.pushed["verdicts"]["rows"]:
        assert len(lines_of(row, debug)) == 1


@pytest.mark.parametrize(
    ("arguments", "header"),
    [
        pytest.param({}, "Plan for connection tavus_default ({url}): soft deletes, policy 'reten", id="soft"),
        pytest.param(
            {"hard": True}, "): permanent deletes, policy 'retention'. The policy is in the", id="hard"
        ),
        pytest.param({"dry_run": True}, "Dry run for connection tavus_default (", id="dry run"),
        pytest.param(
            {"narrow": {"include": ["demo_*"], "exclude": []}},
            """policy 'retention', narrowed to {{"include": ["demo_*"]}}. The""",
            id="narrowed",
        ),
        pytest.param(
            {"narrow": {"older_than": "365d"}},
            """policy 'retention', narrowed to {{"older_than": "365d"}}. The""",
            id="narrowed by an age",
        ),
        pytest.param(
            {"narrow": {"include": ["*"], "older_than": "90d"}},
            "policy 'retention'. The policy is in the",
            id="age of the policy",
        ),
    ],
)
def test_first_line_of_the_log_says_what_is_planned(sandbox, log, arguments, header):
    run(plan_task(**arguments))
    first, *others = [line for line in log() if "nested" not in line]
    assert header.format(url=sandbox.url) in first
    assert not [line for line in others if " for connection " in line]


def test_verdicts_that_are_too_many_for_an_xcom_are_stored_beside_the_plan(sandbox, monkeypatch, log):
    monkeypatch.setattr("tavus_provider.planning.verdicts.MAX_ROWS", 20)
    ti = Ti()
    plan = run(plan_task(), ti)
    pushed = ti.pushed["verdicts"]
    assert (pushed["rows"], sum(pushed["counts"].values())) == ([], 26)
    assert pushed["verdicts_at"].endswith(f"/_plans/{plan['digest']}.verdicts.json")
    stored = json.loads(Path(pushed["verdicts_at"].removeprefix("file://")).read_bytes())
    assert len(stored["rows"]) == 26
    assert {row["status"] for row in stored["rows"][:6]} == {"expired"}
    assert [line for line in log() if pushed["verdicts_at"] in line]


def test_dry_run_where_nothing_can_be_written_does_not_store_verdicts(sandbox, monkeypatch, log):
    def read_only(path, data):
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr("tavus_provider.storage.object_storage._create_local_file", read_only)
    monkeypatch.setattr("tavus_provider.planning.verdicts.MAX_ROWS", 20)
    ti = Ti()
    run(plan_task(dry_run=True), ti)
    assert ti.pushed["verdicts"]["notice"] == (
        "26 verdicts are too many for an XCom and could not be stored; the log of the task says why"
    )
    assert [line for line in log() if "The verdicts are not stored" in line]


# -- errors in the log


@pytest.mark.parametrize(
    "policy",
    [POLICY | {"limits": {"max_deletions": 5}}, "/nowhere/policy.yaml"],
    ids=["limit", "policy file"],
)
def test_refusal_is_one_line_of_the_log_and_its_traceback_is_cut(sandbox, caplog, policy):
    with pytest.raises(AirflowFailException) as caught:
        run(plan_task(policy))
    check_error(caplog, caught.value)


def test_error_that_a_retry_may_fix_is_one_line_of_the_log(sandbox, caplog):
    sandbox.switch(faults=[{"method": "GET", "path": "/v2/replicas", "status": 500, "times": None}])
    with pytest.raises(TavusError) as caught:
        run(plan_task())
    check_error(caplog, caught.value)


def check_error(caplog, error):
    """Check that the log has an error once and in one line, and that its traceback is cut."""
    records = [record for record in caplog.records if record.levelname == "ERROR"]
    assert [record.getMessage() for record in records] == [str(error)]
    assert records[0].exc_info is None
    assert "\n" not in str(error)
    names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert names[-1] in ("wrapper", "__exit__")
    assert "make_plan" not in names
    assert "read_inventory" not in names
    assert (error.__cause__, error.__suppress_context__ or error.__context__) in ((None, True), (None, None))


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


def test_another_connection_to_the_same_account_is_a_warning(sandbox, log):
    """Case E16: the schedule and the soft deletes of one are unknown to the other."""
    own = TavusHook("tavus_default")
    Ledger(own.origin, "eu").begin_attempt(job_name("plan", "x"), hard=False, intent=[OLD]).close()
    log()
    run(plan_task(POLICY))
    (line,) = [line for line in log() if "'eu' has recorded" in line]
    assert "warning" in line
    assert f"1 replica of this account, such as {OLD}" in line


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
    "must be a mapping with keys of name, expire, quota, scope, narrow, keep, legal_holds, account, "
    "hard_delete_after, overdue_after, limits"
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
