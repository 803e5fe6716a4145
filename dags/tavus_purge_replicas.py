"""
### Purge expired Tavus replicas for ever

Made by hand, approved by a person: `plan` decides what has expired, `approve` shows exactly that plan
under Required Actions, and `apply` deletes it together with the training footage. **This cannot be undone.**

Reject ends the run, no answer fails it, and a plan is good for 24 hours. Only the plan that was shown is
carried out, and of that only what is still so on a fresh look.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG, Param

from tavus_provider.operators.tavus import (
    ApplyRetentionOperator,
    ApproveRetentionOperator,
    PlanRetentionOperator,
)

with DAG(
    dag_id="tavus_purge_replicas",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    render_template_as_native_obj=True,
    doc_md=__doc__,
    tags=["tavus", "retention", "irrevocable"],
    params={
        "older_than": Param(
            "90d",
            type="string",
            pattern="^[1-9][0-9]{0,4}[wdhm]$",
            title="Older than",
            description="Age from which a replica has expired: a number and a unit (w, d, h, m), as in 90d.",
        ),
        "include": Param(
            [],
            type=["null", "array"],
            items={"type": "string"},
            title="Only names like",
            description="Patterns such as `spring-*`, one per line. Empty: all names.",
        ),
        "exclude": Param(
            [],
            type=["null", "array"],
            items={"type": "string"},
            title="Not names like",
            description="Patterns such as `vip_*`, one per line. What they match stays.",
        ),
    },
) as dag:
    plan = PlanRetentionOperator(
        task_id="plan",
        hard=True,
        policy={
            "name": "purge",
            "expire": [{"rule": "stale", "older_than": "{{ params.older_than }}"}],
            # What the form says can only make this scope smaller.
            "scope": {"include": ["*"], "exclude": []},
            "narrow": {
                "include": "{{ params.include or [] }}",
                "exclude": "{{ params.exclude or [] }}",
            },
            "limits": {"max_deletions": 10, "max_deletion_percent": 25},
        },
    )
    approve = ApproveRetentionOperator(task_id="approve", plan=plan.output)
    ApplyRetentionOperator(
        task_id="apply",
        hard=True,
        plan=plan.output,
        approved_digest=approve.output["approved_digest"],
    )
