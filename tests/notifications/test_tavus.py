from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import BaseNotifier

from tavus_provider.notifications.tavus import TavusNotifier, failure_sentence

REPORT = {
    "items": [
        {"replica_id": "r1", "outcome": "deleted", "detail": ""},
        *({"replica_id": f"r{n}", "outcome": "unknown", "detail": ""} for n in range(2, 9)),
        {"replica_id": "r9", "outcome": "failed", "detail": ""},
    ]
}


def context(pushed=None, *, map_index=-1, exception=None, **more):
    pushed = pushed or {}

    def pull(task_ids, key, map_indexes):
        assert (task_ids, map_indexes) == ("apply", map_index)
        return pushed.get(key)

    ti = SimpleNamespace(
        dag_id="d",
        run_id="run",
        task_id="apply",
        map_index=map_index,
        xcom_pull=pull,
        log_url="https://a.test/log",
    )
    return {"ti": ti, "exception": exception, **more}


def test_the_sentence_says_where_what_and_which_may_still_be_there():
    said = failure_sentence(context({"summary": "9 planned (hard): 1 deleted", "return_value": REPORT}))
    assert said == (
        "d / apply failed in run run; 9 planned (hard): 1 deleted; may still be there: r2 (unknown), "
        "r3 (unknown), r4 (unknown), r5 (unknown), r6 (unknown) and 3 more; https://a.test/log"
    )


def test_without_a_report_the_sentence_says_why_it_failed_on_one_line():
    said = failure_sentence(context(exception=ValueError("no\n::group:: \u202ekey"), map_index=3))
    assert said == "d / apply [3] failed in run run; no\\n: :group: : \\u202ekey; https://a.test/log"


def test_a_callable_is_given_the_sentence():
    said = []
    TavusNotifier(send=said.append)(context({"summary": "one"}))
    assert said == ["d / apply failed in run run; one; https://a.test/log"]


def test_another_notifier_finds_the_sentence_in_its_templates():
    class Other(BaseNotifier):
        template_fields = ("text",)

        def __init__(self, text):
            super().__init__()
            self.text = text

        def notify(self, context):
            self.said = self.text

    other = Other("red: {{ tavus_summary }}")
    given = context({"summary": "{{ 7 * 7 }}"})
    TavusNotifier(send=other)(given)
    assert other.said == "red: d / apply failed in run run; {{ 7 * 7 }}; https://a.test/log"
    assert "tavus_summary" not in given


DAG = """
from airflow.sdk import DAG
from tavus_provider.notifications.tavus import TavusNotifier
from tavus_provider.operators.tavus import ApplyRetentionOperator, PlanRetentionOperator

def write(sentence):
    with open({path!r}, "a", encoding="utf-8") as file:
        file.write(sentence + "\\n")

with DAG("told", schedule=None, default_args={{"on_failure_callback": TavusNotifier(send=write)}}):
    plan = PlanRetentionOperator(task_id="plan", policy={{
        "expire": [{{"rule": "old", "older_than": "90d"}}],
        "limits": {{"max_deletions": {limit}, "max_deletion_percent": 100}},
    }})
    ApplyRetentionOperator(task_id="apply", plan=plan.output)
"""


@pytest.mark.parametrize("limit", [1, 100])
def test_a_red_task_tells_in_one_sentence_and_a_green_one_is_silent(
    tmp_path, sandbox, run_dag, monkeypatch, limit
):
    folder, told = tmp_path / "dags", tmp_path / "told.txt"
    folder.mkdir()
    (folder / "told.py").write_text(DAG.format(path=str(told), limit=limit))
    told.touch()
    if limit == 100:
        sandbox.switch(faults=[{"method": "DELETE", "path": "/v2/replicas/r1a0c5e8f3b2", "status": 400}])
    run = run_dag("told", folder=folder)
    said = told.read_text(encoding="utf-8").splitlines()
    task_id = "plan" if limit == 1 else "apply"
    assert run.states[task_id] == "failed"
    assert len(said) == 1
    assert said[0].startswith(
        f"told / {task_id} failed in run {run.run_id}; {run.pull(task_id, 'summary')}; "
    )
    assert ("r1a0c5e8f3b2 (failed)" in said[0]) == (limit == 100)
    assert "sandbox-key" not in json.dumps(said)
