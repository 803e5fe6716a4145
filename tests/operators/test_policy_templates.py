"""Templates in a policy: where they are allowed, and what they are rendered to."""

from __future__ import annotations

import re

import pytest
from airflow.sdk import DAG
from operators.tasks import OLD, POLICY, plan_task, run

from tavus_provider.exceptions import TavusValidationError
from tavus_provider.operators.tavus import PlanRetentionOperator

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
def test_template_in_any_other_place_is_rejected_with_its_path(path, policy):
    with pytest.raises(
        TavusValidationError,
        match=f"^policy: {re.escape(path)}: must not be a template; write it",
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
def test_template_of_an_age_or_a_scope_is_allowed(policy):
    plan_task(policy)


def test_native_rendering_changes_only_templates(sandbox):
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
    # What native rendering could make of the other values.
    operator.policy["scope"]["exclude"] = [123, 1000.0, [1]]
    operator.policy["keep"]["protected_ids"] = [1234567890, 12]
    plan = run(operator)
    assert plan["policy"]["scope"]["exclude"] == ["123", "1e3", "[1]"]
    assert plan["policy"]["scope"]["include"] == ["*campaign*"]
    assert plan["policy"]["keep"]["protected_ids"] == ["1234567890", "0012"]
    assert plan["policy"]["expire"][0]["rule"] == "1"
    assert {row["replica_id"] for row in plan["delete"]} == {OLD, "r2b9d41c07ae"}
