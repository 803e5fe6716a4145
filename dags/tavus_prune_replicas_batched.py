"""
### Trigger deletes now: expired Tavus replicas, by soft delete, in batches on several workers

Does what `tavus_prune_replicas` does, for accounts that are too large for one task. `plan` decides, `split`
divides the plan into batches, each batch is a mapped `apply` task, and `summary` makes one report of all
batches. The digest, the limits and the time until which the plan is valid are those of the whole plan. A
batch that fails does not stop the others, but the run fails.

Each batch reads the whole account again before its first delete, so large batches cost less. Workers on
several machines need a ledger that all of them share (`ledger` in section `[tavus]`).
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.configuration import conf
from airflow.sdk import DAG

from tavus_provider.dag_params import narrow_from_params, retention_params
from tavus_provider.operators.tavus import (
    ApplyRetentionOperator,
    PlanRetentionOperator,
    SplitRetentionOperator,
    SummarizeRetentionOperator,
)

# If the deployment sets a policy file ([tavus] policy), it replaces the policy below.
POLICY_FILE = conf.get("tavus", "policy", fallback="")
# Age from which a replica has expired. The trigger form can raise it, and cannot lower it.
OLDER_THAN = "90d"
# Maximum number of batches that run at the same time. They share the connection's requests_per_second.
PARALLEL_TASKS = 4
# The pool of the batches, to limit them together with other DAGs that call Tavus. Tasks whose pool does not
# exist are never started and report no error, so create the pool before you name it here:
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
    params=retention_params(policy_file=POLICY_FILE, older_than=OLDER_THAN, dry_run=True, batch_size=500),
) as dag:
    plan = PlanRetentionOperator(
        task_id="plan",
        strict_conf=True,
        doc_md="""
Reads all replicas and what uses them, and decides about each under the policy in the DAG file.
**Deletes nothing.**

The log says what goes, and why. XCom has the plan (`return_value`) or, if the plan is too large,
its location next to the ledger. Fails if the plan exceeds a limit of the policy.
""",
        policy=POLICY_FILE
        or {
            "name": "prune",
            "expire": [{"rule": "stale", "older_than": OLDER_THAN}],
            "scope": {"include": ["*"], "exclude": []},
            # A plan above one of the limits is not cut to fit: nothing is deleted.
            "limits": {"max_deletions": 10, "max_deletion_percent": 25},
        },
        # The form can only reduce the number of replicas that are deleted.
        narrow=narrow_from_params(),
        dry_run="{{ params.dry_run }}",
    )
    split = SplitRetentionOperator(
        task_id="split",
        plan=plan.output,
        batch_size="{{ params.batch_size }}",
        doc_md="Divides the plan into batches. A batch holds no replica ids; only the plan does.",
    )
    apply = ApplyRetentionOperator.partial(
        task_id="apply",
        plan=plan.output,
        dry_run="{{ params.dry_run }}",
        parallel_tasks=PARALLEL_TASKS,
        max_active_tis_per_dagrun=PARALLEL_TASKS,
        pool=POOL,
        # After a worker dies, the next attempt continues its batch.
        retries=2,
        doc_md="""
Reads the account again and soft-deletes the planned replicas of this batch that are still expired.
**There is no undelete.** The limits are those of the whole plan.

XCom `return_value` is the report of the batch. The task fails if a replica of the batch may still exist.
""",
    ).expand_kwargs(split.output)
    SummarizeRetentionOperator(
        task_id="summary",
        plan=plan.output,
        reports=apply.output,
        # Runs after failed batches too, but not if there was no plan.
        trigger_rule="all_done_min_one_success",
        doc_md="""
Makes one report of the reports of all batches: XCom `return_value`. Fails if one planned replica may still
exist. Outcomes are read from the ledger; the reports add the details.
""",
    )
