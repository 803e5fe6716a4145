"""
### Purge expired Tavus replicas for ever

Made by hand, approved by a person: `plan` decides what has expired, `approve` shows exactly that plan
under Required Actions, and `apply` deletes it together with the training footage. **This cannot be undone.**

Reject ends the run, no answer fails it, and a plan is good for 24 hours. Only the plan that was shown is
carried out, and of that only what is still so on a fresh look.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.configuration import conf
from airflow.sdk import DAG, Param

from tavus_provider.operators.tavus import (
    ApplyRetentionOperator,
    ApproveRetentionOperator,
    PlanRetentionOperator,
)

# A policy file of the deployment takes the place of the policy below; the form can then only narrow it.
POLICY_FILE = conf.get("tavus", "policy", fallback="")

with DAG(
    dag_id="tavus_purge_replicas",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    render_template_as_native_obj=True,
    doc_md=__doc__,
    default_args={"owner": "tavus"},
    owner_links={"tavus": "https://docs.tavus.io/"},
    tags=["tavus", "retention", "irrevocable"],
    # What has no section stands in one that is open from the start.
    params={
        "older_than": Param(
            None if POLICY_FILE else "90d",
            type=["null", "string"] if POLICY_FILE else "string",
            pattern="^[1-9][0-9]{0,4}[wdhm]$",
            minLength=2,
            maxLength=6,
            title="Older than",
            description="Age from which a replica has expired: a number above 0 and a unit, weeks (w), "
            "days (d), hours (h) or minutes (m). An example: 90d."
            + (" Empty: as the policy file says; it can only make a run smaller." if POLICY_FILE else ""),
        ),
        "include": Param(
            [],
            type=["null", "array"],
            items={"type": "string", "minLength": 1, "maxLength": 256},
            maxItems=100,
            section="Narrow by name",
            title="Only names like",
            description="Patterns such as spring-*, one per line. Empty: all that the DAG file allows.",
        ),
        "exclude": Param(
            [],
            type=["null", "array"],
            items={"type": "string", "minLength": 1, "maxLength": 256},
            maxItems=100,
            section="Narrow by name",
            title="Not names like",
            description="Patterns such as vip_*, one per line. What they match stays.",
        ),
    },
) as dag:
    plan = PlanRetentionOperator(
        task_id="plan",
        hard=True,
        doc_md="""
Reads all replicas and what uses them, and decides on each under the policy in the DAG file.
**Deletes nothing.**

The log has every verdict with its reason; XCom has the plan (`return_value`) and all verdicts (`verdicts`).
Red if a limit of the policy would be passed: then nobody is asked.
""",
        policy=POLICY_FILE
        or {
            "name": "purge",
            "expire": [{"rule": "stale", "older_than": "{{ params.older_than }}"}],
            "scope": {"include": ["*"], "exclude": []},
            "limits": {"max_deletions": 10, "max_deletion_percent": 25},
        },
        # What the form says can only make a run smaller.
        narrow={
            "include": "{{ params.include or [] }}",
            "exclude": "{{ params.exclude or [] }}",
            "older_than": "{{ params.older_than }}" if POLICY_FILE else None,
        },
    )
    approve = ApproveRetentionOperator(
        task_id="approve",
        plan=plan.output,
        doc_md="""
Shows the plan under *Required Actions* and waits for a person.

*Approve* lets exactly this plan be carried out, *Reject* ends the run, and no answer within 24 hours fails
it. Clearing this task does not ask again: trigger a new run.
""",
    )
    ApplyRetentionOperator(
        task_id="apply",
        hard=True,
        plan=plan.output,
        approved_digest=approve.output["approved_digest"],
        doc_md="""
Reads the account again and deletes what was approved and is still so, **for ever, with the training
footage**.

XCom `return_value` is the report: one outcome for each planned replica. Red means that something may still
be there.
""",
    )
