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


def test_sentence_names_task_counts_and_replicas_that_may_still_exist():
    sentence = failure_sentence(context({"summary": "9 planned (hard): 1 deleted", "return_value": REPORT}))
    assert sentence == (
        "d / apply failed in run run; 9 planned (hard): 1 deleted; may still exist: r2 (unknown), "
        "r3 (unknown), r4 (unknown), r5 (unknown), r6 (unknown) and 3 more; https://a.test/log"
    )


def test_sentence_without_a_report_has_the_escaped_error():
    sentence = failure_sentence(context(exception=ValueError("no\n::group:: \u202ekey"), map_index=3))
    assert sentence == "d / apply [3] failed in run run; no\\n: :group: : \\u202ekey; https://a.test/log"


def test_callable_receives_the_sentence():
    sent = []
    TavusNotifier(send=sent.append)(context({"summary": "one"}))
    assert sent == ["d / apply failed in run run; one; https://a.test/log"]


def test_other_notifier_renders_the_sentence_in_its_templates():
    class Other(BaseNotifier):
        template_fields = ("text",)

        def __init__(self, text):
            super().__init__()
            self.text = text

        def notify(self, context):
            self.sent = self.text

    other = Other("red: {{ tavus_summary }}")
    given = context({"summary": "{{ 7 * 7 }}"})
    TavusNotifier(send=other)(given)
    assert other.sent == "red: d / apply failed in run run; {{ 7 * 7 }}; https://a.test/log"
    assert "tavus_summary" not in given


def test_waiting_task_is_not_called_failed():
    sent = []
    given = context(task=SimpleNamespace(subject="Delete 3 replicas of \u202eacme?"))
    given["ti"].state = "running"
    TavusNotifier(send=sent.append)(given)
    given["ti"].state = "failed"
    TavusNotifier(send=sent.append)(given)
    assert sent == [
        "d / apply waits for an answer in run run; Delete 3 replicas of \\u202eacme?; https://a.test/log",
        "d / apply failed in run run; https://a.test/log",
    ]


DAG = """
from airflow.sdk import DAG
from tavus_provider.notifications.tavus import TavusNotifier
from tavus_provider.operators.tavus import ApplyRetentionOperator, PlanRetentionOperator

def write(sentence):
    with open({path!r}, "a", encoding="utf-8") as file:
        file.write(sentence + "\\n")

with DAG("notified", schedule=None, default_args={{"on_failure_callback": TavusNotifier(send=write)}}):
    plan = PlanRetentionOperator(task_id="plan", policy={{
        "expire": [{{"rule": "old", "older_than": "90d"}}],
        "limits": {{"max_deletions": {limit}, "max_deletion_percent": 100}},
    }})
    ApplyRetentionOperator(task_id="apply", plan=plan.output)
"""


@pytest.mark.parametrize("limit", [1, 100])
def test_only_the_failed_task_sends_a_sentence(tmp_path, sandbox, run_dag, monkeypatch, limit):
    folder, sent = tmp_path / "dags", tmp_path / "sent.txt"
    folder.mkdir()
    (folder / "notified.py").write_text(DAG.format(path=str(sent), limit=limit))
    sent.touch()
    if limit == 100:
        sandbox.switch(faults=[{"method": "DELETE", "path": "/v2/replicas/r1a0c5e8f3b2", "status": 400}])
    run = run_dag("notified", folder=folder)
    sentences = sent.read_text(encoding="utf-8").splitlines()
    task_id = "plan" if limit == 1 else "apply"
    assert run.states[task_id] == "failed"
    assert len(sentences) == 1
    assert sentences[0].startswith(
        f"notified / {task_id} failed in run {run.run_id}; {run.pull(task_id, 'summary')}; "
    )
    assert ("r1a0c5e8f3b2 (failed)" in sentences[0]) == (limit == 100)
    assert "sandbox-key" not in json.dumps(sentences)
