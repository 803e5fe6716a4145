"""Arguments that several operators share: what may be templated, and which values are valid."""

from __future__ import annotations

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from operators.tasks import Ti, apply_task, delete, look_up, plan_task, planned, requests, run

from tavus_provider.exceptions import TavusValidationError
from tavus_provider.operators.tavus import (
    ApplyRetentionOperator,
    ApproveRetentionOperator,
    DeleteReplicaOperator,
    LookUpReplicaOperator,
    PlanRetentionOperator,
    SplitRetentionOperator,
    SummarizeRetentionOperator,
)


@pytest.mark.parametrize(
    "kind", [DeleteReplicaOperator, PlanRetentionOperator, ApplyRetentionOperator, LookUpReplicaOperator]
)
def test_arguments_that_guard_a_run_are_not_templated(kind):
    assert not {"hard", "limits", "concurrency", "requests_per_second"} & set(kind.template_fields)
    assert "tavus_conn_id" in kind.template_fields


def test_approval_renders_only_its_plan():
    assert tuple(ApproveRetentionOperator.template_fields) == ("plan",)


@pytest.mark.parametrize("kind", [SplitRetentionOperator, SummarizeRetentionOperator])
def test_split_and_summarize_have_no_connection(kind):
    assert "tavus_conn_id" not in kind.template_fields
    assert "plan" in kind.template_fields


@pytest.mark.parametrize("value", ["true", "False", "None", "", 1, 0, None, [], "{{ true }}"], ids=repr)
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(delete, id="delete"),
        pytest.param(plan_task, id="plan"),
        pytest.param(lambda **more: apply_task({}, **more), id="apply"),
    ],
)
def test_hard_must_be_true_or_false(make, value):
    with pytest.raises(
        TavusValidationError, match=r"^hard: expected True or False, got .*; nothing was sent$"
    ):
        make(hard=value)


@pytest.mark.parametrize("value", [1, 0, None, []], ids=repr)
@pytest.mark.parametrize(
    ("make", "name"),
    [
        pytest.param(delete, "ignore_if_missing", id="delete"),
        pytest.param(look_up, "ignore_if_missing", id="look"),
        pytest.param(plan_task, "dry_run", id="plan"),
        pytest.param(lambda **more: apply_task({}, **more), "dry_run", id="apply"),
    ],
)
def test_flag_that_is_not_a_bool_is_rejected_when_the_dag_is_parsed(make, name, value):
    with pytest.raises(TavusValidationError, match=f"^{name}: expected True or False, got "):
        make(**{name: value})


@pytest.mark.parametrize("value", ["True", "False", "None", "", "yes"])
@pytest.mark.parametrize(
    ("make", "name"),
    [
        pytest.param(delete, "ignore_if_missing", id="delete"),
        pytest.param(look_up, "ignore_if_missing", id="look"),
        pytest.param(plan_task, "dry_run", id="plan"),
        pytest.param(lambda **more: apply_task({}, **more), "dry_run", id="apply"),
    ],
)
def test_flag_that_was_rendered_to_text_is_rejected_when_the_task_runs(sandbox, make, name, value):
    with pytest.raises(AirflowFailException, match=f"^{name}: expected True or False, got '{value}'"):
        run(make(**{name: value}))
    assert requests(sandbox) == []


@pytest.mark.parametrize(
    ("make", "label"),
    [
        (plan_task, "{{ task.tavus_conn_id }}"),
        (lambda: apply_task(planned()), "{{ task.tavus_conn_id }}"),
        (look_up, "{{ task.replica_id }}"),
        (delete, "{{ task.replica_id }}"),
    ],
    ids=["plan", "apply", "look", "delete"],
)
def test_mapped_task_has_a_label(sandbox, make, label):
    ti = Ti()
    context = {"ti": ti}
    make().execute(context)
    assert context["map_index_template"] == label


def test_label_of_the_author_is_kept(sandbox):
    mine = "{{ task.replica_id }} of anna"
    context = {"ti": Ti(), "map_index_template": mine}
    delete(map_index_template=mine).execute(context)
    assert context["map_index_template"] == mine


def test_label_of_a_delete_task_is_the_id():
    operator = delete("..")
    context = {"ti": Ti()}
    with pytest.raises(AirflowFailException):
        operator.execute(context)
    operator = delete("r404")
    with pytest.raises(AirflowFailException):
        operator.execute(context)
    assert context["map_index_template"] == "{{ task.replica_id }}"
