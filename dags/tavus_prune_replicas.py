"""
### Prune expired Tavus replicas

Every day: reads the account, decides under the policy below which replicas have expired, and deletes
those (softly; there is no undelete all the same). What is in use, in training, protected or in doubt
stays. The verdict on every replica, with its reason, is in the log of `plan`.

More than 10 replicas, or more than a quarter of the account, in one run: nothing is deleted and the run
fails. The first clean-up of an old account is such a run; the README shows what to do then.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.configuration import conf
from airflow.sdk import DAG, Param

from tavus_provider.operators.tavus import ApplyRetentionOperator, PlanRetentionOperator

# A policy file of the deployment takes the place of the policy below; the form can then only narrow it.
POLICY_FILE = conf.get("tavus", "policy", fallback="")

with DAG(
    dag_id="tavus_prune_replicas",
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    render_template_as_native_obj=True,
    doc_md=__doc__,
    default_args={"owner": "tavus"},
    owner_links={"tavus": "https://docs.tavus.io/"},
    tags=["tavus", "retention"],
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
        "dry_run": Param(
            False,
            type="boolean",
            title="Dry run",
            description="Make the same plan, say what would be deleted and why, and delete nothing.",
        ),
    },
) as dag:
    plan = PlanRetentionOperator(
        task_id="plan",
        doc_md="""
Reads all replicas and what uses them, and decides on each under the policy in the DAG file.
**Deletes nothing.**

The log has every verdict with its reason; XCom has the plan (`return_value`) and all verdicts (`verdicts`).
Red if a limit of the policy would be passed.
""",
        policy=POLICY_FILE
        or {
            "name": "prune",
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
        dry_run="{{ params.dry_run }}",
    )
    ApplyRetentionOperator(
        task_id="apply",
        plan=plan.output,
        dry_run="{{ params.dry_run }}",
        doc_md="""
Reads the account again and deletes what is planned and still so, softly. **There is no undelete.**

XCom `return_value` is the report: one outcome for each planned replica. Green means that all of them are gone
or were skipped for a reason; red that something may still be there.
""",
    )
