"""The example DAGs: their contract, their forms, and real runs of them against a sandbox."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pages import table

ROOT = Path(__file__).parents[1]
DAGS = ROOT / "dags"
EXPIRED = {"r1a0c5e8f3b2", "r2b9d41c07ae", "r3f6a2e9d815", "r4c81b7f0d3e", "r5e27d9a6c40", "r6d3b8f1e5a7"}
OLD = "r1a0c5e8f3b2"

# Every request that a DAG may send, as Tavus documents it.
DOCUMENTED = [
    ("GET", r"/v2/replicas", r"verbose=true&replica_type=user&limit=([1-9][0-9]?|100)&page=[1-9][0-9]*"),
    ("GET", r"/v2/(personas|conversations|videos)", r"limit=([1-9][0-9]?|100)&page=[0-9]+"),
    ("GET", r"/v2/conversations", r"status=(active|ended)&limit=([1-9][0-9]?|100)&page=1"),
    ("GET", r"/v2/replicas/[A-Za-z0-9_-]+", r"verbose=true"),
    ("GET", r"/v2/(conversations|videos)/[A-Za-z0-9_-]+", r""),
    ("DELETE", r"/v2/(conversations|videos)/[A-Za-z0-9_-]+", r"hard=true"),
    ("POST", r"/v2/conversations/[A-Za-z0-9_-]+/end", r""),
    ("DELETE", r"/v2/replicas/[A-Za-z0-9_-]+", r"(hard=true)?"),
]


@pytest.fixture(autouse=True)
def no_request_outside_the_documented_endpoints(request):
    """Check the requests of every run in this file."""
    sandbox = request.getfixturevalue("sandbox") if "sandbox" in request.fixturenames else None
    yield
    for seen in sandbox.state()["requests"] if sandbox else ():
        known = [
            (method, path, query)
            for method, path, query in DOCUMENTED
            if seen["method"] == method
            and re.fullmatch(path, seen["path"])
            and re.fullmatch(query, seen["query"])
        ]
        assert known, seen
        assert seen["key_ok"]


def deleted(sandbox, *, hard=False):
    return {d["replica_id"] for d in sandbox.state()["deletes"] if d["hard"] is hard}


def requests(sandbox):
    return sandbox.state()["requests"]


@pytest.fixture(scope="module")
def bag():
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:  # before 3.2
        from airflow.models.dagbag import DagBag
    where = {"bundle_path": DAGS, "bundle_name": "dags-folder"}
    known = inspect.signature(DagBag.__init__).parameters
    return DagBag(DAGS, **{name: value for name, value in where.items() if name in known})


# -- tasks and params


def test_dag_files_load_without_import_errors(bag):
    assert bag.import_errors == {}
    assert set(bag.dags) == {
        "tavus_prune_replicas",
        "tavus_prune_replicas_batched",
        "tavus_purge_replicas",
        "tavus_delete_replica",
        "tavus_erase_person",
        "tavus_erasures",
        "tavus_prune_accounts",
        "tavus_purge_accounts",
    }


def test_plan_of_an_erasure_gets_every_field_of_the_form(bag):
    dag = bag.dags["tavus_erase_person"]
    plan = dag.get_task("plan")
    assert {name: getattr(plan, {"account": "tavus_conn_id"}.get(name, name)) for name in dag.params} == {
        name: f"{{{{ params.{name} }}}}" for name in dag.params
    }
    assert dag.get_task("apply").tavus_conn_id == plan.tavus_conn_id


def test_dag_file_has_the_name_of_its_dag(bag):
    assert {Path(dag.fileloc).stem for dag in bag.dags.values()} == set(bag.dags)


@pytest.mark.parametrize(
    ("dag_id", "tasks", "params"),
    [
        (
            "tavus_prune_replicas",
            {"plan": {"apply"}, "apply": set()},
            {"older_than": "90d", "include": [], "exclude": [], "dry_run": False},
        ),
        (
            "tavus_prune_replicas_batched",
            {
                "plan": {"split", "apply", "summary"},
                "split": {"apply"},
                "apply": {"summary"},
                "summary": set(),
            },
            {"older_than": "90d", "include": [], "exclude": [], "dry_run": False, "batch_size": 500},
        ),
        (
            "tavus_purge_replicas",
            {"plan": {"approve", "apply"}, "approve": {"apply"}, "apply": set()},
            {"older_than": "90d", "include": [], "exclude": []},
        ),
        (
            "tavus_delete_replica",
            {
                "look": {"choose", "approve"},
                "choose": {"delete", "approve"},
                "delete": set(),
                "approve": {"delete_permanently"},
                "delete_permanently": set(),
            },
            {"replica_id": "", "permanent": False, "ignore_if_missing": False},
        ),
        (
            "tavus_erase_person",
            {
                "plan": {"approve", "apply", "certify"},
                "approve": {"apply"},
                "apply": {"certify"},
                "certify": set(),
            },
            {
                "request": "",
                "received_on": "",
                "ground": "request",
                "replica_ids": [],
                "conversation_ids": [],
                "video_ids": [],
                "due_on": None,
                "kinds": ["replica", "video", "conversation"],
                "account": "tavus_default",
            },
        ),
        ("tavus_erasures", {"check": set()}, {}),
        (
            "tavus_prune_accounts",
            {"accounts": {"plan", "apply"}, "plan": {"apply"}, "apply": set()},
            {
                "older_than": "90d",
                "include": [],
                "exclude": [],
                "dry_run": False,
                "accounts": ["tavus_default"],
            },
        ),
        (
            "tavus_purge_accounts",
            {
                "accounts": {"plan", "apply"},
                "plan": {"approve", "apply"},
                "approve": {"apply"},
                "apply": set(),
            },
            {"older_than": "90d", "include": [], "exclude": [], "accounts": ["tavus_default"]},
        ),
    ],
)
def test_tasks_and_params_match_the_design(bag, dag_id, tasks, params):
    dag = bag.dags[dag_id]
    found = {task.task_id: task.downstream_task_ids for task in dag.tasks}
    assert set(found) == set(tasks)
    for task_id, downstream in tasks.items():
        assert downstream <= found[task_id]
    assert {name: dag.params.get_param(name).value for name in dag.params} == params


def test_fields_of_the_forms_are_documented(bag):
    rows = table("docs/dags.md", "| DAG | fields |")
    documented = {dag_id.strip("`"): set(re.findall(r"`(\w+)`", fields)) for dag_id, fields in rows}
    assert documented == {dag_id: set(dag.params) for dag_id, dag in bag.dags.items()}


def test_only_prune_is_scheduled_without_catchup_or_overlap(bag):
    prune = bag.dags["tavus_prune_replicas"]
    assert (prune.schedule, prune.catchup, prune.max_active_runs) == ("@daily", False, 1)
    assert bag.dags["tavus_prune_replicas_batched"].schedule is None
    assert bag.dags["tavus_prune_replicas_batched"].max_active_runs == 1
    assert bag.dags["tavus_purge_replicas"].schedule is None
    assert bag.dags["tavus_delete_replica"].schedule is None


def test_hard_is_set_in_the_dag_file(bag):
    hard = {
        (dag_id, task.task_id): task.hard
        for dag_id, dag in bag.dags.items()
        for task in dag.tasks
        if hasattr(task, "hard")
    }
    # The default of hard is False, also for a mapped task.
    assert "hard" not in bag.dags["tavus_prune_replicas_batched"].get_task("apply").partial_kwargs
    assert hard == {
        ("tavus_prune_replicas_batched", "plan"): False,
        ("tavus_prune_replicas", "plan"): False,
        ("tavus_prune_replicas", "apply"): False,
        ("tavus_purge_replicas", "plan"): True,
        ("tavus_purge_replicas", "apply"): True,
        ("tavus_prune_accounts", "plan"): False,
        ("tavus_prune_accounts", "apply"): False,
        ("tavus_purge_accounts", "plan"): True,
        ("tavus_purge_accounts", "apply"): True,
        ("tavus_delete_replica", "delete"): False,
        ("tavus_delete_replica", "delete_permanently"): True,
    }


@pytest.mark.parametrize(
    "dag_id",
    [
        *("tavus_prune_replicas", "tavus_prune_replicas_batched", "tavus_purge_replicas"),
        *("tavus_prune_accounts", "tavus_purge_accounts"),
    ],
)
def test_shipped_policy_keeps_replicas_in_use_and_has_default_limits(bag, dag_id):
    from tavus_provider.retention.policy import Policy

    written = dict(bag.dags[dag_id].get_task("plan").policy)
    written["narrow"] = {}
    policy = Policy.parse(written)
    assert [(str(rule.older_than), rule.unused_for) for rule in policy.expire] == [("90d", None)]
    assert policy.keep.in_use == ("persona", "conversation", "video")
    assert policy.keep.keep_last is None
    assert (policy.limits.max_deletions, policy.limits.max_deletion_percent) == (10, 25)


# -- trigger forms and DAG docs


def params_of(bag):
    return {
        (dag_id, name): {"description": dag.params.get_param(name).description or ""}
        | dag.params.get_param(name).schema
        for dag_id, dag in bag.dags.items()
        for name in dag.params
    }


def test_form_fields_have_title_description_and_bounds(bag):
    for (dag_id, name), schema in params_of(bag).items():
        assert schema["title"], (dag_id, name)
        assert schema.get("description") or schema.get("description_md"), (dag_id, name)
        bounds = {"boolean": True, "string": {"pattern", "maxLength"} <= schema.keys()}
        bounds["integer"] = {"minimum", "maximum"} <= schema.keys()
        kind = schema["type"] if isinstance(schema["type"], str) else schema["type"][-1]
        if "enum" in schema:
            continue
        assert bounds.get(kind, {"items", "maxItems"} <= schema.keys()), (dag_id, name)


def test_permanent_switch_warns_that_it_cannot_be_undone(bag):
    text = params_of(bag)["tavus_delete_replica", "permanent"]["description_md"]
    assert text.startswith("**Cannot be undone:**")
    assert "trained" in text


@pytest.mark.parametrize(
    ("dag_id", "warning"),
    [
        ("tavus_prune_replicas", "Trigger deletes now"),
        ("tavus_prune_replicas_batched", "Trigger deletes now"),
        ("tavus_purge_replicas", "Trigger makes a plan now and deletes it permanently"),
        ("tavus_delete_replica", "Trigger deletes"),
        ("tavus_prune_accounts", "Trigger deletes now"),
        ("tavus_purge_accounts", "Trigger makes a plan now"),
    ],
)
def test_first_line_of_form_and_doc_says_what_trigger_does(bag, dag_id, warning):
    dag = bag.dags[dag_id]
    assert dag.doc_md.strip().splitlines()[0].startswith(f"### {warning}")
    first = next(iter(dag.params))
    assert params_of(bag)[dag_id, first]["description_md"].startswith(f"**{warning}")


def test_retention_dags_share_their_fields(bag):
    prune, batched, purge = (
        {name: param for (dag_id, name), param in params_of(bag).items() if dag_id == wanted}
        for wanted in ("tavus_prune_replicas", "tavus_prune_replicas_batched", "tavus_purge_replicas")
    )
    assert batched["dry_run"] == prune["dry_run"]
    for other in (batched, purge):
        for name in ("include", "exclude"):
            assert other[name] == prune[name]
        texts = ("description", "description_md")
        assert {key: value for key, value in other["older_than"].items() if key not in texts} == {
            key: value for key, value in prune["older_than"].items() if key not in texts
        }


def test_form_of_a_scheduled_dag_says_that_a_trigger_can_unpause_it(bag):
    said = {
        dag_id
        for (dag_id, name), schema in params_of(bag).items()
        if "Unpause" in schema.get("description_md", "")
    }
    assert said == {"tavus_prune_replicas"}


@pytest.mark.parametrize("age", ["30", "90 days", "6m", "one year", "89d", "12w", "2159h", "99999min"])
def test_refused_age_is_explained_in_words(bag, age):
    words = re.escape(f"'{age}' does not match 'a whole number and a unit (y, w, d, h, min), 90d or more")
    with pytest.raises(Exception, match=f"^{words}"):
        bag.dags["tavus_prune_replicas"].params.get_param("older_than").resolve(age)


@pytest.mark.parametrize("age", ["90d", "91d", "100d", "99999d", "13w", "1y", "2160h", "20000h"])
def test_form_accepts_the_age_of_the_dag_file_and_more(bag, age):
    assert bag.dags["tavus_prune_replicas"].params.get_param("older_than").resolve(age) == age


def test_form_does_not_know_the_age_of_a_policy_file():
    from tavus_provider.dag_params import retention_params

    field = retention_params(policy_file="policy.yaml", older_than="90d", dry_run=True)["older_than"]
    assert field.resolve("1d") == "1d"


def test_policy_file_makes_older_than_optional_and_a_narrowing_field():
    from tavus_provider.dag_params import retention_params

    without, with_file = (
        retention_params(policy_file=file, older_than="90d", dry_run=True)["older_than"]
        for file in ("", "policy.yaml")
    )
    assert (without.value, without.schema["type"]) == ("90d", "string")
    assert (with_file.value, with_file.schema["type"]) == (None, ["null", "string"])
    assert "below 90d is rejected" in without.schema["description_md"]
    assert "below that of the policy file is rejected" in with_file.schema["description_md"]


def test_first_fields_have_no_section_and_the_others_share_one(bag):
    sections = {key: schema.get("section") for key, schema in params_of(bag).items()}
    for dag_id in bag.dags.keys() - {"tavus_erasures"}:  # which has no form
        mine = {section for (dag, _), section in sections.items() if dag == dag_id}
        assert None in mine
        assert len(mine) == 2
    assert sections["tavus_delete_replica", "permanent"] is None
    assert sections["tavus_prune_replicas", "dry_run"] is None


@pytest.mark.parametrize(
    ("dag_id", "name", "bad"),
    [
        *(
            (dag_id, "older_than", bad)
            for dag_id in ("tavus_prune_replicas", "tavus_purge_replicas")
            for bad in (
                "0d",
                "00d",
                "-1d",
                "90",
                "",
                "d",
                "1.5d",
                "90 d",
                "6m",
                "6M",
                "999999d",
                90,
                None,
                ["90d"],
            )
        ),
        ("tavus_prune_replicas", "include", [""]),
        ("tavus_prune_replicas", "include", "spring-*"),
        ("tavus_prune_replicas", "exclude", [1]),
        ("tavus_prune_replicas", "exclude", ["x" * 257]),
        ("tavus_prune_replicas", "include", ["x"] * 101),
        ("tavus_prune_replicas", "dry_run", "false"),
        ("tavus_delete_replica", "replica_id", "x"),
        ("tavus_delete_replica", "replica_id", "r" * 65),
        ("tavus_delete_replica", "replica_id", "r1/../r2"),
        ("tavus_delete_replica", "permanent", "yes"),
        ("tavus_delete_replica", "permanent", 1),
    ],
)
def test_form_rejects_values_out_of_bounds(bag, dag_id, name, bad):
    import jsonschema

    schema = params_of(bag)[dag_id, name]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(bad, schema)


@pytest.mark.parametrize("older_than", ["0d", "-1d", "90", 90, "1.5d", ""])
def test_plan_rejects_invalid_older_than(sandbox, bag, older_than):
    from airflow.providers.common.compat.sdk import AirflowFailException

    task = bag.dags["tavus_prune_replicas"].get_task("plan").prepare_for_execution()
    task.narrow = {"include": [], "exclude": [], "older_than": older_than}
    task.dry_run = False
    with pytest.raises(AirflowFailException, match="older_than"):
        task.execute({})
    assert requests(sandbox) == []


def test_dags_and_tasks_have_docs_and_an_owner_link(bag):
    for dag in bag.dags.values():
        assert dag.doc_md.strip().startswith("###"), dag.dag_id
        assert "tavus" in dag.tags
        assert dag.owner_links == {dag.owner: "https://docs.tavus.io/"}
        for task in dag.tasks:
            assert task.doc_md, task.task_id


@pytest.mark.parametrize("dag_id", ["tavus_prune_replicas", "tavus_purge_replicas", "tavus_delete_replica"])
def test_doc_of_deleting_task_warns_in_bold(bag, dag_id):
    for task in bag.dags[dag_id].tasks:
        if task.task_type in ("ApplyRetentionOperator", "DeleteReplicaOperator"):
            assert re.search(r"\*\*(There is no undelete|permanently)", task.doc_md), task.task_id


def test_loading_the_dag_files_imports_no_http_modules():
    code = (
        "import sys, runpy, pathlib, airflow.sdk, airflow.providers.standard.operators.hitl\n"
        "import airflow.providers.standard.decorators.branch_python\n"
        "before = set(sys.modules)\n"
        f"for file in sorted(pathlib.Path({str(DAGS)!r}).glob('*.py')): runpy.run_path(str(file))\n"
        "ours = {m for m in sys.modules if m.startswith('tavus_provider')}\n"
        "print('LOADED', sorted(ours), 'requests' in set(sys.modules) - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    line = [line for line in done.stdout.splitlines() if line.startswith("LOADED")]
    assert line, done.stderr
    for module in ("transport", "wire", "hooks", "sandbox"):
        assert f"tavus_provider.{module}" not in line[0]
    assert line[0].endswith("False")


# -- prune


def test_prune_soft_deletes_expired_replicas_and_gives_reasons_for_the_others(sandbox, run_dag):
    stays = {
        "rf8c6e5b1a20": ("kept", "is the default of persona p1c2d3e4f5a6"),
        "r09d7f2c4b6a": ("kept", "is in active conversation c0eaa60a267274af"),
        "r1ae8b0d3c5f": ("kept", "is in video 1e30440cf9, which is generating"),
        "r2bf9a1e4d7c": ("kept", "is still in training, and no rule names status 'started'"),
        "r4d1e7a9c3f6": (
            "kept",
            "failed 20 hours ago, a delete within 72h can lose the refund of the training",
        ),
        "r70f4c2a9e6b": ("not_expired", "45 days old, rule 'stale' asks for 90d"),
        "r6a3d9e1c5b8": ("undetermined", "created_at is not given"),
        "rae7b3c5a9f2": ("out_of_scope", "replica_type is 'user'', not 'user'"),
    }
    ran = run_dag("tavus_prune_replicas", {})
    assert ran.states == {"plan": "success", "apply": "success"}
    assert deleted(sandbox) == EXPIRED
    assert deleted(sandbox, hard=True) == set()
    verdicts = {
        row["replica_id"]: (row["status"], row["reason"]) for row in ran.pull("plan", "verdicts")["rows"]
    }
    assert {replica_id: verdicts[replica_id] for replica_id in stays} == stays
    assert verdicts[OLD] == ("expired", "120 days old, limit is 90d")
    assert not {"rb1f8c4d6e0a", "rb2a9d5e7f1b"} & set(verdicts)  # stock replicas are not listed
    plan, report = ran.pull("plan"), ran.pull("apply")
    assert (report["plan_digest"], report["counts"]["deleted"]) == (plan["digest"], 6)
    assert {row["replica_id"] for row in plan["delete"]} == EXPIRED

    again = run_dag("tavus_prune_replicas", {})
    assert again.state == "success"
    assert again.pull("plan")["delete"] == []
    assert len(sandbox.state()["deletes"]) == 6


def test_dry_run_makes_the_same_plan_and_deletes_nothing(sandbox, run_dag):
    ran = run_dag("tavus_prune_replicas", {"dry_run": True})
    assert ran.state == "success"
    assert {row["replica_id"] for row in ran.pull("plan")["delete"]} == EXPIRED
    report = ran.pull("apply")
    assert (report["dry_run"], report["counts"]["skipped"]) == (True, 6)
    assert sandbox.state()["deletes"] == []


@pytest.mark.parametrize(
    ("dag_id", "conf", "known"),
    [
        ("tavus_prune_replicas", {"dryrun": True}, "older_than, include, exclude, dry_run"),
        ("tavus_prune_replicas_batched", {"batch": 1}, "older_than, include, exclude, dry_run, batch_size"),
        ("tavus_purge_replicas", {"olderthan": "365d"}, "older_than, include, exclude"),
        (
            "tavus_delete_replica",
            {"replica_id": OLD, "hard": True},
            "replica_id, permanent, ignore_if_missing",
        ),
    ],
)
def test_unknown_conf_key_is_refused_before_anything_is_read(sandbox, run_dag, capfd, *, dag_id, conf, known):
    ran = run_dag(dag_id, conf)
    assert ran.state == "failed"
    assert requests(sandbox) == []
    assert f"known: {known}. Nothing was deleted" in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("conf", "expected"),
    [
        pytest.param({"include": ["*campaign*"]}, {OLD, "r2b9d41c07ae"}, id="include"),
        pytest.param(
            {"exclude": ["*campaign*", "<*"]}, {"r3f6a2e9d815", "r4c81b7f0d3e", "r5e27d9a6c40"}, id="exclude"
        ),
        pytest.param({"include": None, "exclude": None, "older_than": "690d"}, {"r3f6a2e9d815"}, id="null"),
    ],
)
def test_form_narrows_by_name_and_sets_the_age(sandbox, run_dag, conf, expected):
    ran = run_dag("tavus_prune_replicas", conf)
    assert ran.state == "success"
    assert deleted(sandbox) == expected


def test_protected_replica_is_kept(sandbox, run_dag, tmp_path):
    text = (DAGS / "tavus_prune_replicas.py").read_text()
    changed = text.replace('"limits": {', f'"keep": {{"protected_ids": ["{OLD}"]}},\n"limits": {{')
    assert changed != text
    (tmp_path / "prune.py").write_text(changed.replace("tavus_prune_replicas", "prune_with_protected"))
    ran = run_dag("prune_with_protected", {}, folder=tmp_path)
    assert deleted(sandbox) == EXPIRED - {OLD}
    verdicts = {row["replica_id"]: row["reason"] for row in ran.pull("plan", "verdicts")["rows"]}
    assert verdicts[OLD] == "is in keep.protected_ids"


@pytest.mark.parametrize(
    ("conf", "expected"),
    [
        pytest.param({}, {"r2b9d41c07ae", "r3f6a2e9d815"}, id="policy-file-only"),
        pytest.param({"older_than": "300d"}, {"r3f6a2e9d815"}, id="narrowed-by-age"),
        pytest.param({"older_than": "200d", "exclude": ["black*"]}, {"r2b9d41c07ae"}, id="narrowed-by-name"),
    ],
)
def test_policy_file_of_the_deployment_replaces_the_policy_in_the_dag(
    sandbox, run_dag, tmp_path, monkeypatch, *, conf, expected
):
    (tmp_path / "holds.yaml").write_text("[r6d3b8f1e5a7, r4c81b7f0d3e]")
    (tmp_path / "policy.yaml").write_text(
        f"""
        name: of-the-deployment
        expire: [{{rule: long, older_than: 200d}}]
        legal_holds: {{file: {tmp_path}/holds.yaml, max_age: 7d}}
        """
    )
    monkeypatch.setenv("AIRFLOW__TAVUS__POLICY", f"{tmp_path}/policy.yaml")
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "prune.py").write_text((DAGS / "tavus_prune_replicas.py").read_text())
    ran = run_dag("tavus_prune_replicas", conf, folder=tmp_path / "dags")
    assert ran.state == "success"
    assert deleted(sandbox) == expected
    reasons = {row["replica_id"]: row["reason"] for row in ran.pull("plan", "verdicts")["rows"]}
    assert reasons["r6d3b8f1e5a7"] == "is under legal hold"
    assert ran.pull("plan")["policy"]["name"] == "of-the-deployment"


@pytest.mark.parametrize(
    ("dag_id", "older_than"),
    [
        *(("tavus_prune_replicas", value) for value in ("", "None", None, "90", "-1d", "0d", 90)),
        *(("tavus_purge_replicas", value) for value in ("None", "90")),
    ],
)
def test_run_with_invalid_older_than_is_not_created(sandbox, run_dag, dag_id, older_than):
    with pytest.raises(Exception, match="older_than"):
        run_dag(dag_id, {"older_than": older_than})
    assert requests(sandbox) == []


@pytest.mark.parametrize(
    "dag_id", ["tavus_prune_replicas", "tavus_prune_replicas_batched", "tavus_purge_replicas"]
)
def test_form_cannot_lower_the_age_of_the_dag_file(sandbox, run_dag, dag_id):
    with pytest.raises(Exception, match=r"'1min' does not match .*, 90d or more"):
        run_dag(dag_id, {"older_than": "1min"})
    assert requests(sandbox) == []


def test_form_cannot_lower_the_age_of_the_policy_file(sandbox, run_dag, tmp_path, monkeypatch, capfd):
    (tmp_path / "policy.yaml").write_text("expire: [{older_than: 1y, unused_for: 30w}, {older_than: 200d}]")
    monkeypatch.setenv("AIRFLOW__TAVUS__POLICY", f"{tmp_path}/policy.yaml")
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "prune.py").write_text((DAGS / "tavus_prune_replicas.py").read_text())
    ran = run_dag("tavus_prune_replicas", {"older_than": "199d"}, folder=tmp_path / "dags")
    assert ran.state == "failed"
    assert requests(sandbox) == []
    assert "199d is lower than 200d" in "".join(capfd.readouterr())


def from_60_days(tmp_path, dag_id):
    """Write a copy of a DAG in whose policy replicas expire after 60 days."""
    text = (DAGS / f"{dag_id}.py").read_text()
    changed = text.replace('OLDER_THAN = "90d"', 'OLDER_THAN = "60d"')
    assert changed != text
    (tmp_path / "changed.py").write_text(changed)
    return tmp_path


def test_prune_above_limits_deletes_nothing_and_pushes_the_plan(sandbox, run_dag, tmp_path):
    ran = run_dag("tavus_prune_replicas", {}, folder=from_60_days(tmp_path, "tavus_prune_replicas"))
    assert ran.states == {"plan": "failed", "apply": "upstream_failed"}
    assert len(ran.pull("plan")["delete"]) > 6
    assert sandbox.state()["deletes"] == []


# -- prune in batches


def batches(ran):
    """Return the reports of the batches that pushed one, in the order of the batches."""
    at = sorted(index for task_id, index in ran.instances if task_id == "apply" and index >= 0)
    return [ran.pull("apply", at=index) for index in at]


def test_batches_cover_the_plan_and_summary_reports_all_of_them(sandbox, run_dag):
    ran = run_dag("tavus_prune_replicas_batched", {"batch_size": 4})
    assert ran.state == "success"
    assert ran.states == {
        "plan": "success",
        "split": "success",
        ("apply", 0): "success",
        ("apply", 1): "success",
        "summary": "success",
    }
    plan, summary = ran.pull("plan"), ran.pull("summary")
    items = [item for report in batches(ran) for item in report["items"]]
    assert [len(report["items"]) for report in batches(ran)] == [3, 3]
    assert [item["replica_id"] for item in items] == [row["replica_id"] for row in plan["delete"]]
    assert summary["items"] == items
    assert (summary["counts"]["deleted"], sum(summary["counts"].values())) == (6, 6)
    assert (summary["plan_digest"], summary["hard"], summary["dry_run"]) == (plan["digest"], False, False)
    assert deleted(sandbox) == EXPIRED
    assert len(sandbox.state()["deletes"]) == 6
    labels = {ti.rendered_map_index for ti in ran.instances.values() if ti.task_id == "apply"}
    assert labels == {"1 to 3 of 6", "4 to 6 of 6"}


def test_batched_dry_run_succeeds_and_deletes_nothing(sandbox, run_dag):
    ran = run_dag("tavus_prune_replicas_batched", {"batch_size": 2, "dry_run": True})
    assert ran.state == "success"
    assert len(batches(ran)) == 3
    assert (ran.pull("summary")["dry_run"], ran.pull("summary")["counts"]["skipped"]) == (True, 6)
    assert sandbox.state()["deletes"] == []


def test_nothing_to_delete_makes_no_batches_and_succeeds(sandbox, run_dag):
    ran = run_dag("tavus_prune_replicas_batched", {"older_than": "5000d"})
    assert ran.states == {"plan": "success", "split": "success", "apply": "skipped", "summary": "skipped"}
    assert ran.state == "success"
    assert sandbox.state()["deletes"] == []


def without_retries(tmp_path, dag_id):
    """Write a copy of the batched DAG whose batches are not retried, so ``dag.test`` does not wait."""
    text = (DAGS / "tavus_prune_replicas_batched.py").read_text()
    changed = text.replace("retries=2,", "retries=0,").replace("tavus_prune_replicas_batched", dag_id)
    assert "retries=0," in changed
    (tmp_path / "batched.py").write_text(changed)
    return tmp_path


def test_failed_batch_fails_the_run_but_not_the_other_batches(sandbox, run_dag, tmp_path):
    sandbox.switch(faults=[{"method": "DELETE", "path": f"/v2/replicas/{OLD}", "status": 409}])
    folder = without_retries(tmp_path, "one_batch_fails")
    ran = run_dag("one_batch_fails", {"batch_size": 2}, folder=folder)
    assert ran.state == "failed"
    states = [ran.states["apply", at] for at in range(3)]
    assert sorted(states) == ["failed", "success", "success"]
    assert ran.states["summary"] == "failed"
    assert deleted(sandbox) == EXPIRED - {OLD}
    summary = ran.pull("summary")
    assert (summary["counts"]["deleted"], summary["counts"]["failed"]) == (5, 1)
    assert summary["items"] == [item for report in batches(ran) for item in report["items"]]


def test_retried_batch_reports_the_deletes_of_its_first_attempt(sandbox, run_dag, tmp_path):
    text = (DAGS / "tavus_prune_replicas_batched.py").read_text()
    changed = text.replace("retries=2,", "retries=2, retry_delay=0,").replace(
        "tavus_prune_replicas_batched", "one_batch_again"
    )
    (tmp_path / "batched.py").write_text(changed)
    sandbox.switch(faults=[{"method": "DELETE", "path": f"/v2/replicas/{OLD}", "status": 202, "times": 3}])
    ran = run_dag("one_batch_again", {"batch_size": 3}, folder=tmp_path)
    assert ran.state == "success"
    attempts = {at: ti.try_number for (task_id, at), ti in ran.instances.items() if task_id == "apply"}
    assert sorted(attempts.values()) == [1, 2]
    assert ran.pull("summary")["counts"]["deleted"] == 6
    assert deleted(sandbox) == EXPIRED
    assert len(sandbox.state()["deletes"]) == 6


@pytest.mark.parametrize("dag_id", ["tavus_prune_replicas", "tavus_prune_replicas_batched"])
def test_plan_too_large_for_xcom_is_read_from_the_store(sandbox, run_dag, monkeypatch, dag_id):
    monkeypatch.setattr("tavus_provider.planning.plan.MAX_XCOM_BYTES", 2_000)
    ran = run_dag(dag_id, {})
    assert ran.state == "success"
    assert "delete" not in ran.pull("plan")
    assert ran.pull("plan")["counts"]["delete"] == 6
    assert deleted(sandbox) == EXPIRED


def test_plan_above_limits_makes_no_batches_and_no_summary(sandbox, run_dag, tmp_path):
    folder = from_60_days(tmp_path, "tavus_prune_replicas_batched")
    ran = run_dag("tavus_prune_replicas_batched", {"batch_size": 1}, folder=folder)
    assert ran.states == {"plan": "failed", **dict.fromkeys(("split", "apply", "summary"), "upstream_failed")}
    assert sandbox.state()["deletes"] == []


# -- purge, the cases without an answer of a person


def test_purge_with_nothing_to_delete_succeeds_without_approval(sandbox, run_dag):
    ran = run_dag("tavus_purge_replicas", {"older_than": "5000d"})
    assert ran.states == {"plan": "success", "approve": "skipped", "apply": "skipped"}
    assert ran.state == "success"
    assert sandbox.state()["deletes"] == []


def test_purge_above_limits_asks_for_no_approval(sandbox, run_dag, tmp_path):
    ran = run_dag("tavus_purge_replicas", {}, folder=from_60_days(tmp_path, "tavus_purge_replicas"))
    assert ran.states == {"plan": "failed", "approve": "upstream_failed", "apply": "upstream_failed"}
    assert sandbox.state()["deletes"] == []


def test_approve_marked_as_success_approves_nothing(sandbox, run_dag):
    ran = run_dag("tavus_purge_replicas", {}, mark_success_pattern="approve")
    assert ran.states == {"plan": "success", "approve": "success", "apply": "failed"}
    assert sandbox.state()["deletes"] == []


# -- delete one replica


def test_approve_marked_as_success_deletes_no_replica_permanently(sandbox, run_dag):
    conf = {"replica_id": "rd6a1c3f7e82", "permanent": True}
    ran = run_dag("tavus_delete_replica", conf, mark_success_pattern="approve")
    assert ran.states["delete_permanently"] == "failed"
    assert sandbox.state()["deletes"] == []


def test_soft_delete_of_one_replica_needs_no_approval(sandbox, run_dag):
    ran = run_dag("tavus_delete_replica", {"replica_id": "rd6a1c3f7e82"})
    assert ran.states == {
        "look": "success",
        "choose": "success",
        "delete": "success",
        "approve": "skipped",
        "delete_permanently": "skipped",
    }
    assert sandbox.state()["deletes"] == [{"replica_id": "rd6a1c3f7e82", "hard": False}]


@pytest.mark.parametrize("permanent", [False, True])
@pytest.mark.parametrize(
    "replica_id",
    [
        pytest.param("rb1f8c4d6e0a", id="stock"),
        pytest.param("rf8c6e5b1a20", id="in-use"),
        pytest.param("r404", id="missing"),
    ],
)
def test_look_fails_for_replicas_that_may_not_be_deleted(sandbox, run_dag, replica_id, permanent):
    ran = run_dag("tavus_delete_replica", {"replica_id": replica_id, "permanent": permanent})
    assert ran.state == "failed"
    assert ran.states["look"] == "failed"
    assert {state for task, state in ran.states.items() if task != "look"} == {"upstream_failed"}
    assert sandbox.state()["deletes"] == []


def test_ignore_if_missing_accepts_a_missing_replica(sandbox, run_dag):
    ran = run_dag("tavus_delete_replica", {"replica_id": "r404", "ignore_if_missing": True})
    assert ran.state == "success"
    assert ran.pull("delete")["outcome"] == "already_gone"
    assert sandbox.state()["deletes"] == []


@pytest.mark.parametrize("bad", ["", "..", "x?hard=true", "../personas/p1", None, ["r1"], 1000])
def test_run_with_invalid_replica_id_is_not_created(sandbox, run_dag, bad):
    with pytest.raises(Exception, match="replica_id"):
        run_dag("tavus_delete_replica", {"replica_id": bad})
    assert requests(sandbox) == []


@pytest.mark.parametrize("bad", ["None", "null", "true", "123456", "r1\n"])
def test_look_rejects_invalid_replica_ids_that_pass_the_form(sandbox, run_dag, bad):
    ran = run_dag("tavus_delete_replica", {"replica_id": bad})
    assert ran.states["look"] == "failed"
    assert requests(sandbox) == []


# -- asset events


def events_of(run):
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session

    with create_session() as session:
        found = session.query(AssetEvent).filter(AssetEvent.source_run_id == run.run_id).all()
        return {event.asset.name: event.extra for event in found}


def test_only_a_successful_real_prune_emits_an_asset_event(sandbox, run_dag):
    assert "tavus_replicas_pruned" not in events_of(run_dag("tavus_prune_replicas", {"dry_run": True}))
    sandbox.switch(faults=[{"method": "DELETE", "status": 400, "times": 1}])
    assert "tavus_replicas_pruned" not in events_of(
        run_dag("tavus_prune_replicas", {"include": ["spring-*"]})
    )
    run = run_dag("tavus_prune_replicas", {})
    report = run.pull("apply")
    assert report["counts"]["deleted"] == len(deleted(sandbox)) > 0
    assert events_of(run)["tavus_replicas_pruned"] == {
        "counts": report["counts"],
        "hard": False,
        "plan_digest": report["plan_digest"],
        "tavus_conn_id": "tavus_default",
        "origin": sandbox.url,
    }


def test_scheduled_replicas_emit_one_asset_event(sandbox, run_dag, tmp_path, monkeypatch):
    (tmp_path / "policy.yaml").write_text("{name: slow, expire: [{rule: old, older_than: 200d, grace: 14d}]}")
    monkeypatch.setenv("AIRFLOW__TAVUS__POLICY", f"{tmp_path}/policy.yaml")
    (tmp_path / "dags").mkdir()
    text = (DAGS / "tavus_prune_replicas.py").read_text().replace("tavus_prune_replicas", "prune_with_grace")
    (tmp_path / "dags" / "prune.py").write_text(text)

    def run(conf):
        return run_dag("prune_with_grace", conf, folder=tmp_path / "dags")

    assert "tavus_replicas_scheduled" not in events_of(run({"dry_run": True}))
    first = run({})
    scheduled = sorted(row["replica_id"] for row in first.pull("plan")["scheduled"])
    assert scheduled
    assert events_of(first)["tavus_replicas_scheduled"] == {
        "replica_ids": scheduled,
        "count": len(scheduled),
        "policy": "slow",
        "tavus_conn_id": "tavus_default",
        "origin": sandbox.url,
    }
    again = run({})
    assert [row["replica_id"] for row in again.pull("plan")["scheduled"]]
    assert "tavus_replicas_scheduled" not in events_of(again)
    assert sandbox.state()["deletes"] == []
