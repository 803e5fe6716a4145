"""
### Prune expired Tavus replicas, in batches over workers

What `tavus_prune_replicas` does, for accounts where one task is not enough: `plan` decides, `split` cuts
the plan into batches, each is an `apply` of its own, `summary` makes one report of all. Limits, digest and
the time until which a plan is good are those of the whole plan; a batch that fails leaves the others alone
and makes the run red.

Each batch reads the whole account again before its first delete, so large batches are the cheap ones.
Workers on several machines need a ledger that all of them share (`ledger` in section `[tavus]`).
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.configuration import conf
from airflow.sdk import DAG, Param

from tavus_provider.operators.tavus import (
    ApplyRetentionOperator,
    PlanRetentionOperator,
    SplitRetentionOperator,
    SummarizeRetentionOperator,
)

# A policy file of the deployment takes the place of the policy below; the form can then only narrow it.
POLICY_FILE = conf.get("tavus", "policy", fallback="")
# So many batches at once; they share what the connection's requests_per_second allows.
PARALLEL_TASKS = 4
# The pool in which batches wait, to bound them together with what other DAGs ask of Tavus. Tasks of a pool
# that does not exist wait for ever without a word, so make it before it is named here:
#   airflow pools set tavus 4 "Tasks that call Tavus"
POOL = "default_pool"

with DAG(
    dag_id="tavus_prune_replicas_batched",
    schedule=None,
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
        "batch_size": Param(
            500,
            type="integer",
            minimum=1,
            maximum=100_000,
            title="Batch size",
            description="The most replicas in a batch; more if there would be over 1,000 batches. Each batch "
            "reads the whole account again, so large ones cost less.",
        ),
    },
) as dag:
    plan = PlanRetentionOperator(
        task_id="plan",
        doc_md="""
Reads all replicas and what uses them, and decides on each under the policy in the DAG file.
**Deletes nothing.**

The log has every verdict with its reason; XCom has the plan (`return_value`), or if it is too large the place
where it lies beside the ledger. Red if a limit of the policy would be passed.
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
    split = SplitRetentionOperator(
        task_id="split",
        plan=plan.output,
        batch_size="{{ params.batch_size }}",
        doc_md="Cuts the plan into batches. They name no replica: only the plan does.",
    )
    apply = ApplyRetentionOperator.partial(
        task_id="apply",
        plan=plan.output,
        dry_run="{{ params.dry_run }}",
        parallel_tasks=PARALLEL_TASKS,
        max_active_tis_per_dagrun=PARALLEL_TASKS,
        pool=POOL,
        # A batch whose worker has died goes on where it was.
        retries=2,
        doc_md="""
Reads the account again and deletes what is planned in this batch and still so, softly. **There is no
undelete.** The limits are those of the whole plan.

XCom `return_value` is the report of the batch. Red means that something of it may still be there.
""",
    ).expand_kwargs(split.output)
    SummarizeRetentionOperator(
        task_id="summary",
        plan=plan.output,
        reports=apply.output,
        # Whatever became of the batches, but not where there was no plan.
        trigger_rule="all_done_min_one_success",
        doc_md="""
Makes one report of those of all batches: XCom `return_value`. Red if one planned replica may still be there;
what a batch could not report, because its worker died for good, is told by the ledger.
""",
    )
