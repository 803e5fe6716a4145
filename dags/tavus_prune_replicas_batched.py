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

from airflow.sdk import DAG, Param

from tavus_provider.operators.tavus import (
    ApplyRetentionOperator,
    PlanRetentionOperator,
    SplitRetentionOperator,
    SummarizeRetentionOperator,
)

# So many batches at once; they share what the connection's requests_per_second allows.
SIDE_BY_SIDE = 4
# The pool that all of them run in, to bound them together with what other DAGs ask of Tavus. Tasks of a pool
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
    tags=["tavus", "retention"],
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
        "dry_run": Param(
            False,
            type="boolean",
            title="Dry run",
            description="Make the same plan and delete nothing.",
        ),
        "batch_size": Param(
            500,
            type="integer",
            minimum=1,
            maximum=100_000,
            title="Batch size",
            description="The most replicas in a batch; more if there would be over 1,000 batches.",
        ),
    },
) as dag:
    plan = PlanRetentionOperator(
        task_id="plan",
        policy={
            "name": "prune",
            "expire": [{"rule": "stale", "older_than": "{{ params.older_than }}"}],
            # What the form says can only make this scope smaller.
            "scope": {"include": ["*"], "exclude": []},
            "narrow": {
                "include": "{{ params.include or [] }}",
                "exclude": "{{ params.exclude or [] }}",
            },
            "limits": {"max_deletions": 10, "max_deletion_percent": 25},
        },
        dry_run="{{ params.dry_run }}",
    )
    split = SplitRetentionOperator(task_id="split", plan=plan.output, batch_size="{{ params.batch_size }}")
    apply = ApplyRetentionOperator.partial(
        task_id="apply",
        plan=plan.output,
        dry_run="{{ params.dry_run }}",
        side_by_side=SIDE_BY_SIDE,
        max_active_tis_per_dagrun=SIDE_BY_SIDE,
        pool=POOL,
        # A batch whose worker has died goes on where it was.
        retries=2,
    ).expand_kwargs(split.output)
    SummarizeRetentionOperator(
        task_id="summary",
        plan=plan.output,
        reports=apply.output,
        # Whatever became of the batches, but not where there was no plan.
        trigger_rule="all_done_min_one_success",
    )
