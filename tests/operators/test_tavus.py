from __future__ import annotations

import copy
import json
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException
from airflow.sdk import DAG

from tavus_provider.digest import digest_of
from tavus_provider.exceptions import (
    LedgerUnavailableError,
    TavusError,
    TavusOutcomeUnknownError,
    TavusRetryableError,
    TavusValidationError,
)
from tavus_provider.operators import base
from tavus_provider.operators.tavus import (
    ApplyRetentionOperator,
    ApproveRetentionOperator,
    DeleteReplicaOperator,
    LookUpReplicaOperator,
    PlanRetentionOperator,
    SplitRetentionOperator,
    SummarizeRetentionOperator,
)
from tavus_provider.retention.policy import Policy
from tavus_provider.storage.ledger import ledger_root
from tavus_provider.storage.ledger_verify import compare_report, verify

KEY = "sandbox-key-8f2b6c91"
OLD = "r1a0c5e8f3b2"
EXPIRED = {"r1a0c5e8f3b2", "r2b9d41c07ae", "r3f6a2e9d815", "r4c81b7f0d3e", "r5e27d9a6c40", "r6d3b8f1e5a7"}
POLICY = {"expire": [{"rule": "old", "older_than": "90d"}]}
NO_BOOLS = ["true", "False", "None", "", 1, 0, None, [], "{{ true }}"]


class Ti:
    """A task instance with XComs in a dictionary."""

    def __init__(self, try_number: int = 1, run_id: str = "manual__1", map_index: int = -1) -> None:
        self.try_number = try_number
        self.dag_id = "dag"
        self.run_id = run_id
        self.map_index = map_index
        self.id = "0197-ti"
        self.task_id = "task"
        self.pushed: dict[str, object] = {}

    def xcom_push(self, key, value):
        self.pushed[key] = json.loads(json.dumps(value))

    def xcom_pull(self, task_ids=None, key="return_value"):
        assert task_ids == self.task_id
        return self.pushed.get(key)


def run(operator, ti=None):
    ti = ti or Ti()
    ti.task_id = operator.task_id
    return operator.execute({"ti": ti, "task_instance": ti, "task": operator})


def delete(replica_id=OLD, **more):
    return DeleteReplicaOperator(task_id="delete", replica_id=replica_id, **more)


def plan_task(policy=POLICY, **more):
    return PlanRetentionOperator(task_id="plan", policy=policy, **more)


def apply_task(plan, **more):
    return ApplyRetentionOperator(task_id="apply", plan=plan, **more)


def look(replica_id=OLD, **more):
    return LookUpReplicaOperator(task_id="look", replica_id=replica_id, **more)


def planned(**more):
    return json.loads(json.dumps(run(plan_task(**more))))


def sealed(plan, **changes):
    changed = copy.deepcopy(plan) | changes
    return changed | {"digest": digest_of(changed)}


def requests(sandbox, method=None):
    seen = sandbox.state()["requests"]
    return [f"{r['method']} {r['path']}" for r in seen if method in (None, r["method"])]


@pytest.fixture(autouse=True)
def no_time_passes(clock):
    return clock


@pytest.fixture
def log(capsys):
    """What the tasks have logged since last asked: ``log()``; Airflow writes it past pytest's logging."""

    def lines():
        said = capsys.readouterr()
        return (said.out + said.err).splitlines()

    return lines


# -- what may be templated


@pytest.mark.parametrize(
    "kind", [DeleteReplicaOperator, PlanRetentionOperator, ApplyRetentionOperator, LookUpReplicaOperator]
)
def test_no_trigger_form_can_reach_hard_or_a_limit(kind):
    assert not {"hard", "limits", "concurrency", "requests_per_second"} & set(kind.template_fields)
    assert "tavus_conn_id" in kind.template_fields


def test_the_approval_renders_its_plan_only_so_that_no_name_is_rendered_again():
    assert tuple(ApproveRetentionOperator.template_fields) == ("plan",)


@pytest.mark.parametrize("value", NO_BOOLS, ids=repr)
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(delete, id="delete"),
        pytest.param(plan_task, id="plan"),
        pytest.param(lambda **more: apply_task({}, **more), id="apply"),
    ],
)
def test_hard_is_true_or_false_itself_and_nothing_else(make, value):
    with pytest.raises(
        TavusValidationError, match=r"^hard: expected True or False, got .*; nothing was sent$"
    ):
        make(hard=value)


@pytest.mark.parametrize("value", [1, 0, None, []], ids=repr)
@pytest.mark.parametrize(
    ("make", "name"),
    [
        pytest.param(delete, "ignore_if_missing", id="delete"),
        pytest.param(look, "ignore_if_missing", id="look"),
        pytest.param(plan_task, "dry_run", id="plan"),
        pytest.param(lambda **more: apply_task({}, **more), "dry_run", id="apply"),
    ],
)
def test_a_switch_that_is_no_bool_is_refused_when_the_dag_is_parsed(make, name, value):
    with pytest.raises(TavusValidationError, match=f"^{name}: expected True or False, got "):
        make(**{name: value})


@pytest.mark.parametrize("value", ["True", "False", "None", "", "yes"])
@pytest.mark.parametrize(
    ("make", "name"),
    [
        pytest.param(delete, "ignore_if_missing", id="delete"),
        pytest.param(look, "ignore_if_missing", id="look"),
        pytest.param(plan_task, "dry_run", id="plan"),
        pytest.param(lambda **more: apply_task({}, **more), "dry_run", id="apply"),
    ],
)
def test_a_switch_that_was_rendered_to_text_is_refused_and_nothing_is_sent(sandbox, make, name, value):
    with pytest.raises(AirflowFailException, match=f"^{name}: expected True or False, got '{value}'"):
        run(make(**{name: value}))
    assert requests(sandbox) == []


# -- delete one


@pytest.mark.parametrize(("hard", "query"), [(False, ""), (True, "?hard=true")])
def test_one_replica_is_deleted_and_the_task_says_so(sandbox, hard, query):
    assert run(delete(hard=hard)) == {
        "replica_id": OLD,
        "hard": hard,
        "outcome": "deleted",
        "detail": f"DELETE /v2/replicas/{OLD}{query} returned 200",
    }
    assert sandbox.state()["deletes"] == [{"replica_id": OLD, "hard": hard}]
    assert requests(sandbox) == [f"DELETE /v2/replicas/{OLD}"]


@pytest.mark.parametrize(
    "bad",
    [
        *("", " ", "..", "x?hard=true", "None", "none", "null", "a/b", "r1\n", "{{ x }}", "r" * 65),
        *("['r1', 'r2']", None, True, 1000, 1e5, ["r1"], {"id": "r1"}, b"r1"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("make", [delete, look])
def test_what_cannot_be_an_id_fails_without_retry_and_nothing_is_sent(sandbox, make, bad):
    with pytest.raises(AirflowFailException) as caught:
        run(make(bad))
    said = str(caught.value)
    assert said.startswith("replica_id: ")
    assert said.endswith("such as 'rf4e9d9790f0'; nothing was sent")
    assert "\n" not in said
    assert requests(sandbox) == []


@pytest.mark.parametrize("unknown_id", ["400-error", "400-message", "404"])
def test_a_missing_replica_fails_with_a_sentence_that_says_what_may_be_so(sandbox, unknown_id):
    sandbox.switch(unknown_id=unknown_id)
    with pytest.raises(AirflowFailException) as caught:
        run(delete("r404"))
    said = str(caught.value)
    assert said.startswith("DELETE /v2/replicas/r404 returned 40")
    assert said.endswith(
        "; the replica does not exist, is gone already, or is another account's. "
        "If that is fine, set ignore_if_missing=True"
    )


def test_a_missing_replica_is_already_gone_where_that_is_fine(sandbox):
    done = run(delete("r404", ignore_if_missing=True))
    assert (done["outcome"], done["hard"]) == ("already_gone", False)
    assert done["detail"].endswith("the replica does not exist, is gone already, or is another account's")


def test_a_second_try_says_that_the_first_may_have_done_it(sandbox):
    done = run(delete("r404", ignore_if_missing=True), Ti(try_number=2))
    assert done["detail"].endswith("Invalid replica_id; possibly deleted by an earlier attempt of this task")
    with pytest.raises(
        AirflowFailException, match=r"possibly deleted by an earlier attempt of this task. If that is"
    ):
        run(delete("r404"), Ti(try_number=2))


@pytest.mark.parametrize("status", [400, 401, 402, 403, 409])
def test_what_a_retry_cannot_heal_fails_without_retry(sandbox, status):
    sandbox.switch(faults=[{"method": "DELETE", "status": status, "times": None}])
    with pytest.raises(AirflowFailException, match=f"^DELETE /v2/replicas/{OLD} returned {status}: "):
        run(delete())
    assert len(requests(sandbox, "DELETE")) == 1


@pytest.mark.parametrize(
    ("fault", "error", "sent"),
    [
        pytest.param({"status": 500}, TavusOutcomeUnknownError, 3, id="500"),
        pytest.param({"close": True}, TavusOutcomeUnknownError, 3, id="hung-up"),
        pytest.param({"status": 429}, TavusRetryableError, 3, id="429"),
        pytest.param(
            {"status": 429, "retry_after": "99999"}, TavusRetryableError, 1, id="told-to-wait-a-day"
        ),
    ],
)
def test_what_a_retry_may_heal_is_left_to_airflow_to_retry(sandbox, fault, error, sent):
    sandbox.switch(faults=[{"method": "DELETE", "times": None, **fault}])
    with pytest.raises(error):
        run(delete())
    assert len(requests(sandbox, "DELETE")) == sent
    assert sandbox.state()["deletes"] == []


def test_the_map_index_reads_as_the_id():
    operator = delete("..")
    context = {"ti": Ti()}
    with pytest.raises(AirflowFailException):
        operator.execute(context)
    operator = delete("r404")
    with pytest.raises(AirflowFailException):
        operator.execute(context)
    assert context["map_index_template"] == "{{ task.replica_id }}"


def test_mapped_over_ids_each_replica_has_its_task_and_its_label(sandbox, run_dag, tmp_path):
    (tmp_path / "mapped.py").write_text(
        "from airflow.sdk import DAG\n"
        "from tavus_provider.operators.tavus import DeleteReplicaOperator\n"
        "with DAG('mapped', schedule=None):\n"
        "    task = DeleteReplicaOperator.partial(task_id='delete', hard=True)\n"
        f"    task.expand(replica_id=['{OLD}', 'r404', 'r2b9d41c07ae'])\n"
    )
    ran = run_dag("mapped", folder=tmp_path)
    assert ran.states == {("delete", 0): "success", ("delete", 1): "failed", ("delete", 2): "success"}
    labels = [ran.instances["delete", at].rendered_map_index for at in range(3)]
    assert labels == [OLD, "r404", "r2b9d41c07ae"]
    assert sorted(sandbox.state()["deletes"], key=lambda d: d["replica_id"]) == [
        {"replica_id": OLD, "hard": True},
        {"replica_id": "r2b9d41c07ae", "hard": True},
    ]


# -- bad connections and bad answers: one clear line each, nothing deleted


TASKS = [
    pytest.param(lambda _: delete(), id="delete"),
    pytest.param(lambda _: plan_task(), id="plan"),
    pytest.param(apply_task, id="apply"),
    pytest.param(lambda _: look(), id="look"),
]


def failing(make, plan):
    with pytest.raises((AirflowFailException, TavusError)) as caught:
        run(make(plan))
    said = str(caught.value)
    assert said
    assert "\n" not in said
    assert KEY not in repr(caught.value)
    return caught.value, said


@pytest.fixture
def plan(sandbox):
    return planned()


@pytest.mark.parametrize("make", TASKS)
def test_a_missing_connection_is_named(sandbox, plan, monkeypatch, make):
    monkeypatch.delenv("AIRFLOW_CONN_TAVUS_DEFAULT")
    error, said = failing(make, plan)
    assert isinstance(error, AirflowFailException)
    assert said.startswith("the Airflow connection 'tavus_default' is not defined or cannot be read")
    assert "AIRFLOW_CONN_TAVUS_DEFAULT" in said
    assert requests(sandbox, "DELETE") == []


@pytest.mark.parametrize("make", TASKS)
@pytest.mark.parametrize("key", [None, "", "   ", "\n"], ids=repr)
def test_a_blank_key_is_said_to_be_missing(sandbox, plan, connect, make, key):
    connect(sandbox.url, password=key)
    error, said = failing(make, plan)
    assert isinstance(error, AirflowFailException)
    assert said == "the connection has no API key: put it in the password"
    assert requests(sandbox, "DELETE") == []


@pytest.mark.parametrize("make", TASKS)
def test_a_wrong_key_is_said_to_be_refused_and_is_not_repeated(sandbox, plan, connect, make):
    connect(sandbox.url, password="another-key-than-the-right-one")
    error, said = failing(make, plan)
    assert isinstance(error, AirflowFailException)
    assert "returned 401: Invalid access token: check the API key of the Airflow connection" in said
    assert "another-key" not in said
    assert sandbox.state()["deletes"] == []


@pytest.mark.parametrize("make", TASKS)
def test_an_origin_that_nobody_has_admitted_is_named_and_gets_no_key(sandbox, plan, monkeypatch, make):
    monkeypatch.setenv("AIRFLOW__TAVUS__ALLOWED_ORIGINS", "https://tavusapi.com")
    before = requests(sandbox)
    error, said = failing(make, plan)
    assert isinstance(error, AirflowFailException)
    assert f"{sandbox.url} is not among the allowed origins" in said
    assert "allowed_origins in section [tavus]" in said
    assert requests(sandbox) == before


@pytest.mark.parametrize("make", TASKS)
def test_an_unreachable_host_is_named_and_a_retry_may_heal_it(sandbox, plan, make):
    sandbox.__exit__()
    error, said = failing(make, plan)
    assert isinstance(error, TavusRetryableError)
    assert f"no connection to {sandbox.url}" in said


@pytest.mark.parametrize("make", TASKS)
def test_html_instead_of_json_is_said_to_be_that_and_deletes_nothing(sandbox, plan, make):
    sandbox.switch(faults=[{"status": 200, "html": True, "times": None}])
    _, said = failing(make, plan)
    assert "text/html" in said
    assert sandbox.state()["deletes"] == []


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        pytest.param({}, "policy: expire: is missing", id="no-rule-at-all"),
        pytest.param({"expire": []}, "policy: expire: must not be empty; name at least one", id="empty"),
        pytest.param(
            {"expire": [{"older_than": "90"}]},
            "policy: expire.0.older_than: '90' has no unit; write 90d",
            id="no-unit",
        ),
        pytest.param(
            {"expire": [{"older_than": "soon"}]},
            "policy: expire.0.older_than: must be one number and one unit such as 90d (units: w, d, h, m), "
            "not 'soon'",
            id="no-duration",
        ),
        pytest.param(
            {"expire": [{"older_than": ""}]},
            "older_than: must be one number and one unit such as 90d (units: w, d, h, m), not ''",
            id="blank",
        ),
        pytest.param(
            {"expire": [{"older_than": "None"}]},
            "must be one number and one unit such as 90d (units: w, d, h, m), not 'None'",
            id="a-rendered-none",
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
            "policy: must be a mapping with keys of name, expire, scope, narrow, keep, legal_holds, account, "
            "hard_delete_after, limits, not None",
            id="none",
        ),
        pytest.param("{{ params.policy }}", "its location holds a template", id="a-template-for-all"),
        pytest.param(
            [],
            "policy: must be a mapping with keys of name, expire, scope, narrow, keep, legal_holds, account, "
            "hard_delete_after, limits, not a list",
            id="list",
        ),
        # what is not a template is checked even where something else is one
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
def test_a_bad_policy_fails_when_the_dag_is_parsed_and_names_what_is_wrong(policy, said):
    with pytest.raises(TavusValidationError) as caught:
        plan_task(policy)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["", "None", None, "90", "soon", "0d", 90, [], "-1d"], ids=repr)
def test_a_bad_duration_that_was_rendered_fails_the_task_before_anything_is_sent(sandbox, value):
    operator = plan_task({"expire": [{"older_than": "{{ params.older_than }}"}]})
    operator.policy = {"expire": [{"older_than": value}]}
    with pytest.raises(AirflowFailException, match=r"^policy: expire\.0"):
        run(operator)
    assert requests(sandbox) == []


# -- plan


def test_the_plan_is_the_xcom_and_the_verdicts_stand_beside_it(sandbox):
    ti = Ti()
    plan = run(plan_task(), ti)
    assert {row["replica_id"] for row in plan["delete"]} == EXPIRED
    assert (plan["hard"], plan["tavus_conn_id"], plan["origin"]) == (False, "tavus_default", sandbox.url)
    assert plan["listed"] == 26 == len(ti.pushed["verdicts"]["rows"])
    assert {row["status"] for row in ti.pushed["verdicts"]["rows"][:6]} == {"expired"}
    assert requests(sandbox, "DELETE") == []


def test_every_verdict_and_its_reason_is_in_the_log(sandbox, log):
    ti = Ti()
    run(plan_task(), ti)
    lines = log()
    for row in ti.pushed["verdicts"]["rows"]:
        assert len([line for line in lines if row["replica_id"] in line and row["reason"] in line]) == 1
    assert [line for line in lines if "6 of 26 replicas to delete, 4 undetermined and kept" in line]
    assert not [line for line in lines if KEY in line]


def test_a_policy_object_is_as_good_as_its_mapping(sandbox):
    object_ = Policy.parse(POLICY)
    assert planned(policy=object_)["policy"] == planned(policy=POLICY)["policy"]


def test_a_plan_beyond_a_limit_is_pushed_and_then_fails_so_that_nobody_is_asked(sandbox):
    ti = Ti()
    with pytest.raises(AirflowFailException) as caught:
        run(plan_task(POLICY | {"limits": {"max_deletions": 5}}), ti)
    assert str(caught.value) == (
        "6 of 26 replicas would be deleted, max_deletions is 5: narrow the policy or raise the limit in the "
        "DAG file; nothing was deleted"
    )
    assert len(ti.pushed["return_value"]["delete"]) == 6
    assert len(ti.pushed["verdicts"]["rows"]) == 26


def test_a_dry_run_beyond_a_limit_warns_and_is_green(sandbox, log):
    policy = POLICY | {"limits": {"max_deletion_percent": 23}}
    plan = run(plan_task(policy, dry_run=True))
    assert len(plan["delete"]) == 6
    said = "A real run would stop here: 6 of 26 replicas would be deleted, max_deletion_percent is 23"
    assert [line for line in log() if said in line and "warning" in line]


@pytest.mark.parametrize("kind", ["replicas", "personas", "conversations", "videos"])
def test_a_list_that_cannot_be_read_fails_the_plan(sandbox, kind):
    sandbox.switch(faults=[{"method": "GET", "path": f"/v2/{kind}", "status": 500, "times": None}])
    ti = Ti()
    with pytest.raises(TavusError, match=f"GET /v2/{kind}"):
        run(plan_task(), ti)
    assert ti.pushed == {}


TEMPLATE = "{{ params.x }}"


@pytest.mark.parametrize(
    ("path", "policy"),
    [
        ("limits", POLICY | {"limits": TEMPLATE}),
        ("limits.max_deletions", POLICY | {"limits": {"max_deletions": TEMPLATE}}),
        ("limits.max_deletion_percent", POLICY | {"limits": {"max_deletion_percent": TEMPLATE}}),
        ("keep", POLICY | {"keep": TEMPLATE}),
        ("keep.protected_ids.0", POLICY | {"keep": {"protected_ids": [TEMPLATE]}}),
        ("keep.in_use", POLICY | {"keep": {"in_use": TEMPLATE}}),
        ("keep.keep_within", POLICY | {"keep": {"keep_within": TEMPLATE}}),
        ("expire", {"expire": TEMPLATE}),
        ("expire.0", {"expire": [TEMPLATE]}),
        ("expire.0.status", {"expire": [{"older_than": "9d", "status": TEMPLATE}]}),
        ("expire.0.status.0", {"expire": [{"older_than": "9d", "status": [TEMPLATE]}]}),
        ("expire.0.rule", {"expire": [{"older_than": "9d", "rule": "{% if 1 %}x{% endif %}"}]}),
        ("name", POLICY | {"name": "{# x #}"}),
    ],
)
def test_a_template_where_a_run_is_guarded_is_refused_by_its_path(path, policy):
    with pytest.raises(
        TavusValidationError, match=f"^policy: {path} holds a template: what guards a run is written"
    ):
        plan_task(policy)


@pytest.mark.parametrize(
    "policy",
    [
        {"expire": [{"older_than": TEMPLATE}]},
        {"expire": [{"older_than": "9d", "unused_for": TEMPLATE}]},
        POLICY | {"scope": {"include": TEMPLATE, "exclude": [TEMPLATE]}},
        POLICY | {"scope": TEMPLATE},
        POLICY | {"narrow": {"include": TEMPLATE}},
    ],
)
def test_a_template_is_allowed_where_it_moves_an_age_limit_or_a_scope(policy):
    plan_task(policy)


def test_what_was_not_a_template_stays_as_it_was_written_after_native_rendering(sandbox):
    policy = {
        "expire": [{"rule": "1", "older_than": "{{ params.older_than }}"}],
        "scope": {"include": "{{ params.include }}", "exclude": ["123", "1e3", "[1]"]},
        "keep": {"protected_ids": ["1234567890", "0012"]},
    }
    with DAG("native", schedule=None, render_template_as_native_obj=True) as dag:
        operator = PlanRetentionOperator(task_id="plan", policy=policy)
    operator.render_template_fields(
        {"params": {"older_than": "90d", "include": ["*campaign*"]}}, dag.get_template_env()
    )
    # Whatever a native renderer makes of these.
    operator.policy["scope"]["exclude"] = [123, 1000.0, [1]]
    operator.policy["keep"]["protected_ids"] = [1234567890, 12]
    plan = run(operator)
    assert plan["policy"]["scope"]["exclude"] == ["123", "1e3", "[1]"]
    assert plan["policy"]["scope"]["include"] == ["*campaign*"]
    assert plan["policy"]["keep"]["protected_ids"] == ["1234567890", "0012"]
    assert plan["policy"]["expire"][0]["rule"] == "1"
    assert {row["replica_id"] for row in plan["delete"]} == {OLD, "r2b9d41c07ae"}


# -- apply


def test_a_plan_is_carried_out_and_the_report_is_the_xcom(sandbox, plan):
    ti = Ti()
    report = run(apply_task(plan), ti)
    assert {d["replica_id"] for d in sandbox.state()["deletes"]} == EXPIRED
    assert report["counts"]["deleted"] == 6 == sum(report["counts"].values())
    assert (report["plan_digest"], report["hard"], report["dry_run"]) == (plan["digest"], False, False)
    assert ti.pushed["return_value"] == report


def test_a_permanent_plan_is_carried_out_with_the_digest_that_was_approved(sandbox):
    plan = planned(hard=True)
    run(apply_task(plan, hard=True, approved_digest=plan["digest"]))
    assert {d["replica_id"] for d in sandbox.state()["deletes"] if d["hard"]} == EXPIRED


@pytest.mark.parametrize("approved", [None, "", "0" * 64, "None", True], ids=repr)
def test_a_permanent_plan_without_its_approved_digest_deletes_nothing(sandbox, approved):
    plan = planned(hard=True)
    with pytest.raises(
        AirflowFailException, match=r"(none was given|belongs to another plan)\. Nothing was deleted"
    ):
        run(apply_task(plan, hard=True, approved_digest=approved))
    assert requests(sandbox, "DELETE") == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(lambda plan: plan | {"listed": 1}, "does not match its digest", id="changed"),
        pytest.param(lambda plan: sealed(plan, hard=True), "it was made for hard=True", id="hard"),
        pytest.param(lambda plan: sealed(plan, tavus_conn_id="eu"), "for connection 'eu'", id="connection"),
        pytest.param(
            lambda plan: sealed(plan, origin="https://tavusapi.com"), "connection now points to", id="origin"
        ),
        pytest.param(
            lambda plan: sealed(plan, valid_until="2026-01-01T00:00:00Z"), "it expired at", id="too-late"
        ),
        pytest.param(str, "set render_template_as_native_obj=True on the DAG", id="text"),
        pytest.param(lambda plan: None, "it is of type NoneType", id="none"),
        pytest.param(lambda plan: [plan], "it is of type list", id="list"),
    ],
)
def test_a_plan_that_does_not_fit_deletes_nothing_and_does_not_retry(sandbox, plan, change, said):
    before = requests(sandbox)
    with pytest.raises(AirflowFailException, match=said):
        run(apply_task(change(plan)))
    assert requests(sandbox) == before


def test_a_dry_run_of_apply_sends_nothing_and_skips_everything(sandbox, plan):
    before = requests(sandbox)
    report = run(apply_task(plan, dry_run=True))
    assert requests(sandbox) == before
    assert report["dry_run"] is True
    assert report["counts"]["skipped"] == 6 == sum(report["counts"].values())


@pytest.mark.parametrize(
    ("fault", "outcome", "error"),
    [
        pytest.param({"status": 409}, "failed", AirflowFailException, id="failed"),
        pytest.param({"status": 202, "times": None}, "unknown", TavusRetryableError, id="unknown"),
        pytest.param({"status": 429, "times": None}, "failed", TavusRetryableError, id="rate-limited"),
    ],
)
def test_a_red_outcome_fails_the_task_after_the_report_and_retries_only_what_may_heal(
    sandbox, plan, log, *, fault, outcome, error
):
    sandbox.switch(faults=[{"method": "DELETE", "path": f"/v2/replicas/{OLD}", **fault}])
    ti = Ti()
    with pytest.raises(error, match=r"^1 of 6 planned replicas may still exist: see the report$"):
        run(apply_task(plan), ti)
    assert ti.pushed["return_value"]["counts"][outcome] == 1
    assert ti.pushed["return_value"]["counts"]["deleted"] == 5
    assert [line for line in log() if f" {outcome} " in line and OLD in line]


def test_what_was_skipped_leaves_the_task_green(sandbox, plan):
    sandbox.put("replicas", {"replica_id": OLD, "replica_name": "another"})
    assert run(apply_task(plan))["counts"] == dict.fromkeys(
        ("deleted", "confirmed", "already_gone", "failed", "unknown", "not_attempted", "skipped"), 0
    ) | {"deleted": 5, "skipped": 1}


def test_a_limit_that_is_passed_only_now_pushes_the_report_and_deletes_nothing(sandbox, plan):
    for row in sandbox.state()["replicas"]:
        if row["replica_id"] not in EXPIRED:
            sandbox.put("replicas", {"replica_id": row["replica_id"], "deleted": "hard"})
    ti = Ti()
    with pytest.raises(
        AirflowFailException, match=r"^6 of 6 replicas would be deleted, max_deletion_percent"
    ):
        run(apply_task(plan), ti)
    assert ti.pushed["return_value"]["counts"]["not_attempted"] == 6
    assert requests(sandbox, "DELETE") == []


def test_an_interrupted_apply_has_pushed_a_true_report(sandbox, plan, monkeypatch):
    operator = apply_task(plan, concurrency=1)
    real = operator.log.info

    def info(text, *args):
        if "1 of 6 done" in str(args):
            raise KeyboardInterrupt
        real(text, *args)

    monkeypatch.setattr(operator.log, "info", info)
    ti = Ti()
    with pytest.raises(KeyboardInterrupt):
        run(operator, ti)
    report = ti.pushed["return_value"]
    really = {d["replica_id"] for d in sandbox.state()["deletes"]}
    assert really == {i["replica_id"] for i in report["items"] if i["outcome"] == "deleted"}
    assert sum(report["counts"].values()) == 6


def test_another_try_goes_on_from_the_ledger_and_its_report_keeps_what_the_first_has_done(sandbox, plan):
    sandbox.switch(faults=[{"method": "DELETE", "path": f"/v2/replicas/{OLD}", "status": 500, "times": None}])
    with pytest.raises(TavusRetryableError):
        run(apply_task(plan), Ti(try_number=1))
    sandbox.switch(faults=[])
    before = len(requests(sandbox, "DELETE"))
    report = run(apply_task(plan), Ti(try_number=2))
    assert report["counts"]["deleted"] == 6
    assert len(requests(sandbox, "DELETE")) == before + 1
    details = {item["replica_id"]: item["detail"] for item in report["items"]}
    assert sum(detail.startswith("by an earlier attempt of this task") for detail in details.values()) == 5
    assert details[OLD].startswith(f"DELETE /v2/replicas/{OLD} returned 200")


def test_a_try_that_cannot_read_the_account_keeps_what_the_first_has_done(sandbox, plan):
    sandbox.switch(faults=[{"method": "DELETE", "path": f"/v2/replicas/{OLD}", "status": 500, "times": None}])
    with pytest.raises(TavusRetryableError):
        run(apply_task(plan), Ti(try_number=1))
    sandbox.switch(faults=[{"method": "GET", "path": "/v2/personas", "status": 400, "times": None}])
    ti = Ti(try_number=2)
    with pytest.raises((AirflowFailException, TavusError)):
        run(apply_task(plan), ti)
    report = ti.pushed["return_value"]
    assert (report["counts"]["deleted"], report["counts"]["not_attempted"]) == (5, 1)
    details = {item["replica_id"]: item["detail"] for item in report["items"]}
    assert sum(detail == "by an earlier attempt of this task" for detail in details.values()) == 5


def test_a_run_of_another_task_does_not_take_the_outcomes_of_this_one_for_its_own(sandbox, plan):
    assert run(apply_task(plan), Ti(run_id="one"))["counts"]["deleted"] == 6
    assert run(apply_task(plan), Ti(run_id="two"))["counts"]["already_gone"] == 6


def test_a_plan_of_which_most_is_gone_without_a_trace_is_not_carried_out(sandbox, plan):
    gone = [row["replica_id"] for row in plan["delete"]][:5]
    sandbox.put("replicas", *({"replica_id": replica_id, "deleted": "hard"} for replica_id in gone))
    ti = Ti()
    with pytest.raises(AirflowFailException, match=r"^5 of 6 planned replicas are no longer listed"):
        run(apply_task(plan), ti)
    assert requests(sandbox, "DELETE") == []
    assert ti.pushed["return_value"]["counts"]["not_attempted"] == 6


@pytest.fixture
def held(monkeypatch, tmp_path):
    """The policy of the deployment holds ``OLD``; returns the file with the holds."""
    (tmp_path / "holds.yaml").write_text(f"[{OLD}]")
    (tmp_path / "policy.yaml").write_text(
        f"{{expire: [{{older_than: 90d}}], legal_holds: {{file: {tmp_path}/holds.yaml, max_age: 7d}}}}"
    )
    monkeypatch.setenv("AIRFLOW__TAVUS__POLICY", str(tmp_path / "policy.yaml"))
    return tmp_path / "holds.yaml"


def test_what_the_policy_of_the_deployment_holds_is_not_deleted_by_hand(sandbox, held):
    for task in (look(), delete(), delete(hard=True)):
        with pytest.raises(
            AirflowFailException, match=f"^replica {OLD} is under legal hold; nothing was deleted$"
        ):
            run(task)
    assert requests(sandbox, "DELETE") == []
    assert run(look("r2b9d41c07ae"))["delete"]
    assert run(delete("r2b9d41c07ae"))["outcome"] == "deleted"


def test_a_hold_that_came_after_a_try_in_doubt_does_not_say_that_nothing_was_deleted(sandbox, held):
    held.write_text("[]")
    gone_in_doubt = [
        {"method": "DELETE", "status": 500, "when": "after", "times": None},
        {"method": "GET", "path": f"/v2/replicas/{OLD}", "status": 500, "times": None},
    ]
    sandbox.switch(faults=gone_in_doubt)
    with pytest.raises(TavusOutcomeUnknownError):
        run(delete(), Ti(try_number=1))
    sent = len(requests(sandbox, "DELETE"))
    held.write_text(f"[{OLD}]")
    with pytest.raises(
        AirflowFailException, match=r"this try sent nothing, an earlier one may have deleted it"
    ):
        run(delete(), Ti(try_number=2))
    assert len(requests(sandbox, "DELETE")) == sent


def test_by_hand_nothing_is_deleted_while_the_holds_of_the_deployment_cannot_be_read(sandbox, held):
    held.unlink()
    for task in (look("r2b9d41c07ae"), delete("r2b9d41c07ae")):
        with pytest.raises(AirflowFailException, match=r"holds\.yaml"):
            run(task)
    assert requests(sandbox, "DELETE") == []


def approved(replica_id=OLD, **more):
    plan = run(look(replica_id))
    return delete(replica_id, hard=True, plan=plan, **{"approved_digest": plan["digest"]} | more)


def test_what_was_approved_by_hand_and_is_still_so_is_deleted_for_ever(sandbox):
    assert run(approved())["outcome"] == "deleted"
    assert [(row["replica_id"], row["hard"]) for row in sandbox.state()["deletes"]] == [(OLD, True)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(
            lambda tavus, _: tavus.put("personas", {"persona_id": "p1", "default_replica_id": OLD}),
            "cannot be deleted by hand: is the default of persona p1",
            id="in use",
        ),
        pytest.param(
            lambda tavus, _: tavus.put("replicas", {"replica_id": OLD, "replica_name": "another"}),
            "replica_name changed since the plan was made",
            id="renamed",
        ),
        pytest.param(
            lambda _, task: setattr(task, "replica_id", "r2b9d41c07ae"),
            "replica r2b9d41c07ae is not in the plan",
            id="another id",
        ),
        pytest.param(
            lambda _, task: setattr(task, "approved_digest", None),
            "a permanent delete needs the digest that a person approved",
            id="not approved",
        ),
        pytest.param(
            lambda _, task: setattr(task, "plan", None),
            "it is of type NoneType",
            id="a plan that did not come",
        ),
        pytest.param(
            lambda _, task: task.plan.update(listed=7), "was changed after it was made", id="another plan"
        ),
    ],
)
def test_what_was_approved_by_hand_and_is_no_longer_so_is_not_deleted(sandbox, change, said):
    task = approved()
    change(sandbox, task)
    with pytest.raises(AirflowFailException, match=said):
        run(task)
    assert requests(sandbox, "DELETE") == []


def test_an_approval_by_hand_is_good_for_a_day(sandbox, monkeypatch):
    task = approved()
    monkeypatch.setattr(base, "now", lambda: datetime.now(UTC) + timedelta(hours=25))
    with pytest.raises(AirflowFailException, match="it expired at"):
        run(task)
    assert requests(sandbox, "DELETE") == []


def test_nothing_is_deleted_without_a_record(sandbox, plan, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("AIRFLOW__TAVUS__LEDGER", str(tmp_path / "file" / "ledger"))
    for task in (apply_task(plan), delete(), delete(hard=True)):
        with pytest.raises(
            LedgerUnavailableError, match=r"^the ledger cannot be (written|read) at .* set ledger"
        ):
            run(task)
    assert requests(sandbox, "DELETE") == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"concurrency": 0}, "concurrency is 0: expected a whole number from 1 to 64"),
        ({"concurrency": True}, "concurrency is of type bool"),
        ({"concurrency": "8"}, "concurrency is of type str"),
        (
            {"requests_per_second": 0},
            "requests_per_second is 0: expected a number greater than 0, at most 1000",
        ),
    ],
)
def test_a_speed_out_of_bounds_is_refused_when_the_dag_is_parsed(given, said):
    with pytest.raises(TavusValidationError, match=said):
        apply_task({}, **given)


@pytest.mark.parametrize(("asked", "allowed", "most"), [(1, 8, 1), (8, 2, 2)])
def test_deletes_under_way_stay_below_what_operator_and_connection_say(
    sandbox, connect, asked, allowed, most
):
    connect(sandbox.url, extra={"concurrency": allowed})
    plan = planned()
    sandbox.switch(latency=0.01)
    run(apply_task(plan, concurrency=asked))
    seen = [r["in_flight"] for r in sandbox.state()["requests"] if r["method"] == "DELETE"]
    assert max(seen) <= most


# -- apply in batches


def split(plan, batch_size):
    made = run(SplitRetentionOperator(task_id="split", plan=plan, batch_size=batch_size))
    return [mapping["batch"] for mapping in json.loads(json.dumps(made))]


def apply_batch(plan, batch, ti=None, **more):
    return run(apply_task(plan, batch=batch, **more), ti or Ti(map_index=batch["number"] - 1))


def summarize(plan, reports, ti=None):
    return run(SummarizeRetentionOperator(task_id="summary", plan=plan, reports=reports), ti)


@pytest.mark.parametrize("kind", [SplitRetentionOperator, SummarizeRetentionOperator])
def test_what_splits_and_sums_up_needs_no_connection(kind):
    assert "tavus_conn_id" not in kind.template_fields
    assert "plan" in kind.template_fields


def test_batches_of_one_plan_are_carried_out_each_by_its_own_task(sandbox, plan):
    one, two = split(plan, 3)
    first = apply_batch(plan, one)
    assert [item["replica_id"] for item in first["items"]] == [
        row["replica_id"] for row in plan["delete"][:3]
    ]
    assert len(sandbox.state()["deletes"]) == first["counts"]["deleted"] == 3
    second = apply_batch(plan, two)
    assert second["counts"]["deleted"] == 3
    assert {d["replica_id"] for d in sandbox.state()["deletes"]} == EXPIRED
    summary = summarize(plan, [second, first])
    assert (summary["counts"]["deleted"], summary["plan_digest"]) == (6, plan["digest"])
    tries, findings = verify(ledger_root())
    assert findings == []
    assert (
        compare_report(tries, summary) == compare_report(tries, first) == compare_report(tries, second) == []
    )


def test_a_batch_of_another_plan_deletes_nothing(sandbox, plan):
    other = planned(narrow={"include": ["spring-*"]})
    (batch,) = split(other, 10)
    with pytest.raises(AirflowFailException, match=r"^the batch belongs to another plan: pass the same plan"):
        apply_batch(plan, batch)
    assert requests(sandbox, "DELETE") == []


def test_a_batch_that_was_not_made_by_split_deletes_nothing(sandbox, plan):
    with pytest.raises(AirflowFailException, match=r"^invalid batch: .* Nothing was deleted$"):
        run(apply_task(plan, batch={"plan_digest": plan["digest"], "replica_ids": ["r1"]}))
    assert requests(sandbox, "DELETE") == []


def test_a_permanent_plan_in_batches_needs_the_approved_digest_of_the_whole(sandbox):
    plan = planned(hard=True)
    one, two = split(plan, 3)
    with pytest.raises(AirflowFailException, match=r"needs the digest that a person approved"):
        apply_batch(plan, one, hard=True)
    assert requests(sandbox, "DELETE") == []
    for batch in (one, two):
        assert apply_batch(plan, batch, hard=True, approved_digest=plan["digest"])["counts"]["deleted"] == 3
    assert {d["replica_id"] for d in sandbox.state()["deletes"] if d["hard"]} == EXPIRED


def test_a_plan_beyond_its_limits_is_not_let_through_in_pieces(sandbox):
    plan = planned(policy=POLICY | {"limits": {"max_deletions": 4}}, dry_run=True)
    for batch in split(plan, 2):
        with pytest.raises(
            AirflowFailException, match=r"^6 of 26 replicas would be deleted, max_deletions is"
        ):
            apply_batch(plan, batch)
    assert requests(sandbox, "DELETE") == []


def test_what_the_other_batches_are_to_delete_counts_against_the_limits_of_each(sandbox):
    plan = planned(
        policy=POLICY | {"limits": {"max_deletions": 4, "max_deletion_percent": 100}}, dry_run=True
    )
    one, two = split(plan, 3)
    for row in plan["delete"][:2]:
        sandbox.put("replicas", {"replica_id": row["replica_id"], "replica_name": "another"})
    with pytest.raises(AirflowFailException, match=r"^6 of 26 replicas would be deleted, max_deletions is 4"):
        apply_batch(plan, two)
    assert apply_batch(plan, one)["counts"]["deleted"] == 1  # and 3 of the other are 4
    with pytest.raises(AirflowFailException, match=r"^6 of 26 replicas would be deleted, max_deletions is 4"):
        apply_batch(plan, two)
    assert len(requests(sandbox, "DELETE")) == 1


def test_what_the_newest_of_a_group_is_is_decided_without_what_the_other_batches_delete(serve):
    """Nobody knows how far they are: when the one that was kept has gone, each may be the newest left."""
    rows = [
        {"replica_id": f"r{n}{n}", "replica_name": f"team_{n}", "age": age}
        for n, age in enumerate(("200d", "210d", "220d"))
    ]
    sandbox = serve({"replicas": rows})
    keep = {"keep_last": 1, "group_by": "^(?P<group>[^_]+)_"}
    limits = {"max_deletions": 2, "max_deletion_percent": 100}
    plan = planned(policy=POLICY | {"keep": keep, "limits": limits})
    assert [row["replica_id"] for row in plan["delete"]] == ["r22", "r11"]
    sandbox.put("replicas", {"replica_id": "r00", "deleted": "hard"})
    for batch in split(plan, 1):
        assert apply_batch(plan, batch)["counts"]["skipped"] == 1
    assert requests(sandbox, "DELETE") == []


def test_a_percentage_is_that_of_the_account_as_it_was_before_the_first_batch(serve):
    old = [{"replica_id": f"old{n:02}", "replica_name": "x", "age": "200d"} for n in range(5)]
    young = [{"replica_id": f"new{n:02}", "replica_name": "x", "age": "5d"} for n in range(15)]
    serve({"replicas": old + young})
    plan = planned(policy=POLICY | {"limits": {"max_deletions": 5, "max_deletion_percent": 25}})
    for batch in split(plan, 1):
        assert apply_batch(plan, batch)["counts"]["deleted"] == 1


def test_what_a_sibling_has_deleted_is_not_missing_and_what_nobody_has_is(sandbox, plan):
    batches = split(plan, 1)
    assert apply_batch(plan, batches[0])["counts"]["deleted"] == 1
    gone = [row["replica_id"] for row in plan["delete"][1:]]
    sandbox.put("replicas", *({"replica_id": replica_id, "deleted": "hard"} for replica_id in gone))
    with pytest.raises(AirflowFailException, match=r"^5 of 6 planned replicas are no longer listed"):
        apply_batch(plan, batches[1])


def test_batches_that_others_have_done_do_not_look_like_another_account(sandbox, plan):
    batches = split(plan, 1)
    counts = [apply_batch(plan, batch)["counts"] for batch in batches]
    assert [count["deleted"] for count in counts] == [1] * 6


def test_most_of_one_batch_missing_stops_that_batch_although_it_is_a_small_part_of_the_plan(serve):
    old = [{"replica_id": f"old{n:02}", "replica_name": "x", "age": f"{400 - n}d"} for n in range(30)]
    sandbox = serve({"replicas": old})
    plan = planned(policy=POLICY | {"limits": {"max_deletions": 30, "max_deletion_percent": 100}})
    one, two, three = split(plan, 10)
    gone = [row["replica_id"] for row in plan["delete"][10:16]]
    sandbox.put("replicas", *({"replica_id": replica_id, "deleted": "hard"} for replica_id in gone))
    assert apply_batch(plan, one)["counts"]["deleted"] == 10
    with pytest.raises(AirflowFailException, match=r"^6 of 10 planned replicas are no longer listed"):
        apply_batch(plan, two)
    assert apply_batch(plan, three)["counts"]["deleted"] == 10


def test_the_look_afterwards_judges_the_ids_of_its_batch_only(sandbox, plan):
    sandbox.switch(soft_deleted="listed")
    one, two = split(plan, 3)
    details = [item["detail"] for batch in (one, two) for item in apply_batch(plan, batch)["items"]]
    assert len(details) == 6
    assert all(
        detail.endswith("this account lists soft-deleted replicas, so its absence could not be seen")
        for detail in details
    )


def test_a_batch_whose_task_was_killed_goes_on_and_leaves_its_siblings_alone(sandbox, plan):
    one, two = split(plan, 3)
    killed = """
import json, os, signal, sys
from tavus_provider.hooks.tavus import TavusHook
from tavus_provider.operators.tavus import ApplyRetentionOperator

real, calls = TavusHook.delete_replica, []

def delete(self, replica_id, *, hard=False):
    done = real(self, replica_id, hard=hard)
    calls.append(replica_id)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return done

TavusHook.delete_replica = delete

class Ti:
    dag_id, run_id, task_id, map_index, try_number = "dag", "manual__1", "apply", 0, 1

plan, batch = json.load(sys.stdin)
ApplyRetentionOperator(task_id="apply", plan=plan, batch=batch, concurrency=1).execute({"ti": Ti})
"""
    done = subprocess.run(
        [sys.executable, "-c", killed],
        input=json.dumps([plan, one]),
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(sandbox.state()["deletes"]) == 2
    second = apply_batch(plan, two)
    assert second["counts"]["deleted"] == 3
    assert not [item for item in second["items"] if "earlier attempt" in item["detail"]]
    again = apply_batch(plan, one, Ti(try_number=2, map_index=0))
    assert (again["counts"]["already_gone"], again["counts"]["deleted"]) == (2, 1)
    details = [item["detail"] for item in again["items"] if item["outcome"] == "already_gone"]
    assert all("possibly deleted by an earlier attempt of this task" in detail for detail in details)
    assert sorted(d["replica_id"] for d in sandbox.state()["deletes"]) == sorted(EXPIRED)
    assert summarize(plan, [again, second])["counts"] == dict.fromkeys(again["counts"], 0) | {
        "deleted": 4,
        "already_gone": 2,
    }
    assert verify(ledger_root())[1] == []


def test_a_batch_that_runs_beside_others_does_not_name_their_tries_as_what_came_before(sandbox, plan):
    one, two = split(plan, 3)
    apply_batch(plan, one)
    apply_batch(plan, two)
    began = [one.begin_record for one in verify(ledger_root())[0] if "intent" in one.begin_record]
    assert [entry["batch"]["number"] for entry in began] == [1, 2]
    assert [entry["prior_attempts"] for entry in began] == [{}, {}]


def test_the_summary_of_a_batch_that_left_no_report_is_red_and_says_what_the_ledger_knows(sandbox, plan):
    one, _ = split(plan, 3)
    report = apply_batch(plan, one)
    ti = Ti()
    with pytest.raises(AirflowFailException, match=r"^3 of 6 planned replicas may still exist"):
        summarize(plan, [report], ti)
    assert ti.pushed["return_value"]["counts"]["not_attempted"] == 3
    assert summarize_quietly(plan, [])["counts"]["deleted"] == 3


def summarize_quietly(plan, reports):
    ti = Ti()
    with pytest.raises(AirflowFailException):
        summarize(plan, reports, ti)
    return ti.pushed["return_value"]


@pytest.mark.parametrize("make", [lambda plan: split(plan, 3), lambda plan: summarize(plan, [])])
@pytest.mark.parametrize(
    "change", [lambda plan: plan | {"listed": 1}, str, lambda plan: None, lambda plan: {}]
)
def test_only_the_unchanged_plan_is_split_and_summed_up(sandbox, plan, make, change):
    with pytest.raises(AirflowFailException, match=r"^the plan is rejected: .*Nothing was deleted"):
        make(change(plan))


@pytest.mark.parametrize("value", [0, True, 1.5, None], ids=repr)
def test_a_batch_size_that_is_none_is_refused_when_the_dag_is_parsed(value):
    with pytest.raises(TavusValidationError, match=r"^batch_size is"):
        SplitRetentionOperator(task_id="split", plan={}, batch_size=value)


def test_a_batch_size_that_was_rendered_to_text_is_refused(plan):
    operator = SplitRetentionOperator(task_id="split", plan=plan, batch_size="{{ params.batch_size }}")
    operator.batch_size = "3"
    with pytest.raises(AirflowFailException, match=r"^batch_size is '3': expected an integer"):
        run(operator)


def test_more_batches_than_airflow_maps_become_larger_ones_and_the_log_says_so(plan, monkeypatch, log):
    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "2")
    assert [batch["of"] for batch in split(plan, 1)] == [2, 2]
    assert any("Batches of 1 would be more than 2, so they are of up to 3" in line for line in log())


def test_a_batch_reads_as_its_part_of_the_plan(sandbox, plan):
    batch = split(plan, 3)[1]
    ti = Ti()
    context = {"ti": ti}
    apply_task(plan, batch=batch, dry_run=True).execute(context)
    assert context["map_index_template"] == "4 to 6 of 6"


@pytest.mark.parametrize("value", [0, -1, True, 1.5, "4", 1_025], ids=repr)
def test_how_many_run_parallel_is_a_whole_number(value):
    with pytest.raises(TavusValidationError, match=r"^parallel_tasks is"):
        apply_task({}, parallel_tasks=value)


# -- plans that are too large for an XCom


@pytest.fixture
def small_xcoms(monkeypatch):
    monkeypatch.setattr("tavus_provider.planning.plan.MAX_XCOM_BYTES", 2_000)


@pytest.mark.parametrize("hard", [False, True])
def test_a_plan_that_lies_in_the_store_is_carried_out_like_any_other(sandbox, small_xcoms, hard):
    reference = planned(hard=hard)
    assert set(reference) >= {"plan_at", "digest", "counts"}
    assert "delete" not in reference
    more = {"hard": True, "approved_digest": reference["digest"]} if hard else {}
    one, two = split(reference, 3)
    assert apply_batch(reference, one, **more)["counts"]["deleted"] == 3
    assert run(apply_task(reference, **more))["counts"] == dict.fromkeys(
        ("deleted", "confirmed", "already_gone", "failed", "unknown", "not_attempted", "skipped"), 0
    ) | {"deleted": 3, "already_gone": 3}
    assert {d["replica_id"] for d in sandbox.state()["deletes"] if d["hard"] is hard} == EXPIRED
    assert summarize(reference, [apply_batch(reference, part, **more) for part in (one, two)])


def test_a_stored_plan_beyond_a_limit_is_pushed_as_its_place_before_the_task_fails(sandbox, small_xcoms):
    ti = Ti()
    with pytest.raises(AirflowFailException, match=r"replicas would be deleted, max_deletions is 1"):
        run(plan_task(POLICY | {"limits": {"max_deletions": 1}}), ti)
    assert "plan_at" in ti.pushed["return_value"]


def test_a_stored_plan_that_was_changed_deletes_nothing(sandbox, small_xcoms, tmp_path):
    reference = planned()
    (file,) = (tmp_path / "ledger" / "_plans").iterdir()
    file.write_text(file.read_text().replace(OLD, "rd6a1c3f7e82"))
    with pytest.raises(AirflowFailException, match="is not the plan that was stored there"):
        run(apply_task(reference))
    assert requests(sandbox, "DELETE") == []


def test_a_stored_plan_is_shown_and_approved_under_its_digest(page, sandbox, small_xcoms):
    reference = planned(hard=True)
    ti = ask(approve(reference))
    assert page["subject"] == "Delete 6 Tavus replicas permanently?"
    assert reference["digest"] in page["body"]
    answer(approve(reference), ti, "Approve")  # by another process than the one that asked
    assert ti.pushed["approved_digest"] == reference["digest"]


# -- approve


@pytest.fixture
def page(monkeypatch):
    """What the operator asks Airflow to show."""
    shown: dict[str, object] = {}
    monkeypatch.setattr(
        "airflow.providers.standard.operators.hitl.upsert_hitl_detail", lambda **told: shown.update(told)
    )
    return shown


@pytest.fixture
def hard_plan(sandbox):
    return planned(hard=True)


def waiting() -> type[BaseException]:
    try:
        from airflow.sdk.exceptions import TaskAwaitingInput
    except ImportError:  # before 3.3
        from airflow.providers.common.compat.sdk import TaskDeferred

        return TaskDeferred
    return TaskAwaitingInput


def approve(plan, **more):
    return ApproveRetentionOperator(task_id="approve", plan=plan, **more)


def ask(operator, ti=None):
    ti = ti or Ti()
    with pytest.raises(waiting()) as caught:
        run(operator, ti)
    assert caught.value.method_name == "execute_complete"
    return ti


def answer(operator, ti, option):
    from airflow.sdk.timezone import utcnow

    event = {
        "chosen_options": [option],
        "params_input": {},
        "responded_at": utcnow(),
        "responded_by_user": {"id": "alice", "name": "alice"},
    }
    return operator.execute_complete({"ti": ti, "task_instance": ti, "task": operator}, event)


@pytest.mark.parametrize("fixed", ["defaults", "subject", "body", "assigned_users"])
def test_the_dag_cannot_answer_nor_write_the_page_nor_choose_who_answers(fixed):
    with pytest.raises(TavusValidationError, match=f"^{fixed} cannot be given: the page is made of the plan"):
        approve({}, **{fixed: "Approve"})


def test_the_page_is_made_of_the_plan_and_its_digest_is_pushed_before_the_wait(page, hard_plan):
    ti = ask(approve(hard_plan))
    assert ti.pushed == {"shown_digest": hard_plan["digest"]}
    assert page["subject"] == "Delete 6 Tavus replicas permanently?"
    assert hard_plan["digest"] in page["body"]
    assert all(f"| {replica_id} |" in page["body"] for replica_id in EXPIRED)
    assert (page["options"], page["defaults"], page["assigned_users"]) == (["Approve", "Reject"], None, None)


def test_nobody_answering_ends_after_a_day_unless_another_time_is_set(hard_plan):
    assert approve(hard_plan).response_timeout == timedelta(hours=24)
    assert approve(hard_plan, response_timeout=timedelta(hours=1)).response_timeout == timedelta(hours=1)


def test_approve_passes_on_the_digest_that_was_shown(page, hard_plan):
    operator = approve(hard_plan)
    ti = ask(operator)
    answer(operator, ti, "Approve")
    assert ti.pushed["approved_digest"] == hard_plan["digest"]


def test_reject_passes_nothing_on(page, hard_plan):
    operator = approve(hard_plan)
    ti = ask(operator)
    answer(operator, ti, "Reject")
    assert "approved_digest" not in ti.pushed


def test_another_plan_than_the_one_that_was_shown_is_not_approved(page, hard_plan):
    ti = ask(approve(hard_plan))
    other = sealed(hard_plan, delete=hard_plan["delete"][:1])
    with pytest.raises(
        AirflowFailException, match=r"^the plan is not the one that was shown: trigger a new run"
    ):
        answer(approve(other), ti, "Approve")
    assert "approved_digest" not in ti.pushed


def test_an_answer_where_nothing_was_shown_approves_nothing(hard_plan):
    ti = Ti()
    ti.task_id = "approve"
    with pytest.raises(AirflowFailException, match=r"^the plan is not the one that was shown"):
        answer(approve(hard_plan), ti, "Approve")


def test_no_answer_in_time_fails(page, hard_plan):
    operator = approve(hard_plan)
    ti = ask(operator)
    with pytest.raises(Exception, match="timeout"):
        operator.execute_complete({"ti": ti}, {"error": "timeout", "error_type": "timeout"})
    assert "approved_digest" not in ti.pushed


@pytest.mark.parametrize("try_number", [2, 3])
def test_a_second_try_asks_nobody_because_it_could_show_the_old_page(page, hard_plan, try_number):
    with pytest.raises(AirflowFailException, match=r"^an approval is asked for once, .*: trigger a new run$"):
        run(approve(hard_plan), Ti(try_number=try_number))
    assert page == {}


def test_with_nothing_to_delete_nobody_is_asked(page, hard_plan):
    with pytest.raises(AirflowSkipException, match=r"^Nothing to delete, so nobody is asked.$"):
        run(approve(sealed(hard_plan, delete=[])))
    assert page == {}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda plan: plan | {"listed": 1}, id="changed"),
        pytest.param(lambda plan: plan | {"delete": []}, id="emptied"),
        pytest.param(lambda plan: sealed(plan, hard=False), id="soft"),
        pytest.param(lambda plan: sealed(plan, hard=1), id="hard-is-1"),
        pytest.param(str, id="text"),
        pytest.param(lambda plan: None, id="none"),
        pytest.param(lambda plan: {}, id="empty"),
    ],
)
def test_only_an_unchanged_plan_for_permanent_deletes_is_shown(page, hard_plan, change):
    with pytest.raises(
        AirflowFailException, match="plan is not the unchanged output of a plan task with hard"
    ):
        run(approve(change(hard_plan)))
    assert page == {}


def test_only_those_whom_the_deployment_names_may_answer(page, hard_plan, monkeypatch):
    monkeypatch.setenv("AIRFLOW__TAVUS__APPROVERS", " alice, bob ,")
    ask(approve(hard_plan))
    assert page["assigned_users"] == [{"id": "alice", "name": "alice"}, {"id": "bob", "name": "bob"}]


# -- look up one


def test_a_replica_that_may_go_becomes_a_plan_of_one_for_a_permanent_delete(sandbox):
    plan = run(look())
    assert [(row["replica_id"], row["reason"]) for row in plan["delete"]] == [(OLD, "chosen by hand")]
    assert plan["hard"] is True
    assert requests(sandbox, "DELETE") == []


@pytest.mark.parametrize(
    ("replica_id", "reason"),
    [
        pytest.param("rb1f8c4d6e0a", "replica_type is 'system', not 'user'", id="stock"),
        pytest.param("rf8c6e5b1a20", "is the default of persona p1c2d3e4f5a6", id="persona"),
        pytest.param("r09d7f2c4b6a", "is in active conversation c0eaa60a267274af", id="conversation"),
        pytest.param("r1ae8b0d3c5f", "is in video 1e30440cf9, which is generating", id="video"),
    ],
)
@pytest.mark.parametrize("ignore", [False, True])
def test_a_stock_replica_or_one_in_use_fails_the_look_without_retry(sandbox, replica_id, reason, ignore):
    with pytest.raises(AirflowFailException) as caught:
        run(look(replica_id, ignore_if_missing=ignore))
    assert (
        str(caught.value) == f"replica {replica_id} cannot be deleted by hand: {reason}; nothing was deleted"
    )


def test_a_missing_replica_fails_the_look_unless_that_is_fine(sandbox):
    with pytest.raises(
        AirflowFailException, match=r"^GET /v2/replicas/r404 returned 400: Invalid replica_id"
    ):
        run(look("r404"))
    (row,) = run(look("r404", ignore_if_missing=True))["delete"]
    assert row["replica_id"] == "r404"
    assert row["reason"].endswith("it may be soft-deleted already")


# -- notices


def test_plan_and_apply_push_the_sentence_that_they_log(sandbox, log):
    ti = Ti()
    plan = run(plan_task(), ti)
    assert ti.pushed["summary"] in "\n".join(log())
    assert ti.pushed["summary"].startswith("6 of 26 replicas to delete")
    ti = Ti()
    run(apply_task(plan, dry_run=True), ti)
    assert ti.pushed["summary"] == "6 planned (dry run, nothing was sent): 6 skipped"


def test_a_red_apply_has_pushed_its_sentence_before_it_fails(sandbox):
    plan = planned()
    sandbox.switch(faults=[{"method": "DELETE", "status": 400, "times": None}])
    ti = Ti()
    with pytest.raises(AirflowFailException):
        run(apply_task(plan), ti)
    assert ti.pushed["summary"] == "6 planned (soft): 6 failed"


@pytest.mark.parametrize(
    ("make", "label"),
    [
        (plan_task, "{{ task.tavus_conn_id }}"),
        (lambda: apply_task(planned()), "{{ task.tavus_conn_id }}"),
        (look, "{{ task.replica_id }}"),
        (delete, "{{ task.replica_id }}"),
    ],
    ids=["plan", "apply", "look", "delete"],
)
def test_a_mapped_task_is_labelled_with_what_it_is_about(sandbox, make, label):
    ti = Ti()
    context = {"ti": ti}
    make().execute(context)
    assert context["map_index_template"] == label
